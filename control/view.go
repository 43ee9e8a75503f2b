package control

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"servent/system"
)

// View is what a store says at one revision. It is never changed after it is handed out.
type View struct {
	Rev     Rev
	Wanted  *system.System // nil: nothing is wanted
	Plan    *system.Plan   // nil: there is none yet
	Planned Rev            // of the plan's last change; 0: there is none yet
	Seen    []system.Seen  // sorted by node
	Holders []system.Holder
	Events  []system.Event // oldest first

	Drains   []system.Drain  // nodes that are to be emptied
	Members  []system.Member // of a fleet, sorted by node; empty for who may not read them
	Expelled []system.Expelled

	Certificates []system.Certified // sorted by name
	Challenges   []system.Challenge // sorted by host

	// At are the revisions of the last change of each report and each service's plan, by key. What was deleted
	// has none.
	At map[string]Rev
	// Reads counts how often all was read anew, since the follower began: between the last view before such a
	// reading and the first one after it, others may have stood that nobody has shown.
	Reads int
}

// As is the condition that a report, or a service's plan, stands as it does in the view; also that it does not exist.
func (v *View) As(key string) Cond { return Cond{Key: key, Modified: v.At[key]} }

// Node returns what is seen of a node, or nil.
func (v *View) Node(id system.NodeID) *system.Seen {
	for i := range v.Seen {
		if v.Seen[i].Node == id {
			return &v.Seen[i]
		}
	}
	return nil
}

// Instance returns what is seen of an instance on a node, or nil.
func (v *View) Instance(node system.NodeID, id system.InstanceID) *system.InstanceSeen {
	seen := v.Node(node)
	if seen == nil {
		return nil
	}
	for i := range seen.Instances {
		if seen.Instances[i].Instance == id {
			return &seen.Instances[i]
		}
	}
	return nil
}

// folder folds batches into a view, decoding each value once.
type folder struct {
	rev     Rev
	wanted  wantedDoc
	plan    planDoc
	hasPlan bool
	want    map[system.ServiceName]system.Service
	deploy  map[system.ServiceName]system.Deployment
	seen    map[string]system.Seen
	holders map[string]system.Holder
	follows map[string]following
	events  map[string]system.Event
	drains  map[string]system.Drain
	members map[string]system.Member
	out     map[string]system.Expelled
	certs   map[string]system.Certified
	proofs  map[string]system.Challenge
	planned Rev            // of the plan's last change
	at      map[string]Rev // see [View]
	reads   int
	bad     map[string]error // keys that cannot be read
}

// list fills the folder with what stands now.
func (f *folder) list(ctx context.Context, s Store) error {
	kvs, rev, err := s.Range(ctx, "")
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	*f = folder{reads: f.reads, at: map[string]Rev{}, want: map[system.ServiceName]system.Service{}, deploy: map[system.ServiceName]system.Deployment{},
		bad: map[string]error{}, seen: map[string]system.Seen{}, follows: map[string]following{}, holders: map[string]system.Holder{}, events: map[string]system.Event{},
		drains: map[string]system.Drain{}, members: map[string]system.Member{}, out: map[string]system.Expelled{},
		certs: map[string]system.Certified{}, proofs: map[string]system.Challenge{}}
	b := Batch{Rev: rev}
	for _, kv := range kvs {
		b.Changes = append(b.Changes, Change{KV: kv})
	}
	f.apply(b)
	return nil
}

// apply reports whether the batch changed anything that a view shows.
func (f *folder) apply(b Batch) bool {
	changed := false
	f.rev = max(f.rev, b.Rev)
	for _, c := range b.Changes {
		changed = f.change(c) || changed
	}
	return changed
}

func (f *folder) change(c Change) bool {
	key := c.KV.Key
	under := func(prefix string) (string, bool) { return strings.CutPrefix(key, prefix) }
	var err error
	if key == wantedMeta {
		f.wanted, err = decode[wantedDoc](c)
	} else if key == planMeta {
		f.plan, err = decode[planDoc](c)
		f.hasPlan, f.planned = !c.Deleted, c.KV.Modified
		if c.Deleted {
			f.planned = 0
		}
	} else if name, ok := under(wantedService); ok {
		err = fold(f.want, system.ServiceName(name), c)
	} else if name, ok := under(planService); ok {
		err = fold(f.deploy, system.ServiceName(name), c)
	} else if name, ok := under(PrefixSeen); ok {
		err = fold(f.seen, name, c)
	} else if name, ok := under(PrefixFollow); ok {
		err = fold(f.follows, name, c)
	} else if name, ok := under(PrefixData); ok {
		err = fold(f.holders, name, c)
	} else if name, ok := under(PrefixEvent); ok {
		err = fold(f.events, name, c)
	} else if name, ok := under(PrefixDrain); ok {
		err = fold(f.drains, name, c)
	} else if name, ok := under(PrefixMember); ok {
		err = fold(f.members, name, c)
	} else if name, ok := under(PrefixExpelled); ok {
		err = fold(f.out, name, c)
	} else if name, ok := under(PrefixCertificate); ok {
		err = fold(f.certs, name, c)
	} else if name, ok := under(PrefixChallenge); ok {
		err = fold(f.proofs, name, c)
	} else {
		return false
	}
	if strings.HasPrefix(key, planService) || strings.HasPrefix(key, PrefixSeen) {
		f.at[key] = c.KV.Modified
		if c.Deleted {
			delete(f.at, key)
		}
	}
	delete(f.bad, key)
	if err != nil {
		f.bad[key] = fmt.Errorf("control key %s: %w", key, err)
	}
	return true
}

// spared are keys that a view may be made without.
var spared = []string{PrefixSeen, PrefixFollow, PrefixEvent, PrefixCertificate, PrefixChallenge}

// unreadable is why no view can be made. A report or an event that cannot be read is left out; without
// its part of the plan or the word of who holds data, a node would do harm.
func (f *folder) unreadable() error {
	for _, key := range slices.Sorted(maps.Keys(f.bad)) {
		if !slices.ContainsFunc(spared, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			return f.bad[key]
		}
	}
	return nil
}

func decode[T any](c Change) (v T, err error) {
	if !c.Deleted {
		err = json.Unmarshal(c.KV.Value, &v)
	}
	return v, err
}

func fold[K comparable, T any](m map[K]T, k K, c Change) error {
	if c.Deleted {
		delete(m, k)
		return nil
	}
	v, err := decode[T](c)
	if err == nil {
		m[k] = v
	}
	return err
}

// view is a copy: maps are read out in order, and values are shared but never written.
func (f *folder) view() (*View, error) {
	if err := f.unreadable(); err != nil {
		return nil, err
	}
	v := &View{Planned: f.planned, Rev: f.rev, At: maps.Clone(f.at), Reads: f.reads, Seen: ordered(f.seen), Holders: ordered(f.holders), Events: ordered(f.events),
		Drains: ordered(f.drains), Members: ordered(f.members), Expelled: ordered(f.out),
		Certificates: ordered(f.certs), Challenges: ordered(f.proofs)}
	for i := range v.Seen {
		v.Seen[i].Plan = f.follows[string(v.Seen[i].Node)].Plan
		if m, ok := f.members[string(v.Seen[i].Node)]; ok { // the fleet's word, not the node's own
			v.Seen[i].Labels = m.Labels
		}
		if _, ok := f.drains[string(v.Seen[i].Node)]; ok {
			v.Seen[i].Cordoned, v.Seen[i].Draining = true, true
		}
	}
	if len(f.wanted.System.Name) > 0 {
		sys := f.wanted.System
		for _, name := range f.wanted.Services {
			if s, ok := f.want[name]; ok {
				sys.Services = append(sys.Services, s)
			}
		}
		v.Wanted = &sys
	}
	if f.hasPlan {
		plan := f.plan.Plan
		for _, name := range f.plan.Services {
			if d, ok := f.deploy[name]; ok {
				plan.Services = append(plan.Services, d)
			}
		}
		v.Plan = &plan
	}
	return v, nil
}

func ordered[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
