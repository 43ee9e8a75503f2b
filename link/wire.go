package link

import (
	"bytes"
	"net"
	"os"
	"sync"
	"time"
)

const (
	piece  = 16 << 10         // bytes that travel together: one TLS record
	linger = 15 * time.Second // that a closed connection may still carry what was written before
)

// stream is a connection below TLS: TCP, or a pipe inside the process.
type stream interface {
	net.Conn
	CloseWrite() error
}

// wire puts one direction of a connection, what is written here, on its way. While the way is free,
// writes go straight through; while it is not, they wait in a queue that one goroutine carries over,
// in order, each when it is due. The goroutine lives only as long as there is something to carry.
type wire struct {
	stream
	carriers *sync.WaitGroup
	ended    func(*wire) // called once, when the stream below is closed
	gone     chan struct{}
	once     sync.Once
	tally    *tally

	mu       sync.Mutex
	moved    sync.Cond // the queue, a deadline or the end
	way      *way
	turn     int64 // of the way's faults, up to which the queue was looked through
	queue    []parcel
	held     int // bytes in the queue
	last     time.Time
	carrying bool
	closed   bool
	err      error       // of the stream below, while carrying
	deadline limit       // of writes
	late     *time.Timer // ends a closed wire that does not get rid of its queue
}

// parcel is one write on its way; without bytes it is the end of writing.
type parcel struct {
	bytes []byte
	own   time.Time // when it would arrive were it alone on the wire
	due   time.Time // not before the one ahead
	turn  int64     // of the way's faults, by which it is timed
}

func newWire(s stream, carriers *sync.WaitGroup, ended func(*wire)) *wire {
	w := &wire{stream: s, carriers: carriers, ended: ended, gone: make(chan struct{}), tally: &tally{}}
	w.moved.L = &w.mu
	return w
}

// take says which way the wire goes.
func (w *wire) take(way *way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.way = way
}

// leads returns the way that the wire goes, or nil.
func (w *wire) leads() *way {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.way
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.stream.Read(p)
	w.tally.received.Add(int64(n))
	if err != nil && w.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// slow says that writes must queue.
func (w *wire) slow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.carrying || w.closed || w.way != nil && w.way.active.Load()
}

func (w *wire) Write(p []byte) (int, error) {
	if !w.slow() {
		n, err := w.stream.Write(p)
		w.tally.sent.Add(int64(n))
		return n, err
	}
	done := 0
	for done < len(p) {
		next := p[done:min(done+piece, len(p))]
		if err := w.push(next); err != nil {
			return done, err
		}
		w.tally.sent.Add(int64(len(next)))
		done += len(next)
	}
	return done, nil
}

// push queues a copy of p, waiting for room. An empty p is the end of writing and needs none.
func (w *wire) push(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.closed:
			return net.ErrClosed
		case w.err != nil:
			return w.err
		case w.deadline.passed():
			return os.ErrDeadlineExceeded
		}
		if w.held == 0 || len(p) == 0 || w.held+len(p) <= w.way.room() {
			break
		}
		w.moved.Wait()
	}
	w.send(bytes.Clone(p))
	return nil
}

// send puts a parcel on its way; mu is held.
func (w *wire) send(p []byte) {
	own, turn := w.way.reserve(time.Now(), len(p))
	if own.After(w.last) {
		w.last = own // a fault that heals must not let bytes overtake
	}
	w.queue = append(w.queue, parcel{p, own, w.last, turn})
	w.held += len(p)
	if !w.carrying {
		w.carrying = true
		_ = w.stream.SetWriteDeadline(time.Time{}) // the caller's deadline is for the queue
		w.carriers.Go(w.carry)
	}
}

// carry brings the queue over until it is empty.
func (w *wire) carry() {
	for {
		next, way, ok := w.front()
		if !ok {
			return
		}
		var err error
		if !w.await(way) {
			err = net.ErrClosed
		} else if len(next.bytes) == 0 {
			err = w.stream.CloseWrite()
		} else {
			_, err = w.stream.Write(next.bytes)
		}
		w.mu.Lock()
		if err != nil {
			w.err, w.queue, w.held = err, nil, 0
		} else {
			w.queue[0] = parcel{}
			w.queue = w.queue[1:]
			w.held -= len(next.bytes)
		}
		w.moved.Broadcast()
		w.mu.Unlock()
	}
}

// front returns the next parcel; without one the carrying ends, and with it the stream if it was closed.
func (w *wire) front() (parcel, *way, bool) {
	w.mu.Lock()
	if len(w.queue) > 0 {
		defer w.mu.Unlock()
		return w.queue[0], w.way, true
	}
	w.carrying = false
	closed := w.closed
	if !closed {
		_ = w.stream.SetWriteDeadline(w.deadline.at)
	}
	w.mu.Unlock()
	if closed {
		w.abort()
	}
	return parcel{}, nil, false
}

// await returns true when the time of the first parcel has come and the way is not cut, false when the
// stream is gone.
func (w *wire) await(way *way) bool {
	for {
		cut, turn, changed := way.cut()
		wait := time.Until(w.first(way, turn))
		if !cut && wait <= 0 {
			return true
		}
		var come <-chan time.Time
		if !cut {
			come = time.After(wait)
		}
		select {
		case <-come:
		case <-changed:
		case <-w.gone:
			return false
		}
	}
}

// first is when the first parcel is due, as the way's faults stand.
func (w *wire) first(way *way, turn int64) time.Time {
	w.retime(way, turn)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue[0].due // only the carrier takes from the queue
}

// CloseWrite ends this direction behind all that was written.
func (w *wire) CloseWrite() error {
	if w.slow() {
		return w.push(nil)
	}
	return w.stream.CloseWrite()
}

// Close ends reading at once. What was written goes on, the end behind it, until it has arrived or is
// overdue for as long as linger.
func (w *wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	slow := w.carrying || w.way != nil && w.way.active.Load()
	if slow {
		_ = w.stream.SetReadDeadline(time.Unix(1, 0))
		w.send(nil)
		w.late = time.AfterFunc(time.Until(w.last)+linger, w.abort)
	}
	w.closed = true
	w.moved.Broadcast()
	w.mu.Unlock()
	if !slow {
		w.abort()
	}
	return nil
}

// abort ends both directions at once and forgets what is on its way.
func (w *wire) abort() {
	w.once.Do(func() {
		w.mu.Lock()
		w.closed = true
		w.deadline.stop()
		if w.late != nil {
			w.late.Stop()
		}
		w.moved.Broadcast()
		w.mu.Unlock()
		close(w.gone)
		_ = w.stream.Close()
		w.ended(w)
	})
}

func (w *wire) SetDeadline(t time.Time) error {
	if err := w.SetReadDeadline(t); err != nil {
		return err
	}
	return w.SetWriteDeadline(t)
}

func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	return w.stream.SetReadDeadline(t)
}

// SetWriteDeadline bounds the wait for room in the queue; what is queued arrives later all the same.
func (w *wire) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	if w.way == nil {
		return w.stream.SetWriteDeadline(t)
	}
	w.deadline.set(t, &w.moved)
	if w.carrying {
		return nil
	}
	return w.stream.SetWriteDeadline(t)
}

// limit is a deadline for those who wait on a condition. Its methods are called with the lock held.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func (l *limit) set(t time.Time, waiting *sync.Cond) {
	l.stop()
	l.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		l.timer = time.AfterFunc(wait, func() {
			waiting.L.Lock()
			defer waiting.L.Unlock()
			waiting.Broadcast()
		})
	}
	waiting.Broadcast()
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }
