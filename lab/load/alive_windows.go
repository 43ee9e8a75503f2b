package load

import (
	"net"
	"syscall"
)

// The numbers of Winsock; package syscall's names of these errors are numbers of its own on Windows.
const (
	connRefused = syscall.Errno(10061) // WSAECONNREFUSED
	connAborted = syscall.Errno(10053) // WSAECONNABORTED
)

var resets = []syscall.Errno{syscall.WSAECONNRESET, connAborted}

// alive: Windows has no look that does not wait; a dead connection shows when it is used.
func alive(net.Conn) bool { return true }
