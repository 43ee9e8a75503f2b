package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/admin"
	"servent/control"
	"servent/request/dns"
	"servent/request/l7"
	"servent/request/proxy"
	"servent/system"
)

const (
	webOffset = 1                // of every node's web door
	webFirst  = 18080            // the published web door, or the next free port, if the file does not say
	webTries  = 50               // ports
	holdFor   = 10 * time.Second // a connection waits for a node and for its service's door
	maxPassed = 4096             // connections passed at once by one published port
)

// publisher holds the published ports and passes their connections, byte for byte, to the doors of live
// nodes. It outlives every node, so a way in stays when the node behind it dies.
type publisher struct {
	view    func() (*control.View, error)
	changed func() <-chan struct{}
	reach   func(system.NodeID) bool // whose doors are open to this machine; nil: all
	inlet   func() int               // offset of what takes headers; nil: doors are dialled, and do not learn who came
	key     proxy.Key                // signs headers
	log     *slog.Logger
	names   *names        // nil: there is none
	turn    atomic.Uint64 // round robin over nodes

	mu   sync.Mutex // guards open and web
	open map[string]*published
	web  int // port of the web door; 0: none yet
}

// published is one open port. Whose it is may change while it is open.
type published struct {
	ln      net.Listener
	service atomic.Value                   // system.ServiceName; empty: the web door
	secure  atomic.Bool                    // by TLS alone
	proxies atomic.Pointer[[]netip.Prefix] // whose connections begin with a header of the PROXY protocol
	cancel  context.CancelFunc
	done    chan struct{}
}

// webDoor is the key of the web door among the open ports, if the file does not say where it is.
const webDoor = "web door"

// way is one published port as the file asks for it.
type way struct {
	service system.ServiceName
	host    string
	port    int // 0: any free one
	target  int
	scheme  string
	pos     system.Pos
	where   string // in the file
}

// secure says that clients come by TLS.
func (w way) secure() bool { return w.scheme == "https" }

// web lists where the file publishes the web door.
func web(sys *system.System) (all []way) {
	if sys.Web == nil {
		return nil
	}
	add := func(addr, scheme string) {
		if host, port, err := net.SplitHostPort(addr); err == nil { // else none is said
			n, _ := strconv.Atoi(port)
			all = append(all, way{host: host, port: n, scheme: scheme, pos: sys.Web.Pos, where: "web." + scheme})
		}
	}
	add(sys.Web.HTTP, "http")
	add(sys.Web.HTTPS, "https")
	return all
}

// key is what stays open over an edit: an address, whoever it is published for; a port that was chosen
// for a service is that service's.
func (w way) key() string {
	if w.port == 0 {
		return fmt.Sprintf("%s %s:%d", w.service, w.host, w.target)
	}
	return net.JoinHostPort(w.host, strconv.Itoa(w.port))
}

// ways lists what a service publishes by port.
func ways(s *system.Service) []way {
	var ws []way
	for _, p := range s.Ports {
		scheme := "tcp"
		if s.Switch.By == system.ByRequest {
			if scheme = "http"; p.TLS() {
				scheme = "https"
			}
		}
		ws = append(ws, way{s.Name, cmp.Or(p.Host, "127.0.0.1"), p.Published, p.Target, scheme, p.Pos, "ports"})
	}
	return ws
}

// allWays lists all that a system publishes, but for a web door of which the file does not say where it is.
func allWays(sys *system.System) (all []way) {
	if routed(sys) {
		all = web(sys)
	}
	for i := range sys.Services {
		all = append(all, ways(&sys.Services[i])...)
	}
	return all
}

// routed says that the system has a web door.
func routed(sys *system.System) bool {
	return slices.ContainsFunc(sys.Services, func(s system.Service) bool { return len(s.Routes) > 0 })
}

// Set opens what sys publishes and is not open, and closes what it no longer does. When one port cannot
// be had nothing is changed and the error says who has it. Calls do not overlap.
func (p *publisher) Set(sys *system.System) (err error) {
	p.mu.Lock()
	open, web := p.open, p.web
	p.mu.Unlock()
	next, whose := map[string]*published{}, map[string]way{}
	var fresh []*published
	defer func() {
		if err != nil {
			for _, f := range fresh {
				_ = f.ln.Close() // nobody has connected yet
			}
		}
	}()
	for _, w := range allWays(sys) {
		key := w.key()
		whose[key] = w
		if next[key] = open[key]; next[key] != nil {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(w.host, strconv.Itoa(w.port)))
		if err != nil {
			return taken(w, err)
		}
		next[key] = &published{ln: ln}
		fresh = append(fresh, next[key])
	}
	if routed(sys) && (sys.Web == nil || sys.Web.HTTP == "") {
		f := open[webDoor]
		if f == nil {
			if f, web, err = openWeb(web); err != nil {
				return err
			}
			fresh = append(fresh, f)
		}
		next[webDoor] = f
	}
	for key, f := range next {
		f.service.Store(whose[key].service)
		f.secure.Store(whose[key].secure())
		f.proxies.Store(new(sys.Web.Proxies()))
	}
	if p.names != nil {
		if err := p.names.Set(sys); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.open, p.web = next, web
	p.mu.Unlock()
	for _, f := range fresh {
		p.serve(f)
	}
	for key, old := range open {
		if next[key] == nil {
			old.close()
		}
	}
	return nil
}

// openWeb opens the web door at the port it had, or the next free one.
func openWeb(port int) (*published, int, error) {
	first := max(port, webFirst)
	for port := first; port < first+webTries; port++ {
		if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return &published{ln: ln}, port, nil
		}
	}
	return nil, 0, fmt.Errorf("web door: no free port from %d to %d", first, first+webTries-1)
}

// taken says who has a port.
func taken(w way, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &system.Hint{Err: fmt.Errorf("%s: %s: %s takes a right that this user has not: %w", w.pos, w.where, w.key(), err),
			Next: "take a port above 1023, or on Linux: sudo setcap cap_net_bind_service=+ep $(command -v servent)"}
	}
	if !isInUse(err) {
		return fmt.Errorf("%s: %s: cannot listen on %s: %w", w.pos, w.where, w.key(), err)
	}
	who := holder(w.port)
	if who == "" {
		who = "another program"
	}
	if w.service == "" {
		return &system.Hint{Err: fmt.Errorf("%s: %s: %s is in use by %s", w.pos, w.where, w.key(), who), Next: fmt.Sprintf("stop it, or take another port: %s: %d", w.scheme, w.port+1)}
	}
	return &system.Hint{
		Err:  fmt.Errorf("%s: ports: %d, which %s publishes, is in use by %s", w.pos, w.port, w.service, who),
		Next: "stop it, or publish another port: \"" + strconv.Itoa(w.port+1) + ":" + strconv.Itoa(w.port) + "\"",
	}
}

// Published lists the ways in: every port, and every route of the web door. sys nil: none.
func (p *publisher) Published(sys *system.System) []admin.Published {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	var out []admin.Published
	if sys == nil {
		return out
	}
	var doors []string
	if f := open[webDoor]; f != nil {
		doors = append(doors, "http://"+f.ln.Addr().String())
	}
	for _, w := range web(sys) {
		if f := open[w.key()]; f != nil {
			doors = append(doors, w.scheme+"://"+f.ln.Addr().String())
		}
	}
	for i := range sys.Services {
		s := &sys.Services[i]
		for _, r := range s.Routes {
			for _, at := range doors {
				if one := (admin.Published{Service: s.Name, URL: routeURL(at, r)}); !slices.Contains(out, one) { // two hosts may share a path
					out = append(out, one)
				}
			}
		}
		for _, w := range ways(s) {
			if f := open[w.key()]; f != nil {
				out = append(out, admin.Published{Service: s.Name, URL: w.scheme + "://" + f.ln.Addr().String()})
			}
		}
		if s.Switch.By == system.ByName && p.names != nil {
			if at := p.names.Addr(); at.IsValid() { // RFC 4501
				out = append(out, admin.Published{Service: s.Name, URL: "dns://" + at.String() + "/" + string(s.Name) + "." + dns.Origin(sys.Name)})
			}
		}
	}
	return out
}

// routeURL is a route on the web door; its star is left out.
func routeURL(web string, r system.Route) string {
	path := r.Path
	for len(path) > 0 && path[len(path)-1] == '*' {
		path = path[:len(path)-1]
	}
	if path == "/" {
		path = ""
	}
	return web + path
}

// Web is the port of the web door, or 0 when there is none yet.
func (p *publisher) Web() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.web
}

// Close closes every port and waits for their connections.
func (p *publisher) Close() {
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	if p.names != nil {
		p.names.Close()
	}
	for _, f := range open {
		f.close()
	}
}

func (f *published) close() {
	f.cancel()
	_ = f.ln.Close() // it only ends accepting
	<-f.done
}

// serve passes connections until the port is closed.
func (p *publisher) serve(f *published) {
	ctx, cancel := context.WithCancel(context.Background()) // a port's life is no call's: close ends it
	f.cancel, f.done = cancel, make(chan struct{})
	go func() {
		defer close(f.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		room := make(chan struct{}, maxPassed)
		for {
			room <- struct{}{} // beyond the bound, clients wait in the kernel's queue
			conn, err := f.ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				<-room
				p.log.Warn("accept", "addr", f.ln.Addr(), "err", err)
				select {
				case <-time.After(100 * time.Millisecond): // out of file descriptors: some come back
				case <-ctx.Done():
				}
				continue
			}
			wg.Go(func() {
				defer func() { <-room }()
				p.welcome(ctx, conn.(*net.TCPConn), f)
			})
		}
	}()
}

// welcome passes on a connection of a client, or of a proxy that says who it is.
func (p *publisher) welcome(ctx context.Context, conn *net.TCPConn, f *published) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	who, err := proxy.Hear(conn, *f.proxies.Load())
	if err != nil {
		p.log.Warn("a proxy does not say who its client is", "from", conn.RemoteAddr(), "err", err)
		_ = conn.SetLinger(0)
		return
	}
	p.pass(ctx, conn, who, f)
}

// pass joins a client with a door; who says where it is from.
func (p *publisher) pass(ctx context.Context, client *net.TCPConn, who net.Conn, f *published) {
	var first []byte
	if f.secure.Load() {
		if first = l7.Handshake(client); first == nil {
			return
		}
	}
	service := f.service.Load().(system.ServiceName)
	door, err := p.dial(ctx, service)
	if err != nil {
		p.log.Warn("no door", "service", service, "err", err)
		_ = client.SetLinger(0) // a reset says "not here" where a silent end would say "empty"
		return
	}
	defer door.Close()
	defer context.AfterFunc(ctx, func() { door.Close() })()
	if p.inlet != nil {
		from, to := who.RemoteAddr().(*net.TCPAddr).AddrPort(), who.LocalAddr().(*net.TCPAddr).AddrPort()
		first = append(p.key.Append(nil, proxy.Header{Client: from, Door: to, Service: string(service)}), first...)
	}
	if _, err := door.Write(first); err != nil {
		return
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(door, client) // an error ends this direction, as an end does
		_ = door.CloseWrite()
	}()
	if _, err := io.Copy(client, door); err != nil {
		_ = client.SetLinger(0)
		client.Close()
	}
	_ = client.CloseWrite()
	<-up
}

// dial finds a live node and its door, and waits for both if need be.
func (p *publisher) dial(ctx context.Context, service system.ServiceName) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	last := errors.New("no node is up")
	for {
		changed := p.changed()
		v, _ := p.view()
		if offset, ok := doorOf(v, service); ok {
			if p.inlet != nil {
				offset = p.inlet()
			}
			for i, first := 0, int(p.turn.Add(1)); i < len(v.Seen); i++ {
				seen := v.Seen[(first+i)%len(v.Seen)]
				if p.reach != nil && !p.reach(seen.Node) {
					continue
				}
				addr := net.JoinHostPort(seen.Address, strconv.Itoa(seen.PortBase+offset))
				d := net.Dialer{Timeout: time.Second}
				conn, err := d.DialContext(ctx, "tcp", addr)
				if err == nil {
					return conn.(*net.TCPConn), nil
				}
				last = err
			}
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // a door opens a moment after the plan names it
		case <-ctx.Done():
			return nil, last
		}
	}
}

func doorOf(v *control.View, service system.ServiceName) (int, bool) {
	if v == nil || v.Plan == nil {
		return 0, false
	}
	if service == "" {
		return webOffset, true
	}
	return v.Plan.Door(service)
}
