package launch

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"

	"servent/architecture"
	"servent/identity"
	"servent/system"
)

// kept is what must stay the same between two starts. A kept is never changed after others have seen it.
type kept struct {
	Cluster   string                `json:"cluster"`
	Authority []byte                `json:"authority"`         // PEM: certificate and key
	Control   string                `json:"control,omitempty"` // an etcd of the user's; empty: one of our own
	Server    system.NodeID         `json:"server,omitempty"`  // who answers for control
	PortBase  int                   `json:"port_base"`         // of node 1
	PortSlice int                   `json:"port_slice"`
	Web       int                   `json:"web,omitempty"`
	Index     map[system.NodeID]int `json:"index"` // from 1
	Fleet     *first                `json:"fleet,omitempty"`
}

// first says that this machine is the first of a fleet: one node that emulates nothing, instead of several emulated ones.
type first struct {
	Node system.NodeID `json:"node"`
	Host string        `json:"host"` // address that other machines know it by
	Door int           `json:"door"` // port of the fleet's door
}

const (
	portsFrom  = 20000
	portsUntil = 32000 // Linux hands out 32768 and above, macOS and Windows 49152 and above
	minSlice   = 128
	claimsFrom = portsFrom - 100 // one port for every minSlice ports from portsFrom: who holds it has them
)

// open reads what the folder keeps, or makes it; kind begins the name of a new cluster.
func (f Folder) open(kind string) (*kept, *identity.Authority, error) {
	k := new(kept)
	err := f.read(keptName, k)
	if errors.Is(err, fs.ErrNotExist) {
		return f.first(kind)
	}
	if err == nil && k.Cluster == "" {
		err = fmt.Errorf("%s: names no cluster", f.path(keptName))
	}
	if err != nil {
		return nil, nil, f.unreadable(err)
	}
	ca, err := identity.ParseAuthority(k.Authority)
	if err != nil {
		return nil, nil, f.unreadable(fmt.Errorf("%s: %w", f.path(keptName), err))
	}
	if k.PortSlice == 0 {
		k.PortSlice = minSlice
	}
	return k, ca, nil
}

// unreadable is a state folder that no system can be started from. Nothing in it is touched: what the
// services wrote may still be of worth.
func (f Folder) unreadable(err error) error {
	return &system.Hint{Err: fmt.Errorf("the state of this system cannot be read: %w", err),
		Next: fmt.Sprintf("put the file back from a backup, or begin anew and keep the old data aside: mv %s %s.old && servent up", f, f)}
}

func (f Folder) first(kind string) (*kept, *identity.Authority, error) {
	cluster := kind + "-" + strings.ToLower(rand.Text()[:10])
	ca, err := identity.NewAuthority(cluster)
	if err != nil {
		return nil, nil, err
	}
	k := &kept{Cluster: cluster, Authority: ca.PEM(), PortSlice: minSlice, Index: map[system.NodeID]int{}}
	return k, ca, f.write(keptName, k)
}

// host is the address of the i-th node, counted from 1: its own where the machine has one for each
// (Linux answers on all of 127.0.0.0/8), else the one that all share.
func (k *kept) host(i int) string {
	if k.Fleet != nil || i > 254 || !ownAddresses() {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.77.0.%d", i)
}

// linkHost is where the i-th node's link listens, as others know it.
func (k *kept) linkHost(i int) string {
	if k.Fleet != nil {
		return k.Fleet.Host
	}
	return k.host(i)
}

var ownAddresses = sync.OnceValue(func() bool {
	ln, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
})

// inlet is the offset at which a node takes what published ports pass on: the last of its own.
func (k *kept) inlet() int { return k.PortSlice - 1 }

func (k *kept) portBase(i int) int { return k.PortBase + (i-1)*k.PortSlice }

// address is where a node's link listens.
func (k *kept) address(id system.NodeID) (string, bool) {
	i, ok := k.Index[id]
	return net.JoinHostPort(k.linkHost(i), strconv.Itoa(k.portBase(i))), ok
}

// own is one node that this machine runs.
type own struct {
	id    system.NodeID
	group *system.NodeGroup
}

// nodes lists those that this machine runs for a system.
func (k *kept) nodes(sys *system.System) []own {
	if k.Fleet != nil {
		return []own{{k.Fleet.Node, &system.NodeGroup{}}}
	}
	return nodesOf(sys)
}

// nodesOf lists the emulated nodes of a system: GROUP-1 … GROUP-n for every group.
func nodesOf(sys *system.System) []own {
	var out []own
	for i := range sys.Nodes {
		g := &sys.Nodes[i]
		for n := range g.Count {
			out = append(out, own{system.NodeID(g.Name + "-" + strconv.Itoa(n+1)), g})
		}
	}
	return out
}

// portsFor is how many ports each of so many nodes needs: the link, the web door, a door a service, the name server, and twice two for
// every instance, because an update has old and new ones at once; and the port that claims the others.
func portsFor(sys *system.System, nodes int) int {
	need := 4
	for i := range sys.Services {
		need += 1 + 4*architecture.Most(&sys.Services[i], nodes)
	}
	return need
}

// next is what is kept once sys runs: who answers for control, and an index and ports for every node.
// While nothing runs all of it is chosen anew. Of a running system nothing moves: running are the nodes
// that have a process, also those that are about to leave, and the ports of new ones are found beside theirs.
// Whatever is chosen is claimed, and so may be what was tried.
func (k *kept) next(sys *system.System, running map[system.NodeID]bool, claimed claims) (*kept, error) {
	nodes, n := k.nodes(sys), *k
	need := portsFor(sys, len(nodes))
	if len(nodes) == 0 {
		return nil, errors.New("the file has no nodes")
	}
	want := map[system.NodeID]bool{}
	for _, e := range nodes {
		want[e.id] = true
	}
	if len(running) == 0 {
		return n.anew(nodes, want, need, claimed)
	}
	again := "servent down && servent up"
	if !want[k.Server] {
		return nil, &system.Hint{Err: fmt.Errorf("%s answers for control while the system runs; it cannot leave now", k.Server), Next: again}
	}
	if need > k.PortSlice {
		return nil, &system.Hint{Err: fmt.Errorf("the services need up to %d ports on every node; each got %d when the system was started", need, k.PortSlice), Next: again}
	}
	n.Index = maps.Clone(k.Index)
	maps.DeleteFunc(n.Index, func(id system.NodeID, _ int) bool { return !want[id] && !running[id] })
	for _, e := range nodes {
		if n.Index[e.id] != 0 {
			continue
		}
		i := n.unused(claimed)
		if i == 0 {
			return nil, &system.Hint{Err: fmt.Errorf("no free ports for %s: each node needs %d between %d and %d", e.id, n.PortSlice, portsFrom, portsUntil), Next: again}
		}
		n.Index[e.id] = i
	}
	return &n, nil
}

func (n *kept) anew(nodes []own, want map[system.NodeID]bool, need int, claimed claims) (*kept, error) {
	if !want[n.Server] {
		n.Server = nodes[0].id
	}
	for n.PortSlice = minSlice; n.PortSlice < 2*need; n.PortSlice *= 2 { // room for more services while it runs
	}
	if room := (portsUntil - portsFrom) / len(nodes); n.PortSlice > room {
		n.PortSlice = max(need, room/2) // other systems want some, too
	}
	n.Index = map[system.NodeID]int{}
	for i, e := range nodes {
		n.Index[e.id] = 1 + i
	}
	return n, n.choosePorts(claimed)
}

// unused is the lowest index that no node has and whose ports are free, or 0.
func (n *kept) unused(claimed claims) int {
	used := map[int]bool{}
	for _, i := range n.Index {
		used[i] = true
	}
	for i := 1; n.portBase(i)+n.PortSlice <= portsUntil; i++ {
		if !used[i] && n.free(i, claimed) {
			return i
		}
	}
	return 0
}

// choosePorts finds a run of port slices, one a node, that no other system has claimed and in which nobody
// listens on a node's first ports. The last choice is kept while it is free: addresses that do not change
// are easier to work with.
func (n *kept) choosePorts(claimed claims) error {
	span := len(n.Index) * n.PortSlice
	if span > portsUntil-portsFrom {
		return fmt.Errorf("%d nodes with %d ports each do not fit between %d and %d; want fewer nodes or instances", len(n.Index), n.PortSlice, portsFrom, portsUntil)
	}
	fits := func(base int) bool {
		n.PortBase = base
		for i := range len(n.Index) {
			if !n.free(i+1, claimed) {
				return false
			}
		}
		return base+span <= portsUntil
	}
	if n.PortBase != 0 && fits(n.PortBase) {
		return nil
	}
	for base := portsFrom; base+span <= portsUntil; base += minSlice {
		if fits(base) {
			return nil
		}
		claimed.keep(nil)
	}
	return fmt.Errorf("no %d free ports in a row between %d and %d", span, portsFrom, portsUntil)
}

// free claims the i-th slice and tries its first ports: the link's, also for datagrams, the web door's, the
// first doors'.
func (n *kept) free(i int, claimed claims) bool {
	for _, addr := range n.claims(i) {
		if !claimed.take(addr) {
			return false
		}
	}
	for offset := range 4 {
		ln, err := net.Listen("tcp", net.JoinHostPort(n.host(i), strconv.Itoa(n.portBase(i)+offset)))
		if err != nil {
			return false
		}
		ln.Close()
	}
	at := net.JoinHostPort(n.linkHost(i), strconv.Itoa(n.portBase(i)))
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return false
	}
	packets.Close()
	if n.Fleet != nil {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			return false
		}
		ln.Close()
	}
	return true
}

// claims are the addresses that whoever holds them has the i-th slice. Slices of different systems are of different
// lengths, so each claims all units of ports that it has a part of.
func (n *kept) claims(i int) (addrs []string) {
	from, last := n.portBase(i)-portsFrom, n.portBase(i)+n.PortSlice-1-portsFrom
	for unit := from / minSlice; unit <= last/minSlice; unit++ {
		addrs = append(addrs, net.JoinHostPort(n.host(i), strconv.Itoa(claimsFrom+unit)))
	}
	return addrs
}

// claims are ports held for as long as a system runs, so that of two that start at the same time each
// gets ports of its own. Whoever dies lets go.
type claims map[string]net.Listener // by address

// take says whether the address is ours, now or already.
func (c claims) take(addr string) bool {
	if c[addr] != nil {
		return true
	}
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		c[addr] = ln
	}
	return err == nil
}

// keep lets go of all claims but those that k needs; nil needs none.
func (c claims) keep(k *kept) {
	need := map[string]bool{}
	if k != nil {
		for _, i := range k.Index {
			for _, addr := range k.claims(i) {
				need[addr] = true
			}
		}
	}
	for addr, ln := range c {
		if !need[addr] {
			_ = ln.Close() // nobody was ever to connect
			delete(c, addr)
		}
	}
}
