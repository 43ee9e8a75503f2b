package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"servent/system"
)

// Keys begin with these. What is wanted and planned stands in several keys, one a service, so that no
// value nears the bound and a change names what changed.
const (
	PrefixWanted = "wanted/"
	PrefixPlan   = "plan/"
	PrefixSeen   = "seen/"
	PrefixFollow = "follow/" // which plan a node follows, beside its report: all nodes hear reports, and this only who asks how far a change has come
	PrefixData   = "data/"   // who holds which data
	PrefixEvent  = "event/"

	PrefixCertificate = "certificate/" // what the doors speak TLS with, sealed
	PrefixChallenge   = "challenge/"   // of authorities outside, by host

	Seat = "conductor" // the key that the leading conductor holds

	wantedMeta    = PrefixWanted + "system"
	wantedService = PrefixWanted + "service/"
	planMeta      = PrefixPlan + "meta"
	planService   = PrefixPlan + "service/"
)

// Cluster gives a store's keys their words.
type Cluster struct{ Store }

// Read returns the present view.
func (c Cluster) Read(ctx context.Context) (*View, error) {
	var f folder
	if err := f.list(ctx, c.Store); err != nil {
		return nil, err
	}
	return f.view()
}

// Follow calls each with the present view and with every later one until ctx ends (nil) or each fails.
// While the store is unavailable, or holds what cannot be read, the last view stands; Follow goes on by
// itself and calls trouble, if not nil, once per outage. Views may be skipped, never reordered.
func (c Cluster) Follow(ctx context.Context, trouble func(error), each func(*View) error) error {
	const first, longest = 50 * time.Millisecond, time.Second
	wait, told := first, false
	for reads := 1; ; reads++ {
		f := folder{reads: reads}
		var failed error // of each: no outage
		show := func() error {
			v, err := f.view()
			if err == nil {
				failed = each(v)
			} else if trouble != nil {
				trouble(err)
			}
			return failed
		}
		err := f.list(ctx, c.Store)
		if err == nil {
			wait, told = first, false
			err = show()
		}
		if err == nil {
			err = c.Watch(ctx, "", f.rev+1, func(b Batch) error {
				if !f.apply(b) {
					return nil
				}
				return show()
			})
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return failed
		case errors.Is(err, ErrCompacted): // fell behind: read again
		case trouble != nil && !told:
			told = true
			trouble(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, longest)
		}
	}
}

// meta of a system: all but its services.
type wantedDoc struct {
	System   system.System        `json:"system"`
	Services []system.ServiceName `json:"services"`
}

// Want replaces what is wanted, whole, whatever it was before. Of two at once the later one stands.
func (c Cluster) Want(ctx context.Context, sys *system.System) (Rev, error) {
	for {
		old, _, err := c.Range(ctx, PrefixWanted)
		if err != nil {
			return 0, fmt.Errorf("say what is wanted: %w", err)
		}
		doc := wantedDoc{System: *sys}
		doc.System.Services = nil
		txn := Txn{Conds: []Cond{standsAs(wantedMeta, old)}}
		keep := map[string]bool{wantedMeta: true}
		for i := range sys.Services {
			s := &sys.Services[i]
			doc.Services = append(doc.Services, s.Name)
			keep[wantedService+string(s.Name)] = true
			txn.put(wantedService+string(s.Name), s, old)
		}
		for _, kv := range old {
			if !keep[kv.Key] {
				txn.Ops = append(txn.Ops, Op{Key: kv.Key, Delete: true})
			}
		}
		txn.put(wantedMeta, doc, nil)
		rev, ok, err := c.Commit(ctx, txn)
		if err != nil {
			return 0, fmt.Errorf("say what is wanted: %w", err)
		}
		if ok {
			return rev, nil
		}
	}
}

// Unwant removes what is wanted: everything stops. Data and their holders stay.
func (c Cluster) Unwant(ctx context.Context) error {
	for {
		old, _, err := c.Range(ctx, PrefixWanted)
		if err != nil {
			return fmt.Errorf("want nothing: %w", err)
		}
		txn := Txn{Conds: []Cond{standsAs(wantedMeta, old)}}
		for _, kv := range old {
			txn.Ops = append(txn.Ops, Op{Key: kv.Key, Delete: true})
		}
		_, ok, err := c.Commit(ctx, txn)
		if err != nil {
			return fmt.Errorf("want nothing: %w", err)
		}
		if ok {
			return nil
		}
	}
}

// standsAs holds while the key stands as it does in kvs.
func standsAs(key string, kvs []KV) Cond {
	for _, kv := range kvs {
		if kv.Key == key {
			return Cond{Key: key, Modified: kv.Modified}
		}
	}
	return Cond{Key: key}
}

type planDoc struct {
	Plan     system.Plan          `json:"plan"` // without services
	Services []system.ServiceName `json:"services"`
}

// WritePlan replaces the plan and adds holders and events, all under the fence. It returns false when the
// fence is no longer the leader's, or the plan is not the one that stood in the view: a write whose answer
// was lost may have come late. All is one transaction while that is within a store's bounds; if not, holders go
// before the plan, so that no data is ever without its word, and events after it.
func (c Cluster) WritePlan(ctx context.Context, f Fence, stood *View, next *system.Plan, holders []system.Holder, events []system.Event) (bool, error) {
	var before, plan, after Txn
	old := stood.Plan
	doc := planDoc{Plan: *next}
	doc.Plan.Services = nil
	for i := range next.Services {
		d := &next.Services[i]
		doc.Services = append(doc.Services, d.Service.Name)
		if old != nil {
			if was := old.Deployment(d.Service.Name); was != nil && same(was, d) {
				continue
			}
		}
		plan.put(PlanKey(d.Service.Name), d, nil)
	}
	if old != nil {
		for _, d := range old.Services {
			if !slices.Contains(doc.Services, d.Service.Name) {
				plan.Ops = append(plan.Ops, Op{Key: planService + string(d.Service.Name), Delete: true})
			}
		}
	}
	if old == nil || !same(old, next) {
		plan.put(planMeta, doc, nil)
	}
	for _, h := range holders {
		before.put(PrefixData+string(h.Instance), h, nil)
	}
	for i, e := range events {
		after.put(fmt.Sprintf("%s%020d-%03d", PrefixEvent, e.Time.UnixNano(), i), e, nil)
	}
	conds := []Cond{f.Cond(), {Key: planMeta, Modified: stood.Planned}}
	for _, ops := range parts(before.Ops, plan.Ops, after.Ops) {
		if _, ok, err := c.Commit(ctx, Txn{Conds: conds, Ops: ops}); err != nil {
			return false, fmt.Errorf("write plan %d: %w", next.Generation, err)
		} else if !ok {
			return false, nil
		}
		if slices.ContainsFunc(ops, func(op Op) bool { return op.Key == planMeta }) {
			conds = conds[:1]
		}
	}
	return true, nil
}

// parts are the operations of each transaction: one if all fit, else before and after in as many as it
// takes and plan in one. A plan is never split: no node may see half of one.
func parts(before, plan, after []Op) [][]Op {
	all := slices.Concat(before, plan, after)
	switch {
	case len(all) == 0:
		return nil
	case Txn{Ops: all}.Check() == nil:
		return [][]Op{all}
	}
	const few = MaxTxn / MaxValue / 2 // so many operations are never too large
	out := slices.Collect(slices.Chunk(before, few))
	if len(plan) > 0 {
		out = append(out, plan)
	}
	return slices.AppendSeq(out, slices.Chunk(after, few))
}

// TrimEvents deletes all but the newest keep events, unless the fence is no longer the leader's.
func (c Cluster) TrimEvents(ctx context.Context, f Fence, keep int) error {
	kvs, _, err := c.Range(ctx, PrefixEvent)
	if err != nil {
		return fmt.Errorf("trim events: %w", err)
	}
	old := kvs[:max(0, len(kvs)-keep)]
	for some := range slices.Chunk(old, MaxOps) {
		txn := Txn{Conds: []Cond{f.Cond()}}
		for _, kv := range some {
			txn.Ops = append(txn.Ops, Op{Key: kv.Key, Delete: true})
		}
		if _, ok, err := c.Commit(ctx, txn); err != nil {
			return fmt.Errorf("trim events: %w", err)
		} else if !ok {
			return nil
		}
	}
	return nil
}

// Report says what a node sees of itself, under its lease.
//
// was is what it said last under this lease, nil at first: only what differs is written. The
// revision is that of the change, 0 when there was none.
func (c Cluster) Report(ctx context.Context, was, seen *system.Seen, lease LeaseID) (Rev, error) {
	txn := Txn{}
	if is := unplanned(seen); was == nil || !bytes.Equal(unplanned(was), is) {
		txn.Ops = append(txn.Ops, Op{Key: SeenKey(seen.Node), Value: is, Lease: lease})
	}
	if was == nil || was.Plan != seen.Plan {
		txn.put(FollowKey(seen.Node), following{seen.Node, seen.Role, seen.Plan}, nil)
		txn.Ops[len(txn.Ops)-1].Lease = lease
	}
	if len(txn.Ops) == 0 {
		return 0, nil
	}
	rev, _, err := c.Commit(ctx, txn)
	return rev, err
}

// following is a node's word of which plan it follows. Its fields are named as those of its report.
type following struct {
	Node system.NodeID `json:"node"`
	Role string        `json:"role"`
	Plan int64         `json:"plan"`
}

// unplanned is a report as it is kept.
func unplanned(seen *system.Seen) []byte {
	is := *seen
	is.Plan = 0
	text, err := json.Marshal(is)
	if err != nil {
		panic("control: a report cannot be written as JSON: " + err.Error())
	}
	return text
}

// Bury deletes a node's report: it is known to be dead before its lease has ended.
func (c Cluster) Bury(ctx context.Context, f Fence, node system.NodeID) error {
	_, _, err := c.Commit(ctx, Txn{Conds: []Cond{f.Cond()}, Ops: []Op{{Key: SeenKey(node), Delete: true}, {Key: FollowKey(node), Delete: true}}})
	return err
}

// Certify stores a certificate in its place.
func (c Cluster) Certify(ctx context.Context, cert system.Certified) (Rev, error) {
	return c.set(ctx, PrefixCertificate+cert.Name, cert)
}

// Uncertify removes a certificate.
func (c Cluster) Uncertify(ctx context.Context, name string) (Rev, error) {
	return c.unset(ctx, PrefixCertificate+name)
}

// Challenge stores what an authority asks for; there is one a host at a time.
func (c Cluster) Challenge(ctx context.Context, ch system.Challenge) error {
	_, err := c.set(ctx, PrefixChallenge+ch.Host, ch)
	return err
}

// Unchallenge removes it.
func (c Cluster) Unchallenge(ctx context.Context, host string) error {
	_, err := c.unset(ctx, PrefixChallenge+host)
	return err
}

func (c Cluster) set(ctx context.Context, key string, v any) (Rev, error) {
	rev, _, err := c.Commit(ctx, Txn{Ops: []Op{{Key: key, Value: encode(v)}}})
	return rev, err
}

func (c Cluster) unset(ctx context.Context, key string) (Rev, error) {
	rev, _, err := c.Commit(ctx, Txn{Ops: []Op{{Key: key, Delete: true}}})
	return rev, err
}

// Forget removes the word that a node holds an instance's data.
func (c Cluster) Forget(ctx context.Context, id system.InstanceID) error {
	_, err := c.unset(ctx, PrefixData+string(id))
	return err
}

// FollowKey is the key of a node's word of which plan it follows.
func FollowKey(node system.NodeID) string { return PrefixFollow + string(node) }

// SeenKey is the key of a node's report; a store's server lets the node write no other but that of [FollowKey].
func SeenKey(node system.NodeID) string { return PrefixSeen + string(node) }

// PlanKey is the key of a service's part of the plan.
func PlanKey(service system.ServiceName) string { return planService + string(service) }

// PlannedBy is the service whose part of the plan a key is; false: it is none's.
func PlannedBy(key string) (system.ServiceName, bool) {
	name, ok := strings.CutPrefix(key, planService)
	return system.ServiceName(name), ok
}

// PlanHead says whether a key is that of what a plan says of all services: which there are, and behind which doors.
func PlanHead(key string) bool { return key == planMeta }

// NarrowPlan leaves only some services in the value of [PlanHead]'s key.
func NarrowPlan(value []byte, keep func(system.ServiceName) bool) ([]byte, error) {
	var doc planDoc
	if err := json.Unmarshal(value, &doc); err != nil {
		return nil, err
	}
	doc.Services = slices.DeleteFunc(doc.Services, func(s system.ServiceName) bool { return !keep(s) })
	doc.Plan.Doors = slices.DeleteFunc(doc.Plan.Doors, func(d system.Door) bool { return !keep(d.Service) })
	doc.Plan.Refused, doc.Plan.Web = nil, nil
	return encode(doc), nil
}

// put adds a value to a transaction unless it stands so in old.
func (t *Txn) put(key string, v any, old []KV) {
	b := encode(v)
	for _, kv := range old {
		if kv.Key == key && bytes.Equal(kv.Value, b) {
			return
		}
	}
	t.Ops = append(t.Ops, Op{Key: key, Value: b})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("control: a word of ours cannot be written as JSON: " + err.Error())
	}
	return b
}

func same(a, b any) bool { return bytes.Equal(encode(a), encode(b)) }
