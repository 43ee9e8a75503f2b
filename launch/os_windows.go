package launch

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// ownGroup keeps a console's Ctrl-C from the child: its parent ends it in good order.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// detach lets the child outlive this process and its console.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}

func isInUse(err error) bool {
	return errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAEACCES)
}

// isFull says that a write found no room.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// lockFile takes the folder's lock for as long as the file is open; a process that dies lets it go.
func lockFile(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// pauses says that a process can be stopped where it is and go on later: Windows has no documented call for
// that.
const pauses = false

func pause(*os.Process) error { return errors.ErrUnsupported }

// proceed has nothing to do: nothing is ever paused.
func proceed(*os.Process) error { return nil }

// sockets says that a unix socket can be told from others' by its file mode: not on Windows, where the
// door is a loopback port with a token.
const sockets = false

// openFiles is how many this process may have open; 0: no bound.
func openFiles() uint64 { return 0 }
