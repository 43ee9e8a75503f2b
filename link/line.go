package link

import (
	"container/heap"
	"sync"
	"time"
)

// line is where datagrams are while an emulated way delays them. One goroutine lets each go when it is
// due; it lives only as long as there is one.
type line struct {
	carriers *sync.WaitGroup
	gone     chan struct{} // the link has stopped
	sooner   chan struct{} // there is a new first; holds one word

	mu       sync.Mutex
	queue    flights
	put      uint64       // how many there were
	held     map[*way]int // bytes
	carrying bool
	stopped  bool
}

// flight is a datagram on its way.
type flight struct {
	due    time.Time
	turn   uint64 // those due together keep their order
	way    *way
	size   int
	arrive func()
}

func newLine(carriers *sync.WaitGroup) *line {
	return &line{carriers: carriers, gone: make(chan struct{}), sooner: make(chan struct{}, 1), held: map[*way]int{}}
}

// cast sends n bytes on their way: arrive is called when they are there, at once if nothing is emulated.
// It returns false when they are lost: the way says so, or 4 MiB are on it already.
func (l *line) cast(w *way, n int, arrive func()) bool {
	if w.free() {
		arrive()
		return true
	}
	due, lost := w.datagram(time.Now(), n)
	if lost {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.held[w]+n > maxRoom {
		return false
	}
	f := &flight{due, l.put, w, n, arrive}
	l.put++
	l.held[w] += n
	heap.Push(&l.queue, f)
	if !l.carrying {
		l.carrying = true
		l.carriers.Go(l.carry)
	} else if l.queue[0] == f {
		select {
		case l.sooner <- struct{}{}:
		default: // it is told already
		}
	}
	return true
}

// free says that nothing delays, bounds or cuts the way now.
func (w *way) free() bool { return w == nil || !w.active.Load() }

// carry lets datagrams go until there are none.
func (l *line) carry() {
	for {
		f, wait, ok := l.next()
		switch {
		case !ok:
			return
		case f != nil:
			f.arrive()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.sooner:
		case <-l.gone:
		}
		timer.Stop()
	}
}

// next takes the first datagram off the line, or says how long it still has to wait.
func (l *line) next() (f *flight, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.carrying = false
		return nil, 0, false
	}
	if wait := time.Until(l.queue[0].due); wait > 0 {
		return nil, wait, true
	}
	f = heap.Pop(&l.queue).(*flight)
	if l.held[f.way] -= f.size; l.held[f.way] == 0 {
		delete(l.held, f.way)
	}
	return f, 0, true
}

// stop forgets what is on its way and takes nothing more.
func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.stopped, l.queue, l.held = true, nil, nil
		close(l.gone)
	}
}

// flights is a heap by the time of arrival.
type flights []*flight

func (q flights) Len() int { return len(q) }
func (q flights) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].turn < q[j].turn
	}
	return q[i].due.Before(q[j].due)
}
func (q flights) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *flights) Push(x any)   { *q = append(*q, x.(*flight)) }
func (q *flights) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
