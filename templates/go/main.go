// The program of a Go function: it serves HTTP/1.1 itself, so that no other process stands in a call's way.
package main

import (
	"handler/function"
	"handler/runtime"
)

//go:generate go run ./hooks function hooks_generated.go

func main() {
	runtime.Serve(function.Handle, hooks)
}
