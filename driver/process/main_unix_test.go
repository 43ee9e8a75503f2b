//go:build unix

package process

import (
	"fmt"
	"os/exec"
	"syscall"
)

func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// playMore are the roles that only Unix knows.
func playMore(role string, _ []string) bool {
	switch role {
	case "files": // says how many files it may open, as it was when it began
		var r syscall.Rlimit
		err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
		fmt.Println(r.Max, err)
	default:
		return false
	}
	return true
}
