package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"servent/route"
	"servent/system"
)

// doors are the public listeners of a node: the web door, one a service, and two for every instance:
// the peer door of one that runs elsewhere, and the next door of one that runs here. They follow the plan.
type doors struct {
	node *Node

	mu     sync.Mutex // guards open and closed
	open   map[int]*door
	closed bool
	wg     sync.WaitGroup
}

type door struct {
	what   opening
	inside atomic.Bool // only programs of this node ask here
	cancel context.CancelFunc
}

// opening is what a door is for.
type opening struct {
	service  system.ServiceName // empty: the web door
	instance system.InstanceID  // of a peer or next door
	next     bool
	by       system.By
}

// wanted lists the doors that a plan asks of a node, by port offset.
func wanted(p *system.Plan, self system.NodeID) map[int]opening {
	out := map[int]opening{}
	if p == nil {
		return out
	}
	out[webOffset] = opening{by: system.ByRequest}
	for _, d := range p.Services {
		by := d.Service.Switch.By
		if offset, ok := p.Door(d.Service.Name); ok {
			out[offset] = opening{service: d.Service.Name, by: by}
		}
		for _, a := range d.Assignments {
			if a.Node == self {
				out[a.Port+1] = opening{service: d.Service.Name, instance: a.Instance, next: true, by: by}
			} else {
				out[a.Port] = opening{service: d.Service.Name, instance: a.Instance, by: by}
			}
		}
	}
	return out
}

// private says that only programs of the node ask at a door: nobody outside reaches the service, or the door
// leads to one instance.
func private(p *system.Plan, o opening) bool {
	if o.service == "" || o.instance != "" {
		return o.instance != ""
	}
	d := p.Deployment(o.service)
	return d != nil && !d.Service.Public()
}

// set opens and closes doors until they are those of the plan. A port that somebody else holds is
// reported and tried again.
func (ds *doors) set(ctx context.Context, p *system.Plan) {
	want := wanted(p, ds.node.boot.ID)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.closed {
		return
	}
	for offset, d := range ds.open {
		if want[offset] != d.what {
			d.cancel()
			delete(ds.open, offset)
		}
	}
	for offset, what := range want {
		if d := ds.open[offset]; d != nil {
			d.inside.Store(private(p, what))
			continue
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		d := &door{what: what, cancel: cancel}
		d.inside.Store(private(p, what))
		ds.open[offset] = d
		ds.wg.Go(func() { ds.serve(ctx, offset, d) })
	}
}

// serve opens one door and keeps it open. The port may be another door's or an instance's that is just
// leaving: it is tried again for as long as the door is wanted.
func (ds *doors) serve(ctx context.Context, offset int, d *door) {
	what := d.what
	addr, told := ds.node.address(offset), false
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			wait, told = 20*time.Millisecond, false
			err = ds.answer(ctx, ln, d)
		}
		if ctx.Err() != nil {
			return
		}
		if wait >= time.Second && !told { // once: somebody else has the port
			told = true
			ds.node.log.Warn("door", "addr", addr, "service", what.service, "instance", what.instance, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (ds *doors) answer(ctx context.Context, ln net.Listener, d *door) error {
	n, what := ds.node, d.what
	to := func(t *route.Table) (route.Instance, bool) {
		if what.next {
			return t.Next(what.instance)
		}
		return t.Instance(what.instance)
	}
	if what.by == system.ByConnection {
		if what.instance != "" {
			return n.l4.ServeTo(ctx, ln, to)
		}
		return n.l4.Serve(ctx, ln, what.service)
	}
	var h http.Handler
	switch {
	case what.instance != "":
		h = n.l7.To(to)
	case what.service != "":
		h = n.l7.Door(what.service)
	default:
		h = n.l7.Web()
	}
	return n.l7.Serve(ctx, ln, n.waits(d, h))
}

// waits tells the node's station of a program that waits for an answer: it is not slow meanwhile.
func (n *Node) waits(d *door, h http.Handler) http.Handler {
	if n.place == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.inside.Load() {
			defer n.place.Call()()
		}
		h.ServeHTTP(w, r)
	})
}

// close closes every door, gives open requests their grace, and waits.
func (ds *doors) close() {
	ds.mu.Lock()
	ds.closed = true
	for _, d := range ds.open {
		d.cancel()
	}
	ds.mu.Unlock()
	ds.wg.Wait()
}
