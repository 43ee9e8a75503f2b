package wire

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"servent/overlay"
	"servent/overlay/kademlia"
	"servent/overlay/pastry"
	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
	"servent/system"
)

// overlays whose keys belong to the nearest member, as nodes run them.
var nearests = []struct {
	name    string
	machine func() Machine
	far     func(key, at peer.ID) peer.ID
	mended  time.Duration // until one node owns each key again, three times what is meant
}{
	{"kademlia", func() Machine {
		return kademlia.New(1, kademlia.Options{Alpha: 1, Value: true, Watch: int64(time.Second), Contacts: 255})
	}, xor, 15 * time.Second},
	{"kademlia of the paper", func() Machine { return kademlia.New(1, kademlia.Options{K: 4, Watch: int64(time.Second)}) }, xor, 15 * time.Second},
	{"pastry", func() Machine { return pastry.New(1, pastry.Options{Tries: 3, Listed: true, Contacts: 255}) }, around, 15 * time.Second},
}

func xor(key, at peer.ID) peer.ID {
	for i := range at {
		at[i] ^= key[i]
	}
	return at
}

func around(key, at peer.ID) peer.ID {
	up, down := keyspace.Distance(key, at), keyspace.Distance(at, key)
	if bytes.Compare(up[:], down[:]) < 0 {
		return up
	}
	return down
}

// nearest is the twin of what such an overlay finds: the member that lives at the least distance.
func (f *fleet) nearest(key peer.ID, far func(key, at peer.ID) peer.ID) system.NodeID {
	var best system.NodeID
	var least peer.ID
	for _, m := range f.members {
		if d := far(key, m.Position); !f.dead[m.Node] && (best == "" || bytes.Compare(d[:], least[:]) < 0) {
			best, least = m.Node, d
		}
	}
	return best
}

// The machines that are simulated run on datagrams: every node, and one that is no member, finds the nearest to every key, and
// each node's own view says which keys are its own; also when a quarter of the nodes has died, and while all begin together.
func TestNearest(t *testing.T) {
	for _, tt := range nearests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startAs(t, 17, 16, Options{Cache: -1}, tt.machine)
				defer f.stop()
				owned := func() string {
					for i := range 200 {
						for at, w := range f.wires[:16] {
							if f.dead[name(at)] {
								continue
							}
							_, err := w.Owns(key(i))
							if want := f.nearest(key(i), tt.far); (err == nil) != (want == name(at)) {
								return fmt.Sprintf("%s owns key %d: %v; it is %s's", name(at), i, err, want)
							}
						}
					}
					return ""
				}
				check := func(when string) {
					t.Helper()
					for at, w := range f.wires {
						if f.dead[name(at)] {
							continue
						}
						for i := range 20 {
							owner, _, _, err := w.Locate(t.Context(), key(20*at+i))
							if want := f.nearest(key(20*at+i), tt.far); err != nil || owner != want {
								t.Errorf("%s, %s: Locate(key %d) = %s, %v, want %s", when, name(at), 20*at+i, owner, err, want)
							}
						}
					}
				}
				t.Logf("whole after %v", f.until("all have met", time.Minute, f.whole()))
				t.Logf("each key has one owner after %v more", f.until("owners", tt.mended, owned))
				check("whole")
				idle := func() (sum int64) {
					for _, w := range f.wires[:16] {
						sum += w.Counters().Sent.Bytes
					}
					return sum
				}
				sent := idle()
				time.Sleep(5 * time.Minute)
				sent = (idle() - sent) / 300 / 16
				if t.Logf("idle, a node sends %d B/s", sent); sent > 1000 {
					t.Errorf("idle, a node sends %d B/s, want at most 1000", sent)
				}
				for i := range 4 {
					f.kill(name(4*i+1), true)
				}
				t.Logf("mended after %v", f.until("owners are mended", tt.mended, owned))
				check(fmt.Sprintf("%d are dead", len(f.dead)))
			})
		})
	}
}

// A node that stops says so or is asked: its keys are another's soon, and two never own one key while it joins again.
func TestNearestJoins(t *testing.T) {
	for _, tt := range nearests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startAs(t, 8, 8, Options{Cache: -1}, tt.machine)
				defer f.stop()
				f.until("all have met", time.Minute, f.whole())
				all := f.members
				f.members = append(append([]Member{}, all[:3]...), all[4:]...) // without the fourth
				tell := func() {
					for _, w := range f.wires {
						w.Members(f.members)
					}
				}
				owners := func(i int) (n int) {
					for _, w := range f.wires {
						if _, err := w.Owns(key(i)); err == nil {
							n++
						}
					}
					return n
				}
				one := func() string {
					for i := range 200 {
						if n := owners(i); n != 1 {
							return fmt.Sprintf("key %d has %d owners", i, n)
						}
					}
					return ""
				}
				tell()
				f.until("the others own its keys", tt.mended, one)
				f.members = all
				tell()
				joined := func() string {
					for i := range 200 {
						if n := owners(i); n > 1 {
							t.Fatalf("key %d has %d owners while a node joins", i, n)
						}
					}
					for i := range 200 {
						if want := f.nearest(key(i), tt.far); want == name(3) {
							if _, err := f.wires[3].Owns(key(i)); err != nil {
								return err.Error()
							}
						}
					}
					return ""
				}
				f.until("it has its keys again", tt.mended, joined)
			})
		})
	}
}

// Many nodes that begin with the plan's list take the hops of theory, which a comparison is set beside.
func TestNearestHops(t *testing.T) {
	for _, tt := range []struct {
		name    string
		machine func() Machine
		law     overlay.Law
	}{
		{"kademlia", nearests[0].machine, overlay.KademliaLaw(64, kademlia.K)},
		{"pastry", nearests[2].machine, overlay.PastryLaw(64, pastry.Leaves)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startAs(t, 64, 64, Options{Cache: -1}, tt.machine)
				defer f.stop()
				f.until("all have met", time.Minute, f.whole())
				time.Sleep(2 * time.Minute)
				sum, n := 0, 0
				for at, w := range f.wires {
					for i := range 40 {
						_, hops, _, err := w.Locate(t.Context(), key(40*at+i))
						if err != nil {
							t.Fatal(err)
						}
						sum, n = sum+hops, n+1
					}
				}
				sent := int64(0)
				for _, w := range f.wires {
					sent += w.Counters().Onward
				}
				mean := float64(sum) / float64(n)
				t.Logf("%.3f hops, %.3f charged, theory %.3f", mean, float64(sent)/float64(n), tt.law.Mean)
				if math.Abs(mean/tt.law.Mean-1) > 0.1 || math.Abs(float64(sent)/float64(n)/tt.law.Mean-1) > 0.1 {
					t.Errorf("%.3f hops a lookup, %.3f of them charged, want %.3f within 10 %%", mean, float64(sent)/float64(n), tt.law.Mean)
				}
			})
		})
	}
}

// settler is a machine whose members can have met for long.
type settler interface {
	peertest.Machine
	Machine
	Settle(peer.Directory)
	Table(peer.Slot) []peer.Peer
}

// On datagrams a lookup takes the steps that are simulated: with the same identifiers, and the same members in each node's table, every
// node finds every key over as many hops, and all of them together send as many datagrams.
func TestNearestAsSimulated(t *testing.T) {
	for _, tt := range []struct {
		name string
		sim  func(n int) settler
		wire func() Machine
	}{
		{"kademlia",
			func(n int) settler { return kademlia.New(n, kademlia.Options{K: 4, Alpha: 1, Value: true}) },
			func() Machine { return kademlia.New(1, kademlia.Options{K: 4, Alpha: 1, Value: true, Contacts: 255}) }},
		{"pastry",
			func(n int) settler { return pastry.New(n, pastry.Options{Leaves: 4}) },
			func() Machine { return pastry.New(1, pastry.Options{Leaves: 4, Tries: 3, Listed: true, Contacts: 255}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const nodes, keys = 64, 20
				ids, m := peertest.Places(5, nodes), tt.sim(nodes)
				w := peertest.New(t, 5, ids, m, 1)
				m.Settle(w)
				members := make([]Member, nodes)
				for i := range members {
					members[i] = Member{name(i), ids[i]}
					w.Command(peer.Slot(i), peer.Event{Kind: peer.Join})
				}
				f := startKnowing(t, nodes, members, Options{Cache: -1}, tt.wire, func(i int) []Member {
					mine := []Member{members[i]}
					for _, p := range m.Table(peer.Slot(i)) {
						mine = append(mine, members[p])
					}
					return mine
				})
				defer f.stop()
				f.until("all have met", 2*time.Minute, f.whole())
				time.Sleep(time.Minute) // what is no part of a table, leaves, they learn from one another
				most, onward := 0, int64(0)
				for at := range nodes {
					for i := range keys {
						k := key(keys*at + i)
						owner, hops, _, err := f.wires[at].Locate(t.Context(), k)
						if err != nil {
							t.Fatal(err)
						}
						want := w.Answered(w.Ask(peer.Slot(at), k, 0))
						if owner != name(int(want.Peers[0])) || hops != int(want.Hops) {
							t.Errorf("%s, key %d: %s over %d hops, simulated %s over %d", name(at), keys*at+i, owner, hops, name(int(want.Peers[0])), want.Hops)
						}
						most, onward = max(most, hops), onward+int64(want.Hops)
					}
				}
				sent := int64(0)
				for _, w := range f.wires {
					sent += w.Counters().Onward
				}
				t.Logf("%d lookups, %d datagrams, at most %d hops", nodes*keys, sent, most)
				if sent != onward || most < 3 {
					t.Errorf("%d datagrams and at most %d hops, want the %d of the simulation and some of 3", sent, most, onward)
				}
			})
		})
	}
}
