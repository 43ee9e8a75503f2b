//go:build !linux

package l7

import (
	"errors"
	"net"
	"sync/atomic"
)

const eventsBuilt = false

// loop is Linux's.
type loop struct{ lent atomic.Int64 }

func newLoops() ([]*loop, error) { return nil, errors.ErrUnsupported }

func (*loop) run()                                 {}
func (*loop) end()                                 {}
func (*loop) post(func())                          {}
func (*loop) adopt(net.Conn, *engine, string) bool { return false }
func (*loop) listen(net.Listener, *engine) bool    { return false }
func (*loop) unlisten(*engine)                     {}
func (*loop) quieten(*engine)                      {}
func (*loop) cut(*engine)                          {}
