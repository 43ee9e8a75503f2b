package agent

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
	"servent/system"
)

// fake is an engine whose instances are handlers that do nothing. It notes what happens and catches two
// instances on one port, or of one name.
type fake struct {
	mu      sync.Mutex // guards what follows
	news    []string
	alive   map[system.InstanceID]*copied
	clashes []string
	stopIn  time.Duration // that each stop takes
	stuck   error         // that each stop ends in
	refuse  map[string]error

	prepared atomic.Int64 // calls of Prepare
}

func newFake() *fake {
	return &fake{alive: map[system.InstanceID]*copied{}, refuse: map[string]error{}}
}

func (f *fake) Name() string                      { return "fake" }
func (f *fake) Probe(context.Context) driver.Caps { return driver.Caps{OK: true} }
func (f *fake) Close() error                      { return nil }

func (f *fake) Prepare(_ context.Context, a driver.Artifact) (driver.Prepared, error) {
	f.prepared.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f, f.refuse[a.Software.From]
}

// allow takes a refusal back.
func (f *fake) allow(from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.refuse, from)
}

// copied is one running copy.
type copied struct {
	http.Handler
	fake *fake
	spec driver.Spec
	wait chan driver.Exit
	once sync.Once
}

func (f *fake) Start(_ context.Context, s driver.Spec) (driver.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, other := range f.alive {
		if id == s.Instance || other.spec.Port == s.Port || other.spec.Dir == s.Dir {
			f.clashes = append(f.clashes, fmt.Sprintf("%s starts beside %s", s.Instance, id))
		}
	}
	c := &copied{Handler: http.NotFoundHandler(), fake: f, spec: s, wait: make(chan driver.Exit, 1)}
	f.alive[s.Instance] = c
	f.news = append(f.news, "start "+string(s.Instance))
	fmt.Fprintf(s.Stdout, "hello from %s\n", s.Instance)
	return c, nil
}

func (c *copied) ID() string                                       { return "copy" }
func (c *copied) Endpoint() driver.Endpoint                        { return driver.Endpoint{Handler: c} }
func (c *copied) Stats(context.Context) (driver.Stats, error)      { return driver.Stats{Pids: 1}, nil }
func (c *copied) Wait() <-chan driver.Exit                         { return c.wait }
func (c *copied) Exec(ctx context.Context, command []string) error { return nil }

func (c *copied) Stop(context.Context, time.Duration) error {
	time.Sleep(c.fake.stopIn)
	if c.fake.stuck != nil {
		return c.fake.stuck
	}
	c.end(driver.Exit{}, "stop ")
	return nil
}

// end lets the copy end, once.
func (c *copied) end(exit driver.Exit, word string) {
	c.once.Do(func() {
		c.fake.mu.Lock()
		delete(c.fake.alive, c.spec.Instance)
		c.fake.news = append(c.fake.news, word+string(c.spec.Instance))
		c.fake.mu.Unlock()
		c.wait <- exit
	})
}

func (f *fake) running(id system.InstanceID) *copied {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alive[id]
}

// told returns what happened since it was last asked.
func (f *fake) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	news := f.news
	f.news = nil
	return news
}
