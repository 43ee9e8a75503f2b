package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"servent/agent"
	"servent/blob"
	"servent/conductor"
	"servent/control"
	"servent/control/etcd"
	"servent/control/remote"
	"servent/driver/process"
	"servent/identity"
	"servent/link"
	"servent/meter"
	"servent/request/l4"
	"servent/request/l7"
	"servent/route"
	"servent/system"
)

const (
	linkOffset = 0
	webOffset  = 1
	leaseTTL   = 3 * time.Second // silence after which a node counts as gone
	leaseEvery = time.Second
	holdFor    = 10 * time.Second // a request waits for an instance that is coming
)

// Options of [Run].
type Options struct {
	EtcdVerb string // first argument that makes this program control's engine
	Log      *slog.Logger
	Tell     func(Told)
}

// Node is one servent process with everything in it.
type Node struct {
	boot    Boot
	opt     Options
	log     *slog.Logger
	keep    *identity.Keeper
	link    *link.Secure
	http1   *link.Transport // to other nodes' instances
	http2   *link.Transport // to servers
	process *process.Driver
	agent   *agent.Agent
	l7      *l7.Switch
	l4      *l4.Switch
	meter   *meter.Book
	place   *link.Station
	doors   doors

	cluster control.Cluster

	table atomic.Pointer[route.Table]
	news  news // of table
	view  atomic.Pointer[control.View]
}

// Run is a node's whole life: it returns nil after a clean stop, when ctx ends, the words say stop, or
// their channel closes.
func Run(ctx context.Context, boot Boot, words <-chan Word, o Options) error {
	n, err := build(boot, o)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", n.address(linkOffset))
	if err != nil {
		return fmt.Errorf("open the link: %w", err)
	}
	left, err := n.process.Sweep(ctx)
	if err != nil {
		return fmt.Errorf("end what an earlier life left running: %w", err)
	}
	if len(left) > 0 {
		n.log.Warn("ended what an earlier life left running", "instances", left)
	}
	defer n.process.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go n.obey(words, stop) // ends with the process: its channel closes when who started us ends
	return n.run(ctx, ln)
}

// obey follows the words that come after the boot line.
func (n *Node) obey(words <-chan Word, stop func()) {
	for w := range words {
		if w.Credential != nil {
			if err := n.keep.Set(*w.Credential); err != nil {
				n.log.Error("take the new certificate", "err", err)
			}
		}
		if w.Stop {
			stop()
		}
	}
	stop()
}

// build makes the parts and joins them; nothing runs yet.
func build(boot Boot, o Options) (*Node, error) {
	n := &Node{boot: boot, opt: o, log: o.Log, meter: &meter.Book{}}
	n.news.init()
	n.table.Store(&route.Table{Self: boot.ID})
	n.view.Store(&control.View{})
	var err error
	if n.keep, err = identity.NewKeeper(boot.Credential); err != nil {
		return nil, err
	}
	if boot.Emulated && boot.Capacity.Rate > 0 {
		n.place = link.NewStation(boot.Capacity)
	}
	n.link = link.New(link.Options{Identity: n.keep, Resolve: n.resolve, Emulation: link.Emulate(boot.Group, boot.Groups), Log: n.log})
	n.http1, n.http2 = link.HTTPTransport(n.link, link.HTTPOptions{}), link.HTTP2Transport(n.link)
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n.process = process.New(process.Options{StateDir: boot.Dir, Self: exe, Log: n.log})
	store := &blob.Store{Dir: boot.Blobs}
	n.agent = agent.New(agent.Options{
		Node: boot.ID, Site: boot.Site, Host: boot.Host, PortBase: boot.PortBase, Dir: boot.Dir,
		Drivers:  n.drivers(),
		Bundle:   func(_ context.Context, d system.Digest) (string, error) { return store.Bundle(d) },
		Blob:     func(_ context.Context, d system.Digest) (io.ReadCloser, error) { return store.Open(d) },
		Inflight: func(id system.InstanceID) int { return n.l7.Inflight(id) + n.l4.Inflight(id) },
		BaseEnv:  process.BaseEnv(os.Environ()),
		Log:      n.log,
	})
	n.l7 = l7.New(l7.Options{Self: boot.ID, Table: n.table.Load, Changed: n.news.wait, Local: n.agent.Endpoint,
		Remote: func(system.NodeID) http.RoundTripper { return n.http1 }, Station: n.place, Meter: n.meter, Hold: holdFor, Log: n.log})
	n.l4 = l4.New(l4.Options{Self: boot.ID, Table: n.table.Load, Changed: n.news.wait, Local: n.agent.Endpoint,
		Dial: func(ctx context.Context, to system.NodeID) (net.Conn, error) {
			return n.link.Dial(ctx, to, link.Tunnel)
		},
		Station: n.place, Meter: n.meter, Hold: holdFor, Log: n.log})
	n.doors = doors{node: n, open: map[int]*door{}}
	return n, nil
}

// run starts everything, waits until ctx ends, and stops it in the order in which nobody misses it:
// first doors, then instances, then the link.
func (n *Node) run(ctx context.Context, ln net.Listener) error {
	var rim, heart sync.WaitGroup
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx)) // the link outlives the doors
	defer stopBelow()
	failed := make(chan error, 8) // buffered: each part reports at most once
	part := func(wg *sync.WaitGroup, name string, f func(context.Context) error, ctx context.Context) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	mux := http.NewServeMux()
	if err := n.openControl(below, mux, part, &heart); err != nil {
		return err
	}
	mux.HandleFunc("GET /v1/node/logs", n.guard(n.serveLogs))
	mux.HandleFunc("GET /v1/node/meter", n.guard(n.serveMeter))
	part(&heart, "link http", func(ctx context.Context) error { return link.ServeHTTP1(ctx, n.link, n.l7.Peer(), n.log) }, below)
	part(&heart, "link http2", func(ctx context.Context) error { return link.ServeHTTP2(ctx, n.link, mux, n.log) }, below)
	tunnels, alive := n.link.Accept(link.Tunnel), n.link.Accept(link.Alive)
	part(&heart, "tunnels", func(ctx context.Context) error { return n.l4.Peer(ctx, tunnels) }, below)
	part(&heart, "alive", func(ctx context.Context) error { return hold(ctx, alive) }, below)
	part(&heart, "link", func(ctx context.Context) error { return n.link.Serve(ctx, ln) }, below)
	n.opt.Tell(Told{Serving: true})

	part(&rim, "agent", n.agent.Run, ctx)
	part(&rim, "follow", n.follow, ctx)
	part(&rim, "presence", n.present, ctx)
	if n.boot.Role == identity.Server {
		part(&rim, "conductor", conductor.New(conductor.Options{Cluster: n.cluster, Self: n.boot.ID, Dead: n.dead, Log: n.log}).Run, ctx)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed: // a part that ends by itself takes the node with it: it starts again as a whole
	}
	n.doors.close()
	rim.Wait()
	stopBelow()
	heart.Wait()
	return err
}

// openControl joins a server to control's engine, and any other node to its servers.
func (n *Node) openControl(ctx context.Context, mux *http.ServeMux, part func(*sync.WaitGroup, string, func(context.Context) error, context.Context), wg *sync.WaitGroup) error {
	if n.boot.Role != identity.Server {
		var ids []system.NodeID
		for _, s := range n.boot.Servers {
			ids = append(ids, s.Node)
		}
		n.cluster = control.Cluster{Store: remote.New(remote.Options{Servers: func() []system.NodeID { return ids }, Transport: n.http2})}
		return nil
	}
	store, err := n.engine(ctx, part, wg)
	if err != nil {
		return err
	}
	n.cluster = control.Cluster{Store: store}
	mux.Handle("/v1/control/", remote.Handler(store, func(r *http.Request) (identity.ID, bool) {
		p, ok := link.PeerFrom(r.Context())
		return p.ID, ok
	}, remote.Bounds{}))
	return nil
}

// engine is the etcd of the user's, or one of our own in a child process.
func (n *Node) engine(ctx context.Context, part func(*sync.WaitGroup, string, func(context.Context) error, context.Context), wg *sync.WaitGroup) (control.Store, error) {
	if n.boot.Control != "" {
		o, err := etcd.ParseURL(n.boot.Control)
		if err != nil {
			return nil, err
		}
		o.Prefix = strings.TrimSuffix(o.Prefix, "/") + "/" + n.keep.ID().Cluster + "/"
		return etcd.Open(o)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(n.boot.ControlDir)
	if err != nil {
		return nil, err
	}
	child := etcd.NewChild(etcd.ChildOptions{Argv: []string{exe, n.opt.EtcdVerb}, Dir: dir, Log: os.Stderr,
		Died: func(err error) { n.log.Warn("control's engine died; it starts again", "err", err) }})
	part(wg, "control", child.Run, ctx)
	return child.Open(ctx, "/servent/"+n.keep.ID().Cluster+"/")
}

// address is where one of this node's ports is.
func (n *Node) address(offset int) string {
	return net.JoinHostPort(n.boot.Host, strconv.Itoa(n.boot.PortBase+offset))
}

// resolve knows servers from the start and all others from what is seen.
func (n *Node) resolve(id system.NodeID) (link.Address, bool) {
	for _, s := range n.boot.Servers {
		if s.Node == id {
			return link.Address{Host: s.Link, Site: s.Site}, true
		}
	}
	if seen := n.view.Load().Node(id); seen != nil {
		return link.Address{Host: seen.Link, Site: seen.Site}, true
	}
	return link.Address{}, false
}

// follow makes every new view this node's: addresses, plan, table, doors.
func (n *Node) follow(ctx context.Context) error {
	return n.cluster.Follow(ctx, func(err error) {
		n.log.Warn("control is away; the last plan stands and requests go on", "err", err)
	}, func(v *control.View) error {
		n.view.Store(v)
		n.agent.Follow(v.Plan)
		n.table.Store(route.Build(v.Plan, v.Seen, n.boot.ID))
		n.news.tell()
		n.doors.set(ctx, v.Plan)
		return nil
	})
}

// present keeps this node's report under its lease, and reports again when something changed.
func (n *Node) present(ctx context.Context) error {
	for ctx.Err() == nil {
		err := n.oneLease(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("presence", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

func (n *Node) oneLease(ctx context.Context) error {
	lease, err := n.cluster.Grant(ctx, leaseTTL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := control.KeepAlive(ctx, n.cluster, lease, leaseEvery); err != nil {
			cancel(err)
		}
	})
	defer func() { // a node that leaves says so
		leave, done := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
		defer done()
		_ = n.cluster.Revoke(leave, lease) // else it ends by itself
		cancel(nil)
	}()
	drivers := n.probe(ctx)
	for {
		changed, planned := n.agent.Changed(), n.news.wait()
		seen := n.seen(drivers)
		if err := n.cluster.Report(ctx, seen, lease); err != nil && ctx.Err() == nil {
			if errors.Is(err, control.ErrLeaseLost) {
				return err
			}
			n.log.Warn("report", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		generation := seen.Plan
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-changed:
				wait = false
			case <-planned:
				planned = n.news.wait()
				wait = n.generation() == generation
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
		Address: n.boot.Host, PortBase: n.boot.PortBase, Link: n.address(linkOffset),
		Emulated: n.boot.Emulated, Capacity: n.boot.Capacity, Labels: n.boot.Labels, Resources: n.boot.Resources,
		Drivers: drivers, Started: started, Plan: n.generation(), Instances: n.agent.Seen(),
	}
}

var started = time.Now()

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

// dead returns nil as soon as a node is certainly dead: a connection to it broke, and dialling it was
// refused, twice, a moment apart. A node that says nothing is not dead; its lease tells.
func (n *Node) dead(ctx context.Context, id system.NodeID) error {
	for {
		conn, err := n.link.Dial(ctx, id, link.Alive)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = io.Copy(io.Discard, conn) // until it breaks
			stop()
			conn.Close()
		} else if errors.Is(err, link.ErrRefused) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
			if conn, err = n.link.Dial(ctx, id, link.Alive); errors.Is(err, link.ErrRefused) {
				return nil
			} else if err == nil {
				conn.Close()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hold keeps the connections by which others notice this node's end.
func hold(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			_, _ = io.Copy(io.Discard, conn) // until the other side goes
		})
	}
}

// news tells whoever waits that something changed.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

func (n *news) init() { n.ch = make(chan struct{}) }

func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
