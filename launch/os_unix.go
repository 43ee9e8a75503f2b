//go:build !windows

package launch

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup keeps a terminal's Ctrl-C from the child: its parent ends it in good order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// detach lets the child outlive this process and its terminal.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isFull says that a write found no room: the disk's, the user's or the process's bound.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// lockFile takes the folder's lock for as long as the file is open; a process that dies lets it go.
func lockFile(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// pauses says that a process can be stopped where it is and go on later.
const pauses = true

// pause stops a process. Should we die meanwhile, its group is an orphan with a stopped member: the kernel
// sends it SIGHUP and SIGCONT (POSIX, _exit), and it ends in good order.
func pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// proceed lets a paused process go on; one that is not paused does anyway.
func proceed(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// sockets says that a unix socket can be told from others' by its file mode.
const sockets = true

// openFiles is how many this process may have open; 0: no bound.
func openFiles() uint64 {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return r.Cur
}
