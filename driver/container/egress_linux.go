package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Where an instance with egress finds its proxies: at the other end of its cable, beside its ways.
var egressAddress = netip.AddrFrom4([4]byte{100, 64, 0, 2})

const (
	httpProxyPort  = 3128 // Squid's
	socksProxyPort = 1080 // RFC 1928 §3
	askWait        = 10 * time.Second
	dialWait       = 30 * time.Second
)

// errInward: an address that is not outside.
var errInward = errors.New("egress leads outside alone")

// outside refuses the node itself and what only it can reach: its own addresses, loopback, link-local ones (a cloud
// machine's metadata is at 169.254.169.254), groups, and no address at all. It looks at the address that is dialled,
// not at a name, so a name that leads inside gains nothing.
func outside(at netip.Addr, own []net.Addr) error {
	at = at.Unmap().WithZone("")
	if !at.IsValid() || at.IsUnspecified() || at.IsLoopback() || at.IsLinkLocalUnicast() || at.IsMulticast() ||
		at.Is4() && (at.As4()[0] == 0 || at == netip.AddrFrom4([4]byte{255, 255, 255, 255})) {
		return fmt.Errorf("%w, and %s is not", errInward, at)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap().WithZone("") == at {
			return fmt.Errorf("%w, and %s is this node", errInward, at)
		}
	}
	return nil
}

// dialOutside opens a TCP connection from the node's own network.
func dialOutside(ctx context.Context, _, address string) (net.Conn, error) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	d := net.Dialer{Timeout: dialWait, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("egress: %w", err)
		}
		return outside(at.Addr(), own)
	}}
	return d.DialContext(ctx, "tcp", address)
}

// egressEnv tells programs of the proxies, by the names that curl, Go, Python and others read.
func egressEnv(inside string) []string {
	proxy := "http://" + net.JoinHostPort(egressAddress.String(), strconv.Itoa(httpProxyPort))
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		env = append(env, name+"="+proxy)
	}
	none := "localhost,127.0.0.1,::1" + inside
	return append(env, "NO_PROXY="+none, "no_proxy="+none,
		"SERVENT_SOCKS="+net.JoinHostPort(egressAddress.String(), strconv.Itoa(socksProxyPort)))
}

// proxy is an HTTP proxy (RFC 9110 §7.6, CONNECT: §9.3.6).
type proxy struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	forward *httputil.ReverseProxy
}

func newProxy(dial func(context.Context, string, string) (net.Conn, error), log *slog.Logger) *proxy {
	return &proxy{dial: dial, forward: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport: &http.Transport{Proxy: nil, DialContext: dial, DisableCompression: true, ResponseHeaderTimeout: 5 * time.Minute,
			MaxIdleConns: 16, IdleConnTimeout: 30 * time.Second},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, err) },
	}}
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusBadGateway
	if errors.Is(err, errInward) {
		code = http.StatusForbidden
	}
	http.Error(w, "servent egress: "+err.Error(), code)
}

func (p *proxy) pass(w http.ResponseWriter, r *http.Request) {
	if r.URL.Scheme != "http" || r.URL.Host == "" {
		http.Error(w, "servent egress: this is a proxy: want http://HOST/PATH or CONNECT HOST:PORT", http.StatusBadRequest)
		return
	}
	p.forward.ServeHTTP(w, r)
}

// connect makes a tunnel and returns when it has ended. It returns false when there was none: the connection is
// the server's still.
func (p *proxy) connect(w http.ResponseWriter, r *http.Request) bool {
	up, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		refuse(w, err)
		return false
	}
	c, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		up.Close()
		refuse(w, err)
		return false
	}
	_ = c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		up.Close()
		c.Close()
		return true
	}
	early := make([]byte, rest.Reader.Buffered()) // what the client said without waiting for our answer
	_, _ = io.ReadFull(rest, early)
	both(r.Context(), c, up, early)
	return true
}

// serve answers on a listener until ctx ends, and has ended all then.
func (p *proxy) serve(ctx context.Context, ln net.Listener) {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup // connections, and tunnels, for which a server does not wait
	slots := make(chan struct{}, mostOpen)
	gone := func() { <-slots; open.Done() }
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodConnect:
			p.pass(w, r)
		case p.connect(w, r):
			gone()
		}
	})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: askWait, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: p.forward.ErrorLog,
		ConnState: func(_ net.Conn, is http.ConnState) {
			switch is {
			case http.StateNew: // before another is accepted
				open.Add(1)
			case http.StateClosed:
				gone()
			}
		}}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	_ = srv.Serve(slotted{ln, slots, ctx.Done()}) // its only end is that it is closed
	cancel()
	stop()
	srv.Close()
	open.Wait()
	p.forward.Transport.(*http.Transport).CloseIdleConnections()
}

// slotted accepts when a slot is free; who ends the connection empties it. The connections stay what they are, so
// that each half can be closed.
type slotted struct {
	net.Listener
	slots chan struct{}
	done  <-chan struct{}
}

func (b slotted) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
	}
	return c, err
}

// SOCKS 5 (RFC 1928), without authentication, CONNECT alone.
const (
	socksVersion     = 5
	socksNoAuth      = 0x00
	socksNoMethod    = 0xff
	socksConnect     = 1
	socksIPv4        = 1
	socksName        = 3
	socksIPv6        = 4
	socksOK          = 0
	socksNotAllowed  = 2
	socksUnreachable = 4
	socksNoCommand   = 7
)

var errSocks = errors.New("not SOCKS 5")

// askedOf reads a client's greeting and request (RFC 1928 §3, §4), answers the greeting, and returns the host:port
// that it wants. code is what to refuse a request with.
func askedOf(c io.ReadWriter) (address string, code byte, err error) {
	r := bufio.NewReaderSize(io.LimitReader(c, 1024), 512)
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return "", 0, err
	}
	if head[0] != socksVersion {
		return "", 0, errSocks
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(r, methods); err != nil {
		return "", 0, err
	}
	chosen := byte(socksNoMethod)
	for _, m := range methods {
		if m == socksNoAuth {
			chosen = socksNoAuth
		}
	}
	if _, err := c.Write([]byte{socksVersion, chosen}); err != nil {
		return "", 0, err
	}
	if chosen == socksNoMethod {
		return "", 0, errSocks
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", 0, err
	}
	if head[0] != socksVersion {
		return "", 0, errSocks
	}
	size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[head[3]]
	if head[3] == socksName {
		n, err := r.ReadByte()
		if err != nil {
			return "", 0, err
		}
		size = int(n)
	}
	if size == 0 {
		return "", 0, errSocks
	}
	to := make([]byte, size+2)
	if _, err := io.ReadFull(r, to); err != nil {
		return "", 0, err
	}
	if r.Buffered() > 0 {
		return "", 0, errSocks // it did not wait for our answer
	}
	host := string(to[:size])
	if at, ok := netip.AddrFromSlice(to[:size]); ok && head[3] != socksName {
		host = at.String()
	}
	address = net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(to[size:]))))
	if head[1] != socksConnect {
		return address, socksNoCommand, nil
	}
	return address, socksOK, nil
}

// socks serves one connection.
func (p *proxy) socks(ctx context.Context, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(askWait))
	address, code, err := askedOf(c)
	if err != nil {
		return
	}
	var up net.Conn
	if code == socksOK {
		_ = c.SetDeadline(time.Time{})
		if up, err = p.dial(ctx, "tcp", address); err != nil {
			code = socksUnreachable
			if errors.Is(err, errInward) {
				code = socksNotAllowed
			}
		}
	}
	_, err = c.Write([]byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	switch {
	case up == nil:
	case err != nil:
		up.Close()
	default:
		both(ctx, c, up, nil)
	}
}
