package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
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
	log     *slog.Logger
	turn    atomic.Uint64 // round robin over nodes

	mu   sync.Mutex // guards open and web
	open map[string]*published
	web  int // port of the web door; 0: none yet
}

type published struct {
	admin.Published
	ln     net.Listener
	cancel context.CancelFunc
	done   chan struct{}
}

// way is one published port as the file asks for it.
type way struct {
	service system.ServiceName // empty: the web door
	host    string
	port    int // 0: any free one
	target  int
	scheme  string
	pos     system.Pos
}

func (w way) key() string { return fmt.Sprintf("%s %s:%d:%d", w.service, w.host, w.port, w.target) }

// ways lists what a system publishes by port.
func ways(sys *system.System) []way {
	var ws []way
	for i := range sys.Services {
		s := &sys.Services[i]
		scheme := "tcp"
		if s.Switch.By == system.ByRequest {
			scheme = "http"
		}
		for _, p := range s.Ports {
			host := p.Host
			if host == "" {
				host = "127.0.0.1"
			}
			ws = append(ws, way{s.Name, host, p.Published, p.Target, scheme, p.Pos})
		}
	}
	return ws
}

// Set opens what sys publishes and is not open, and closes what it no longer does. When one port cannot
// be had nothing is changed and the error says who has it.
func (p *publisher) Set(ctx context.Context, sys *system.System) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[string]*published{}
	var fresh []*published
	defer func() {
		if err != nil {
			for _, f := range fresh {
				f.ln.Close()
			}
		}
	}()
	for _, w := range ways(sys) {
		if have := p.open[w.key()]; have != nil {
			next[w.key()] = have
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(w.host, strconv.Itoa(w.port)))
		if err != nil {
			return taken(w, err)
		}
		f := &published{Published: admin.Published{Service: w.service, URL: w.scheme + "://" + ln.Addr().String()}, ln: ln}
		next[w.key()], fresh = f, append(fresh, f)
	}
	web, err := p.setWeb(sys, next)
	if err != nil {
		return err
	}
	if web != nil {
		fresh = append(fresh, web)
	}
	for key, old := range p.open {
		if next[key] == nil {
			old.close()
		}
	}
	p.open = next
	for _, f := range fresh {
		p.serve(ctx, f)
	}
	return nil
}

// setWeb keeps, opens or leaves out the web door.
func (p *publisher) setWeb(sys *system.System, next map[string]*published) (*published, error) {
	routed := false
	for i := range sys.Services {
		routed = routed || len(sys.Services[i].Routes) > 0
	}
	if have := p.open["web"]; !routed || have != nil {
		if routed {
			next["web"] = have
		}
		return nil, nil
	}
	first := max(p.web, webFirst)
	for port := first; port < first+webTries; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			p.web = port
			f := &published{Published: admin.Published{URL: "http://" + ln.Addr().String()}, ln: ln}
			next["web"] = f
			return f, nil
		}
	}
	return nil, fmt.Errorf("web door: no free port from %d to %d", first, first+webTries-1)
}

// taken says who has a port.
func taken(w way, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) && !isInUse(err) {
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

// Published lists the ways in: every port, and every route of the web door.
func (p *publisher) Published(sys *system.System) []admin.Published {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []admin.Published
	if sys == nil {
		return out
	}
	for i := range sys.Services {
		s := &sys.Services[i]
		if web := p.open["web"]; web != nil {
			for _, r := range s.Routes {
				out = append(out, admin.Published{Service: s.Name, URL: routeURL(web.URL, r)})
			}
		}
		for _, w := range ways(&system.System{Services: []system.Service{*s}}) {
			if f := p.open[w.key()]; f != nil {
				out = append(out, f.Published)
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
	f.ln.Close()
	<-f.done
}

func (p *publisher) serve(ctx context.Context, f *published) {
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer f.cancel()
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
				p.pass(ctx, conn.(*net.TCPConn), f.Service)
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
