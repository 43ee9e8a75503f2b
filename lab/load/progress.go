package load

import (
	"sync"
	"time"
)

// Progress is how far a run is.
type Progress struct {
	At      time.Duration // since the start
	Asked   int64
	Sent    int64 // and answered, or failed
	Good    int64
	NotSent int64
	Open    int64 // sent, and not answered yet
}

const tellEvery = 500 * time.Millisecond

// tell begins to say how far the run is; what it returns ends that, and waits for it.
func (r *runner) tell() (stop func()) {
	if r.o.Tell == nil {
		return func() {}
	}
	over := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				r.o.Tell(r.progress())
			}
		}
	})
	return func() {
		close(over)
		told.Wait()
	}
}

func (r *runner) progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := &r.res
	return Progress{At: time.Since(r.start), Asked: res.Asked, Sent: res.Sent, Good: res.Good, NotSent: res.NotSent, Open: res.Asked - res.Sent - res.NotSent}
}
