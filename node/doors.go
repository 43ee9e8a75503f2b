package node

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/identity"
	"servent/request/proxy"
	"servent/route"
	"servent/system"
)

// doors are the public listeners of a node: the web door, one a service, and two for every instance:
// the peer door of one that runs elsewhere, and the next door of one that runs here. They follow the plan.
type doors struct {
	node *Node

	mu     sync.Mutex       // guards open and closed
	open   map[string]*door // by address
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
	names    bool // of the name server
	secure   bool // by TLS alone
	passed   bool // what published ports pass on
	heard    bool // proxies that the plan names say who their clients are
}

// webPort is where a machine that joined a fleet has the web door for its own users, if the file does not say.
const webPort = 18080

// published lists the ways in that a machine that joined a fleet has, as the first machine has them.
func published(p *system.Plan) map[string]opening {
	out := map[string]opening{}
	if p == nil {
		return out
	}
	heard := len(p.Web.Proxies()) > 0
	for i := range p.Services {
		s := &p.Services[i].Service
		if len(s.Routes) > 0 {
			web := cmp.Or(p.Web, &system.Web{})
			out[cmp.Or(web.HTTP, net.JoinHostPort("127.0.0.1", strconv.Itoa(webPort)))] = opening{by: system.ByRequest, heard: heard}
			if web.HTTPS != "" {
				out[web.HTTPS] = opening{by: system.ByRequest, secure: true, heard: heard}
			}
		}
		for _, port := range s.Ports {
			if port.Published > 0 {
				out[net.JoinHostPort(cmp.Or(port.Host, "127.0.0.1"), strconv.Itoa(port.Published))] = opening{service: s.Name, by: s.Switch.By, secure: port.TLS(), heard: heard}
			}
		}
	}
	return out
}

// wanted lists the doors that a plan asks of a node, by port offset.
func wanted(p *system.Plan, self system.NodeID) map[int]opening {
	out := map[int]opening{}
	if p == nil {
		return out
	}
	out[webOffset] = opening{by: system.ByRequest}
	if p.Names > 0 {
		out[p.Names] = opening{names: true}
	}
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

// inlets are the doors for what published ports pass on: of the services that have some, and the web door. Their keys are no addresses.
func inlets(p *system.Plan) map[string]opening {
	out := map[string]opening{}
	if p == nil {
		return out
	}
	out["passed on for the web door"] = opening{by: system.ByRequest, passed: true}
	for i := range p.Services {
		if s := &p.Services[i].Service; len(s.Ports) > 0 {
			out["passed on for "+string(s.Name)] = opening{service: s.Name, by: s.Switch.By, passed: true}
		}
	}
	return out
}

// takeIn takes what published ports pass on, until ctx ends.
func (n *Node) takeIn(ctx context.Context) error {
	ln, err := net.Listen("tcp", n.address(n.boot.Inlet))
	if err != nil {
		return err
	}
	return n.inlet.Serve(ctx, ln)
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

// named lists the ways in of services that are switched by name, at the ports that the file publishes: on an emulated node
// that has an address of its own. The machine itself has the same ports on 127.0.0.1.
func named(p *system.Plan, host string) map[string]opening {
	out := map[string]opening{}
	if p == nil || host == "127.0.0.1" {
		return out
	}
	for i := range p.Services {
		s := &p.Services[i].Service
		for _, port := range s.Ports {
			if s.Switch.By == system.ByName && port.Published > 0 && (port.Host == "" || port.Host == "127.0.0.1") {
				out[net.JoinHostPort(host, strconv.Itoa(port.Published))] = opening{service: s.Name, by: s.Switch.By}
			}
		}
	}
	return out
}

// set opens and closes doors until they are those of the plan. A port that somebody else holds is
// reported and tried again.
func (ds *doors) set(ctx context.Context, p *system.Plan) {
	want := map[string]opening{}
	for offset, what := range wanted(p, ds.node.boot.ID) {
		want[ds.node.address(offset)] = what
	}
	if ds.node.boot.Inlet > 0 {
		maps.Copy(want, inlets(p))
	}
	if b := &ds.node.boot; !b.Emulated && (b.Role == identity.Node || b.Joined && b.Role == identity.Server) { // the first machine's are held by who started it
		maps.Copy(want, published(p))
	} else if b.Emulated {
		maps.Copy(want, named(p, b.Host))
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.closed {
		return
	}
	for addr, d := range ds.open {
		if want[addr] != d.what {
			d.cancel()
			delete(ds.open, addr)
		}
	}
	for addr, what := range want {
		if d := ds.open[addr]; d != nil {
			d.inside.Store(private(p, what))
			continue
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		d := &door{what: what, cancel: cancel}
		d.inside.Store(private(p, what))
		ds.open[addr] = d
		ds.wg.Go(func() { ds.serve(ctx, addr, d) })
	}
}

// serve opens one door and keeps it open. The port may be another door's or an instance's that is just
// leaving: it is tried again for as long as the door is wanted.
func (ds *doors) serve(ctx context.Context, addr string, d *door) {
	what, told := d.what, false
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		var ln net.Listener
		var err error
		if what.names {
			err = ds.node.dns.Serve(ctx, addr, nil)
		} else if what.passed {
			err = ds.answer(ctx, ds.node.inlet.Door(string(what.service), passedTo(addr)), d)
		} else if ln, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err == nil {
			wait, told = 20*time.Millisecond, false
			if what.heard {
				ln = proxy.Behind(ln, ds.node.proxies)
			}
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

// passedTo is the address of a door that has none.
type passedTo string

func (passedTo) Network() string  { return "tcp" }
func (p passedTo) String() string { return string(p) }

func (ds *doors) answer(ctx context.Context, ln net.Listener, d *door) error {
	n, what := ds.node, d.what
	to := func(t *route.Table) (route.Instance, bool) {
		if what.next {
			return t.Next(what.instance)
		}
		return t.Instance(what.instance)
	}
	if what.by != system.ByRequest { // who came by a name is joined to the instance as by connection
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
		h = n.shelf.Front(n.l7.Web(), n.redirect, func(peer string) bool { return n.table.Load().Trusts(peer) })
	}
	if what.secure {
		return n.l7.ServeTLS(ctx, ln, n.waits(d, h))
	}
	return n.l7.Serve(ctx, ln, n.waits(d, h))
}

// proxies are those whose connections begin with a header of the PROXY protocol, by the plan.
func (n *Node) proxies() []netip.Prefix {
	if p := n.view.Load().Plan; p != nil {
		return p.Web.Proxies()
	}
	return nil
}

// redirect is the port that the plan sends those to who come to the web door without TLS.
func (n *Node) redirect() (port string, ok bool) {
	if p := n.view.Load().Plan; p != nil && p.Web != nil && p.Web.Redirect {
		_, port, _ = net.SplitHostPort(p.Web.HTTPS)
	}
	return port, port != ""
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
