//go:build !windows

package link

import "syscall"

// connRefused is what a machine answers when nobody listens.
const connRefused = syscall.ECONNREFUSED
