//go:build !unix

package l7

import (
	"net"
	"syscall"
)

func rawConn(net.Conn) syscall.RawConn { return nil }

func readLent(c net.Conn, _ syscall.RawConn) (*[]byte, int, error) { return readHeld(c) }

func silent(syscall.RawConn) bool { return true }
