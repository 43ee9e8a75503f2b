//go:build !linux

package load

import "time"

type fine struct{}

func newFine() *fine { return nil }

func (*fine) sleep(time.Duration) bool { return false }

func (*fine) close() {}
