package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"servent/link"
	"servent/overlay/chord"
	"servent/overlay/kademlia"
	"servent/overlay/pastry"
	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/wire"
	"servent/route"
	"servent/system"
)

// overlays are this node's places in the overlays of its plan's services: a machine each, and one socket for all.
// A node that is no member of an overlay asks those who are. Every datagram begins with its service's name.
type overlays struct {
	self system.NodeID
	over *link.Datagrams
	opt  func() wire.Options // what all have alike
	news chan struct{}       // has room for one word: something began

	mu   sync.Mutex // guards open, and each one's members and stop
	open map[system.ServiceName]*joined
}

const (
	lookups = 4096        // open ones of an overlay on one node
	watch   = time.Second // between two looks at those by whom a node of Kademlia knows its keys
)

// machineOf is the table of overlays: the machine of an architecture, or nil where it is none or not built. With fixed,
// keys stand for data that does not move when a node dies; a ring must know, elsewhere the plan has the last word alone. Each
// question is charged to who sends it, so Kademlia asks one at a time: "When α = 1, the lookup algorithm
// resembles Chord's in terms of message cost" (§2.3).
func machineOf(a system.Architecture, fixed bool) wire.Machine {
	o := ring.Options{Questions: lookups, Contacts: 255, Fixed: fixed}
	switch a {
	case system.Ring:
		return ring.New(1, o)
	case system.Chord:
		return chord.New(1, chord.Options{Ring: o})
	case system.Pastry:
		return pastry.New(1, pastry.Options{Lookups: lookups, Contacts: 255, Tries: 3, Listed: true})
	case system.Kademlia:
		return kademlia.New(1, kademlia.Options{Lookups: lookups, Contacts: 255, Alpha: 1, Value: true, Watch: int64(watch)})
	default:
		return nil
	}
}

// joined is one overlay as this node takes part in it.
type joined struct {
	name    system.ServiceName
	kind    system.Architecture
	fixed   bool
	wire    *wire.Wire
	over    *link.Datagrams
	mail    chan letter
	members []wire.Member      // that the machine has been told
	stop    context.CancelFunc // set when it runs
}

type letter struct {
	from system.NodeID
	b    []byte
}

const mailbox = 256 // datagrams of one overlay that wait to be handled; more are lost, as on any network

func newOverlays(self system.NodeID, over *link.Datagrams, o func() wire.Options) *overlays {
	return &overlays{self: self, over: over, opt: o, news: make(chan struct{}, 1), open: map[system.ServiceName]*joined{}}
}

// follow makes the plan's overlays this node's: new ones begin, members are told, those that are gone end.
func (r *overlays) follow(plan *system.Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[system.ServiceName]bool{}
	if plan != nil {
		for i := range plan.Services {
			d := &plan.Services[i]
			if d.Ring == nil {
				continue
			}
			wanted[d.Service.Name] = r.join(d)
		}
	}
	for name := range r.open {
		if !wanted[name] {
			r.leave(name)
		}
	}
}

// join takes part in a service's overlay, and tells the machine who else does; false: this program knows no such
// overlay. mu is held.
func (r *overlays) join(d *system.Deployment) bool {
	name, kind, fixed := d.Service.Name, d.Service.Architecture, d.Service.Tied()
	if in := r.open[name]; in != nil && (in.kind != kind || in.fixed != fixed) {
		r.leave(name)
	}
	in := r.open[name]
	if in == nil {
		machine := machineOf(kind, fixed)
		if machine == nil {
			return false
		}
		in = &joined{name: name, kind: kind, fixed: fixed, over: r.over, mail: make(chan letter, mailbox)}
		o := r.opt()
		o.Self, o.Datagrams, o.Machine = r.self, in, machine
		in.wire = wire.New(o)
		r.open[name] = in
		select {
		case r.news <- struct{}{}:
		default: // serve has a word to read already
		}
	}
	if members := membersOf(d); !slices.Equal(members, in.members) {
		in.members = members
		in.wire.Members(members)
	}
	return true
}

// leave ends one; mu is held.
func (r *overlays) leave(name system.ServiceName) {
	in := r.open[name]
	delete(r.open, name)
	if in.stop != nil {
		in.stop()
	}
}

// membersOf are the nodes on a service's circle.
func membersOf(d *system.Deployment) []wire.Member {
	var out []wire.Member
	for _, p := range d.Ring {
		for _, a := range d.Assignments {
			if a.Instance == p.Instance {
				out = append(out, wire.Member{Node: a.Node, Position: position(p.At)})
			}
		}
	}
	return out
}

// position is a place of the plan's circle among the identifiers of peers.
func position(place uint64) (id peer.ID) {
	binary.BigEndian.PutUint64(id[:], place)
	return id
}

// serve runs all overlays until ctx ends. While there is none it opens nothing.
func (r *overlays) serve(ctx context.Context, address string) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.news:
	}
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", at)
	if err != nil {
		return fmt.Errorf("open the socket of datagrams: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	carrying, carry := context.WithCancel(context.WithoutCancel(ctx)) // to the last word of those who leave
	var running, below sync.WaitGroup
	below.Go(func() { cancel(r.over.Serve(carrying, socket)) })
	below.Go(func() { r.sort(carrying) })
	for open := true; open; {
		r.mu.Lock()
		for _, in := range r.open {
			if in.stop != nil {
				continue
			}
			life, stop := context.WithCancel(ctx)
			in.stop = stop
			running.Go(func() {
				defer stop()
				if err := in.wire.Run(life); err != nil {
					cancel(fmt.Errorf("overlay of %s: %w", in.name, err))
				}
			})
		}
		r.mu.Unlock()
		select {
		case <-r.news:
		case <-ctx.Done():
			open = false
		}
	}
	running.Wait()
	carry()
	below.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// sort gives every datagram to its overlay.
func (r *overlays) sort(ctx context.Context) {
	for {
		from, b, err := r.over.Receive(ctx)
		if err != nil {
			return
		}
		if len(b) == 0 || int(b[0]) >= len(b) {
			continue
		}
		name := system.ServiceName(b[1 : 1+b[0]])
		r.mu.Lock()
		in := r.open[name]
		r.mu.Unlock()
		if in == nil {
			continue // this node's plan does not name it, or not yet
		}
		select {
		case in.mail <- letter{from, b[1+b[0]:]}:
		default:
		}
	}
}

// Send implements [wire.Datagrams].
func (in *joined) Send(to system.NodeID, b []byte) error {
	out := append(make([]byte, 0, 1+len(in.name)+len(b)), byte(len(in.name)))
	return in.over.Send(to, append(append(out, in.name...), b...))
}

// Receive implements [wire.Datagrams].
func (in *joined) Receive(ctx context.Context) (system.NodeID, []byte, error) {
	select {
	case l := <-in.mail:
		return l.from, l.b, nil
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

// attach gives a table's locators their overlays.
func (r *overlays) attach(t *route.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range t.Services {
		if at, ok := s.Locator.(*route.Ring); ok && r.open[name] != nil {
			at.Overlay = seeker{r.open[name].wire}
		}
	}
}

// seeker is a machine as a table's locator asks it.
type seeker struct{ wire *wire.Wire }

func (s seeker) Locate(ctx context.Context, place uint64) (system.NodeID, int, error) {
	node, hops, _, err := s.wire.Locate(ctx, position(place))
	if errors.Is(err, wire.ErrVacant) {
		return "", 0, nil // the plan says who holds it
	}
	return node, hops, err
}

func (s seeker) Owns(place uint64) bool {
	_, err := s.wire.Owns(position(place))
	return err == nil
}

// overlayOptions are what all machines of the node have alike.
func (n *Node) overlayOptions() wire.Options {
	o := wire.Options{Log: n.log}
	if n.place != nil {
		o.Pass = n.place.Pass
		o.Cache = -time.Nanosecond // an emulated node pays for every lookup: what is shown is the overlay, not a cache
	}
	return o
}
