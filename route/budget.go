package route

import (
	"math"
	"sync"
	"time"
)

const (
	retryShare = 0.2 // of the requests of about the last 10 s may be sent again
	retryFloor = 100 // may be in any case, 10 a second on average: few requests must not mean no retry
)

// Budget bounds how much of a service's load repeated requests make, so that what is slow because it has too much
// to do does not get more: a fifth of the requests of about the last 10 s, and 100 in 10 s in any case (as Twitter's
// Finagle has it). The zero value is ready; its methods may be called from many goroutines.
type Budget struct {
	mu   sync.Mutex // guards what follows
	left float64
	at   time.Time // of left; zero: never used
}

// Request counts one that came in.
func (b *Budget) Request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	b.left += retryShare
}

// Retry says whether one more may be sent again, and counts it.
func (b *Budget) Retry(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// settle forgets: what is left tends to the floor, from above and from below.
func (b *Budget) settle(now time.Time) {
	if b.at.IsZero() {
		b.left = retryFloor
	} else {
		b.left = retryFloor + (b.left-retryFloor)*math.Exp(-since(now, b.at).Seconds()/forget.Seconds())
	}
	b.at = now
}
