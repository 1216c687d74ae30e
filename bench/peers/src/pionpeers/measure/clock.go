package measure

import (
	"syscall"
	"unsafe"
)

const clockMonotonic = 1

// Now is CLOCK_MONOTONIC in seconds, which all processes of a machine share.
func Now() float64 {
	var time syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&time)), 0)
	return float64(time.Sec) + float64(time.Nsec)/1e9
}
