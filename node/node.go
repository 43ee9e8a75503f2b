package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/agent"
	"servent/blob"
	"servent/conductor"
	"servent/control"
	"servent/control/etcd"
	"servent/driver/container"
	"servent/driver/process"
	"servent/identity"
	"servent/link"
	"servent/meter"
	"servent/request/certificate"
	"servent/request/dns"
	"servent/request/handover"
	"servent/request/l4"
	"servent/request/l7"
	"servent/request/proxy"
	"servent/route"
	"servent/store"
	"servent/system"
)

const (
	linkOffset = 0
	webOffset  = 1
	holdFor    = 10 * time.Second // a request waits for an instance that is coming
	othersHear = time.Second      // until every other node's table leaves out one that is gone
)

// Options of [Run].
type Options struct {
	EtcdVerb    string // first argument that makes this program control's engine
	ConnectVerb string // first argument that makes it join its standard input and output to an address, which follows; empty: virtual machines reach no door
	Log         *slog.Logger
	Tell        func(Told) // called by several goroutines
}

// Node is one servent process with everything in it.
type Node struct {
	boot      Boot
	opt       Options
	log       *slog.Logger
	keep      *identity.Keeper
	link      *link.Secure
	http1     *link.Transport // to other nodes' instances
	http2     *link.Transport // to servers
	process   *process.Driver
	agent     *agent.Agent
	container *container.Driver
	l7        *l7.Switch
	l4        *l4.Switch
	dns       *dns.Server
	shelf     *certificate.Shelf
	inlet     *proxy.Inlet
	meter     *meter.Book
	calls     *route.Calls
	keys      *handover.Keeper
	bundles   bundles
	place     *link.Station
	doors     doors
	overlays  *overlays
	stores    *stores
	servers   *servers
	alarms    *alarms
	sole      *etcd.Store     // the engine of emulated nodes' server; nil: there is none here
	voter     *voter          // of a fleet's server; nil: another has the engine, or it is alone
	cluster   control.Cluster // set by openControl
	started   time.Time

	shunned map[identity.Pin]bool // of follow alone

	zone  atomic.Pointer[dns.Zone]
	table atomic.Pointer[route.Table]
	news  news // of table
	view  atomic.Pointer[control.View]

	demand atomic.Pointer[[]system.Demand] // what others are told of calls; never nil
	reword chan struct{}                   // of capacity 1: what this node says of itself changed
}

// Run is a node's whole life: it returns nil after a clean stop, when ctx ends or the channel of words
// closes, because who started it ended or wants it to end.
func Run(ctx context.Context, boot Boot, words <-chan Word, o Options) error {
	n, err := build(boot, o)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", n.linkAddress())
	if err != nil {
		return fmt.Errorf("open the link: %w", err)
	}
	left, err := n.process.Sweep(ctx)
	contained, err2 := n.container.Sweep(ctx)
	left = append(left, contained...)
	if err := errors.Join(err, err2); err != nil {
		ln.Close()
		return fmt.Errorf("end what an earlier life left running: %w", err)
	}
	if len(left) > 0 {
		n.log.Warn("ended what an earlier life left running", "instances", left)
	}
	defer n.process.Close()
	defer n.container.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n.suffer(boot.Faults)
	go n.obey(words, stop) // ends with the process: its channel closes when who started us ends
	return n.run(ctx, ln)
}

// obey follows the words that come after the boot line.
func (n *Node) obey(words <-chan Word, stop func()) {
	for w := range words {
		if w.Faults != nil {
			n.suffer(*w.Faults)
		}
		if w.Servers != nil {
			n.servers.tell(w.Servers)
		}
		if w.Credential == nil {
			continue
		}
		if err := n.keep.Set(*w.Credential); err != nil {
			n.log.Error("take the new certificate", "err", err)
		}
	}
	stop()
}

// suffer makes faults those of the link, and says so.
func (n *Node) suffer(f Faults) {
	n.link.SetFaults(f.To)
	n.opt.Tell(Told{Heard: f.Turn})
}

// build makes the parts and joins them; nothing runs yet.
func build(boot Boot, o Options) (*Node, error) {
	n := &Node{boot: boot, opt: o, log: o.Log, meter: &meter.Book{}, calls: route.NewCalls(), reword: make(chan struct{}, 1), started: time.Now()}
	n.news.init()
	n.table.Store(&route.Table{Self: boot.ID})
	n.view.Store(&control.View{})
	n.demand.Store(new([]system.Demand))
	n.servers, n.alarms = newServers(boot, o.Log), newAlarms(n)
	var err error
	if n.keep, err = identity.NewKeeper(boot.Credential); err != nil {
		return nil, err
	}
	if boot.Emulated && boot.Capacity.Rate > 0 {
		n.place = link.NewStation(boot.Capacity)
	}
	n.link = link.New(link.Options{Identity: n.keep, Resolve: n.resolve, Emulation: link.Emulate(boot.Group, boot.Groups), Log: n.log, Admit: n.admit})
	n.http1, n.http2 = link.HTTPTransport(n.link, link.HTTPOptions{}), link.HTTP2Transport(n.link)
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n.process = process.New(process.Options{StateDir: boot.Dir, Self: exe, Log: n.log})
	n.container = container.New(container.Options{Blobs: boot.Blobs, StateDir: boot.Dir, Log: n.log})
	n.stores = &stores{node: n, open: map[system.InstanceID]http.Handler{}, alone: map[system.InstanceID]*store.Store{}, terms: map[system.InstanceID]*terms{}, given: map[system.InstanceID][]uint64{}}
	n.bundles.node, n.bundles.store = n, &blob.Store{Dir: boot.Blobs}
	n.agent = agent.New(agent.Options{
		Node: boot.ID, Site: boot.Site, Host: boot.Host, PortBase: boot.PortBase, Dir: boot.Dir,
		Drivers:  n.drivers(),
		Bundle:   n.bundles.Bundle,
		Blob:     n.bundles.Open,
		Inflight: func(id system.InstanceID) int { return n.l7.Inflight(id) + n.l4.Inflight(id) + n.keys.Owed(id) },
		BaseEnv:  process.BaseEnv(os.Environ()),
		Log:      n.log,
	})
	n.keys = handover.New(handover.Options{Self: boot.ID, Table: n.table.Load, Changed: n.news.wait, Local: n.agent.Endpoint,
		Remote: func(system.NodeID) http.RoundTripper { return n.http2 }, Station: n.place, Told: n.again, Log: n.log})
	if n.shelf, err = certificate.NewShelf(boot.Sessions, n.log); err != nil {
		return nil, err
	}
	passed, err := proxy.NewKey(boot.Sessions)
	if err != nil {
		return nil, err
	}
	n.inlet = proxy.NewInlet(passed, n.log)
	n.l7 = l7.New(l7.Options{Self: boot.ID, Table: n.table.Load, Changed: n.news.wait, Local: n.agent.Endpoint,
		Remote: func(system.NodeID) http.RoundTripper { return n.http1 }, Station: n.place, Meter: n.meter, Keys: n.keys, Calls: n.calls, Hold: holdFor,
		TLS: n.shelf.Config(), Secret: boot.Sessions, Log: n.log})
	n.l4 = l4.New(l4.Options{Self: boot.ID, Table: n.table.Load, Changed: n.news.wait, Local: n.agent.Endpoint,
		Dial: func(ctx context.Context, to system.NodeID) (net.Conn, error) {
			return n.link.Dial(ctx, to, link.Tunnel)
		},
		Station: n.place, Meter: n.meter, Hold: holdFor, Log: n.log})
	n.dns = dns.New(dns.Options{Zone: n.zone.Load, Log: n.log})
	n.overlays = newOverlays(boot.ID, n.link.Datagrams(), n.overlayOptions)
	n.doors = doors{node: n, open: map[string]*door{}}
	return n, nil
}

// run starts everything, waits until ctx ends or a part fails, and stops it in the order in which nobody
// misses it: first this node's word that it is there, then doors, then instances, then the link.
func (n *Node) run(ctx context.Context, ln net.Listener) error {
	ctx, fail := context.WithCancelCause(ctx) // a part that ends by itself takes the node with it: it starts again as a whole
	defer fail(nil)
	word, spoken := newParts(ctx, fail)
	inward, inside := newParts(ctx, fail)
	rim, above := newParts(ctx, fail)
	heart, below := newParts(ctx, fail)

	mux := http.NewServeMux()
	closeControl, err := n.openControl(ctx, mux, func(name string, f func(context.Context) error) { heart.run(below, name, f) })
	if err != nil {
		ln.Close()
		if own := heart.stop(); own != nil { // the engine's word says more than that of who waited for it
			return own
		}
		if errors.Is(err, context.Canceled) { // asked to end before it began
			return nil
		}
		return err
	}
	mux.HandleFunc("GET /v1/node/logs", n.guard(n.serveLogs))
	mux.HandleFunc("GET /v1/node/meter", n.guard(n.serveMeter))
	mux.HandleFunc("POST /v1/store/", n.stores.serve)
	if n.voter != nil {
		n.voter.handle(mux)
		voters := n.link.Accept(link.Voter)
		heart.run(below, "voters", func(ctx context.Context) error { return n.voter.admit(ctx, voters) })
	}
	if n.boot.Role == identity.Server {
		mux.HandleFunc("GET "+blobPath+"{digest}", n.bundles.serve)
	}
	mux.HandleFunc(handover.Prefix, n.between(n.keys))
	tunnels, alive := n.link.Accept(link.Tunnel), n.link.Accept(link.Alive)
	heart.run(below, "link http", func(ctx context.Context) error { return link.ServeHTTP1(ctx, n.link, n.l7.Peer(), n.log) })
	heart.run(below, "link http2", func(ctx context.Context) error { return link.ServeHTTP2(ctx, n.link, mux, n.log) })
	heart.run(below, "tunnels", func(ctx context.Context) error { return n.l4.Peer(ctx, tunnels) })
	heart.run(below, "alive", func(ctx context.Context) error { return hold(ctx, alive) })
	heart.run(below, "link", func(ctx context.Context) error { return n.link.Serve(ctx, ln) })
	heart.run(below, "overlays", func(ctx context.Context) error { return n.overlays.serve(ctx, n.linkAddress()) })
	n.opt.Tell(Told{Serving: true})

	if n.boot.Inlet > 0 {
		inward.run(inside, "inlet", n.takeIn)
	}
	rim.run(above, "agent", n.agent.Run)
	rim.run(above, "follow", n.follow)
	rim.run(above, "calls", n.listen)
	if !n.boot.Emulated || n.boot.Role == identity.Server { // emulated nodes share one disk and one clock
		rim.run(above, "alarms", n.alarms.run)
	}
	if n.recalls() {
		rim.run(above, "remember", n.remember)
	}
	if n.boot.Role == identity.Server && n.boot.Joined {
		rim.run(above, "hoard", n.bundles.hoard)
	}
	rim.run(above, "keys", n.keys.Run)
	if n.boot.Role == identity.Server {
		rim.run(above, "conductor", conductor.New(conductor.Options{Cluster: n.cluster, Self: n.boot.ID, Dead: n.dead, Lead: n.lead, Log: n.log}).Run)
	}
	word.run(spoken, "presence", n.present)

	<-ctx.Done()
	errs := []error{word.stop()}
	n.leave()
	errs = append(errs, inward.stop())
	n.doors.close()
	errs = append(errs, rim.stop(), heart.stop(), closeControl())
	return errors.Join(errs...)
}

// leave waits, when something runs here, until the others send no more requests to it.
func (n *Node) leave() {
	for _, in := range n.agent.Seen() {
		if in.State.Healthy() {
			<-time.After(othersHear) // a stop is never waited for longer than its instances' grace, which is longer
			return
		}
	}
}

// address is where one of this node's doors is.
func (n *Node) address(offset int) string {
	return net.JoinHostPort(n.boot.Host, strconv.Itoa(n.boot.PortBase+offset))
}

// linkAddress is where this node's link listens, as others know it.
func (n *Node) linkAddress() string {
	return net.JoinHostPort(cmp.Or(n.boot.LinkHost, n.boot.Host), strconv.Itoa(n.boot.PortBase+linkOffset))
}

// resolve knows servers from the start and all others from what is seen.
func (n *Node) resolve(id system.NodeID) (link.Address, bool) {
	for _, s := range n.servers.all() {
		if s.Node == id {
			return link.Address{Host: s.Link, Site: s.Site}, true
		}
	}
	if seen := n.view.Load().Node(id); seen != nil {
		return link.Address{Host: seen.Link, Site: seen.Site}, true
	}
	return link.Address{}, false
}

// shun ends all that this node has with those who were put out of the fleet, and refuses their keys from now on.
func (n *Node) shun(expelled []system.Expelled) {
	denied := map[identity.Pin]bool{}
	for _, out := range expelled {
		if pin, err := identity.ParsePin(out.Key); err == nil {
			denied[pin] = true
		}
	}
	if maps.Equal(denied, n.shunned) {
		return
	}
	n.keep.Deny(denied)
	for _, out := range expelled {
		if pin, err := identity.ParsePin(out.Key); err == nil && !n.shunned[pin] {
			n.link.Sever(out.Node)
		}
	}
	n.shunned = denied
}

// follow makes every new view this node's. While control is away, or says what cannot be read, the last plan stands; a machine that starts
// while nobody answers takes the one that it wrote down.
func (n *Node) follow(ctx context.Context) error {
	var one sync.Mutex // view at a time
	heard := false
	if n.recalls() {
		silent := time.AfterFunc(recallAfter, func() {
			one.Lock()
			defer one.Unlock()
			if v := n.recall(); !heard && v != nil && ctx.Err() == nil {
				n.log.Warn("nobody answers for control; the plan of an earlier life stands", "plan", v.Plan.Generation)
				n.take(ctx, v)
			}
		})
		defer silent.Stop()
	}
	return n.cluster.Follow(ctx, func(err error) {
		n.log.Warn("control is away; the last plan stands and requests go on", "err", err)
	}, func(v *control.View) error {
		one.Lock()
		defer one.Unlock()
		heard = true
		n.take(ctx, v)
		return nil
	})
}

// names makes the zone that of a view, when some service is switched by name.
func (n *Node) names(v *control.View, table *route.Table) {
	if v.Plan == nil || v.Plan.Names == 0 {
		n.zone.Store(nil)
		return
	}
	z, err := dns.NewZone(dns.Of(v.Plan, v.Seen, table, n.boot.Site))
	if err != nil { // the file was checked
		n.log.Error("no zone", "err", err)
		return
	}
	n.zone.Store(z)
}

// take makes a view this node's: addresses, plan, table, doors.
func (n *Node) take(ctx context.Context, v *control.View) {
	n.shun(v.Expelled)
	table := route.Build(v.Plan, v.Seen, n.boot.ID)
	n.keys.Follow(table) // before this node says that it follows the plan, and before owners change by the table
	n.view.Store(v)
	n.servers.see(v)
	n.agent.Follow(v.Plan)
	n.overlays.follow(v.Plan)
	n.overlays.attach(table)
	n.stores.follow(v, table) // before their owners change by the table
	n.table.Store(table)
	n.names(v, table)
	n.shelf.Set(v.Certificates, v.Challenges)
	n.news.tell()
	n.doors.set(ctx, v.Plan)
}
