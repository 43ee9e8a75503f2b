package wasm

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// lane is where calls that take long run while short ones come too: on all processors but one, or on the only one, each for
// a stint in turn. The short ones, and the rest of the node, then have a processor to themselves. Go cannot take one away from
// compiled code, and calls that never end would share all of them out among themselves.
type lane struct {
	slots chan struct{}
	last  atomic.Int64 // when a short call began or ended, Unix nanoseconds
}

const (
	long   = 10                     // slices, about a millisecond of compiled code, from which on a call takes long
	stint  = 20                     // slices on the lane until it is another's turn
	recent = 100 * time.Millisecond // after the last short call nobody has to make way
)

func newLane() *lane { return &lane{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))} }

// turn is one call's way over the lane. Its time is told by instructions: by the clock a short call would take long for having waited.
type turn struct {
	lane   *lane // nil: it never waits
	ctx    context.Context
	on     bool // the lane
	slices int  // since it came there, or else since it began
	past   bool // it takes long
}

// begin is called when the call begins to run. wasLong says that the last call of its module took long.
func (t *turn) begin(wasLong bool) {
	switch {
	case t.lane == nil:
	case wasLong:
		t.wait()
	default:
		t.lane.last.Store(time.Now().UnixNano())
	}
}

// pass is called every slice.
func (t *turn) pass() {
	if t.lane == nil {
		return
	}
	switch t.slices++; {
	case !t.on && t.slices <= long, t.on && t.slices < stint:
		return
	case t.on:
		t.pause()
		runtime.Gosched()
	}
	t.past = true
	t.wait()
}

// wait takes a slot on the lane, if anybody is there to make way for; it gives up when ctx ends.
func (t *turn) wait() {
	if time.Since(time.Unix(0, t.lane.last.Load())) > recent {
		runtime.Gosched()
		return
	}
	select {
	case t.lane.slots <- struct{}{}:
		t.on, t.slices = true, 0
	case <-t.ctx.Done():
	}
}

// pause leaves the lane: the call has ended, or waits for something else than a processor.
func (t *turn) pause() {
	if t.on {
		<-t.lane.slots
		t.on, t.slices = false, 0
	}
}

// end says whether the call took long. bound says that it was ended for what it did: few instructions may take much, too.
func (t *turn) end(bound bool) bool {
	if t.lane == nil {
		return false
	}
	t.pause()
	if t.past || bound {
		return true
	}
	t.lane.last.Store(time.Now().UnixNano())
	return false
}
