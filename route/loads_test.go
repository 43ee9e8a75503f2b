package route

import (
	"sync"
	"sync/atomic"
	"testing"
)

// However many come at once, no more are let in than may be, and a place that is given back is there again.
func TestEnter(t *testing.T) {
	var l Loads
	var all sync.WaitGroup
	var in, most atomic.Int64
	for range 16 {
		all.Go(func() {
			for range 2000 {
				if !l.Enter("a/1", 3) {
					continue
				}
				n := in.Add(1)
				for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
				}
				in.Add(-1)
				l.End("a/1")
			}
		})
	}
	all.Wait()
	if most.Load() > 3 || most.Load() == 0 || l.Inflight("a/1") != 0 {
		t.Errorf("%d at once, want at most 3; %d left", most.Load(), l.Inflight("a/1"))
	}
	for range 5 {
		if !l.Enter("b/1", 0) {
			t.Error("refused without a bound")
		}
	}
}
