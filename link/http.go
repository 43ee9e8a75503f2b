package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"servent/system"
)

// HTTPOptions of an HTTP/1.1 pool.
type HTTPOptions struct {
	IdlePerNode int           // connections kept for the next request; 0 means 256
	IdleAfter   time.Duration // close a quiet connection after this; 0 means 60s
	Dial        time.Duration // the longest a dial may take; 0 means 10s
}

const (
	idleAfter   = 60 * time.Second
	serverIdle  = 2 * idleAfter // the client closes first, so that no request meets a closing connection
	dialFor     = 10 * time.Second
	stopFor     = 10 * time.Second // that open requests get when a server stops
	pingAfter   = time.Second      // of silence on HTTP/2
	pingFor     = 2 * time.Second  // until a ping's answer must be here
	headerBytes = 1 << 20
	streams     = 1000 // open requests of one node on HTTP/2
)

// Transport sends requests to nodes: the host of a request's URL is a node's name, as in
// http://node-2/v1/control/range. Errors of dialling wrap [ErrUnknownNode] and [ErrRefused]. It may be
// used by many goroutines.
type Transport struct {
	to func(node system.NodeID) pooled

	mu    sync.Mutex
	nodes map[system.NodeID]pooled
}

type pooled interface {
	http.RoundTripper
	CloseIdleConnections()
}

// HTTPTransport sends HTTP/1.1 over a pool of keep-alive connections a node, for requests and artifacts.
// It adds no header and follows no redirect.
func HTTPTransport(l Link, o HTTPOptions) *Transport {
	if o.IdlePerNode <= 0 {
		o.IdlePerNode = 256
	}
	if o.IdleAfter <= 0 {
		o.IdleAfter = idleAfter
	}
	if o.Dial <= 0 {
		o.Dial = dialFor
	}
	return newTransport(func(node system.NodeID) pooled {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			// net/http goes on dialling for the next request when this one is given up.
			ctx, cancel := context.WithTimeout(ctx, o.Dial)
			defer cancel()
			return l.Dial(ctx, node, HTTP)
		}
		return &http.Transport{
			DialContext:         dial,
			DialTLSContext:      dial,
			MaxIdleConnsPerHost: o.IdlePerNode,
			IdleConnTimeout:     o.IdleAfter,
			// A request that asks first gets an answer from a node of ours, but not from any program.
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true,
			ReadBufferSize:        piece,
			WriteBufferSize:       piece,
		}
	})
}

// HTTP2Transport sends HTTP/2 over one connection a node, for watches and logs; over another where that
// one is full: with a thousand open requests, or a hundred before the server has told its bound. Pings
// find a silent node within three seconds, and its open requests fail.
func HTTP2Transport(l Link) *Transport {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true) // the link encrypts
	return newTransport(func(node system.NodeID) pooled {
		return &http.Transport{
			Protocols:          protocols,
			DisableCompression: true,
			MaxConnsPerHost:    1, // that are not full; StrictMaxConcurrentRequests would hang on a full one (Go 1.26)
			HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingFor},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialFor)
				defer cancel()
				return l.Dial(ctx, node, HTTP2)
			},
		}
	})
}

func newTransport(to func(system.NodeID) pooled) *Transport {
	return &Transport{to: to, nodes: map[system.NodeID]pooled{}}
}

// RoundTrip sends one request to the node that its URL names.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	node := system.NodeID(r.URL.Hostname())
	t.mu.Lock()
	pool := t.nodes[node]
	if pool == nil {
		pool = t.to(node)
		t.nodes[node] = pool
	}
	t.mu.Unlock()
	return pool.RoundTrip(r)
}

// CloseNode closes the quiet connections to a node that is dead or gone. Open requests go on as long as
// they can.
func (t *Transport) CloseNode(node system.NodeID) {
	t.mu.Lock()
	pool := t.nodes[node]
	delete(t.nodes, node)
	t.mu.Unlock()
	if pool != nil {
		pool.CloseIdleConnections()
	}
}

// CloseIdleConnections closes the quiet connections to all nodes.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	all := t.nodes
	t.nodes = map[system.NodeID]pooled{}
	t.mu.Unlock()
	for _, pool := range all {
		pool.CloseIdleConnections()
	}
}

// ServeHTTP1 answers the HTTP/1.1 requests of other nodes until ctx ends, gives open ones 10s, and
// returns nil after a clean stop. Handlers learn who asks from [PeerFrom]. Panics of handlers and trouble
// with connections go to log; nil discards them.
func ServeHTTP1(ctx context.Context, l Link, h http.Handler, log *slog.Logger) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return serve(ctx, l, HTTP, log, &http.Server{Handler: h, Protocols: protocols})
}

// ServeHTTP2 is [ServeHTTP1] for HTTP/2.
func ServeHTTP2(ctx context.Context, l Link, h http.Handler, log *slog.Logger) error {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true) // the link encrypts
	return serve(ctx, l, HTTP2, log, &http.Server{
		Handler: h, Protocols: protocols,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingFor, MaxConcurrentStreams: streams},
	})
}

func serve(ctx context.Context, l Link, proto Proto, log *slog.Logger, srv *http.Server) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	srv.ErrorLog = slog.NewLogLogger(log.With("node", l.Self().Node).Handler(), slog.LevelWarn)
	srv.ReadHeaderTimeout, srv.IdleTimeout, srv.MaxHeaderBytes = stopFor, serverIdle, headerBytes
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, c.(Conn).Peer())
	}
	done := make(chan error, 1) // buffered: the sender can always leave
	ln := l.Accept(proto)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopFor)
		defer cancel()
		err := srv.Shutdown(grace)
		if errors.Is(err, net.ErrClosed) { // the link has closed the listener before us, which is as good
			err = nil
		}
		if err != nil {
			srv.Close()
		}
		done <- err
	})
	err := srv.Serve(ln)
	if stop() { // ctx still lives: the link has ended under us
		srv.Close()
		return fmt.Errorf("serve %s on the link of %s: %w", proto, l.Self().Node, err)
	}
	if err := <-done; err != nil {
		return fmt.Errorf("stop %s on the link of %s: requests were still open after %v: %w", proto, l.Self().Node, stopFor, err)
	}
	return nil
}

type peerKey struct{}

// PeerFrom returns the node that a request came from; false when it did not come over a link.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
