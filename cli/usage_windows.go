package cli

import (
	"runtime"
	"syscall"
)

// cpuSeconds is what this process has used, user and system.
func cpuSeconds() float64 {
	var created, ended, kernel, user syscall.Filetime
	self, err := syscall.GetCurrentProcess()
	if err != nil || syscall.GetProcessTimes(self, &created, &ended, &kernel, &user) != nil {
		return 0
	}
	ticks := func(f syscall.Filetime) uint64 { return uint64(f.HighDateTime)<<32 | uint64(f.LowDateTime) } // of 100 ns
	return float64(ticks(kernel)+ticks(user)) / 1e7
}

// maxRSS is the memory that Go has taken from Windows, in bytes: it is seldom given back.
func maxRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
