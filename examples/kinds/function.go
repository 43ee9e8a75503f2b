//go:build wasip1

package main

import "fmt"

// handle answers a request as a CGI program does; the instance lives on.
//
//go:wasmexport handle
func handle() { fmt.Print("Content-Type: text/plain; charset=utf-8\n\n" + answer) }

// main is not called: the module is a library.
func main() {}
