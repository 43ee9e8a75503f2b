//go:build wasip1

package main

import "fmt"

// handle is the same answer of an instance that lives on.
//
//go:wasmexport handle
func handle() { fmt.Print("Content-Type: text/plain\n\nhello") }
