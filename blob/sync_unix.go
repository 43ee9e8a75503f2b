//go:build unix

package blob

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// syncDir makes the names in dir outlive a loss of power.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flush folder: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// isFull says that a write failed for want of room: a full disk, a quota, a limit on file sizes.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// Free is how many bytes a user may still write to the disk of dir.
func Free(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free room of %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}
