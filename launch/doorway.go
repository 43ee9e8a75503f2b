package launch

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"servent/blob"
	"servent/fleet"
	"servent/identity"
	"servent/link"
	"servent/system"
)

// doorway is a fleet's door that a server holds beside the first machine's: machines join there, renew their certificates and leave while that one is away.
// Commands go to the first machine alone.
type doorway struct {
	r   *membership
	own system.NodeID
	us  *operator
}

const doorAgain = 10 * time.Second // that it is tried again: the server may not have the authority yet, or somebody else the port

// hold keeps the door open until ctx ends.
func (r *membership) hold(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		if err := r.open(ctx); err != nil && ctx.Err() == nil && !told {
			told = true
			r.o.Log.Warn("this server holds no door of the fleet", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(doorAgain):
		}
	}
}

// open serves until ctx ends; the error says why it could not.
func (r *membership) open(ctx context.Context) error {
	r.mu.Lock()
	m := r.m
	r.mu.Unlock()
	ca, err := identity.ParseAuthority(m.Authority)
	if err != nil {
		return fmt.Errorf("the fleet has not given it its authority: %w", err)
	}
	d := &doorway{r: r, own: m.Credential.ID.Node}
	// The name is its own: two of one name would be one to who knows them.
	if d.us, err = newOperator("door-"+d.own, m.Credential.ID.Cluster, ca, d.servers, d.resolve, r.o.Log); err != nil {
		return err
	}
	defer d.us.http2.CloseIdleConnections()
	ln, err := net.Listen("tcp", fleet.Address(m.Host))
	if err != nil {
		return err
	}
	door := &fleet.Door{Cluster: d.us.control, Authority: ca, Keeper: d.us.keep, Sessions: m.Sessions, Servers: d.list, Blobs: &blob.Store{Dir: r.o.Folder.Blobs()}, Log: r.o.Log,
		Audit: r.audit.write}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	all.Go(func() { every(ctx, renewEvery, func(now time.Time) { d.us.renew(now) }) })
	return door.Serve(ctx, ln)
}

// list are the servers as this one was told of them.
func (d *doorway) list() []fleet.Server {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	return d.r.m.Servers
}

// servers are they, this machine's own node first.
func (d *doorway) servers() []system.NodeID {
	ids := []system.NodeID{d.own}
	for _, s := range d.list() {
		if s.Node != d.own {
			ids = append(ids, s.Node)
		}
	}
	return ids
}

// resolve is a [link.Resolver].
func (d *doorway) resolve(id system.NodeID) (link.Address, bool) {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	if own := &d.r.m; id == d.own {
		return link.Address{Host: net.JoinHostPort(own.Host, fmt.Sprint(own.PortBase)), Site: own.Site}, true
	}
	for _, s := range d.r.m.Servers {
		if s.Node == id {
			return link.Address{Host: s.Link, Site: s.Site}, true
		}
	}
	return link.Address{}, false
}
