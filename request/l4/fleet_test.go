package l4

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"servent/driver"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// fleet is a few nodes with a switch each, joined by plain TCP in place of the link.
type fleet struct {
	t        testing.TB
	nodes    map[system.NodeID]*testNode
	mu       sync.Mutex
	services map[system.ServiceName]*route.Service
	gone     map[system.NodeID]bool
}

type testNode struct {
	id      system.NodeID
	sw      *Switch
	tunnels net.Listener
	meter   *meter.Book
	table   atomic.Pointer[route.Table]
	mu      sync.Mutex
	changed chan struct{}
	local   map[system.InstanceID]driver.Endpoint
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func newFleet(t testing.TB, nodes int, change ...func(*Options)) *fleet {
	f := &fleet{t: t, nodes: map[system.NodeID]*testNode{}, services: map[system.ServiceName]*route.Service{}, gone: map[system.NodeID]bool{}}
	for i := range nodes {
		n := &testNode{id: system.NodeID(fmt.Sprintf("node-%d", i+1)), changed: make(chan struct{}), local: map[system.InstanceID]driver.Endpoint{}, meter: &meter.Book{}, tunnels: listen(t)}
		o := Options{
			Self:  n.id,
			Table: n.table.Load,
			Changed: func() <-chan struct{} {
				n.mu.Lock()
				defer n.mu.Unlock()
				return n.changed
			},
			Local: func(id system.InstanceID) (driver.Endpoint, bool) {
				n.mu.Lock()
				defer n.mu.Unlock()
				ep, ok := n.local[id]
				return ep, ok
			},
			Dial: func(ctx context.Context, to system.NodeID) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", f.nodes[to].tunnels.Addr().String())
			},
			Meter: n.meter,
		}
		for _, c := range change {
			c(&o)
		}
		n.sw = New(o)
		f.nodes[n.id] = n
		f.start(func(ctx context.Context) error { return n.sw.Peer(ctx, n.tunnels) })
	}
	f.swap()
	return f
}

// start runs something until the test ends.
func (f *fleet) start(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("stopped with %v, want nil", err)
		}
	})
}

func (f *fleet) swap() {
	for id, n := range f.nodes {
		t := &route.Table{Self: id, Generation: 1, Services: map[system.ServiceName]*route.Service{}}
		for i := range len(f.nodes) {
			if other := system.NodeID(fmt.Sprintf("node-%d", i+1)); !f.gone[other] || other == id {
				t.Nodes = append(t.Nodes, other)
			}
		}
		for name, svc := range f.services {
			s := *svc
			s.Instances = nil
			for _, in := range svc.Instances {
				if t.Alive(in.Node) {
					s.Instances = append(s.Instances, in)
				}
			}
			t.Services[name] = &s
		}
		n.table.Store(t)
		n.mu.Lock()
		close(n.changed)
		n.changed = make(chan struct{})
		n.mu.Unlock()
	}
}

func (f *fleet) change(edit func(api *route.Service)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.services["api"] == nil {
		f.services["api"] = &route.Service{Name: "api", Switch: system.Switch{By: system.ByConnection}}
	}
	edit(f.services["api"])
	f.swap()
}

func (f *fleet) place(node system.NodeID, n int, ep driver.Endpoint) {
	id := system.Instance("api", n)
	at := f.nodes[node]
	at.mu.Lock()
	at.local[id] = ep
	at.mu.Unlock()
	f.change(func(api *route.Service) { api.Instances = append(api.Instances, route.Instance{ID: id, Node: node}) })
}

func (f *fleet) run(node system.NodeID, n int, serve func(*net.TCPConn)) *program {
	p := newProgram(f.t, serve)
	f.place(node, n, driver.Endpoint{Address: p.addr})
	return p
}

func (f *fleet) door(node system.NodeID) string {
	ln := listen(f.t)
	f.start(func(ctx context.Context) error { return f.nodes[node].sw.Serve(ctx, ln, "api") })
	return ln.Addr().String()
}

// program is an instance: a TCP server that can be killed.
type program struct {
	addr string
	hits atomic.Int64
	mu   sync.Mutex
	ln   net.Listener
	open map[net.Conn]bool
}

func newProgram(t testing.TB, serve func(*net.TCPConn)) *program {
	p := &program{ln: listen(t), open: map[net.Conn]bool{}}
	p.addr = p.ln.Addr().String()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.hits.Add(1)
			p.mu.Lock()
			p.open[c] = true
			p.mu.Unlock()
			all.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { p.kill(); all.Wait() })
	return p
}

func (p *program) kill() {
	_ = p.ln.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		reset(c)
	}
}
