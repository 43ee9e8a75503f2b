package node

import (
	"context"
	"errors"
	"time"

	"servent/control"
	"servent/system"
)

const (
	leaseTTL   = 3 * time.Second // silence after which a node counts as gone
	leaseEvery = time.Second
	tryFirst   = 100 * time.Millisecond // between two tries while control is away
	tryMost    = time.Second
	lastWord   = 500 * time.Millisecond // that a node that leaves takes to say so
)

// present keeps this node's report under a lease until ctx ends, and makes a new lease whenever one is lost.
func (n *Node) present(ctx context.Context) error {
	drivers := n.probe(ctx)
	told, wait := false, tryFirst
	for ctx.Err() == nil {
		reported, err := n.underLease(ctx, drivers)
		if reported {
			told, wait = false, tryFirst
		}
		if ctx.Err() != nil {
			break
		}
		if !told { // once an outage
			n.log.Warn("nobody hears that this node is there", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, tryMost)
		}
	}
	return nil
}

// underLease makes a lease and reports under it whenever something changed, until the lease is lost,
// control does not take a report, or ctx ends: then it takes its word back. reported says that others
// have heard of this node.
func (n *Node) underLease(ctx context.Context, drivers map[string]string) (reported bool, err error) {
	lease, err := n.cluster.Grant(ctx, leaseTTL)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		if err := control.KeepAlive(ctx, n.cluster, lease, leaseEvery); err != nil {
			cancel(err)
		}
	}()
	defer func() {
		cancel(nil)
		<-kept
		leave, done := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
		defer done()
		_ = n.cluster.Revoke(leave, lease) // else it ends by itself
	}()
	var said *system.Seen
	var at control.Rev // when it was said
	for {
		changed, planned := n.agent.Changed(), n.news.wait()
		seen := n.seen(drivers)
		for wait := tryFirst; ; wait = min(2*wait, tryMost) {
			var rev control.Rev
			if rev, err = n.cluster.Report(ctx, said, seen, lease); err == nil {
				at = max(at, rev)
			}
			if err == nil || !errors.Is(err, control.ErrUnavailable) {
				break
			}
			select { // the lease may outlive the outage: then nobody ever missed this node
			case <-ctx.Done():
				return reported, context.Cause(ctx)
			case <-time.After(wait):
			}
		}
		if err != nil {
			return reported, err
		}
		reported, said = true, seen
		for old := seen.Plan; old == seen.Plan; {
			select {
			case <-ctx.Done():
				return reported, context.Cause(ctx)
			case <-changed:
				old = -1
			case <-n.reword:
				old = -1
			case <-planned:
				planned = n.news.wait()
				if v := n.view.Load(); v.Rev >= at && v.Node(n.boot.ID) == nil { // it was taken for dead, and is not
					said, old = nil, -1
				} else if n.generation() != seen.Plan {
					old = -1
				}
			}
		}
	}
}

func (n *Node) generation() int64 {
	if p := n.view.Load().Plan; p != nil {
		return p.Generation
	}
	return 0
}

// seen is what this node says of itself.
func (n *Node) seen(drivers map[string]string) *system.Seen {
	return &system.Seen{
		Node: n.boot.ID, Role: string(n.boot.Role), Site: n.boot.Site, Group: n.boot.Group,
		Address: n.boot.Host, PortBase: n.boot.PortBase, Link: n.linkAddress(),
		Emulated: n.boot.Emulated, Capacity: n.boot.Capacity, Labels: n.boot.Labels, Resources: n.boot.Resources,
		Drivers: drivers, Started: n.started, Plan: n.generation(), Instances: n.agent.Seen(),
		Demand: *n.demand.Load(), Prepared: n.agent.Prepared(), Moving: n.keys.Moving(), Alarms: *n.alarms.now.Load(),
	}
}

// probe asks every driver what it can do here.
func (n *Node) probe(ctx context.Context) map[string]string {
	out := map[string]string{}
	for kind, d := range n.drivers() {
		caps := d.Probe(ctx)
		out[string(kind)] = ""
		if !caps.OK {
			out[string(kind)] = caps.Reason
		}
	}
	return out
}
