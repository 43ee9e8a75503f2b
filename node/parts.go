package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// parts are what runs together and is stopped together.
type parts struct {
	cancel context.CancelFunc
	fail   func(error) // told when a part ends by itself
	wg     sync.WaitGroup

	mu   sync.Mutex // guards errs
	errs []error
}

// newParts returns the context for all parts; it ends in stop alone, however ctx ends.
func newParts(ctx context.Context, fail func(error)) (*parts, context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &parts{cancel: cancel, fail: fail}, ctx
}

// run starts a part. It is to end with nil when its ctx ends, and not before.
func (p *parts) run(ctx context.Context, name string, f func(context.Context) error) {
	p.wg.Go(func() {
		err := f(ctx)
		if err == nil && ctx.Err() == nil {
			err = errEnded
		}
		if err == nil {
			return
		}
		err = fmt.Errorf("%s: %w", name, err)
		p.mu.Lock()
		p.errs = append(p.errs, err)
		p.mu.Unlock()
		p.fail(err)
	})
}

var errEnded = errors.New("ended by itself")

// stop ends all and waits for it. The error joins theirs.
func (p *parts) stop() error {
	p.cancel()
	p.wg.Wait()
	return errors.Join(p.errs...)
}

// news tells whoever waits that something changed.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

func (n *news) init() { n.ch = make(chan struct{}) }

func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
