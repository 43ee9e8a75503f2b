package blob

import (
	"errors"
	"fmt"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: NTFS journals names, and a folder cannot be flushed.
func syncDir(string) error { return nil }

// isFull says that a write failed for want of room.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// Free is how many bytes a user may still write to the disk of dir.
func Free(dir string) (uint64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("free room of %s: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("free room of %s: %w", dir, err)
	}
	return free, nil
}
