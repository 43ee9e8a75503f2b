package launch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"servent/admin"
	"servent/identity"
	"servent/link"
	"servent/node"
	"servent/system"
)

// nodes are the processes of a laptop's nodes. Set says which there shall be; Run makes it so.
type nodes struct {
	folder   Folder
	command  []string // program and arguments that become a node
	blobs    string   // folder of bytes by digest
	issue    func(identity.Role, system.NodeID) (identity.Credential, error)
	sessions identity.Secret  // the same on all nodes
	changed  func()           // tells that State did
	refused  func(system.Act) // hears what a node refused to others; nil: nobody does
	came     func()           // tells that there are new nodes
	log      *slog.Logger
	wake     chan struct{}          // room for one: Set was called, or a process left
	claims   claims                 // of Set alone, and of its owner after the last Set
	others   link.Resolver          // where nodes of other machines are
	joined   func() []system.NodeID // servers that joined

	mu       sync.Mutex // guards what follows
	kept     *kept
	sys      *system.System // nil before the first Set
	children map[system.NodeID]*child
}

// Set makes the nodes those of sys, after it wrote down where they are. It does not wait for them. Calls
// do not overlap.
func (ns *nodes) Set(sys *system.System, web int) error {
	ns.mu.Lock()
	running := map[system.NodeID]bool{}
	for id := range ns.children {
		running[id] = true
	}
	was := ns.kept
	ns.mu.Unlock()
	stands := was
	if len(running) == 0 {
		stands = nil
	}
	defer func() { ns.claims.keep(stands) }()
	next, err := was.next(sys, running, ns.claims)
	if err != nil {
		return err
	}
	next.Web = web
	if err := ns.folder.write(keptName, next); err != nil {
		return err
	}
	stands = next
	ns.mu.Lock()
	ns.kept, ns.sys = next, sys
	ns.mu.Unlock()
	ns.poke()
	return nil
}

func (ns *nodes) poke() {
	select {
	case ns.wake <- struct{}{}:
	default:
	}
}

// Run starts the nodes that are missing and ends those that are no longer asked for, until ctx ends. Then
// it stops all of them at once and returns when none is left; once kill is closed it waits for nothing.
func (ns *nodes) Run(ctx context.Context, kill <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ns.wake:
		}
		ns.mu.Lock()
		fresh := ns.step()
		for _, c := range fresh {
			own, cancel := context.WithCancel(ctx)
			c.cancel = cancel
			wg.Go(func() {
				defer cancel()
				c.Run(own, kill)
				ns.left(c)
			})
		}
		ns.mu.Unlock()
		if len(fresh) > 0 {
			ns.came()
		}
	}
}

// step ends the nodes that are too many and returns those to be started. One that is asked for again
// while it still ends is started when it has ended. mu is held.
func (ns *nodes) step() (fresh []*child) {
	if ns.sys == nil {
		return nil
	}
	want := map[system.NodeID]bool{}
	for _, e := range ns.kept.nodes(ns.sys) {
		want[e.id] = true
		if ns.children[e.id] == nil {
			c := ns.child(e)
			ns.children[e.id] = c
			fresh = append(fresh, c)
		}
	}
	for id, c := range ns.children {
		if !want[id] {
			c.cancel()
		}
	}
	return fresh
}

func (ns *nodes) child(e own) *child {
	return &child{
		id: e.id, command: ns.command, logFile: ns.folder.Log(string(e.id)), changed: ns.changed, refused: ns.refused, log: ns.log,
		boot:  func() (node.Boot, error) { return ns.boot(e.id) },
		again: make(chan struct{}, 1), creds: make(chan identity.Credential, 1), servers: make(chan []node.Server, 1), ways: make(chan struct{}, 1),
		state: admin.NodeState{Node: e.id, Role: string(ns.role(e.id)), Site: e.group.Site, Emulated: ns.kept.Fleet == nil, Capacity: e.group.Capacity,
			Labels: e.group.Labels, State: "starting", Since: time.Now(), Address: ns.kept.linkHost(ns.kept.Index[e.id])},
	}
}

func (ns *nodes) left(c *child) {
	ns.mu.Lock()
	delete(ns.children, c.id)
	ns.mu.Unlock()
	ns.changed()
	ns.poke()
}

// role is what a node is to the others. mu is held.
func (ns *nodes) role(id system.NodeID) identity.Role {
	if id == ns.kept.Server {
		return identity.Server
	}
	return identity.Node
}

// list are the nodes that this machine runs for a system.
func (ns *nodes) list(sys *system.System) []own {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.kept.nodes(sys)
}

// runs says whether this machine runs a node.
func (ns *nodes) runs(id system.NodeID) bool {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.kept.Index[id] != 0
}

// inlet is the offset at which nodes take what published ports pass on.
func (ns *nodes) inlet() int {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.kept.inlet()
}

// Servers are the nodes that answer for control; none before the first Set.
func (ns *nodes) Servers() []system.NodeID {
	ns.mu.Lock()
	kept, none := ns.kept, ns.sys == nil
	ns.mu.Unlock()
	if none {
		return nil
	}
	return append([]system.NodeID{kept.Server}, ns.joined()...)
}

// Resolve implements [link.Resolver].
func (ns *nodes) Resolve(id system.NodeID) (link.Address, bool) {
	ns.mu.Lock()
	kept := ns.kept
	ns.mu.Unlock()
	at, ok := kept.address(id)
	if !ok {
		return ns.others(id)
	}
	return link.Address{Host: at}, true
}

// boot is what a node is told at its start, as the file stands then.
func (ns *nodes) boot(id system.NodeID) (node.Boot, error) {
	ns.mu.Lock()
	kept, sys, role := ns.kept, ns.sys, ns.role(id)
	ns.mu.Unlock()
	cred, err := ns.issue(role, id)
	if err != nil {
		return node.Boot{}, fmt.Errorf("issue a certificate: %w", err)
	}
	index := kept.Index[id]
	b := node.Boot{Credential: cred, Sessions: ns.sessions, ID: id, Role: role, Emulated: kept.Fleet == nil, Control: kept.Control,
		Dir: ns.folder.node(id), ControlDir: ns.folder.control(), Blobs: ns.blobs,
		Host: kept.host(index), LinkHost: kept.linkHost(index), PortBase: kept.portBase(index), Inlet: kept.inlet()}
	if b.Emulated {
		b.Groups = sys.Nodes
	}
	at, _ := kept.address(kept.Server)
	for _, e := range kept.nodes(sys) {
		if e.id == kept.Server {
			b.Servers = []node.Server{{Node: e.id, Link: at, Site: e.group.Site}}
		}
		if e.id == id {
			b.Site, b.Group, b.Labels, b.Capacity = e.group.Site, e.group.Name, e.group.Labels, e.group.Capacity
		}
	}
	return b, nil
}

// State is what is known of every process, sorted by node.
func (ns *nodes) State() []admin.NodeState {
	ns.mu.Lock()
	children := maps.Clone(ns.children)
	ns.mu.Unlock()
	var out []admin.NodeState
	for _, id := range slices.Sorted(maps.Keys(children)) {
		out = append(out, children[id].State())
	}
	return out
}

// Failed is why a node's process ended by itself; nil when it runs or has never been started.
func (ns *nodes) Failed(id system.NodeID) error {
	ns.mu.Lock()
	c := ns.children[id]
	ns.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Failed()
}

// Restart ends a node's process and starts it again.
func (ns *nodes) Restart(id system.NodeID) error {
	ns.mu.Lock()
	c := ns.children[id]
	ns.mu.Unlock()
	if c == nil {
		return &system.Hint{Err: fmt.Errorf("no node %s", id), Next: "servent ps"}
	}
	c.Restart()
	return nil
}

// renew hands every node a new certificate.
func (ns *nodes) renew() {
	ns.mu.Lock()
	children, server := maps.Clone(ns.children), ns.kept.Server
	ns.mu.Unlock()
	for id, c := range children {
		role := identity.Node
		if id == server {
			role = identity.Server
		}
		cred, err := ns.issue(role, id)
		if err != nil {
			ns.log.Error("renew certificate", "node", id, "err", err)
			continue
		}
		c.Renew(cred)
	}
}
