// Command cable is servent as far as an instance's cable and guard need it, for tests.
package main

import (
	"context"
	"fmt"
	"os"

	"servent/driver/container"
)

func main() {
	if err := container.Main(context.Background(), os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
