package store

import (
	"errors"
	"syscall"
)

// noSpace says that a disk is full: ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL.
func noSpace(err error) bool {
	return errors.Is(err, syscall.Errno(112)) || errors.Is(err, syscall.Errno(39)) || errors.Is(err, syscall.ENOSPC)
}
