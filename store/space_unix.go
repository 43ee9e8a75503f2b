//go:build unix

package store

import (
	"errors"
	"syscall"
)

// noSpace says that a disk, or a share of it, is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
