package agent

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock returns errHeld when another open file holds the lock, of this process or of another. Windows
// locks ranges and refuses reading them: the range lies behind all that is written.
func tryLock(f *os.File) error {
	behind := windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &behind)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errHeld
	}
	return err
}
