package launch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"servent/admin"
	"servent/architecture"
	"servent/control"
	"servent/control/remote"
	"servent/identity"
	"servent/link"
	"servent/node"
	"servent/system"
)

// Options of a [Laptop].
type Options struct {
	Folder  Folder
	Command []string     // program and arguments that become a node
	Control string       // an etcd of the user's, etcd://host:port; empty: one of our own
	Console http.Handler // pages of the admin door; nil: none
	Log     *slog.Logger // nil discards
}

// Laptop is one machine made into several nodes.
type Laptop struct {
	opt     Options
	ca      *identity.Authority
	keep    *identity.Keeper
	cluster control.Cluster
	link    *link.Secure
	http2   http.RoundTripper
	ways    *publisher
	news    news

	mu       sync.Mutex // guards what follows
	kept     *laptop
	wanted   *system.System
	children map[system.NodeID]*child
	stops    map[system.NodeID]context.CancelFunc
	view     *control.View
	trouble  error // why control does not answer
	ended    bool
	volumes  bool // data goes, too

	applying sync.Mutex // one Apply at a time
	stop     context.CancelFunc
	running  context.Context // of Run: children live in it
	wg       sync.WaitGroup  // children
}

// certLife is how long a node's certificate lasts; it is renewed when two thirds of it are over.
const certLife = 24 * time.Hour

// nodesWithin is how long nodes may take to say that they are there.
const nodesWithin = 10 * time.Second

// emptyWithin is how long instances may take to end before their nodes are ended.
const emptyWithin = 15 * time.Second

// ErrRunning: another process runs this folder's system.
var ErrRunning = errors.New("this system runs already")

// Run keeps the admin door, the published ports and the nodes until ctx ends or Stop is asked for; then
// it ends all it started, in good order, and returns nil.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	kept, ca, err := o.Folder.open(minSlice)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(o.Folder.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if ok, err := lockFile(lock); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	} else if !ok {
		return &system.Hint{Err: ErrRunning, Next: "servent ps"}
	}
	l := &Laptop{opt: o, ca: ca, kept: kept, children: map[system.NodeID]*child{}, stops: map[system.NodeID]context.CancelFunc{}, view: &control.View{}}
	l.news.init()
	if err := l.join(); err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(ctx)
	defer l.stop()
	var cancel context.CancelFunc
	l.running, cancel = context.WithCancel(context.WithoutCancel(ctx)) // children are ended last, by end
	defer cancel()
	l.ways = &publisher{view: l.look, changed: l.news.wait, log: o.Log, web: kept.Web}
	closeDoor, err := l.door()
	if err != nil {
		return err
	}
	defer closeDoor()
	followed := make(chan error, 1)
	go func() { followed <- l.follow(l.running) }()
	renew := time.NewTicker(time.Hour)
	defer renew.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-renew.C:
			l.renew()
		}
	}
	l.end(cancel)
	return <-followed
}

// join makes this process an operator of its own cluster.
func (l *Laptop) join() error {
	cred, err := l.credential(identity.Operator, "laptop")
	if err != nil {
		return err
	}
	if l.keep, err = identity.NewKeeper(cred); err != nil {
		return err
	}
	l.link = link.New(link.Options{Identity: l.keep, Resolve: l.resolve, Log: l.opt.Log})
	l.http2 = link.HTTP2Transport(l.link)
	l.cluster = control.Cluster{Store: remote.New(remote.Options{Servers: l.servers, Transport: l.http2})}
	return nil
}

func (l *Laptop) credential(role identity.Role, id system.NodeID) (identity.Credential, error) {
	return l.ca.Issue(identity.ID{Cluster: l.kept.Cluster, Role: role, Node: id}, nil, certLife)
}

// renew hands out new certificates when two thirds of the old ones' life are over.
func (l *Laptop) renew() {
	if time.Now().Before(l.keep.RenewAt()) {
		return
	}
	cred, err := l.credential(identity.Operator, "laptop")
	if err == nil {
		err = l.keep.Set(cred)
	}
	if err != nil {
		l.opt.Log.Error("renew certificate", "err", err)
	}
	l.mu.Lock()
	children := maps.Clone(l.children)
	l.mu.Unlock()
	for id, c := range children {
		cred, err := l.credential(role(id, l.server()), id)
		if err != nil {
			l.opt.Log.Error("renew certificate", "node", id, "err", err)
			continue
		}
		c.Renew(cred)
	}
}

func role(id, server system.NodeID) identity.Role {
	if id == server {
		return identity.Server
	}
	return identity.Node
}

// server is the node that answers for control: the first of the file.
func (l *Laptop) server() system.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted == nil {
		return ""
	}
	return nodesOf(l.wanted)[0].id
}

func (l *Laptop) servers() []system.NodeID {
	if s := l.server(); s != "" {
		return []system.NodeID{s}
	}
	return nil
}

func (l *Laptop) resolve(id system.NodeID) (link.Address, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.kept.Index[id]
	return link.Address{Host: net.JoinHostPort(l.kept.host(i), strconv.Itoa(l.kept.portBase(i)))}, ok
}

// emulated is one node that the file asks for.
type emulated struct {
	id    system.NodeID
	group *system.NodeGroup
}

// nodesOf lists the nodes of a system: GROUP-1 … GROUP-n for every group.
func nodesOf(sys *system.System) []emulated {
	var out []emulated
	for i := range sys.Nodes {
		g := &sys.Nodes[i]
		for n := range g.Count {
			out = append(out, emulated{system.NodeID(g.Name + "-" + strconv.Itoa(n+1)), g})
		}
	}
	return out
}

// Apply implements [admin.Machines].
func (l *Laptop) Apply(ctx context.Context, sys *system.System) error {
	l.applying.Lock()
	defer l.applying.Unlock()
	if err := l.check(sys); err != nil {
		return err
	}
	if err := l.ways.Set(l.running, sys); err != nil {
		return err
	}
	if err := l.setNodes(sys); err != nil {
		return err
	}
	l.startNodes(sys)
	l.news.tell()
	if err := l.awaitNodes(ctx, sys); err != nil {
		return err
	}
	for {
		_, err := l.cluster.Want(ctx, sys)
		if err == nil {
			return nil
		}
		if !errors.Is(err, control.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		select { // the server node is still starting
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("control did not answer: %w", err)
		}
	}
}

// awaitNodes returns when every node of the system is seen: what is placed before that is placed on too
// few. A node that does not come within nodesWithin is done without.
func (l *Laptop) awaitNodes(ctx context.Context, sys *system.System) error {
	late := time.After(nodesWithin)
	for {
		changed := l.news.wait()
		v, _ := l.look()
		missing := slices.DeleteFunc(nodesOf(sys), func(n emulated) bool { return v.Node(n.id) != nil })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-late:
			return l.unborn(missing)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unborn is why no node came at all; nil when some did.
func (l *Laptop) unborn(missing []emulated) error {
	nodes := l.Nodes()
	if len(missing) < len(nodes) {
		return nil
	}
	for _, n := range nodes {
		if n.Why != "" {
			return &system.Hint{Err: fmt.Errorf("%s does not start: %s", n.Node, n.Why), Next: "cat " + l.opt.Folder.Log(string(n.Node))}
		}
	}
	return &system.Hint{Err: fmt.Errorf("no node answered within %s", nodesWithin), Next: "cat " + l.opt.Folder.Log(string(missing[0].id))}
}

// check refuses what cannot be done to a running system.
func (l *Laptop) check(sys *system.System) error {
	nodes, server := nodesOf(sys), l.server()
	if len(nodes) == 0 {
		return errors.New("the file has no nodes")
	}
	if server != "" && nodes[0].id != server {
		return &system.Hint{Err: fmt.Errorf("%s answers for control while the system runs; it cannot be replaced by %s now", server, nodes[0].id),
			Next: "servent down && servent up"}
	}
	return nil
}

// setNodes gives every node its index and its ports, and keeps them.
func (l *Laptop) setNodes(sys *system.System) error {
	nodes, web := nodesOf(sys), l.ways.Web()
	l.mu.Lock()
	defer l.mu.Unlock()
	grown := *l.kept
	grown.Web, grown.Index = web, maps.Clone(l.kept.Index)
	if l.wanted == nil {
		grown.Index = map[system.NodeID]int{}
		grown.PortSlice = max(grown.PortSlice, sliceFor(sys))
	}
	for _, n := range nodes {
		if grown.Index[n.id] == 0 {
			grown.Index[n.id] = 1 + len(grown.Index)
		}
	}
	if l.wanted == nil {
		if err := grown.choosePorts(); err != nil {
			return err
		}
	}
	if err := l.opt.Folder.write("laptop.json", grown); err != nil {
		return err
	}
	l.kept, l.wanted = &grown, sys
	return nil
}

// sliceFor is how many ports a node needs: the link, the web door, a door a service, and twice two for
// every instance, because an update has old and new ones at once.
func sliceFor(sys *system.System) int {
	nodes := len(nodesOf(sys))
	need := 2
	for i := range sys.Services {
		need += 1 + 4*architecture.Count(&sys.Services[i], nodes)
	}
	slice := minSlice
	for slice < 2*need {
		slice *= 2
	}
	return slice
}

// startNodes starts those that are missing and ends those that are no longer asked for.
func (l *Laptop) startNodes(sys *system.System) {
	want := map[system.NodeID]bool{}
	for _, n := range nodesOf(sys) {
		want[n.id] = true
		l.startNode(n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, stop := range l.stops {
		if !want[id] {
			stop()
			delete(l.stops, id)
			delete(l.children, id)
		}
	}
}

func (l *Laptop) startNode(n emulated) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.children[n.id] != nil || l.ended {
		return
	}
	c := &child{id: n.id, command: l.opt.Command, logFile: l.opt.Folder.Log(string(n.id)), changed: l.news.tell, log: l.opt.Log,
		boot: func() (node.Boot, error) { return l.boot(n.id) }}
	c.state = admin.NodeState{Node: n.id, Role: string(identity.Node), Site: n.group.Site, Emulated: true, Capacity: n.group.Capacity, State: "starting", Since: time.Now()}
	c.state.Address = l.kept.host(l.kept.Index[n.id])
	ctx, cancel := context.WithCancel(l.running)
	l.children[n.id], l.stops[n.id] = c, cancel
	l.wg.Go(func() { c.Run(ctx) })
}

// boot is what a node is told at its start, as the file stands then.
func (l *Laptop) boot(id system.NodeID) (node.Boot, error) {
	server := l.server()
	cred, err := l.credential(role(id, server), id)
	if err != nil {
		return node.Boot{}, err
	}
	at, _ := l.resolve(server)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := node.Boot{Credential: cred, ID: id, Role: role(id, server), Emulated: true, Control: l.opt.Control,
		Dir: l.opt.Folder.node(id), ControlDir: l.opt.Folder.control(), Blobs: l.opt.Folder.Blobs(),
		Host: l.kept.host(l.kept.Index[id]), PortBase: l.kept.portBase(l.kept.Index[id]),
		Groups: l.wanted.Nodes}
	for _, n := range nodesOf(l.wanted) {
		if n.id == server {
			b.Servers = []node.Server{{Node: server, Link: at.Host, Site: n.group.Site}}
		}
		if n.id == id {
			b.Site, b.Group, b.Labels, b.Capacity = n.group.Site, n.group.Name, n.group.Labels, n.group.Capacity
		}
	}
	return b, nil
}

// Nodes implements [admin.Machines].
func (l *Laptop) Nodes() []admin.NodeState {
	server := l.server()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []admin.NodeState
	for _, id := range slices.Sorted(maps.Keys(l.children)) {
		s := l.children[id].State()
		s.Role = string(role(id, server))
		out = append(out, s)
	}
	return out
}

// Published implements [admin.Machines].
func (l *Laptop) Published() []admin.Published {
	l.mu.Lock()
	wanted := l.wanted
	l.mu.Unlock()
	return l.ways.Published(wanted)
}

// RestartNode implements [admin.Machines].
func (l *Laptop) RestartNode(_ context.Context, id system.NodeID) error {
	l.mu.Lock()
	c := l.children[id]
	l.mu.Unlock()
	if c == nil {
		return fmt.Errorf("no node %s", id)
	}
	c.Restart()
	return nil
}

// Stop implements [admin.Machines].
func (l *Laptop) Stop(volumes bool) {
	l.mu.Lock()
	l.volumes = volumes
	l.mu.Unlock()
	l.stop()
}

// look is the last view, and why control does not answer now.
func (l *Laptop) look() (*control.View, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view, l.trouble
}

func (l *Laptop) follow(ctx context.Context) error {
	return l.cluster.Follow(ctx, func(err error) {
		l.mu.Lock()
		l.trouble = err
		l.mu.Unlock()
		l.news.tell()
	}, func(v *control.View) error {
		l.mu.Lock()
		l.view, l.trouble = v, nil
		l.mu.Unlock()
		l.news.tell()
		return nil
	})
}

// door opens the admin door and writes down how to reach it.
func (l *Laptop) door() (closeDoor func(), err error) {
	token := rand.Text()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the admin door: %w", err)
	}
	info := Info{Pid: os.Getpid(), URL: "http://" + tcp.Addr().String(), Token: token, Started: time.Now()}
	d := &admin.Door{Cluster: l.cluster, View: l.look, Changed: l.news.wait, Machines: l, Nodes: &nodeDoor{rt: l.http2}, Context: "laptop",
		Console: l.opt.Console, URL: info.URL + "/#token=" + token, Log: l.opt.Log}
	servers := []*http.Server{{Handler: d.Guarded(token), ReadHeaderTimeout: 10 * time.Second}}
	listeners := []net.Listener{tcp}
	if sockets {
		if info.Socket, err = l.opt.Folder.socket(); err != nil {
			return nil, err
		}
		_ = os.Remove(info.Socket) // left by one that was killed; the folder's lock says that nobody uses it
		unix, err := net.Listen("unix", info.Socket)
		if err == nil {
			err = os.Chmod(info.Socket, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("open the admin door: %w", err)
		}
		servers, listeners = append(servers, &http.Server{Handler: d.Handler(), ReadHeaderTimeout: 10 * time.Second}), append(listeners, unix)
	}
	if err := l.opt.Folder.write("run.json", info); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { _ = s.Serve(listeners[i]) }) // it ends with closeDoor
	}
	return func() {
		_ = os.Remove(l.opt.Folder.path("run.json"))
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, s := range servers {
			if s.Shutdown(grace) != nil {
				s.Close()
			}
		}
		wg.Wait()
	}, nil
}

// end takes everything down: first what is wanted, so that instances end as in any change of the plan,
// with their open requests answered, then the ways in, then the nodes, all at once.
func (l *Laptop) end(cancelChildren context.CancelFunc) {
	if l.server() != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if err := l.cluster.Unwant(ctx); err != nil {
			l.opt.Log.Warn("say that nothing is wanted", "err", err)
		} else {
			l.awaitEmpty()
		}
		cancel()
	}
	l.mu.Lock()
	l.ended = true
	volumes := l.volumes
	l.mu.Unlock()
	l.ways.Close()
	cancelChildren()
	l.wg.Wait()
	if volumes {
		for _, dir := range []string{l.opt.Folder.path("nodes"), l.opt.Folder.control()} {
			if err := os.RemoveAll(dir); err != nil {
				l.opt.Log.Error("remove data", "err", err)
			}
		}
	}
}

// awaitEmpty returns when nothing is planned any more, or control is away, or it takes too long: then
// the nodes end what is left.
func (l *Laptop) awaitEmpty() {
	late := time.After(emptyWithin)
	for {
		changed := l.news.wait()
		if v, err := l.look(); err != nil || v.Plan == nil || v.Wanted == nil && len(v.Plan.Services) == 0 {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		}
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
