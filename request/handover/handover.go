// Package handover moves the keys of a user's program to their new owner when the plan gives a partition to another
// instance: it reads each key from the old owner and writes it to the new one by the two requests that the file
// declares (data.export, data.import), while requests for keys that are on their way wait. Without the two
// nothing moves, and nothing here is called. It decides nothing: who owns what is the plan's word.
//
// The plan divides anew when no keys are on their way ([Keeper.Moving]), unless an owner leaves: so keys go from one owner to
// the next, and nobody has to look for them.
//
// Both ends learn of a move from their own tables: see [Keeper.Follow]. The new owner asks ([Keeper.Run]), the old
// one answers ([Keeper.ServeHTTP]) when the last request that it took for those keys has ended. Start at [Keeper].
package handover

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"servent/driver"
	"servent/link"
	"servent/route"
	"servent/system"
)

const (
	most     = 1 << 20               // keys of one instance that are known by name; of more, some may be left behind
	atOnce   = 8                     // keys on their way from one instance to another
	tries    = 5                     // of one key, or of one question to the old owner
	pause    = 50 * time.Millisecond // before the second try, then twice as long each time
	eachFor  = 10 * time.Second      // that one try may take
	quietFor = 5 * time.Second       // that the old owner waits for requests under way for the keys that it hands over
)

// ErrMoved: the key's partition has been given to another instance since the request was sent here.
var ErrMoved = errors.New("its key is being handed over")

// Options of a [Keeper]. Self, Table, Local and Remote must be set.
type Options struct {
	Self    system.NodeID
	Table   func() *route.Table // the present one
	Changed func() <-chan struct{}
	Local   func(system.InstanceID) (driver.Endpoint, bool) // an instance of this node
	Remote  func(system.NodeID) http.RoundTripper           // the way to another node's [Keeper.ServeHTTP]
	Station *link.Station                                   // of an emulated node: to read or write a key is a request
	Told    func()                                          // called when [Keeper.Moving] may have changed; nil: nobody asks
	Log     *slog.Logger                                    // nil discards
}

// Keeper knows the keys of this node's instances and those that are on their way to them.
type Keeper struct {
	o     Options
	local *http.Transport
	work  chan struct{} // of capacity 1: a new bequest is there

	mu   sync.Mutex // guards the rest; held across no call outward
	last map[system.ServiceName]*view
	held map[system.InstanceID]*holder
	due  []*bequest // that nobody fetches yet
}

// view is who owned what by the newest table.
type view struct {
	owners *route.Partitioned
	moves  route.Moves
}

// holder is an instance of this node with keys. The keys of a partition are in one place at any time: with the holder that
// calls it mine, or on their way to the one where it is coming. Who had them last knows whom it passed them to.
type holder struct {
	keys   map[route.Key]struct{} // that it was asked for
	more   bool                   // than are known
	busy   map[int]int            // partition → requests under way
	mine   map[int]bool
	coming map[int]*arrival
	passed map[int]pass
	taken  map[int]bool           // by the plan, and not passed yet
	owed   map[route.Key]struct{} // keys that were passed and not read yet
	quiet  chan struct{}          // closed and made anew when the last request for a partition ends
}

// place is an instance where it is planned.
type place struct {
	ID   system.InstanceID `json:"instance"`
	Node system.NodeID     `json:"node"`
}

// pass is to whom the keys of a partition went, when asked under which table.
type pass struct {
	to    place
	epoch uint64
}

// New makes a keeper; it starts nothing.
func New(o Options) *Keeper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Told == nil {
		o.Told = func() {}
	}
	return &Keeper{o: o, work: make(chan struct{}, 1), last: map[system.ServiceName]*view{}, held: map[system.InstanceID]*holder{},
		local: &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Second}}
}

// endpoint is the key of where to connect among the values of a request's context.
type endpoint struct{}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ep, ok := ctx.Value(endpoint{}).(driver.Endpoint); ok {
		return ep.Connect(ctx)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Follow is told of every new table before it is in use, one after the other. What it calls for is done by [Keeper.Run].
func (k *Keeper) Follow(t *route.Table) {
	k.forget()
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, svc := range t.Services {
		now, ok := svc.Locator.(*route.Partitioned)
		if !ok || svc.Moves == (route.Moves{}) {
			delete(k.last, name)
			continue
		}
		was := now
		if last := k.last[name]; last != nil {
			was = last.owners
		}
		k.change(t, svc.Moves, was, now)
		k.last[name] = &view{now, svc.Moves}
	}
	for name := range k.last {
		if t.Services[name] == nil {
			delete(k.last, name)
		}
	}
}

// forget drops the instances that have ended, and all that they knew.
func (k *Keeper) forget() {
	k.mu.Lock()
	known := slices.Collect(maps.Keys(k.held))
	k.mu.Unlock()
	gone := slices.DeleteFunc(known, func(id system.InstanceID) bool { _, here := k.o.Local(id); return here })
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range gone {
		delete(k.held, id)
	}
}

// change notes which partitions come to instances of this node, and which leave them. mu is held.
func (k *Keeper) change(t *route.Table, moves route.Moves, was, now *route.Partitioned) {
	type way struct{ from, to place }
	coming := map[way]*bequest{}
	for p := range system.Partitions {
		from, to := place{was.Parts.Of(p), ""}, place{now.Parts.Of(p), ""}
		from.Node, to.Node = was.Nodes[from.ID], now.Nodes[to.ID]
		if from != to && from.Node == k.o.Self {
			if h := k.holder(from.ID); h.mine[p] || h.coming[p] != nil {
				h.taken[p] = true
			}
		}
		if to.Node != k.o.Self {
			continue
		}
		h := k.holder(to.ID)
		delete(h.taken, p)
		switch {
		case h.mine[p] || h.coming[p] != nil: // it never left, or is on its way already
		case from == to || from.ID == "" || !t.Alive(from.Node): // there is nothing to come
			h.mine[p] = true
			delete(h.passed, p)
		default:
			b := coming[way{from, to}]
			if b == nil {
				b = &bequest{from: from, to: to, moves: moves, epoch: now.Epoch, parts: map[int]*arrival{}}
				coming[way{from, to}] = b
				k.due = append(k.due, b)
			}
			h.coming[p] = b.add(p)
		}
	}
	if len(coming) > 0 {
		k.poke()
	}
}

// poke has Run look at what is due.
func (k *Keeper) poke() {
	select {
	case k.work <- struct{}{}:
	default:
	}
}

// holder of an instance of this node. mu is held.
func (k *Keeper) holder(id system.InstanceID) *holder {
	h := k.held[id]
	if h == nil {
		h = &holder{keys: map[route.Key]struct{}{}, busy: map[int]int{}, mine: map[int]bool{},
			coming: map[int]*arrival{}, passed: map[int]pass{}, taken: map[int]bool{}, owed: map[route.Key]struct{}{}, quiet: make(chan struct{})}
		k.held[id] = h
	}
	return h
}

// Enter waits until an instance of this node has what there is of a key, and notes that a request for it is under way until
// leave is called. The error is [ErrMoved], ctx's, or says why the key did not come.
func (k *Keeper) Enter(ctx context.Context, service system.ServiceName, id system.InstanceID, key route.Key) (leave func(), err error) {
	svc := k.o.Table().Services[service]
	if svc == nil || svc.Moves == (route.Moves{}) {
		return func() {}, nil
	}
	p := route.Partition(key)
	for has := (*arrival)(nil); ; {
		k.mu.Lock()
		h := k.holder(id)
		b := h.coming[p]
		if _, gone := h.passed[p]; gone && b == nil { // and the table will say so soon
			k.mu.Unlock()
			return nil, ErrMoved
		}
		if b == nil || b == has {
			if len(h.keys) < most {
				h.keys[key] = struct{}{}
			} else if _, known := h.keys[key]; !known {
				h.more = true
			}
			h.busy[p]++
		}
		k.mu.Unlock()
		if b != nil && b != has {
			if err := b.fetch(ctx, k, key); err != nil {
				return nil, err
			}
			has = b
			continue
		}
		leave = sync.OnceFunc(func() { k.leave(id, p) })
		if k.moved(service, id, key) { // the table changed while the request was on its way in
			leave()
			return nil, ErrMoved
		}
		if came := k.coming(id, p); came == nil || came == has {
			return leave, nil
		}
		leave() // by the table of now it is this instance's, and what there is of it comes only now
	}
}

func (k *Keeper) coming(id system.InstanceID, p int) *arrival {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holder(id).coming[p]
}

func (k *Keeper) moved(service system.ServiceName, id system.InstanceID, key route.Key) bool {
	svc := k.o.Table().Services[service]
	return svc == nil || svc.Locator == nil || svc.Locator.Owns(key, id, 0) != nil
}

func (k *Keeper) leave(id system.InstanceID, p int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[id]
	if h == nil || h.busy[p] == 0 {
		return
	}
	if h.busy[p]--; h.busy[p] == 0 {
		delete(h.busy, p)
		close(h.quiet)
		h.quiet = make(chan struct{})
	}
}

// Owed is how many keys or partitions others have still to fetch from an instance of this node, which is not to be stopped
// meanwhile.
func (k *Keeper) Owed(id system.InstanceID) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[id]
	if h == nil {
		return 0
	}
	return len(h.owed) + len(h.taken)
}

// Moving are the instances of this node to which keys are on their way, sorted.
func (k *Keeper) Moving() (ids []system.InstanceID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, h := range k.held {
		if len(h.coming) > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
