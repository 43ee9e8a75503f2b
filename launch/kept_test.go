package launch

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"servent/system"
)

func known(ids ...system.NodeID) map[system.NodeID]bool {
	m := map[system.NodeID]bool{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// apart checks that no two nodes share a port, which those on one address must not.
func apart(t *testing.T, k *kept) {
	t.Helper()
	for a, i := range k.Index {
		for b, j := range k.Index {
			if a != b && i == j {
				t.Errorf("%s and %s both have index %d", a, b, i)
			}
		}
		if from, until := k.portBase(i), k.portBase(i)+k.PortSlice; from < portsFrom || until > portsUntil {
			t.Errorf("%s has the ports %d…%d, want them within %d…%d", a, from, until, portsFrom, portsUntil)
		}
	}
}

// ours are claims that end with the test.
func ours(t *testing.T) claims {
	t.Helper()
	c := claims{}
	t.Cleanup(func() { c.keep(nil) })
	return c
}

func TestNext(t *testing.T) {
	claimed := ours(t)
	first, err := (&kept{PortSlice: minSlice}).next(sysOf(2, group("node", 3)), nil, claimed)
	if err != nil {
		t.Fatal(err)
	}
	apart(t, first)
	if first.Server != "node-1" || first.Index["node-1"] != 1 || first.Index["node-3"] != 3 {
		t.Errorf("at first: server %s, index %v; want node-1 and 1, 2, 3", first.Server, first.Index)
	}
	all := known("node-1", "node-2", "node-3")

	five, err := first.next(sysOf(2, group("node", 5)), all, claimed)
	if err != nil {
		t.Fatal(err)
	}
	apart(t, five)
	if five.Index["node-2"] != 2 || len(five.Index) != 5 || five.PortBase != first.PortBase {
		t.Errorf("3 → 5: %v from %d; what runs must stay at %d", five.Index, five.PortBase, first.PortBase)
	}
	// Two leave; one of them still ends. Its place is not given away, the other's is.
	two, err := five.next(sysOf(2, group("alpha", 1), group("node", 2)), known("node-1", "node-2", "node-3"), claimed)
	if err != nil {
		t.Fatal(err)
	}
	apart(t, two)
	if two.Index["node-3"] != 3 || two.Index["alpha-1"] != 4 || two.Index["node-5"] != 0 {
		t.Errorf("5 → 2 and a new group: %v; want node-3 to keep 3 while it ends, and alpha-1 in the lowest free place, 4", two.Index)
	}
	if two.Server != "node-1" {
		t.Errorf("server = %s; a group that sorts before must not take control over", two.Server)
	}

	for _, tt := range []struct {
		name    string
		sys     *system.System
		running map[system.NodeID]bool
		want    string
		next    string
	}{
		{"the server's group is renamed", sysOf(2, group("machine", 3)), all, "node-1 answers for control", "servent down && servent up"},
		{"far more services", sysOf(200, group("node", 3)), all, "ports on every node", "servent down && servent up"},
		{"no nodes", sysOf(2), nil, "has no nodes", ""},
		{"more ports than there are", sysOf(900, group("node", 64)), nil, "do not fit between", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := first.next(tt.sys, tt.running, claimed)
			if err == nil || !strings.Contains(err.Error(), tt.want) || system.Next(err) != tt.next {
				t.Errorf("next = %v (next: %q), want %q (next: %q)", err, system.Next(err), tt.want, tt.next)
			}
		})
	}
	again, err := five.next(sysOf(2, group("machine", 2)), nil, claimed)
	if err != nil || again.Server != "machine-1" || len(again.Index) != 2 {
		t.Errorf("renamed while nothing runs: %+v %v, want machine-1 to answer", again, err)
	}
	most, err := (&kept{PortSlice: minSlice}).next(sysOf(3, group("node", 64)), nil, ours(t))
	if err != nil {
		t.Fatal(err)
	}
	apart(t, most)
}

// Ports in use by others are passed over, at the first choice and when nodes are added.
func TestNextPassesOver(t *testing.T) {
	claimed := ours(t)
	first, err := (&kept{PortSlice: minSlice}).next(sysOf(2, group("node", 2)), nil, claimed)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(first.host(2), strconv.Itoa(first.portBase(2)+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	moved, err := first.next(sysOf(2, group("node", 2)), nil, claimed)
	if err != nil || moved.PortBase == first.PortBase {
		t.Errorf("with a port of node-2 taken: base %d (%v), want another than %d", moved.PortBase, err, first.PortBase)
	}
	packets, err := net.ListenPacket("udp", net.JoinHostPort(moved.host(2), strconv.Itoa(moved.portBase(2))))
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	again, err := moved.next(sysOf(2, group("node", 2)), nil, claimed)
	if err != nil || again.PortBase == moved.PortBase {
		t.Errorf("with node-2's port for datagrams taken: base %d (%v), want another than %d", again.PortBase, err, moved.PortBase)
	}
	one, err := first.next(sysOf(2, group("node", 1)), nil, claimed)
	if err != nil {
		t.Fatal(err)
	}
	if one.PortBase != first.PortBase {
		t.Errorf("base of one node = %d, want that of the last time, %d: it is free", one.PortBase, first.PortBase)
	}
	grown, err := one.next(sysOf(2, group("node", 2)), known("node-1"), claimed)
	if err != nil || grown.Index["node-2"] != 3 {
		t.Errorf("node-2 beside a taken port: %v (%v), want index 3", grown, err)
	}
}

// Of systems that start at the same time each gets ports of its own, before any of their nodes listens.
func TestNextAtTheSameTime(t *testing.T) {
	var mu sync.Mutex
	taken := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 6 { // more would need all ports that there are, and other systems may run
		claimed := ours(t)
		wg.Go(func() { // with slices of different lengths
			k, err := (&kept{PortSlice: minSlice}).next(sysOf(2+i%4*minSlice/4, group("node", 3)), nil, claimed)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 3 {
				for port := k.portBase(i + 1); port < k.portBase(i+1)+k.PortSlice; port++ {
					at := fmt.Sprint(k.host(i+1), port)
					if taken[at] {
						t.Errorf("two systems have port %s", at)
					}
					taken[at] = true
				}
			}
		})
	}
	wg.Wait()
}

func TestClaimsLetGo(t *testing.T) {
	claimed := ours(t)
	k, err := (&kept{PortSlice: minSlice}).next(sysOf(2, group("node", 3)), nil, claimed)
	if err != nil {
		t.Fatal(err)
	}
	claimed.keep(k)
	if len(claimed) != 3 || (claims{}).take(k.claims(2)[0]) {
		t.Errorf("%d claims, want 3 that nobody else can have", len(claimed))
	}
	delete(k.Index, "node-2")
	claimed.keep(k)
	other := ours(t)
	if !other.take(k.claims(2)[0]) || other.take(k.claims(3)[0]) {
		t.Error("want the slice of a node that left free, and the others held")
	}
}
