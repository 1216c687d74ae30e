// Package measure has what the pion programs share: CPU time and JSON lines.
package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
)

var printing sync.Mutex

// Print writes one JSON line to standard output.
func Print(value interface{}) {
	line, err := json.Marshal(value)
	if err != nil {
		Fail("cannot encode a result: %v", err)
	}
	printing.Lock()
	defer printing.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// Fail ends the program with one sentence.
func Fail(format string, arguments ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

// CPUSeconds is the user and system time this process has used.
func CPUSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}
