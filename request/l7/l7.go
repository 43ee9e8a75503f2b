// Package l7 switches requests at the application layer: HTTP/1.1, one exchange per request.
// A request that enters at any node is answered by any instance, here or on another node, and the two
// look the same; what did not reach an instance, and what may be asked twice, is asked elsewhere. It
// places nothing, knows no plan and opens no connection to another node: it reads one immutable
// [route.Table] and is handed the ways out. Start at [Switch]; the life of a request is [exchange.run].
//
// Users and programs are served by an engine of its own ([Switch.Serve], conn, answer), a goroutine for each connection, and
// the instances of this node are asked by a pool of its own (upstreams); both speak by the codec of [servent/request/h1]. Where a
// service wants it, loops serve instead, each client a finite-state machine (loop, machine), and hand over what is not small. The same
// exchange runs on net/http's server and client: between nodes, and in place of the engine by Options.Reference, which it is tested against.
package l7

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
	"servent/link"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// Options of a [Switch]. Self and Table must be set.
type Options struct {
	Self    system.NodeID
	Table   func() *route.Table    // the present table; nil as long as there is none
	Changed func() <-chan struct{} // closed at the next table swap; nil: tables never change
	// Local finds an instance on this node; nil: there are none.
	Local func(system.InstanceID) (driver.Endpoint, bool)
	// Remote returns the way to another node: HTTP/1.1, the URL's host is the node's name. nil: none.
	Remote  func(system.NodeID) http.RoundTripper
	Station *link.Station // of an emulated node: it charges for what is served here and what is sent onward
	Meter   *meter.Book   // nil counts nothing
	Keys    Keys          // keys of programs that follow their owner; nil: they stay
	Calls   *route.Calls  // is told of requests to services whose instances follow them; nil tells nobody
	Hold    time.Duration // how long a request may wait for an instance; 0 means 10s, negative not at all
	Waiters int           // requests that may wait so at once, more get 503; 0 means 1024
	Retries int           // of a request that broke after it was sent and may be repeated; 0 means 2, negative none
	TLS     *tls.Config   // of doors whose clients begin with a handshake: they speak HTTP/2 if NextProtos has h2; nil: none may
	Secret  []byte        // signs the cookies of clients that stay with an instance: the same on all nodes; nil: made anew
	Log     *slog.Logger  // nil discards
	// Reference has net/http serve the doors and ask the instances, in place of the engine: to compare the two.
	// It knows no TLS.
	Reference bool
}

// Keys are the keys of programs of this node that come and go with the plan.
type Keys interface {
	// Enter waits until an instance has what there is of a key, and notes that a request for it is under way until
	// leave is called. An error says that the instance is not to be asked, as when the key is another's by now.
	Enter(ctx context.Context, service system.ServiceName, id system.InstanceID, key route.Key) (leave func(), err error)
}

// Switch sends requests to instances. Its handlers may be used by many servers at once.
type Switch struct {
	o                Options
	local            *http.Transport // nil but for Options.Reference
	near             upstreams       // else
	headFor, moveFor time.Duration   // headWait and moveWait, but for tests
	loads            route.Loads
	pickers          sync.Map // service and policy → route.Picker
	budgets          sync.Map // system.ServiceName → *route.Budget
	turns            route.Turns
	loops            loops
	served           sync.Map // system.InstanceID → *atomic.Int64, requests that this node's instances hold
	waiting          atomic.Int64
}

// idleFor is how long a connection to an instance is kept for the next request. Common servers close
// theirs after 2 s (gunicorn) or 5 s (Node.js): ours goes first, so that no request meets a closing one.
const idleFor = 1500 * time.Millisecond

const dialFor = 2 * time.Second // that an instance may take to accept a connection

// New makes a switch; it starts nothing.
func New(o Options) *Switch {
	if o.Hold == 0 {
		o.Hold = 10 * time.Second
	}
	if o.Waiters == 0 {
		o.Waiters = 1024
	}
	if o.Retries == 0 {
		o.Retries = 2
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() <-chan struct{} { return nil }
	}
	if len(o.Secret) == 0 {
		o.Secret = make([]byte, 32)
		_, _ = rand.Read(o.Secret) // never fails
	}
	s := &Switch{o: o, headFor: headWait, moveFor: moveWait}
	if !o.Reference {
		return s
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	s.local = &http.Transport{
		DialContext:            dial,
		Protocols:              http1,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        idleFor,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
	return s
}

// endpoint is the key of what a request is sent to among the values of its context, for dial.
type endpoint struct{}

// dial opens a connection to an instance of this node.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	if ep, ok := ctx.Value(endpoint{}).(driver.Endpoint); ok && ep.Address == address {
		return ep.Connect(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Close closes idle connections to instances. It is called when no handler is in use any more.
func (s *Switch) Close() {
	s.near.close()
	if s.local != nil {
		s.local.CloseIdleConnections()
	}
}

// Door is a service's door on this node.
func (s *Switch) Door(service system.ServiceName) http.Handler {
	return s.handler(func(t *route.Table) route.Target { return t.Door(service) })
}

// To is a door to one instance, which pick names under each table: an instance's own door or the one to
// its next. As long as pick has none, requests wait if the service of the ID that it returns is coming.
func (s *Switch) To(pick func(*route.Table) (route.Instance, bool)) http.Handler {
	return s.handler(func(t *route.Table) route.Target { return t.One(pick) })
}

func (s *Switch) handler(aim func(*route.Table) route.Target) http.Handler { return &door{s, aim} }

// door leads to where aim says.
type door struct {
	s   *Switch
	aim func(*route.Table) route.Target
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.s.enter(w, r, d.aim) }

// enter takes a request from outside this switch: from a user or from a program.
func (s *Switch) enter(w http.ResponseWriter, r *http.Request, aim func(*route.Table) route.Target) {
	if r.Method == http.MethodConnect {
		refuse(w, http.StatusNotImplemented, "CONNECT is not served here", "")
		return
	}
	s.exchange(w, r, true).run(aim)
}

// Inflight is how many requests an instance of this node holds now, whichever node they entered by.
func (s *Switch) Inflight(id system.InstanceID) int {
	if n, ok := s.served.Load(id); ok {
		return int(n.(*atomic.Int64).Load())
	}
	return 0
}

func (s *Switch) serving(id system.InstanceID) *atomic.Int64 {
	if n, ok := s.served.Load(id); ok {
		return n.(*atomic.Int64)
	}
	n, _ := s.served.LoadOrStore(id, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (s *Switch) table() *route.Table {
	if t := s.o.Table(); t != nil {
		return t
	}
	return &route.Table{Self: s.o.Self}
}

// suspect marks who refused or broke; when a node cannot be reached, all its instances.
func (s *Switch) suspect(t *route.Table, to route.Target, in route.Instance, unreachable bool, why error) {
	now := time.Now()
	news := s.loads.Suspect(in.ID, now, t)
	for _, other := range to.Among {
		if unreachable && other.Node == in.Node && other.ID != in.ID {
			s.loads.Suspect(other.ID, now, t)
		}
	}
	if news {
		s.o.Log.Warn("instance does not answer; others are asked", "service", to.Service, "instance", in.ID, "node", in.Node, "err", why)
	}
}

// watch calls lost when the node is no longer seen. It returns then, or when ctx ends.
func (s *Switch) watch(ctx context.Context, node system.NodeID, lost func()) {
	for {
		changed := s.o.Changed() // before the table, so that no swap is missed
		if !s.table().Alive(node) {
			lost()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
