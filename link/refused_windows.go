package link

import "syscall"

// connRefused is WSAECONNREFUSED; package syscall's ECONNREFUSED is a number of its own on Windows.
const connRefused = syscall.Errno(10061)
