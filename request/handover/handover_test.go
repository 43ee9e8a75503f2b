package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"servent/driver"
	"servent/route"
	"servent/system"
)

// program keeps a number per key, as a user's program would that can export and import.
type program struct {
	mu     sync.Mutex
	n      map[string]int
	broken atomic.Bool // refuses to export
	srv    *httptest.Server
}

func newProgram(t *testing.T) *program {
	p := &program{n: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_export/{key}", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		n, ok := p.n[r.PathValue("key")]
		p.mu.Unlock()
		switch {
		case p.broken.Load():
			http.Error(w, "broken", http.StatusInternalServerError)
		case !ok:
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, n)
		}
	})
	mux.HandleFunc("PUT /_import/{key}", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		n, err := strconv.Atoi(string(b))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		p.n[r.PathValue("key")] = n
		p.mu.Unlock()
	})
	p.srv = httptest.NewServer(mux)
	t.Cleanup(p.srv.Close)
	return p
}

func (p *program) count(key string) {
	p.mu.Lock()
	p.n[key]++
	p.mu.Unlock()
}

// world is a few nodes with a keeper each, and an instance cart/N on node-N.
type world struct {
	t        *testing.T
	nodes    map[system.NodeID]*node
	programs map[system.InstanceID]*program
	epoch    int64
}

type node struct {
	k       *Keeper
	srv     *httptest.Server
	table   atomic.Pointer[route.Table]
	mu      sync.Mutex
	changed chan struct{}
}

func (n *node) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func newWorld(t *testing.T, count int) *world {
	w := &world{t: t, nodes: map[system.NodeID]*node{}, programs: map[system.InstanceID]*program{}}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		return new(net.Dialer).DialContext(ctx, network, w.nodes[system.NodeID(host)].srv.Listener.Addr().String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, stop := context.WithCancel(context.Background())
	var under sync.WaitGroup
	t.Cleanup(func() { stop(); under.Wait() })
	for i := range count {
		id, in := system.NodeID(fmt.Sprintf("node-%d", i+1)), system.Instance("cart", i+1)
		p := newProgram(t)
		w.programs[in] = p
		n := &node{changed: make(chan struct{})}
		n.table.Store(&route.Table{})
		n.k = New(Options{Self: id, Table: n.table.Load, Changed: n.wait,
			Local: func(asked system.InstanceID) (driver.Endpoint, bool) {
				return driver.Endpoint{Address: p.srv.Listener.Addr().String()}, asked == in
			},
			Remote: func(system.NodeID) http.RoundTripper { return transport }})
		n.srv = httptest.NewServer(n.k)
		t.Cleanup(n.srv.Close)
		w.nodes[id] = n
		under.Go(func() { _ = n.k.Run(ctx) })
	}
	return w
}

// divide gives the partitions to some of the instances, at different moments on different nodes.
func (w *world) divide(owner func(partition int) int) {
	w.epoch++
	parts := &system.Parts{Owner: make([]int, system.Partitions)}
	at := map[system.InstanceID]system.NodeID{}
	for i := range len(w.nodes) {
		id := system.Instance("cart", i+1)
		parts.Instances = append(parts.Instances, id)
		at[id] = system.NodeID(fmt.Sprintf("node-%d", i+1))
	}
	for p := range parts.Owner {
		parts.Owner[p] = owner(p)
	}
	var all []system.NodeID
	for i := range len(w.nodes) {
		all = append(all, system.NodeID(fmt.Sprintf("node-%d", i+1)))
	}
	for id, n := range w.nodes { // in any order
		t := &route.Table{Self: id, Generation: w.epoch, Nodes: all, Services: map[system.ServiceName]*route.Service{"cart": {Name: "cart",
			Moves:   route.Moves{Export: "GET /_export/{key}", Import: "PUT /_import/{key}"},
			Locator: &route.Partitioned{Parts: parts, Nodes: at, Epoch: uint64(w.epoch)}}}}
		n.k.Follow(t)
		n.table.Store(t)
		n.mu.Lock()
		close(n.changed)
		n.changed = make(chan struct{})
		n.mu.Unlock()
	}
}

// settle waits until no key is on its way, as the plan does before it divides anew.
func (w *world) settle(ctx context.Context) {
	w.t.Helper()
	for moving := true; moving; {
		moving = false
		for _, n := range w.nodes {
			moving = moving || len(n.k.Moving()) > 0
		}
		select {
		case <-ctx.Done():
			w.t.Fatal("keys are still on their way")
		case <-time.After(time.Millisecond):
		}
	}
}

// increment counts one for a key where a node's table says that it is, as a door would: until the owner takes it.
func (w *world) increment(ctx context.Context, by system.NodeID, key route.Key) error {
	for {
		at, err := w.nodes[by].table.Load().Services["cart"].Locator.Locate(ctx, key)
		if err != nil {
			return err
		}
		leave, err := w.nodes[at.Node].k.Enter(ctx, "cart", at.Instance, key)
		switch {
		case errors.Is(err, ErrMoved):
			continue
		case err != nil:
			return err
		}
		if rand.IntN(50) == 0 {
			<-time.After(time.Millisecond) // a slow request: keys do not leave under it
		}
		w.programs[at.Instance].count(string(key))
		leave()
		return nil
	}
}

// Clients count while the partitions go from owner to owner: in the end every number is what was counted, at its owner.
func TestNothingIsLostWhileOwnersChange(t *testing.T) {
	t.Parallel()
	const nodes, clients, keys, rounds = 4, 6, 60, 40
	w := newWorld(t, nodes)
	w.divide(func(p int) int { return p % nodes })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var counted [keys]atomic.Int64
	var ends atomic.Bool
	var under sync.WaitGroup
	for c := range clients {
		under.Go(func() {
			for !ends.Load() {
				i := rand.IntN(keys)
				if err := w.increment(ctx, system.NodeID(fmt.Sprintf("node-%d", c%nodes+1)), route.Key(fmt.Sprint("k ", i, "/%"))); err != nil {
					t.Error(err)
					return
				}
				counted[i].Add(1)
			}
		})
	}
	for range rounds {
		step := rand.IntN(7) + 1
		w.divide(func(p int) int { return p / step % nodes })
		<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		w.settle(ctx)
	}
	ends.Store(true)
	under.Wait()
	total := int64(0)
	for i := range keys {
		key := route.Key(fmt.Sprint("k ", i, "/%"))
		if counted[i].Load() == 0 {
			continue
		}
		if err := w.increment(ctx, "node-1", key); err != nil { // waits for it, where it is on its way
			t.Fatal(err)
		}
		at, _ := w.nodes["node-1"].table.Load().Services["cart"].Locator.Locate(ctx, key)
		p := w.programs[at.Instance]
		p.mu.Lock()
		got, want := p.n[string(key)], int(counted[i].Load())+1
		p.mu.Unlock()
		if got != want {
			t.Errorf("%s: %s has %d, want %d", key, at.Instance, got, want)
		}
		total += counted[i].Load()
	}
	t.Logf("%d counted while owners changed %d times", total, rounds)
}

// A key that its owner of before does not export is lost, and said so; the others come, and nobody waits for ever.
func TestLostOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.divide(func(int) int { return 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.increment(ctx, "node-2", "a"); err != nil {
		t.Fatal(err)
	}
	w.programs["cart/1"].broken.Store(true)
	if n := w.nodes["node-1"].k.Owed("cart/1"); n != 0 {
		t.Errorf("owed %d before anything moved", n)
	}
	w.divide(func(int) int { return 1 })
	if n := w.nodes["node-1"].k.Owed("cart/1"); n == 0 {
		t.Error("the old owner may be stopped before its keys have left")
	}
	if err := w.increment(ctx, "node-1", "a"); err != nil {
		t.Fatal(err)
	}
	if got := w.programs["cart/2"].n["a"]; got != 1 {
		t.Errorf("a = %d at its new owner, want 1: it began anew", got)
	}
}

// What other nodes may ask is bounded and checked.
func TestBadQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.divide(func(int) int { return 0 })
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", listPath, "{", http.StatusBadRequest},
		{"POST", listPath, `{"from":"cart/1","parts":[4096]}`, http.StatusConflict},
		{"POST", listPath, `{"from":"cart/1","parts":[1],"epoch":1}`, http.StatusOK}, // it keeps it
		{"POST", listPath, `{"from":"nobody","parts":[1]}`, http.StatusConflict},
		{"GET", readPath + "?instance=cart/2&key=a", "", http.StatusConflict}, // runs elsewhere
		{"GET", readPath + "?instance=other/1&key=a", "", http.StatusConflict},
		{"DELETE", readPath, "", http.StatusNotFound},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		if tt.body != "" {
			r = httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		}
		rec := httptest.NewRecorder()
		w.nodes["node-1"].k.ServeHTTP(rec, r)
		if rec.Code != tt.status {
			t.Errorf("%s %s %s = %d %s, want %d", tt.method, tt.path, tt.body, rec.Code, rec.Body, tt.status)
		}
	}
}
