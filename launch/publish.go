package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/admin"
	"servent/control"
	"servent/system"
)

const (
	webOffset = 1                // of every node's web door
	webFirst  = 18080            // the published web door, or the next free port
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
	log     *slog.Logger
	turn    atomic.Uint64 // round robin over nodes

	mu   sync.Mutex // guards open and web
	open map[string]*published
	web  int // port of the web door; 0: none yet
}

// published is one open port. Whose it is may change while it is open.
type published struct {
	ln      net.Listener
	service atomic.Value // system.ServiceName; empty: the web door
	cancel  context.CancelFunc
	done    chan struct{}
}

// webDoor is the key of the web door among the open ports.
const webDoor = "web door"

// way is one published port as the file asks for it.
type way struct {
	service system.ServiceName
	host    string
	port    int // 0: any free one
	target  int
	scheme  string
	pos     system.Pos
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
	scheme := "tcp"
	if s.Switch.By == system.ByRequest {
		scheme = "http"
	}
	for _, p := range s.Ports {
		ws = append(ws, way{s.Name, cmp.Or(p.Host, "127.0.0.1"), p.Published, p.Target, scheme, p.Pos})
	}
	return ws
}

// Set opens what sys publishes and is not open, and closes what it no longer does. When one port cannot
// be had nothing is changed and the error says who has it. Calls do not overlap.
func (p *publisher) Set(sys *system.System) (err error) {
	p.mu.Lock()
	open, web := p.open, p.web
	p.mu.Unlock()
	next, service := map[string]*published{}, map[string]system.ServiceName{}
	var fresh []*published
	defer func() {
		if err != nil {
			for _, f := range fresh {
				_ = f.ln.Close() // nobody has connected yet
			}
		}
	}()
	routed := false
	for i := range sys.Services {
		routed = routed || len(sys.Services[i].Routes) > 0
		for _, w := range ways(&sys.Services[i]) {
			key := w.key()
			service[key] = w.service
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
	}
	if routed {
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
		f.service.Store(service[key])
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
	if !isInUse(err) {
		return fmt.Errorf("%s: ports: cannot listen on %s:%d: %w", w.pos, w.host, w.port, err)
	}
	who := holder(w.port)
	if who == "" {
		who = "another program"
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
	for i := range sys.Services {
		s := &sys.Services[i]
		if web := open[webDoor]; web != nil {
			for _, r := range s.Routes {
				out = append(out, admin.Published{Service: s.Name, URL: routeURL("http://"+web.ln.Addr().String(), r)})
			}
		}
		for _, w := range ways(s) {
			if f := open[w.key()]; f != nil {
				out = append(out, admin.Published{Service: s.Name, URL: w.scheme + "://" + f.ln.Addr().String()})
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
				p.pass(ctx, conn.(*net.TCPConn), f.service.Load().(system.ServiceName))
			})
		}
	}()
}

// pass joins a client with a door.
func (p *publisher) pass(ctx context.Context, client *net.TCPConn, service system.ServiceName) {
	defer client.Close()
	door, err := p.dial(ctx, service)
	if err != nil {
		p.log.Warn("no door", "service", service, "err", err)
		_ = client.SetLinger(0) // a reset says "not here" where a silent end would say "empty"
		return
	}
	defer door.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		door.Close()
	})
	defer stop()
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
