package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/system"
)

// ErrVacant: the member that holds the key's data is away, and nobody answers in its place.
var ErrVacant = errors.New("the node that holds the key is away")

var (
	errEnded   = errors.New("this node takes no part any more")
	errLost    = errors.New("nobody answered: a node on the way may have died a moment ago")
	errCrowded = errors.New("too many keys are being looked for")
)

// question is what one lookup answers.
type question struct {
	key    peer.ID
	around bool
}

// flight is a lookup that callers wait for. What it found is set before done is closed.
type flight struct {
	question
	done  chan struct{}
	owner system.NodeID
	hops  int
	epoch uint64
	err   error
	at    time.Time // when it was answered
}

// Locate finds the node that owns a key: at once when it is this one, else by the overlay. Callers that ask
// for the same key at the same time share one lookup. hops counts datagrams from node to node until the
// owner was reached; epoch is the owner's. Errors wrap ctx's or [ErrVacant], or say in words what is in the
// way for now; the caller may try again.
func (w *Wire) Locate(ctx context.Context, key peer.ID) (owner system.NodeID, hops int, epoch uint64, err error) {
	if v := w.view.Load(); v.holds(key) {
		return w.o.Self, 0, v.Epoch, ctx.Err()
	}
	f, err := w.wait(ctx, question{key: key})
	if err != nil {
		return "", 0, 0, err
	}
	return f.owner, f.hops, f.epoch, nil
}

// Around sends a lookup once round the overlay's ring and returns how many members it met. An error says
// that it did not come back, or that this node takes no part.
func (w *Wire) Around(ctx context.Context) (members int, err error) {
	v := w.view.Load()
	if !v.Member {
		return 0, errors.New("go round the ring: this node is no member")
	}
	f, err := w.wait(ctx, question{key: v.To, around: true})
	switch {
	case err != nil:
		return 0, fmt.Errorf("go round the ring: %w", err)
	case f.owner != w.o.Self:
		return 0, fmt.Errorf("go round the ring: %s takes itself for this node", f.owner)
	}
	return f.hops, nil
}

// Owns says whether this node owns a key by its own view, nil if so, and the epoch of that view. The error
// says which keys are its own.
func (w *Wire) Owns(key peer.ID) (epoch uint64, err error) {
	switch v := w.view.Load(); {
	case v.holds(key):
		return v.Epoch, nil
	case !v.Owns:
		return v.Epoch, fmt.Errorf("%s owns no keys: %s", w.o.Self, cmp.Or(v.Why, "it has not joined yet"))
	case v.Mask != peer.ID{}:
		return v.Epoch, fmt.Errorf("%s at %x knows of a node nearer to %x by XOR", w.o.Self, v.To[:4], key[:4])
	default:
		return v.Epoch, fmt.Errorf("%s owns the keys after %x up to %x, not %x", w.o.Self, v.From[:4], v.To[:4], key[:4])
	}
}

func (v *View) holds(key peer.ID) bool {
	return v.Owns && keyspace.Between(key, v.From, v.To) && keyspace.Alike(key, v.To, v.Mask)
}

// wait returns the flight that answers a question, or its error.
func (w *Wire) wait(ctx context.Context, q question) (*flight, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, begins, err := w.fly(q)
	if err != nil {
		return nil, err
	}
	if begins {
		w.wanted <- f // it has room for all flights
	}
	select {
	case <-f.done:
		return f, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly joins the flight of a question, or says that a new one begins.
func (w *Wire) fly(q question) (f *flight, begins bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.cache[q.key]; f != nil && !q.around && time.Since(f.at) < w.o.Cache {
		w.count.shared.Add(1)
		return f, false, nil
	}
	f = w.flights[q]
	switch {
	case f != nil:
		w.count.shared.Add(1)
		return f, false, nil
	case w.ended:
		return nil, false, errEnded
	case len(w.flights) >= w.o.Open:
		w.count.failed.Add(1)
		return nil, false, errCrowded
	}
	f = &flight{question: q, done: make(chan struct{})}
	w.flights[q] = f
	w.count.lookups.Add(1)
	return f, true, nil
}

// ask gives a flight's question to the machine.
func (w *Wire) ask(ctx context.Context, f *flight) {
	l := &w.loop
	l.tag++
	l.asked[l.tag] = f
	ev := peer.Event{Kind: peer.Locate, Tag: l.tag, Key: f.key}
	if f.around {
		ev.Flags = peer.Around
	}
	w.command(ctx, ev)
}

// answer ends the flight that a machine's answer belongs to.
func (w *Wire) answer(ev *peer.Event) {
	f := w.loop.asked[ev.Tag]
	if f == nil {
		panic("wire: an answer to nothing")
	}
	delete(w.loop.asked, ev.Tag)
	switch ev.Flags {
	case peer.Found:
		f.owner, f.hops, f.epoch = w.loop.book.member(ev.Peers[0]).Node, int(ev.Hops), ev.Num
	case peer.Vacant:
		f.err = w.vacant(f.key)
	case peer.Crowded:
		f.err = errCrowded
	default:
		f.err = errLost
	}
	w.land(f)
}

// vacant names the member that the plan gives the key to.
func (w *Wire) vacant(key peer.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.members) == 0 {
		return ErrVacant
	}
	i, _ := slices.BinarySearchFunc(w.members, key, func(m Member, key peer.ID) int { return slices.Compare(m.Position[:], key[:]) })
	return fmt.Errorf("%w: the plan has it on %s", ErrVacant, w.members[i%len(w.members)].Node)
}

func (w *Wire) land(f *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flights, f.question)
	f.at = time.Now()
	if f.err != nil {
		w.count.failed.Add(1)
	} else if !f.around && w.o.Cache > 0 {
		if len(w.cache) >= w.o.Open {
			clear(w.cache)
		}
		w.cache[f.key] = f
	}
	close(f.done)
}

// end fails what is still open.
func (w *Wire) end() {
	w.mu.Lock()
	w.ended = true
	open := make([]*flight, 0, len(w.flights))
	for _, f := range w.flights {
		open = append(open, f)
	}
	w.mu.Unlock()
	for _, f := range open {
		f.err = errEnded
		w.land(f)
	}
}
