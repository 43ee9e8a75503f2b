package l7

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"servent/driver"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// fleet is a few nodes with a switch each, joined by plain HTTP in place of the link, and the programs
// that they run. Its tables are written by the test.
type fleet struct {
	t     testing.TB
	nodes map[system.NodeID]*testNode

	mu       sync.Mutex
	services map[system.ServiceName]*route.Service
	web      []route.Web
	gone     map[system.NodeID]bool
}

type testNode struct {
	id      system.NodeID
	sw      *Switch
	peer    *httptest.Server
	meter   *meter.Book
	table   atomic.Pointer[route.Table]
	mu      sync.Mutex
	changed chan struct{}
	local   map[system.InstanceID]driver.Endpoint
	paused  atomic.Pointer[chan struct{}] // while set, the node answers nobody
}

// reference has the fleets of tests served by net/http.
var reference bool

// model is the server model of the doors of tests that name none.
var model = ""

// All tests run three times: by the engine, by its machines where there are some, then by net/http.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	once := false
	flag.Visit(func(f *flag.Flag) {
		once = once || (f.Name == "test.bench" || f.Name == "test.fuzz" || f.Name == "test.list" || f.Name == "test.fuzzworker") && f.Value.String() != "" && f.Value.String() != "false"
	})
	if code == 0 && !once && eventsBuilt {
		if model = route.ModelEvents; testing.Verbose() {
			fmt.Println("=== by events")
		}
		code = m.Run()
		model = ""
	}
	if code == 0 && !once {
		if reference = true; testing.Verbose() {
			fmt.Println("=== by net/http")
		}
		code = m.Run()
	}
	os.Exit(code)
}

func newFleet(t testing.TB, nodes int, change ...func(*Options)) *fleet {
	f := &fleet{t: t, nodes: map[system.NodeID]*testNode{}, services: map[system.ServiceName]*route.Service{}, gone: map[system.NodeID]bool{}}
	for i := range nodes {
		n := &testNode{id: system.NodeID(fmt.Sprintf("node-%d", i+1)), changed: make(chan struct{}), local: map[system.InstanceID]driver.Endpoint{}, meter: &meter.Book{}}
		transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			to := f.nodes[system.NodeID(host)]
			if to == nil {
				return nil, errors.New("unknown node " + host)
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.peer.Listener.Addr().String())
		}}
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
			Remote: func(system.NodeID) http.RoundTripper { return transport },
			Meter:  n.meter,

			Reference: reference,
		}
		for _, c := range change {
			c(&o)
		}
		n.sw = New(o)
		peer := n.sw.Peer()
		n.peer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p := n.paused.Load(); p != nil {
				<-*p
			}
			peer.ServeHTTP(w, r)
		}))
		f.nodes[n.id] = n
		t.Cleanup(func() {
			if p := n.paused.Swap(nil); p != nil {
				close(*p)
			}
			n.peer.CloseClientConnections()
			n.peer.Close()
			transport.CloseIdleConnections()
			n.sw.Close()
		})
	}
	f.swap()
	return f
}

// swap gives all nodes a new table.
func (f *fleet) swap() {
	for id, n := range f.nodes {
		t := &route.Table{Self: id, Generation: 1, Services: map[system.ServiceName]*route.Service{}, Web: f.web}
		for _, other := range slices.Sorted(maps.Keys(f.nodes)) {
			if !f.gone[other] || other == id {
				t.Nodes = append(t.Nodes, other)
			}
		}
		for name, svc := range f.services {
			s := *svc
			s.Instances = nil
			s.Switch.Model = cmp.Or(s.Switch.Model, model)
			for _, in := range svc.Instances {
				if in.Local = in.Node == id; t.Alive(in.Node) {
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

// change edits what the tables say and swaps them.
func (f *fleet) change(edit func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit()
	f.swap()
}

func (f *fleet) service(name system.ServiceName) *route.Service {
	if f.services[name] == nil {
		f.services[name] = &route.Service{Name: name}
	}
	return f.services[name]
}

// run starts an instance with that handler, on a socket of its own, and tells all nodes.
func (f *fleet) run(node system.NodeID, n int, h http.Handler) *program {
	p := newProgram(f.t, h)
	f.place(node, n, driver.Endpoint{Address: p.addr})
	return p
}

// at says that an instance is at an address.
func (f *fleet) at(node system.NodeID, n int, addr string) {
	f.place(node, n, driver.Endpoint{Address: addr})
}

func (f *fleet) place(node system.NodeID, n int, ep driver.Endpoint) {
	id := system.Instance("api", n)
	at := f.nodes[node]
	at.mu.Lock()
	at.local[id] = ep
	at.mu.Unlock()
	f.change(func() {
		svc := f.service("api")
		svc.Instances = append(svc.Instances, route.Instance{ID: id, Node: node, Address: ep.Address})
	})
}

// lose says that a node is not seen any more.
func (f *fleet) lose(node system.NodeID) { f.change(func() { f.gone[node] = true }) }

// pause makes a node take requests and answer none.
func (f *fleet) pause(node system.NodeID) {
	c := make(chan struct{})
	f.nodes[node].paused.Store(&c)
}

// open serves a node's door to the service, as the product does.
func (f *fleet) open(node system.NodeID, h http.Handler) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.nodes[node].sw.Serve(ctx, ln, h) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Serve() = %v, want nil", err)
		}
	})
	return "http://" + ln.Addr().String()
}

func (f *fleet) door(node system.NodeID) string {
	return f.open(node, f.nodes[node].sw.Door("api"))
}

// program is an instance: an HTTP server that can be killed.
type program struct {
	addr string
	hits atomic.Int64
	mu   sync.Mutex
	ln   net.Listener
	open map[net.Conn]bool
	dead bool
}

func newProgram(t testing.TB, h http.Handler) *program {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &program{addr: ln.Addr().String(), ln: ln, open: map[net.Conn]bool{}}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.hits.Add(1); h.ServeHTTP(w, r) }),
		ConnState: func(c net.Conn, s http.ConnState) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case s == http.StateClosed:
				delete(p.open, c)
			case p.dead:
				reset(c)
			default:
				p.open[c] = true
			}
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { p.kill(); _ = srv.Close(); <-done })
	return p
}

// kill ends the program as SIGKILL does: its sockets are gone at once.
func (p *program) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	_ = p.ln.Close()
	for c := range p.open {
		reset(c)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// client does not follow, compress or keep what one test does for the next.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask makes one request and reads the answer whole.
func ask(t testing.TB, c *http.Client, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, url, err)
	}
	return res, string(b)
}

// eventually waits for something that another goroutine is about to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
