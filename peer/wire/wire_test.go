package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"servent/overlay/chord"
	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
	"servent/system"
)

// mesh carries datagrams between nodes of one process: 1 to 5 ms each way.
type mesh struct {
	mu   sync.Mutex
	ends map[system.NodeID]*end
	dead map[system.NodeID]bool
	rnd  *rand.Rand
}

type end struct {
	*mesh
	node  system.NodeID
	inbox chan packet
	fail  chan error
}

func newMesh() *mesh {
	return &mesh{ends: map[system.NodeID]*end{}, dead: map[system.NodeID]bool{}, rnd: rand.New(rand.NewPCG(1, 2))}
}

func (m *mesh) end(node system.NodeID) *end {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &end{m, node, make(chan packet, 4096), make(chan error, 1)}
	m.ends[node] = e
	return e
}

func (e *end) Send(to system.NodeID, b []byte) error { return e.send(e.node, to, b) }

func (m *mesh) send(from, to system.NodeID, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.ends[to]
	switch {
	case at == nil:
		return fmt.Errorf("no node %s", to)
	case m.dead[from] || m.dead[to]:
		return nil
	}
	p := packet{from, slices.Clone(b)}
	time.AfterFunc(time.Millisecond+time.Duration(m.rnd.IntN(4000))*time.Microsecond, func() {
		select {
		case at.inbox <- p:
		default:
		}
	})
	return nil
}

func (e *end) Receive(ctx context.Context) (system.NodeID, []byte, error) {
	select {
	case p := <-e.inbox:
		return p.node, p.b, nil
	case err := <-e.fail:
		return "", nil, err
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

func (m *mesh) kill(node system.NodeID, dead bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead[node] = dead
}

// fleet is n nodes that run.
type fleet struct {
	*mesh
	t       *testing.T
	wires   []*Wire
	members []Member
	stops   []context.CancelFunc
	ends    []chan error
}

func name(i int) system.NodeID { return system.NodeID(fmt.Sprintf("node-%d", i+1)) }

// start runs n nodes of a ring at equal distances, or those that are members of them.
func start(t *testing.T, n, members int, o Options, r ring.Options) *fleet {
	r.Questions = 256
	return startAs(t, n, members, o, func() Machine { return ring.New(1, r) })
}

func startAs(t *testing.T, n, members int, o Options, machine func() Machine) *fleet {
	all := make([]Member, members)
	for i := range all {
		all[i].Node = name(i)
		all[i].Position[0] = byte(256 / members * i)
	}
	return startKnowing(t, n, all, o, machine, func(int) []Member { return all })
}

// startKnowing runs n nodes, the first of them members; each knows its own.
func startKnowing(t *testing.T, n int, members []Member, o Options, machine func() Machine, knows func(i int) []Member) *fleet {
	f := &fleet{mesh: newMesh(), t: t, members: members}
	for i := range n {
		o.Self, o.Datagrams = name(i), f.end(name(i))
		o.Machine = machine()
		w := New(o)
		w.Members(knows(i))
		f.wires = append(f.wires, w)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		f.stops, f.ends = append(f.stops, stop), append(f.ends, done)
	}
	return f
}

// stop ends all nodes and waits for them: the bubble may hold no goroutine at its end.
func (f *fleet) stop() {
	for i := range f.wires {
		f.stops[i]()
		if err := <-f.ends[i]; err != nil {
			f.t.Errorf("%s: Run = %v, want nil", name(i), err)
		}
	}
}

// until lets the bubble's time go by until cond holds.
func (f *fleet) until(what string, most time.Duration, cond func() string) time.Duration {
	f.t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		why := cond()
		if why == "" {
			return time.Since(began)
		}
		if time.Since(began) > most {
			f.t.Fatalf("%s: not after %v: %s", what, most, why)
		}
	}
}

func (f *fleet) whole(members ...int) func() string {
	return func() string {
		for i, w := range f.wires[:len(f.members)] {
			if v := w.View(); !v.Whole && (len(members) == 0 || slices.Contains(members, i)) {
				return fmt.Sprintf("%s: %s", name(i), v.Why)
			}
		}
		return ""
	}
}

// owner is the twin: the first member at or above a key.
func (f *fleet) owner(key peer.ID) system.NodeID {
	for _, m := range f.members {
		if slices.Compare(m.Position[:], key[:]) >= 0 && !f.dead[m.Node] {
			return m.Node
		}
	}
	for _, m := range f.members {
		if !f.dead[m.Node] {
			return m.Node
		}
	}
	return ""
}

func key(i int) peer.ID { return keyspace.Of(fmt.Sprint("key ", i)) }

func (f *fleet) check(at int, n int) (hops float64) {
	f.t.Helper()
	for i := range n {
		owner, h, epoch, err := f.wires[at].Locate(f.t.Context(), key(i))
		if err != nil || owner != f.owner(key(i)) {
			f.t.Fatalf("%s: Locate(key %d) = %s, %v, want %s", name(at), i, owner, err, f.owner(key(i)))
		}
		hops += float64(h)
		for j, w := range f.wires {
			if f.dead[name(j)] {
				continue
			}
			if e, err := w.Owns(key(i)); (err == nil) != (name(j) == owner) || err == nil && e != epoch {
				f.t.Fatalf("%s: Owns(key %d) = %d, %v; %s is its owner, epoch %d", name(j), i, e, err, owner, epoch)
			}
		}
	}
	return hops / float64(n)
}

func TestFleet(t *testing.T) {
	for _, tt := range []struct {
		name    string
		nodes   int
		hops    float64
		machine func() Machine
	}{
		{"ring", 8, 3.5, func() Machine { return ring.New(1, ring.Options{Questions: 256}) }},                            // (N−1)/2
		{"chord", 16, 1.8125, func() Machine { return chord.New(1, chord.Options{Ring: ring.Options{Questions: 256}}) }}, // 1 + ½·log2(N/4) − (1 + log2(N/4))/N
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startAs(t, tt.nodes, tt.nodes, Options{Cache: -1}, tt.machine)
				defer f.stop()
				took := f.until("one ring", 10*time.Second, f.whole())
				t.Logf("one ring after %v", took)
				time.Sleep(10 * time.Second) // fingers, too
				sum := 0.0
				for i := range f.wires {
					sum += f.check(i, 200)
				}
				if got := sum / float64(tt.nodes); math.Abs(got-tt.hops) > 0.03*tt.hops { // all entries with the same keys: nearly exact
					t.Errorf("mean hops %.3f, want %.3f", got, tt.hops)
				}
				if n, err := f.wires[3].Around(t.Context()); n != tt.nodes || err != nil {
					t.Errorf("Around = %d, %v, want %d", n, err, tt.nodes)
				}
				v := f.wires[3].View()
				if v.Before == nil || v.Before.Node != "node-3" || v.After[0].Node != "node-5" || len(v.After) != 4 || !v.Member {
					t.Errorf("node-4 sees %+v", v)
				}
				before := f.wires[0].Counters()
				time.Sleep(60 * time.Second)
				after := f.wires[0].Counters()
				rate := float64(after.Sent.Bytes-before.Sent.Bytes) / 60
				t.Logf("idle: %.0f bytes and %.1f datagrams a second sent by one node", rate, float64(after.Sent.Messages-before.Sent.Messages)/60)
				if rate > 1000 || after.Onward != before.Onward {
					t.Errorf("an idle node sends %.0f bytes a second, %d datagrams are charged; want less than 1000, and none", rate, after.Onward-before.Onward)
				}
			})
		})
	}
}

func TestNodeDiesAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 6, 6, Options{}, ring.Options{})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		f.kill("node-3", true)
		took := f.until("its keys are another's", 6*time.Second, func() string {
			_, err := f.wires[3].Owns(f.members[2].Position)
			return fmt.Sprint(err)[:max(0, len(fmt.Sprint(err))-len("<nil>"))]
		})
		t.Logf("the successor answers after %v", took)
		time.Sleep(time.Second)
		f.check(0, 100)
		if v := f.wires[1].View(); v.Whole {
			t.Error("node-2 says that the ring is whole, though a planned member is away")
		}
		f.kill("node-3", false)
		f.until("one ring", 15*time.Second, f.whole())
		f.check(0, 100)
	})
}

// A node that stops hands over: no time passes in which nobody answers.
func TestStopIsPolite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 6, 6, Options{}, ring.Options{})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		f.stops[2]()
		if err := <-f.ends[2]; err != nil {
			t.Fatal(err)
		}
		f.ends[2] <- nil // for stop
		time.Sleep(20 * time.Millisecond)
		f.kill("node-3", true)
		f.check(0, 100)
		if _, _, _, err := f.wires[2].Locate(t.Context(), key(1)); err == nil {
			t.Error("the node that stopped still answers")
		}
	})
}

func TestClientAndChangesOfThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 6, 5, Options{Cache: -1}, ring.Options{})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		f.check(5, 100) // node-6 is no member
		if _, err := f.wires[5].Around(t.Context()); err == nil {
			t.Error("Around of a client = nil, want an error")
		}
		var id peer.ID
		id[0] = 10
		all := append(slices.Clone(f.members), Member{"node-6", id})
		slices.SortFunc(all, func(a, b Member) int { return slices.Compare(a.Position[:], b.Position[:]) })
		for _, w := range f.wires {
			w.Members(all)
		}
		f.members = all
		f.until("six", 10*time.Second, f.whole())
		f.check(1, 100)
		f.members = slices.DeleteFunc(slices.Clone(all), func(m Member) bool { return m.Node == "node-2" })
		f.members[3].Position[0] += 5 // and one moves
		for _, w := range f.wires {
			w.Members(f.members)
		}
		time.Sleep(10 * time.Second)
		f.check(0, 100)
		f.check(1, 100)
		if v := f.wires[1].View(); v.Member {
			t.Errorf("node-2 is no member by the plan, and sees %+v", v)
		}
	})
}

func TestFixedDataIsVacant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 4, 4, Options{}, ring.Options{Fixed: true})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		f.kill("node-3", true)
		time.Sleep(6 * time.Second)
		_, _, _, err := f.wires[0].Locate(t.Context(), f.members[2].Position)
		if !errors.Is(err, ErrVacant) || !strings.Contains(err.Error(), "node-3") {
			t.Errorf("Locate = %v, want that node-3 is away", err)
		}
	})
}

// Questions for one key at one time are one lookup; later ones are answered from the cache, where there is one.
func TestQuestionsAreMerged(t *testing.T) {
	for _, tt := range []struct {
		name            string
		cache           time.Duration
		lookups, shared int64
	}{{"with a cache", 0, 2, 49 + 50}, {"without", -1, 3, 49 + 49}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, 4, 4, Options{Cache: tt.cache}, ring.Options{})
				defer f.stop()
				f.until("one ring", 10*time.Second, f.whole())
				ask := func(n int) {
					var all sync.WaitGroup
					for range n {
						all.Go(func() {
							if owner, _, _, err := f.wires[0].Locate(t.Context(), f.members[2].Position); owner != "node-3" || err != nil {
								t.Errorf("Locate = %s, %v", owner, err)
							}
						})
					}
					all.Wait()
				}
				ask(50)
				ask(50)
				time.Sleep(time.Second)
				ask(1)
				if c := f.wires[0].Counters(); c.Lookups != tt.lookups || c.Shared != tt.shared || c.Failed != 0 {
					t.Errorf("%+v, want %d lookups and %d shared", c, tt.lookups, tt.shared)
				}
			})
		})
	}
}

// Every datagram that takes a lookup onward is charged to the node that sends it, and waits for it; the
// neighbours' own are not.
func TestOnwardIsCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var charged atomic.Int64
		pass := func(ctx context.Context) error {
			charged.Add(1)
			select {
			case <-time.After(200 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		f := start(t, 4, 4, Options{Pass: pass, Cache: -1}, ring.Options{Wait: int64(5 * time.Second)})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		if n := charged.Load(); n != 0 {
			t.Fatalf("%d datagrams were charged before any lookup", n)
		}
		began := time.Now()
		var all sync.WaitGroup
		for i := range 50 { // all at once: each stands in the queue for itself
			all.Go(func() {
				id := f.members[2].Position
				id[1], id[0] = byte(i), id[0]-1
				if owner, hops, _, err := f.wires[3].Locate(t.Context(), id); owner != "node-3" || hops != 3 || err != nil {
					t.Errorf("Locate = %s, %d hops, %v", owner, hops, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); charged.Load() != 150 || took < 600*time.Millisecond || took > time.Second {
			t.Errorf("%d datagrams were charged and took %v, want 150 and a little above 600ms", charged.Load(), took)
		}
		var onward int64
		for _, w := range f.wires {
			onward += w.Counters().Onward
		}
		if onward != 150 {
			t.Errorf("Onward counts %d, want 150", onward)
		}
		go func() { _, _, _, _ = f.wires[3].Locate(t.Context(), f.members[2].Position) }()
		time.Sleep(10 * time.Millisecond) // it waits in Pass when the node stops
	})
}
