package route

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"servent/system"
)

// ModelOne is the server model of a door that serves one request, or connection, at a time: the others wait for their turn.
const ModelOne = "one"

// ModelEvents is the server model of a door that serves all its clients by events, with no thread of control of their own.
const ModelEvents = "fsm"

// ErrTurn says that a turn did not come.
var ErrTurn = errors.New("this door serves one at a time, and others were before it")

// Turns gives the doors of a node turns, one a service. The zero value has given none.
type Turns struct{ lines sync.Map } // system.ServiceName → *line

// line is who waits at one service's doors.
type line struct {
	turn    chan struct{} // of capacity 1
	waiting atomic.Int64
}

// Take waits for the turn at a service's door, in the order of arrival, until ctx ends and behind at most so many others; done gives it
// to the next. The error is [ErrTurn], when there are too many, or ctx's cause.
func (t *Turns) Take(ctx context.Context, service system.ServiceName, most int) (done func(), err error) {
	v, ok := t.lines.Load(service)
	if !ok {
		v, _ = t.lines.LoadOrStore(service, &line{turn: make(chan struct{}, 1)})
	}
	l := v.(*line)
	done = func() { <-l.turn }
	select {
	case l.turn <- struct{}{}:
		return done, nil
	default:
	}
	if l.waiting.Add(1) > int64(most) {
		l.waiting.Add(-1)
		return nil, fmt.Errorf("%w: %d of them", ErrTurn, most)
	}
	defer l.waiting.Add(-1)
	select {
	case l.turn <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
