// Command servent runs a Compose file under any distributed-system architecture and measures which one scales.
package main

import (
	"os"

	"servent/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
