package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// trouble cuts, pauses and kills at random until the time is over; then all are there and joined again. Two of
// three stay at most of the time, so that something is acknowledged.
func (f *fleet) trouble(rnd *rand.Rand, lasts time.Duration, lease func(name string) Lease) {
	end := time.Now().Add(lasts)
	for time.Now().Before(end) {
		name := f.names[rnd.IntN(len(f.names))]
		var others []string
		for _, o := range f.names {
			if o != name {
				others = append(others, o)
			}
		}
		moment := time.NewTimer(rand.N(250 * time.Millisecond))
		switch rnd.IntN(4) {
		case 0:
			f.split(true, []string{name}, others...)
			<-moment.C
			f.split(false, []string{name}, others...)
		case 1:
			f.split(true, []string{name}, others[0]) // one way of three
			<-moment.C
			f.split(false, []string{name}, others[0])
		case 2:
			resume := f.pause(name)
			<-moment.C
			resume()
		case 3:
			f.kill(name)
			<-moment.C
			f.start(name, lease(name))
		}
		<-time.After(rand.N(30 * time.Millisecond))
	}
}

func chaosTime() time.Duration {
	switch {
	case longTests():
		return time.Minute
	case testing.Short():
		return 2 * time.Second
	}
	return 4 * time.Second
}

// TestNoAcknowledgedWriteIsLost: under cuts, pauses and kills a read at a quorum returns the last write acknowledged at a
// quorum before it began, or a later one; and so it does when one disk of three is lost at the end.
func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFleet(t, 3, 3, Options{Timeout: 100 * time.Millisecond, Repair: 200 * time.Millisecond, Sweep: 50 * time.Millisecond})
	for _, name := range f.names {
		f.start(name, nil)
	}
	f.waitSettled()
	const clients = 6
	stop := make(chan struct{})
	acked := [clients]int{}
	var wg sync.WaitGroup
	for c := range clients {
		rnd := rand.New(rand.NewPCG(seed, uint64(c+1)))
		wg.Go(func() {
			key := fmt.Sprintf("/kv/client-%d", c)
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if status, _ := f.client(f.names[rnd.IntN(3)], "PUT", key, strconv.Itoa(n)); status == 201 || status == 204 {
					acked[c] = n
				}
				status, got := f.client(f.names[rnd.IntN(3)], "GET", key, "")
				if v, _ := strconv.Atoi(got); status == 200 && (v < acked[c] || v > n) || status == 404 && acked[c] > 0 {
					t.Errorf("seed %d: client %d wrote up to %d, acknowledged %d, read %d %s", seed, c, n, acked[c], status, got)
				}
			}
		})
	}
	f.trouble(rnd, chaosTime(), func(string) Lease { return nil })
	close(stop)
	wg.Wait()
	check := func(when string) {
		t.Helper()
		total := 0
		for c := range clients {
			total += acked[c]
			status, got := f.client(f.names[c%3], "GET", fmt.Sprintf("/kv/client-%d", c), "")
			if v, _ := strconv.Atoi(got); status != 200 || v < acked[c] {
				t.Errorf("seed %d: %s: client %d had %d acknowledged, read %d %s", seed, when, c, acked[c], status, got)
			}
		}
		if total < clients {
			t.Errorf("seed %d: hardly anything was acknowledged: %v", seed, acked)
		}
	}
	f.waitSettled()
	check("at the end")
	lost := f.names[rnd.IntN(3)]
	f.kill(lost)
	f.lose(lost)
	f.start(lost, nil)
	f.waitSettled()
	check("with one disk lost")
	t.Logf("seed %d: last acknowledged writes %v", seed, acked)
}

// waitSettled waits until every store's copy is complete.
func (f *fleet) waitSettled() {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		settled := 0
		for _, name := range f.names {
			if r := f.get(name); r != nil && r.settled() {
				settled++
			}
		}
		if settled == len(f.names) {
			return
		}
		if time.Now().After(end) {
			f.t.Fatal("the stores do not become complete")
		}
		<-time.After(5 * time.Millisecond)
	}
}

// office gives out leases of a time, one a partition.
type office struct {
	ttl time.Duration

	mu     sync.Mutex // guards what follows
	holder map[int]string
	ends   map[int]time.Time
	fence  map[int]uint64
	next   uint64
}

func newOffice(ttl time.Duration) *office {
	return &office{ttl: ttl, holder: map[int]string{}, ends: map[int]time.Time{}, fence: map[int]uint64{}}
}

// tenant is one store's view of the office: it asks again when half of a lease's time is over.
type tenant struct {
	*office
	name   string
	own    sync.Mutex // guards what follows
	have   map[int]grant
	owners func(int) []string
}

type grant struct {
	fence uint64
	until time.Time
}

func (o *office) tenant(f *fleet, name string) Lease {
	return &tenant{office: o, name: name, have: map[int]grant{}, owners: node{f, name}.Owners}
}

func (t *tenant) Held(_ context.Context, p int) (Term, error) {
	t.own.Lock()
	defer t.own.Unlock()
	asked := time.Now()
	if g := t.have[p]; asked.Before(g.until) {
		return Term{g.fence, g.until, t.owners(p)}, nil
	}
	fence, err := t.grant(p, t.name)
	if err != nil {
		return Term{}, err
	}
	t.have[p] = grant{fence, asked.Add(t.ttl / 2)}
	return Term{fence, t.have[p].until, t.owners(p)}, nil
}

func (t *tenant) Spent(p int, fence uint64) {
	t.own.Lock()
	defer t.own.Unlock()
	if t.have[p].fence == fence {
		delete(t.have, p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fence[p] == fence && t.holder[p] == t.name {
		t.holder[p], t.ends[p] = "", time.Time{} // its next one is another
	}
}

func (o *office) grant(p int, name string) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(o.ends[p]) && o.holder[p] != name:
		return 0, fmt.Errorf("%s holds the lease", o.holder[p])
	case !now.Before(o.ends[p]) || o.holder[p] != name: // also one's own lease that has ended
		o.next++
		o.fence[p], o.holder[p] = o.next, name
	}
	o.ends[p] = now.Add(o.ttl)
	return o.fence[p], nil
}

func (t *tenant) Settled() bool { return true }

// kvIn and kvOut are operations as porcupine sees them. Values are never written twice, so a value stands for its
// version.
type kvIn struct {
	op, key, expect, value string // op: get, put, cas, create, delete
}

type kvOut struct {
	value           string // get: empty for none
	failed, unknown bool   // a condition did not hold; whether it took place is not known
}

var kvModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			byKey[o.Input.(kvIn).key] = append(byKey[o.Input.(kvIn).key], o)
		}
		var all [][]porcupine.Operation
		for _, h := range byKey {
			all = append(all, h)
		}
		return all
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		have, in, out := state.(string), input.(kvIn), output.(kvOut)
		after, holds := in.value, true
		switch in.op {
		case "get":
			return out.value == have, have
		case "cas":
			holds = have == in.expect
		case "create":
			holds = have == ""
		case "delete":
			after, holds = "", have != "" // an answer of 404 says that there was none
		}
		switch {
		case out.unknown && holds:
			return true, after
		case out.unknown:
			return true, have
		case holds:
			return !out.failed, after
		}
		return out.failed, have
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
}

// TestCompareAndSet: with a lease all operations on a key are linearizable, under cuts, pauses longer than a lease, and
// kills, with one copy of each key and with three.
func TestCompareAndSet(t *testing.T) {
	for _, copies := range []int{1, 3} {
		t.Run(fmt.Sprintf("copies %d", copies), func(t *testing.T) { compareAndSet(t, copies) })
	}
}

func compareAndSet(t *testing.T, copies int) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	leases := newOffice(120 * time.Millisecond)
	f := newFleet(t, 3, copies, Options{Timeout: 300 * time.Millisecond, Repair: 300 * time.Millisecond, Read: Quorum, Write: Quorum})
	if copies == 1 {
		f.owners = func(int) []string { return f.names[:1] } // one owner; whoever holds the lease orders
	}
	for _, name := range f.names {
		f.start(name, leases.tenant(f, name))
	}
	f.waitSettled()
	const clients = 5
	var mu sync.Mutex // guards what follows
	var history []porcupine.Operation
	values := map[string]string{} // by ETag
	tags := map[string]string{}   // by value
	done := 0
	begin := time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for c := range clients {
		rnd := rand.New(rand.NewPCG(seed, uint64(c+1)))
		wg.Go(func() {
			last := map[string]string{} // value seen last, by key
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				in := kvIn{op: []string{"get", "get", "put", "cas", "cas", "create", "delete"}[rnd.IntN(7)], key: fmt.Sprintf("k%d", rnd.IntN(3)), value: fmt.Sprintf("%d.%d", c, n)}
				var header []string
				method, target := "PUT", "/kv/"+in.key
				switch in.op {
				case "get":
					method = "GET"
				case "delete":
					method = "DELETE"
				case "create":
					header = []string{"If-None-Match", "*"}
				case "cas":
					in.expect = last[in.key]
					mu.Lock()
					tag := tags[in.expect]
					mu.Unlock()
					if in.expect == "" || tag == "" {
						continue
					}
					header = []string{"If-Match", tag}
				}
				from := time.Since(begin).Nanoseconds()
				status, tag, got := f.tagged(f.names[rnd.IntN(3)], method, target, in.value, header...)
				to := time.Since(begin).Nanoseconds()
				out := kvOut{}
				switch {
				case status == 421 || status == 0 || status == 503 && (method == "GET" || strings.Contains(got, "answered the read")):
					continue // certainly nothing was written
				case status == 503:
					out.unknown, to = true, math.MaxInt64
				case status == 412, status == 404 && method == "DELETE":
					out.failed = true
				case status == 200 && method == "GET":
					out.value = got
				case status == 404 && method == "GET":
				case status/100 != 2:
					t.Errorf("seed %d: %+v = %d %s", seed, in, status, got)
					return
				}
				mu.Lock()
				if !out.failed && !out.unknown {
					done++
				}
				if tag != "" {
					v := in.value
					if method == "GET" {
						v = got
					}
					if have, ok := values[tag]; ok && have != v {
						t.Errorf("seed %d: %s is the tag of %s and of %s", seed, tag, have, v)
					}
					values[tag], tags[v] = v, tag
					last[in.key] = v
				}
				history = append(history, porcupine.Operation{ClientId: c, Input: in, Call: from, Output: out, Return: to})
				mu.Unlock()
			}
		})
	}
	f.trouble(rnd, chaosTime(), func(name string) Lease { return leases.tenant(f, name) })
	close(stop)
	wg.Wait()
	unknown := 0
	for i := range history { // an operation without an answer is its own client: it may still take place
		if history[i].Return == math.MaxInt64 {
			unknown++
			history[i].ClientId = clients + unknown
		}
	}
	result, _ := porcupine.CheckOperationsVerbose(kvModel, history, 30*time.Second)
	if result != porcupine.Ok {
		t.Errorf("seed %d: the history of %d operations (%d unknown) is %s", seed, len(history), unknown, result)
	}
	if done < 20 { // on a busy machine
		t.Errorf("seed %d: only %d operations succeeded of %d", seed, done, len(history))
	}
	t.Logf("seed %d: %d operations, %d succeeded, %d unknown", seed, len(history), done, unknown)
}

// tagged is client with the ETag of the answer.
func (f *fleet) tagged(name, method, target, body string, header ...string) (status int, tag, got string) {
	r := f.get(name)
	if r == nil || !f.enter(name, r) {
		return 0, "", ""
	}
	defer r.open.Done()
	r.wait()
	res := ask(r, method, target, body, header...)
	r.wait()
	return res.StatusCode, res.Header.Get("Etag"), text(res)
}

// TestOrderedRefusals: who may not order says so, and an old holder is fenced.
func TestOrderedRefusals(t *testing.T) {
	leases := newOffice(time.Hour)
	f := newFleet(t, 3, 3, manual(Options{}))
	for _, name := range f.names {
		f.start(name, leases.tenant(f, name))
	}
	for _, name := range f.names {
		f.repair(name)
	}
	if status, _ := f.client("store/1", "PUT", "/kv/a", "one", "If-None-Match", "*"); status != 201 {
		t.Fatalf("PUT by who may have the lease = %d", status)
	}
	for _, method := range []string{"PUT", "GET", "DELETE"} {
		if status, said := f.client("store/2", method, "/kv/a", "two"); status != 421 || !strings.Contains(said, "store/1 holds the lease") {
			t.Errorf("%s at another store = %d %s, want 421 and who orders", method, status, said)
		}
	}
	// The lease ends, as the office sees it, and store/2 gets it; store/1 knows nothing of it.
	p := node{f, ""}.Partition("a")
	leases.mu.Lock()
	leases.ends[p] = time.Time{}
	leases.mu.Unlock()
	if status, got := f.client("store/2", "GET", "/kv/a", ""); status != 200 || got != "one" {
		t.Fatalf("GET at the new holder = %d %s", status, got)
	}
	if status, said := f.client("store/1", "PUT", "/kv/a", "late", "If-Match", "*"); status != 503 || !strings.Contains(said, "later lease") {
		t.Errorf("PUT by the old holder = %d %s, want it fenced", status, said)
	}
	if status, got := f.client("store/2", "GET", "/kv/a", ""); status != 200 || got != "one" {
		t.Errorf("GET = %d %s, want one", status, got)
	}
	f.settle()
	for _, name := range f.names { // a promise outlives its store
		f.kill(name)
		f.start(name, leases.tenant(f, name))
	}
	if _, _, err := f.get("store/3").take("a", record{version: f.get("store/3").clock.next()}, 1); !errors.Is(err, errFenced) {
		t.Errorf("a write under fence 1 after a new start = %v, want it refused", err)
	}
}
