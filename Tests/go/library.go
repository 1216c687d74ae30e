// Package tests tests the Go binding against the library in build/lib.
package tests

// #cgo LDFLAGS: -Wl,-rpath,${SRCDIR}/../../build/lib
import "C"
