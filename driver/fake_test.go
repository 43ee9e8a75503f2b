package driver

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// fake is a driver whose instances do what the test says. Its instances answer by a handler.
type fake struct {
	mu       sync.Mutex
	prepares []error // results of the next Prepare calls; none: nil
	starts   []error // of the next Start calls
	made     []*fakeInstance
	now      chan *fakeInstance // receives every new one
	sick     error              // what new instances answer to a check
	say      string             // on stderr at start
	closed   int
}

func newFake() *fake { return &fake{now: make(chan *fakeInstance, 100)} }

func (f *fake) prepare(context.Context) (Prepared, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.prepares) > 0 {
		err := f.prepares[0]
		f.prepares = f.prepares[1:]
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fake) Start(_ context.Context, s Spec) (Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.starts) > 0 {
		err := f.starts[0]
		f.starts = f.starts[1:]
		if err != nil {
			return nil, err
		}
	}
	inst := &fakeInstance{exit: make(chan Exit, 1), sick: f.sick, spec: s}
	if s.Stderr != nil {
		s.Stderr.Write([]byte(f.say))
	}
	f.made = append(f.made, inst)
	f.now <- inst
	return inst, nil
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func (f *fake) runs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, inst := range f.made {
		if !inst.isGone() {
			n++
		}
	}
	return n
}

type fakeInstance struct {
	spec Spec
	exit chan Exit

	mu      sync.Mutex
	sick    error
	hang    time.Duration // a check takes so long
	stop    time.Duration // a stop takes so long
	stopErr error
	grace   time.Duration
	gone    bool
	asked   []time.Time
	command []string
}

func (i *fakeInstance) ID() string         { return "4711" }
func (i *fakeInstance) Pid() int           { return 4711 }
func (i *fakeInstance) Endpoint() Endpoint { return Endpoint{Address: "127.0.0.1:1"} }
func (i *fakeInstance) Wait() <-chan Exit  { return i.exit }

func (i *fakeInstance) Stats(context.Context) (Stats, error) { return Stats{Pids: 3}, nil }

func (i *fakeInstance) isGone() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.gone
}

func (i *fakeInstance) end(e Exit) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.gone {
		i.gone = true
		i.exit <- e
	}
}

func (i *fakeInstance) feel(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sick = err
}

func (i *fakeInstance) checks() []time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *fakeInstance) Stop(ctx context.Context, grace time.Duration) error {
	i.mu.Lock()
	i.grace = grace
	wait, err := i.stop, i.stopErr
	i.mu.Unlock()
	if err != nil {
		return err
	}
	if !sleep(ctx, wait) {
		return ctx.Err()
	}
	i.end(Exit{Code: -1, Signal: "terminated"})
	return nil
}

func (i *fakeInstance) Check(ctx context.Context) error {
	i.mu.Lock()
	i.asked = append(i.asked, time.Now())
	hang, sick := i.hang, i.sick
	i.mu.Unlock()
	if !sleep(ctx, hang) {
		return ctx.Err()
	}
	return sick
}

func (i *fakeInstance) Exec(ctx context.Context, args []string) error {
	i.mu.Lock()
	i.command = args
	i.mu.Unlock()
	return i.Check(ctx)
}

var errIll = errors.New("nobody listens")

type handlerInstance struct {
	*fakeInstance
	h http.Handler
}

func (i handlerInstance) Endpoint() Endpoint { return Endpoint{Handler: i.h} }
