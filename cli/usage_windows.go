package cli

import "runtime"

// maxRSS is the memory that Go has taken from Windows, in bytes: it is seldom given back.
func maxRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
