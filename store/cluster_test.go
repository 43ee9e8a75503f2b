package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fleet is several stores in this process. Between any two the way can be cut, one can be paused (it answers nobody,
// and what was sent to it arrives when it goes on), killed, or come back with an empty folder.
type fleet struct {
	t          testing.TB
	dir        string
	options    Options
	partitions int
	copies     int
	names      []string

	mu     sync.Mutex // guards what follows
	stores map[string]*running
	cut    map[[2]string]bool
	curt   bool                         // a way that is cut refuses, instead of being silent
	deaf   string                       // calls whose path ends so are refused
	owners func(partition int) []string // nil: copies stores from partition on
	calls  int
}

// running is one life of a store.
type running struct {
	*Store
	peer http.Handler
	stop context.CancelFunc
	done chan struct{}
	gate sync.RWMutex // held for writing while it is paused
	open sync.WaitGroup
}

// wait returns when it is not paused.
func (r *running) wait() {
	r.gate.RLock()
	defer r.gate.RUnlock()
}

// node is the [Cluster] of one of them.
type node struct {
	*fleet
	self string
}

func newFleet(t testing.TB, n, copies int, o Options) *fleet {
	f := &fleet{t: t, dir: t.TempDir(), options: o, partitions: 64, copies: copies, stores: map[string]*running{}, cut: map[[2]string]bool{}}
	for i := range n {
		f.names = append(f.names, fmt.Sprintf("store/%d", i+1))
	}
	t.Cleanup(func() {
		for _, name := range f.names {
			f.kill(name)
		}
	})
	return f
}

// start opens a store, and runs it if it shall repair by itself.
func (f *fleet) start(name string, lease Lease) *running {
	f.t.Helper()
	o := f.options
	o.Name, o.Cluster, o.Lease = name, node{f, name}, lease
	dir := filepath.Join(f.dir, strings.ReplaceAll(name, "/", "-"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	s, err := Open(dir, o)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Store: s, peer: s.Peer(), stop: stop, done: make(chan struct{})}
	f.mu.Lock()
	f.stores[name] = r
	f.mu.Unlock()
	go func() {
		defer close(r.done)
		if f.options.Repair < time.Hour { // otherwise the test says when
			s.Run(ctx)
		}
	}()
	return r
}

// startAll starts all, and waits until each one's copy is complete.
func (f *fleet) startAll() {
	f.t.Helper()
	for _, name := range f.names {
		f.start(name, nil)
	}
	for _, name := range f.names {
		f.repair(name)
	}
	for _, name := range f.names {
		if !f.get(name).settled() {
			f.t.Fatalf("%s is not complete after its first comparison", name)
		}
	}
}

func (f *fleet) get(name string) *running {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stores[name]
}

// kill ends a store's life. What was under way is cut off; its folder stays.
func (f *fleet) kill(name string) {
	f.mu.Lock()
	r := f.stores[name]
	delete(f.stores, name)
	f.mu.Unlock()
	if r == nil {
		return
	}
	r.stop()
	r.Store.end()
	<-r.done
	r.open.Wait()
	if err := r.Close(); err != nil {
		f.t.Error(err)
	}
}

// lose removes the folder of a store that does not run.
func (f *fleet) lose(name string) {
	if err := os.RemoveAll(filepath.Join(f.dir, strings.ReplaceAll(name, "/", "-"))); err != nil {
		f.t.Fatal(err)
	}
}

// split cuts or joins the ways between two sides.
func (f *fleet) split(cut bool, one []string, others ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range one {
		for _, b := range others {
			f.cut[[2]string{a, b}], f.cut[[2]string{b, a}] = cut, cut
		}
	}
}

// pause holds a store until resume is called.
func (f *fleet) pause(name string) (resume func()) {
	r := f.get(name)
	if r == nil {
		return func() {}
	}
	r.gate.Lock()
	return r.gate.Unlock
}

func (f *fleet) repair(name string) error {
	var errs []error
	for _, peer := range f.names {
		if peer != name {
			errs = append(errs, f.get(name).repairWith(context.Background(), peer))
		}
	}
	return errors.Join(errs...)
}

// client sends a request to a store as a user.
func (f *fleet) client(name, method, target, body string, header ...string) (int, string) {
	r := f.get(name)
	if r == nil || !f.enter(name, r) {
		return 0, "not there"
	}
	defer r.open.Done()
	r.wait()
	res := ask(r, method, target, body, header...)
	r.wait() // a paused store's answer comes when it goes on
	return res.StatusCode, text(res)
}

// enter counts a call to a store, unless it is gone.
func (f *fleet) enter(name string, r *running) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stores[name] != r {
		return false
	}
	r.open.Add(1)
	return true
}

func (n node) Partitions() int { return n.partitions }

func (n node) Partition(key string) int {
	h := fnv.New64a()
	h.Write([]byte(key))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	return int((x ^ x>>31) % uint64(n.partitions))
}

func (n node) Owners(p int) []string {
	n.mu.Lock()
	owners := n.owners
	n.mu.Unlock()
	if owners != nil {
		return owners(p)
	}
	all := make([]string, n.copies)
	for i := range all {
		all[i] = n.names[(p+i)%len(n.names)]
	}
	return all
}

func (n node) Peers() []string {
	return slices.DeleteFunc(slices.Clone(n.names), func(s string) bool { return s == n.self })
}

func (n node) RoundTrip(peer string, r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	to, from, cut := n.stores[peer], n.stores[n.self], n.cut[[2]string{n.self, peer}]
	n.calls++
	deaf := n.deaf != "" && strings.HasSuffix(r.URL.Path, n.deaf) || cut && n.curt
	n.mu.Unlock()
	if deaf {
		return nil, errors.New("connection refused")
	}
	if from != nil { // a paused store sends when it goes on
		from.wait()
	}
	if cut { // silence
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if to == nil || !n.enter(peer, to) {
		return nil, errors.New("connection refused")
	}
	answer := make(chan *http.Response, 1)
	in := r.Clone(context.Background())
	in.RequestURI = r.URL.RequestURI()
	go func() {
		defer to.open.Done()
		to.wait()
		w := httptest.NewRecorder()
		to.peer.ServeHTTP(w, in)
		answer <- w.Result()
	}()
	select {
	case res := <-answer:
		n.mu.Lock()
		cut := n.cut[[2]string{n.self, peer}]
		n.mu.Unlock()
		if cut { // the answer is lost, what was asked has happened
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return res, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func manual(o Options) Options {
	o.Repair = time.Hour
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return o
}

// settle waits until what goes on in the background of all stores has ended.
func (f *fleet) settle() {
	for _, name := range f.names {
		if r := f.get(name); r != nil {
			r.pending.Wait()
		}
	}
}

func TestCopies(t *testing.T) {
	f := newFleet(t, 5, 3, manual(Options{}))
	f.startAll()
	for i := range 50 {
		if status, body := f.client(f.names[i%5], "PUT", fmt.Sprintf("/kv/k%d", i), fmt.Sprint(i)); status != 201 {
			t.Fatalf("PUT %d = %d %s", i, status, body)
		}
	}
	for i := range 50 {
		for _, name := range f.names {
			if status, body := f.client(name, "GET", fmt.Sprintf("/kv/k%d", i), ""); status != 200 || body != fmt.Sprint(i) {
				t.Errorf("GET k%d from %s = %d %s", i, name, status, body)
			}
		}
	}
	f.settle()
	for i := range 50 {
		key, copies := fmt.Sprintf("k%d", i), 0
		for _, name := range f.names {
			if r, err := f.get(name).disk.get(key); err == nil && string(r.value) == fmt.Sprint(i) {
				copies++
			}
		}
		if copies != 3 {
			t.Errorf("%s has %d copies, want 3", key, copies)
		}
	}
	if status, _ := f.client("store/2", "DELETE", "/kv/k7", ""); status != 204 {
		t.Errorf("DELETE = %d, want 204", status)
	}
	if status, _ := f.client("store/3", "DELETE", "/kv/k7", ""); status != 404 {
		t.Errorf("DELETE again = %d, want 404", status)
	}
	for _, name := range f.names {
		if status, _ := f.client(name, "GET", "/kv/k7", ""); status != 404 {
			t.Errorf("GET of a deleted key from %s = %d", name, status)
		}
		if got := keys(t, f.get(name), "limit=7"); len(got) != 49 || !slices.IsSorted(got) {
			t.Errorf("%s lists %d keys, want 49 in order", name, len(got))
		}
	}
	if status, body := f.client("store/1", "PUT", "/kv/k8", "x", "If-Match", "*"); status != 501 || !strings.Contains(body, "nobody orders") {
		t.Errorf("compare-and-set without an order = %d %s, want 501", status, body)
	}
}

// TestRules: what each rule needs to be met, with three owners of which some are away.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		away int
		met  bool
	}{
		{One, 0, true}, {One, 2, true}, {Quorum, 0, true}, {Quorum, 1, true}, {Quorum, 2, false}, {All, 0, true}, {All, 1, false},
	} {
		t.Run(fmt.Sprintf("%s %d away", tt.rule, tt.away), func(t *testing.T) {
			f := newFleet(t, 3, 3, manual(Options{Read: tt.rule, Write: tt.rule}))
			f.startAll()
			f.client("store/1", "PUT", "/kv/a", "before")
			f.settle()
			for _, name := range f.names[3-tt.away:] {
				f.kill(name)
			}
			wrote, said := f.client("store/1", "PUT", "/kv/a", "after")
			f.settle() // rule one waits for one owner, and a read may ask another
			read, got := f.client("store/1", "GET", "/kv/a", "")
			if tt.met && (wrote != 204 || read != 200 || got != "after") {
				t.Errorf("PUT = %d %s, GET = %d %s, want both", wrote, said, read, got)
			}
			if !tt.met && (wrote != 503 || read != 503 || !strings.Contains(said, "may still take place")) {
				t.Errorf("PUT = %d %s, GET = %d %s, want 503", wrote, said, read, got)
			}
		})
	}
}

// TestHintsCountForNothing: with two of three owners away no quorum is met, however many hints are kept; when they come back
// they get what they missed.
func TestHintsCountForNothing(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{}))
	f.startAll()
	f.kill("store/2")
	f.kill("store/3")
	for i := range 20 {
		if status, _ := f.client("store/1", "PUT", fmt.Sprintf("/kv/k%d", i), "x"); status != 503 {
			t.Fatalf("a write on one disk of three = %d, want 503", status)
		}
	}
	f.settle()
	one := f.get("store/1")
	for _, peer := range f.names[1:] {
		if n := one.hints.waiting(peer); n != 20 {
			t.Errorf("%d hints wait for %s, want 20", n, peer)
		}
		f.start(peer, nil)
		if err := one.handOver(t.Context(), peer); err != nil {
			t.Fatal(err)
		}
		if n, got := one.hints.waiting(peer), count(f.get(peer).Store, bucketData); n != 0 || got != 20 {
			t.Errorf("%d hints still wait for %s, which has %d keys, want 0 and 20", n, peer, got)
		}
	}
	if got := one.counts.handedOver.Load(); got != 40 {
		t.Errorf("%d handed over, want 40", got)
	}
}

func TestHintsAreBoundedAndDroppedWithTheirPeer(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{Hints: 5}))
	f.startAll()
	f.kill("store/3")
	for i := range 20 {
		f.client("store/1", "PUT", fmt.Sprintf("/kv/k%d", i), "x")
		f.settle()
	}
	one := f.get("store/1")
	if n := one.hints.waiting("store/3"); n != 5 {
		t.Errorf("%d hints wait, want 5", n)
	}
	if err := one.dropHints([]string{"store/2"}); err != nil || one.hints.waiting("store/3") != 0 || count(one.Store, bucketHints) != 0 {
		t.Errorf("%d hints wait for a peer that is none any more, %v", one.hints.waiting("store/3"), err)
	}
}

func TestReadRepair(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{Hints: 1}))
	f.startAll()
	f.client("store/1", "PUT", "/kv/a", "old")
	f.settle()
	f.kill("store/3")
	f.client("store/1", "PUT", "/kv/a", "new")
	f.settle()
	f.start("store/3", nil)
	if r, _ := f.get("store/3").disk.get("a"); string(r.value) != "old" {
		t.Fatalf("store/3 has %q before the read, want old", r.value)
	}
	if _, got := f.client("store/2", "GET", "/kv/a", ""); got != "new" {
		t.Errorf("GET = %s, want new", got)
	}
	f.settle()
	if r, _ := f.get("store/3").disk.get("a"); string(r.value) != "new" {
		t.Errorf("store/3 has %q after the read, want new", r.value)
	}
}

// TestReadWritesBack: what a reader has seen at one owner of three, no later reader misses.
func TestReadWritesBack(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{Timeout: 200 * time.Millisecond}))
	f.startAll()
	f.split(true, f.names[:1], f.names[1:]...)
	if status, _ := f.client("store/1", "PUT", "/kv/a", "unsure"); status != 503 {
		t.Fatal("a write at one of three was acknowledged")
	}
	f.settle()
	f.split(false, f.names[:1], "store/2")
	if status, got := f.client("store/1", "GET", "/kv/a", ""); status != 200 || got != "unsure" {
		t.Fatalf("GET = %d %s", status, got)
	}
	f.kill("store/1")
	if status, got := f.client("store/3", "GET", "/kv/a", ""); status != 200 || got != "unsure" {
		t.Errorf("a later GET = %d %s, want what the first one saw", status, got)
	}
}

// TestSlowClockIsOvertaken: a store whose clock is behind does not lose an acknowledged write to an older one.
func TestSlowClockIsOvertaken(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{}))
	ahead, behind := newPast(), newPast()
	ahead.pass(50 * time.Second)
	for i, name := range f.names {
		f.options.Now = ahead.now
		if i == 2 {
			f.options.Now = behind.now
		}
		f.start(name, nil)
	}
	for _, name := range f.names {
		f.repair(name)
	}
	for i := range 10 {
		key := fmt.Sprintf("/kv/k%d", i)
		f.split(true, f.names[2:], f.names[:2]...) // it hears nothing of the first write
		f.options.Timeout = 100 * time.Millisecond
		if status, _ := f.client("store/1", "PUT", key, "first"); status != 201 {
			t.Fatalf("PUT = %d", status)
		}
		f.split(false, f.names[2:], f.names[:2]...)
		if status, _ := f.client("store/3", "PUT", key, "second"); status/100 != 2 {
			t.Fatalf("PUT = %d", status)
		}
		if _, got := f.client("store/2", "GET", key, ""); got != "second" {
			t.Errorf("%s = %q, want second", key, got)
		}
	}
}

// TestLostDisk: an owner that comes back empty answers no read until it has what any quorum may have
// acknowledged, and then the other copies may go, too.
func TestLostDisk(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{Hints: 1}))
	f.startAll()
	f.kill("store/3")
	for i := range 30 {
		if status, _ := f.client("store/2", "PUT", fmt.Sprintf("/kv/k%d", i), "x"); status != 201 {
			t.Fatalf("PUT = %d", status)
		}
	}
	f.settle()
	f.kill("store/2")
	f.lose("store/2")
	f.start("store/2", nil)
	f.start("store/3", nil)
	if status, got := f.client("store/3", "GET", "/kv/k1", ""); status != 200 { // 1 and 3 answer
		t.Errorf("GET = %d %s, want what store/1 has", status, got)
	}
	f.kill("store/1")
	if status, got := f.client("store/3", "GET", "/kv/k2", ""); status != 503 {
		t.Errorf("GET of a key that only store/1 has, which is away = %d %s, want 503 and no lie", status, got)
	}
	f.start("store/1", nil)
	if err := f.repair("store/2"); err != nil {
		t.Fatal(err)
	}
	f.kill("store/1")
	for i := range 30 {
		if status, got := f.client("store/3", "GET", fmt.Sprintf("/kv/k%d", i), ""); status != 200 || got != "x" {
			t.Errorf("GET k%d = %d %s after repair", i, status, got)
		}
	}
}

// TestNewOwner: when another store becomes an owner it is filled before its answers count.
func TestNewOwner(t *testing.T) {
	f := newFleet(t, 4, 3, manual(Options{}))
	first := func(int) []string { return []string{"store/1", "store/2", "store/3"} }
	f.owners = first
	f.startAll()
	for i := range 100 {
		f.client("store/1", "PUT", fmt.Sprintf("/kv/k%d", i), "x")
	}
	f.settle()
	f.mu.Lock()
	f.owners = func(int) []string { return []string{"store/4", "store/2", "store/3"} }
	f.mu.Unlock()
	four := f.get("store/4")
	if four.settled() {
		t.Fatal("a new owner is complete before it compared anything")
	}
	if err := errors.Join(f.repair("store/4"), f.get("store/1").disowned()); err != nil {
		t.Fatal(err)
	}
	if !four.settled() || count(four.Store, bucketData) != 100 {
		t.Errorf("the new owner has %d keys of 100, settled: %v", count(four.Store, bucketData), four.settled())
	}
	if f.get("store/1").bits([]int{0})[0] != 0 {
		t.Error("the former owner still takes its copy for complete")
	}
	f.kill("store/4")
	f.start("store/4", nil)
	if !f.get("store/4").settled() {
		t.Error("after a new start the copy is not complete any more")
	}
}

func TestTombstonesGoAfterTheirTime(t *testing.T) {
	clock := newPast()
	f := newFleet(t, 3, 3, manual(Options{Now: clock.now, Keep: time.Hour, Hints: 1}))
	f.startAll()
	for _, key := range []string{"deleted", "mortal?ttl=10s", "stays"} {
		f.client("store/1", "PUT", "/kv/"+key, "x")
	}
	f.settle()
	f.kill("store/3") // it misses the end of them all
	f.client("store/1", "DELETE", "/kv/deleted", "")
	f.settle()
	clock.pass(10 * time.Second)
	sweep := func(want int) {
		t.Helper()
		for _, name := range f.names {
			r := f.get(name)
			if r == nil {
				continue
			}
			if err := r.sweep(); err != nil {
				t.Fatal(err)
			}
			if n := count(r.Store, bucketData); n != want {
				t.Errorf("%s keeps %d records, want %d", name, n, want)
			}
		}
	}
	sweep(3) // two of them tombstones
	f.start("store/3", nil)
	if err := f.repair("store/3"); err != nil {
		t.Fatal(err)
	}
	for _, name := range f.names {
		if got := keys(t, f.get(name), ""); !slices.Equal(got, []string{"stays"}) {
			t.Errorf("%s lists %q, want stays alone", name, got)
		}
	}
	clock.pass(time.Hour - 11*time.Second)
	sweep(3)
	clock.pass(10 * time.Second)
	sweep(2) // what was deleted, ten seconds before the other expired
	clock.pass(time.Minute)
	sweep(1)
	for _, name := range f.names {
		if err := f.repair(name); err != nil {
			t.Fatal(err)
		}
	}
	sweep(1)
}
