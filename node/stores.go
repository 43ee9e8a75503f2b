package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"servent/architecture"
	"servent/control"
	"servent/driver"
	"servent/driver/inside"
	"servent/identity"
	"servent/link"
	"servent/route"
	"servent/store"
	"servent/system"
)

// headerStore names the instance whose store is asked by another node's.
const headerStore = "Servent-Store"

// stores joins the built-in databases of this node to their peers on other nodes.
type stores struct {
	node *Node

	mu    sync.Mutex // guards what follows
	open  map[system.InstanceID]http.Handler
	alone map[system.InstanceID]*store.Store // those that tell of changes
	terms map[system.InstanceID]*terms
	given map[system.InstanceID][]uint64 // their last fences, also of those that are closed
	view  *control.View                  // the newest one, and its table; nil: there was none yet
	table *route.Table
}

// start opens the database of an instance as its service's architecture wants it.
func (s *stores) start(spec driver.Spec, data string) (*inside.Program, error) {
	name, _, err := spec.Instance.Split()
	if err != nil {
		return nil, err
	}
	svc, err := s.service(name)
	if err != nil {
		return nil, err
	}
	o := store.Options{Name: string(spec.Instance), Read: store.Rule(svc.Read), Write: store.Rule(svc.Write), Log: s.node.log.With("instance", spec.Instance)}
	var lease *terms
	row, _ := architecture.Of(svc.Architecture)
	switch {
	case row.Circle():
		o.Cluster, o.OneCopy = &fellows{stores: s, service: name, self: spec.Instance, ring: true}, true
		o.NoCAS = "while an overlay mends itself two nodes may take themselves for a key's owner; single has compare-and-set"
	case svc.Architecture == system.Partitioned:
		o.Cluster, o.OneCopy = &fellows{stores: s, service: name, self: spec.Instance}, svc.Copies <= 1
		o.NoCAS = "while keys change their owner two instances may take themselves for it; with cas: true beside builtin: kv one orders all requests of a key, and single has compare-and-set anyway"
		if svc.CAS {
			lease = newTerms(s.node.cluster, name, spec.Instance, s.node.boot.ID, s.node.started, leaseFor)
			o.Lease, o.NoCAS = lease, ""
		}
	case svc.Architecture != system.Single:
		o.NoCAS = fmt.Sprintf("each instance of a %s service is a store of its own; single has compare-and-set", svc.Architecture)
	case !svc.Tied():
		o.NoCAS = "without data: hard two instances may run for a moment when one takes the other's place"
	}
	db, err := store.Open(data, o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.open[spec.Instance] = db.Peer()
	if svc.Architecture == system.Single {
		s.alone[spec.Instance] = db
		s.watch(spec.Instance, db, s.node.view.Load().Plan)
	}
	run := db.Run
	if lease != nil {
		if last := s.given[spec.Instance]; last != nil { // by an earlier life of the store under this node
			lease.last = last
		}
		s.given[spec.Instance] = lease.last
		s.terms[spec.Instance] = lease
		if s.view != nil {
			lease.follow(s.view, s.table)
		}
		run = func(ctx context.Context) error {
			var asking sync.WaitGroup
			defer asking.Wait()
			asking.Go(func() { lease.run(ctx) })
			return db.Run(ctx)
		}
	}
	s.mu.Unlock()
	return &inside.Program{Handler: db, Run: run, Check: db.Check, Close: func() error {
		s.mu.Lock()
		delete(s.open, spec.Instance)
		delete(s.alone, spec.Instance)
		delete(s.terms, spec.Instance)
		s.mu.Unlock()
		return db.Close()
	}}, nil
}

// follow tells every view to those that order keys by it.
func (s *stores) follow(v *control.View, table *route.Table) {
	s.mu.Lock() // until all have heard: none may hear of an older view later
	defer s.mu.Unlock()
	s.view, s.table = v, table
	for id, db := range s.alone {
		s.watch(id, db, v.Plan)
	}
	for _, t := range s.terms {
		t.follow(v, table)
	}
}

// service is as the newest plan has it. What a store is opened with is part of its [system.Service.Spec], so that a change
// opens it anew.
func (s *stores) service(name system.ServiceName) (*system.Service, error) {
	if plan := s.node.view.Load().Plan; plan != nil {
		if d := plan.Deployment(name); d != nil {
			return &d.Service, nil
		}
	}
	return nil, fmt.Errorf("the plan does not name %s", name)
}

func (s *stores) handler(id system.InstanceID) http.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id]
}

// serve answers another node's store.
func (s *stores) serve(w http.ResponseWriter, r *http.Request) {
	peer, ok := link.PeerFrom(r.Context())
	if !ok || peer.ID.Role != identity.Server && peer.ID.Role != identity.Node {
		s.node.deny(w, r, r.Header.Get(headerStore), errRole)
		return
	}
	id := system.InstanceID(r.Header.Get(headerStore))
	h := s.handler(id)
	if h == nil {
		http.Error(w, fmt.Sprintf("%s does not run here", id), http.StatusServiceUnavailable)
		return
	}
	turn, err := s.node.place.Serve(r.Context()) // a copy costs what a request costs
	if err != nil {
		return // the asker has gone
	}
	h.ServeHTTP(w, r)
	_ = turn.End(r.Context()) // the asker has gone
}

// fellows is the cluster of one instance's store: the instances of its service, as this node's table has them.
type fellows struct {
	stores  *stores
	service system.ServiceName
	self    system.InstanceID
	ring    bool // keys stand on a ring of ranges
	owners  atomic.Pointer[owners]
}

// owners are those of every partition under one locator.
type owners struct {
	of    route.Locator
	nodes map[system.InstanceID]system.NodeID
	all   []system.InstanceID
	each  [][]string
}

// now is the map of owners of the present table, or nil.
func (f *fellows) now() *owners {
	svc := f.stores.node.table.Load().Services[f.service]
	if svc == nil {
		return nil
	}
	have := f.owners.Load()
	if have != nil && have.of == svc.Locator {
		return have
	}
	have = &owners{of: svc.Locator, each: make([][]string, system.Partitions)}
	switch at := svc.Locator.(type) {
	case *route.Partitioned:
		have.nodes, have.all = at.Nodes, at.Parts.Instances
		for p := range have.each {
			for _, id := range at.Owners(p) {
				have.each[p] = append(have.each[p], string(id))
			}
		}
	case *route.Ring:
		have.nodes = at.Nodes
		for _, m := range at.Ranges {
			if !slices.Contains(have.all, m.Instance) {
				have.all = append(have.all, m.Instance)
			}
		}
		for p := range have.each {
			if len(at.Ranges) > 0 {
				have.each[p] = []string{string(f.near(at.Ranges, p))}
			}
		}
	default:
		return nil
	}
	f.owners.Store(have)
	return have
}

// near is the owner of a partition of a ring's circle. Where ranges meet in one, it is this instance for itself
// if one of them is its own, and so whatever the ring leads here is its own.
func (f *fellows) near(ring system.Places, partition int) system.InstanceID {
	first := uint64(partition) << partitionBits
	owners := ring.Between(first, first|(1<<partitionBits-1))
	if slices.Contains(owners, f.self) {
		return f.self
	}
	return owners[len(owners)-1]
}

// partitionBits are below a partition's number in a place on the circle of 2^64.
const partitionBits = 64 - 12

func (f *fellows) Partitions() int { return system.Partitions }

func (f *fellows) Partition(key string) int {
	if f.ring {
		return int(route.Place(route.Key(key)) >> partitionBits)
	}
	return route.Partition(route.Key(key))
}

func (f *fellows) Owners(partition int) []string {
	if now := f.now(); now != nil {
		return now.each[partition]
	}
	return nil
}

func (f *fellows) Peers() (all []string) {
	if now := f.now(); now != nil {
		for _, id := range now.all {
			if id != f.self {
				all = append(all, string(id))
			}
		}
	}
	return all
}

func (f *fellows) RoundTrip(peer string, r *http.Request) (*http.Response, error) {
	now, id, n := f.now(), system.InstanceID(peer), f.stores.node
	if now == nil || now.nodes[id] == "" {
		return nil, fmt.Errorf("%s is not in the plan", id)
	}
	if err := n.place.Pass(r.Context()); err != nil {
		return nil, err
	}
	if now.nodes[id] == n.boot.ID {
		return f.here(id, r)
	}
	if seen := n.table.Load(); !seen.Alive(now.nodes[id]) {
		return nil, fmt.Errorf("its node %s is not seen", now.nodes[id])
	}
	r.URL.Host = string(now.nodes[id])
	r.Header.Set(headerStore, peer)
	return n.http2.RoundTrip(r)
}

// here asks a store of this node.
func (f *fellows) here(id system.InstanceID, r *http.Request) (*http.Response, error) {
	h := f.stores.handler(id)
	if h == nil {
		return nil, errors.New("it does not run")
	}
	turn, err := f.stores.node.place.Serve(r.Context())
	if err != nil {
		return nil, err
	}
	w := &kept{status: http.StatusOK, header: http.Header{}}
	h.ServeHTTP(w, r)
	if err := turn.End(r.Context()); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), Request: r}, nil
}

// kept is an answer that stays in memory.
type kept struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
