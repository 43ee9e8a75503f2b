package handover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/route"
)

// bequest is some partitions on their way from one instance to another.
type bequest struct {
	from  place
	to    place
	moves route.Moves
	epoch uint64 // of the table that gave them away
	parts map[int]*arrival
}

// arrival is the keys of one partition on their way.
type arrival struct {
	of     *bequest
	keys   map[route.Key]*parcel // not changed any more when listed is closed
	listed chan struct{}         // closed when names are known, or never will be
	ended  chan struct{}         // closed when nothing more comes
}

// parcel is one key: the first who wants it moves it, the others wait.
type parcel struct {
	turn chan struct{} // of capacity 1: who holds it moves the key
	done chan struct{} // closed when it has come, or is lost
	lost error         // set before done is closed
}

func (b *bequest) add(p int) *arrival {
	a := &arrival{of: b, keys: map[route.Key]*parcel{}, listed: make(chan struct{}), ended: make(chan struct{})}
	b.parts[p] = a
	return a
}

// fetch waits until a key has come, and brings it itself if nobody does.
func (a *arrival) fetch(ctx context.Context, k *Keeper, key route.Key) error {
	select {
	case <-a.listed:
	case <-ctx.Done():
		return ctx.Err()
	}
	p := a.keys[key]
	if p == nil { // nobody ever asked for it: there is nothing to wait for
		return nil
	}
	return p.move(ctx, k, a.of, key)
}

// move brings the key, or waits for who does. It returns nil also when the key is lost: the program is asked then, and begins anew.
func (p *parcel) move(ctx context.Context, k *Keeper, b *bequest, key route.Key) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case p.turn <- struct{}{}:
	}
	defer func() { <-p.turn }()
	select {
	case <-p.done:
		return nil
	default:
	}
	err := k.carry(ctx, b, key)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // the next one tries
	}
	p.lost = err
	close(p.done)
	return nil
}

// Run brings what the plan gives to this node's instances until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var under sync.WaitGroup
	defer func() {
		under.Wait()
		k.local.CloseIdleConnections()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.work:
		}
		k.mu.Lock()
		due := k.due
		k.due = nil
		k.mu.Unlock()
		for _, b := range due {
			under.Go(func() { k.bring(ctx, b) })
		}
	}
}

// bring brings all that there is of a bequest.
func (k *Keeper) bring(ctx context.Context, b *bequest) {
	h := hauling{k: k, b: b, slots: make(chan struct{}, atOnce)}
	a, err := k.question(ctx, b)
	for _, key := range a.Keys {
		if in := b.parts[route.Partition(key)]; in != nil {
			in.keys[key] = &parcel{turn: make(chan struct{}, 1), done: make(chan struct{})}
		}
	}
	for p := range b.parts {
		stays := slices.Contains(a.Stay, p)
		if stays { // no request for it gets in when its names are known
			k.end(b, p, true)
		}
		close(b.parts[p].listed)
		if !stays {
			h.under.Go(func() { h.haul(ctx, p) })
		}
	}
	h.under.Wait()
	k.o.Told()
	log := k.o.Log.With("instance", b.to.ID, "from", b.from.ID, "keys", h.keys.Load())
	if lost := h.lost.Load(); ctx.Err() == nil && (err != nil || lost > 0) {
		log.Warn("keys are lost on their way", "lost", lost, "err", errors.Join(err, h.why))
	} else if h.keys.Load() > 0 {
		log.Info("keys have come")
	}
}

// question asks the old owner for the names of the keys.
func (k *Keeper) question(ctx context.Context, b *bequest) (a answer, err error) {
	err = again(ctx, func(ctx context.Context) (err error) {
		a, err = k.ask(ctx, b.from, request{From: b.from.ID, To: b.to, Epoch: b.epoch, Parts: slices.Sorted(maps.Keys(b.parts))})
		return err
	})
	if err == nil && a.More {
		err = fmt.Errorf("%s has more than %d keys: some are not known by name", b.from.ID, most)
	}
	return a, err
}

// hauling is a bequest that is being fetched.
type hauling struct {
	k     *Keeper
	b     *bequest
	slots chan struct{} // keys at a time
	under sync.WaitGroup
	keys  atomic.Int64
	lost  atomic.Int64
	mu    sync.Mutex // guards why
	why   error      // one key was lost
}

// haul brings the keys of one partition.
func (h *hauling) haul(ctx context.Context, p int) {
	a := h.b.parts[p]
	var under sync.WaitGroup
	for key, parcel := range a.keys {
		h.keys.Add(1)
		h.slots <- struct{}{} // each is given back, also when ctx ends
		under.Go(func() {
			defer func() { <-h.slots }()
			if parcel.move(ctx, h.k, h.b, key) == nil && parcel.lost != nil {
				h.lost.Add(1)
				h.mu.Lock()
				h.why = parcel.lost
				h.mu.Unlock()
			}
		})
	}
	under.Wait()
	h.k.end(h.b, p, false)
}

// end says that nothing more comes of a partition: it is its new owner's, or stays where it is.
func (k *Keeper) end(b *bequest, p int, stays bool) {
	a := b.parts[p]
	defer close(a.ended)
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[b.to.ID]
	if h == nil || h.coming[p] != a {
		return
	}
	delete(h.coming, p)
	if stays {
		h.passed[p] = pass{b.from, b.epoch}
		delete(h.taken, p)
		return
	}
	h.mine[p] = true
	delete(h.passed, p)
	for key := range a.keys {
		h.keys[key] = struct{}{}
	}
}

// again tries a few times.
func again(ctx context.Context, f func(context.Context) error) (err error) {
	for n, wait := 0, pause; n < tries; n, wait = n+1, 2*wait {
		if n > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
		once, cancel := context.WithTimeout(ctx, eachFor)
		err = f(once)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}
