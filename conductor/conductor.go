// Package conductor is the one elected loop: it folds what is wanted and what is seen through package
// placement into the plan, and writes it under its fencing number. Any number of conductors may run;
// one leads, the others wait for its lease to end. It never decides where anything goes, never talks to
// an instance, and keeps nothing that the next leader could not read from control.
// Start at [Conductor.Run]; leader.go is what the leader does.
package conductor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"servent/control"
	"servent/system"
)

// Options of a [Conductor].
type Options struct {
	Cluster control.Cluster
	Self    system.NodeID
	// Dead blocks while a node lives, as far as can be told, and returns nil as soon as it is certainly
	// dead: its stream broke and a dial was refused. An error means that it could not say; it is asked
	// again. nil: nodes are only found dead by their silence.
	Dead func(ctx context.Context, node system.NodeID) error
	// Lead is called when this conductor leads; its ctx ends when it does so no more. nil: nothing else is led.
	Lead  func(ctx context.Context, f control.Fence)
	Lease time.Duration // of the leader's seat; 0 means 3s
	Grace time.Duration // how long a new leader waits for a node of the plan to be seen; 0 means 6s, negative none
	Log   *slog.Logger  // nil discards
}

// Conductor is a candidate for the seat. Make it with [New].
type Conductor struct{ o Options }

// New returns a conductor that does nothing until [Conductor.Run].
func New(o Options) *Conductor {
	if o.Lease == 0 {
		o.Lease = 3 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 6 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Conductor{o}
}

const (
	batch     = 20 * time.Millisecond // that changes may come in together
	again     = time.Second           // between two looks at an unchanged view: some decisions only need time
	retry     = 200 * time.Millisecond
	keep      = 500 // events
	keepSlack = 50  // more of them before the oldest are deleted
)

var errDeposed = errors.New("another conductor leads")

// Run campaigns and leads, again and again, until ctx ends, and returns nil then. It has given its seat
// back by that time, so that another may take it at once.
func (c *Conductor) Run(ctx context.Context) error {
	for {
		err := c.term(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.o.Log.Warn("conductor starts anew", "node", c.o.Self, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// term is one candidacy: it returns when the seat is lost or cannot be won, with the reason.
func (c *Conductor) term(ctx context.Context) error {
	store := c.o.Cluster.Store
	lease, err := store.Grant(ctx, c.o.Lease)
	if err != nil {
		return fmt.Errorf("lease for the conductor's seat: %w", err)
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := store.Revoke(last, lease); err != nil {
			c.o.Log.Debug("seat not given back; it ends with its lease", "node", c.o.Self, "err", err)
		}
	}()
	fence, err := control.Campaign(ctx, store, control.Seat, string(c.o.Self), lease)
	if err != nil {
		return err
	}
	c.o.Log.Info("conductor leads", "node", c.o.Self, "rev", fence.Rev)
	return c.lead(ctx, fence, lease)
}

// lead conducts until the seat is lost or ctx ends, and returns the reason.
func (c *Conductor) lead(ctx context.Context, fence control.Fence, lease control.LeaseID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var started sync.WaitGroup
	defer started.Wait()
	defer cancel(nil)
	started.Go(func() {
		cancel(control.KeepAlive(ctx, c.o.Cluster.Store, lease, c.o.Lease/3))
	})
	views := make(chan *control.View, 1) // the newest alone
	started.Go(func() {
		cancel(c.o.Cluster.Follow(ctx, func(err error) {
			c.o.Log.Warn("control is out of reach; the plan stands as it is", "err", err)
		}, func(v *control.View) error {
			select {
			case <-views:
			default:
			}
			views <- v // nobody else sends, so there is room
			return nil
		}))
	})
	if c.o.Lead != nil {
		started.Go(func() { c.o.Lead(ctx, fence) })
	}
	l := &leader{
		Options: c.o, fence: fence, since: time.Now(), started: &started,
		met: map[system.NodeID]bool{}, watched: map[system.NodeID]watch{}, deaths: make(chan death),
	}
	return l.run(ctx, views)
}
