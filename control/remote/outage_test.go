package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

// TestNextServer: a dead server costs nothing but a try; a change is still made once.
func TestNextServer(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	f := newFleet(t)
	f.serve("s1", store, remote.Bounds{}).Close()
	f.serve("s2", store, remote.Bounds{})
	s := f.client(identity.Server, "s3")
	first := put(t, s, "k", "1")
	if _, rev, err := s.Range(ctx, "k"); err != nil || rev != first {
		t.Errorf("Range = %d, %v, want %d: one change", rev, err, first)
	}
}

// lost delivers every call and loses the answers of some.
type lost struct {
	http.RoundTripper
	lose atomic.Int64 // so many answers
}

func (l *lost) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && l.lose.Add(-1) >= 0 {
		resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

// TestLostAnswers: what is safe is repeated, a change is not.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	f := newFleet(t)
	f.serve("s1", store, remote.Bounds{})
	f.serve("s2", store, remote.Bounds{})
	net := &lost{RoundTripper: f.transport(identity.Server, "s3")}
	s := remote.New(remote.Options{Servers: f.servers, Transport: net})
	lease, err := s.Grant(ctx, control.MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	_, before, _ := store.Range(ctx, "")
	for name, call := range map[string]func() error{
		"Range": func() error { _, _, err := s.Range(ctx, ""); return err },
		"Grant": func() error { _, err := s.Grant(ctx, control.MinTTL); return err },
		"Renew": func() error { return s.Renew(ctx, lease) },
	} {
		net.lose.Store(3)
		if err := call(); err != nil {
			t.Errorf("%s = %v, want it repeated", name, err)
		}
	}
	net.lose.Store(1)
	_, _, err = s.Commit(ctx, txn(control.Op{Key: "k", Value: []byte("1")}))
	if !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Commit = %v, want ErrUnavailable: nobody knows", err)
	}
	if _, after, _ := store.Range(ctx, ""); after != before+1 {
		t.Errorf("%d changes were made, want 1", after-before)
	}
}

// TestWatchGoesOn: a watch wanders from server to server and gives every revision once.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	store := memory.New()
	f := newFleet(t)
	servers := map[system.NodeID]*http.Server{}
	for _, name := range []system.NodeID{"s1", "s2", "s3"} {
		servers[name] = f.serve(name, store, remote.Bounds{})
	}
	s := f.client(identity.Server, "s9")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	seen, done := make(chan control.Batch, 100), make(chan error, 1)
	from := put(t, store, "k", "0")
	go func() {
		done <- s.Watch(ctx, "k", from, func(b control.Batch) error {
			if len(b.Changes) > 0 {
				seen <- b
			}
			return nil
		})
	}()
	for i := range 6 {
		if i > 0 {
			put(t, store, "k", fmt.Sprint(i))
		}
		if got := string((<-seen).Changes[0].KV.Value); got != fmt.Sprint(i) {
			t.Fatalf("the watch gave %s, want %d", got, i)
		}
		if i%2 == 1 && i < 5 { // the one it is at: they are asked in order
			servers[[]system.NodeID{"s1", "s2"}[i/2]].Close()
			put(t, store, "other", "x")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v, want nil", err)
	}
}

// pipes is a network inside a synctest bubble: a server whose connections can fall silent.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	mu     sync.Mutex
	silent bool
	ends   []net.Conn
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, client, server)
	if !p.silent { // else the connection stands and nobody answers
		p.conns <- server
	}
	return silence{client, p}, nil
}

// silence swallows what a silent server would say.
type silence struct {
	net.Conn
	p *pipes
}

func (s silence) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		s.p.mu.Lock()
		silent := s.p.silent
		s.p.mu.Unlock()
		if !silent || err != nil {
			return n, err
		}
	}
}

func (s silence) Write(b []byte) (int, error) {
	s.p.mu.Lock()
	silent := s.p.silent
	s.p.mu.Unlock()
	if silent {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// TestQuietAndSilent: a watch lives through an hour without news; a server that says nothing at all is
// noticed within seconds, and the watch goes on when it speaks again.
func TestQuietAndSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := memory.New(), &pipes{conns: make(chan net.Conn, 16)}
		all := func(*http.Request) (identity.ID, bool) {
			return identity.ID{Cluster: "test", Role: identity.Server, Node: "s1"}, true
		}
		srv := &http.Server{Handler: remote.Handler(store, all, remote.Bounds{})}
		go srv.Serve(p)
		transport := &http.Transport{DialContext: p.dial}
		s := remote.New(remote.Options{Servers: func() []system.NodeID { return []system.NodeID{"s1"} }, Transport: transport})

		ctx, stop := context.WithCancel(t.Context())
		news, ended := make(chan control.Batch, 10), make(chan error, 1)
		watch := func(from control.Rev) {
			go func() {
				ended <- s.Watch(ctx, "", from, func(b control.Batch) error { news <- b; return nil })
			}()
		}
		watch(2)
		time.Sleep(time.Hour)
		rev := put(t, store, "k", "1")
		synctest.Wait()
		if b := <-news; b.Rev != rev || len(news) > 0 {
			t.Errorf("after an hour the watch gave %d and %d more, want %d alone", b.Rev, len(news), rev)
		}

		hush := func(silent bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.silent = silent
		}
		hush(true) // shorter than a watch bears
		time.Sleep(4 * time.Second)
		rev = put(t, store, "k", "2")
		hush(false)
		time.Sleep(4 * time.Second)
		if b := <-news; b.Rev != rev || len(news) > 0 {
			t.Errorf("after a short silence the watch gave %d and %d more, want %d alone", b.Rev, len(news), rev)
		}

		hush(true)
		began := time.Now()
		if err := <-ended; !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("Watch of a silent server = %v, want ErrUnavailable", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 10*time.Second {
			t.Errorf("the silence was noticed after %v, want 3s to 10s", took)
		}
		began = time.Now()
		if _, _, err := s.Range(ctx, ""); !errors.Is(err, control.ErrUnavailable) || time.Since(began) != 5*time.Second {
			t.Errorf("Range = %v after %v, want ErrUnavailable after 5s", err, time.Since(began))
		}
		if _, _, err := s.Commit(ctx, txn()); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("Commit = %v, want ErrUnavailable", err)
		}
		hush(false)
		watch(rev)
		if b := <-news; b.Rev != rev {
			t.Errorf("the watch gave %d, want %d", b.Rev, rev)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Watch = %v, want nil", err)
		}
		transport.CloseIdleConnections()
		srv.Close()
		for _, c := range p.ends {
			c.Close()
		}
	})
}

// TestNoServer: before any server is known there is no endless wait.
func TestNoServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := remote.New(remote.Options{Servers: func() []system.NodeID { return nil }})
		began := time.Now()
		if _, _, err := s.Range(t.Context(), ""); !errors.Is(err, control.ErrUnavailable) || time.Since(began) > 6*time.Second {
			t.Errorf("Range = %v after %v, want ErrUnavailable", err, time.Since(began))
		}
		err := s.Watch(t.Context(), "", 0, func(control.Batch) error { return nil })
		if !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("Watch = %v, want ErrUnavailable", err)
		}
	})
}

// TestWatchesAreBounded: one caller's watches end at the bound; another's do not, and a place comes free.
func TestWatchesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve("s1", memory.New(), remote.Bounds{Watches: 2})
	open := func(node system.NodeID, wait time.Duration) (stop func(), err error) {
		s := remote.New(remote.Options{Servers: f.servers, Transport: f.transport(identity.Node, node), Silence: wait})
		ctx, cancel := context.WithCancel(t.Context())
		up, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- s.Watch(ctx, "", 0, func(control.Batch) error {
				select {
				case <-up:
				default:
					close(up)
				}
				return nil
			})
		}()
		select {
		case <-up:
			return func() { cancel(); <-done }, nil
		case err := <-done:
			cancel()
			return nil, err
		}
	}
	var stops []func()
	for range 2 {
		stop, err := open("n1", 0)
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	if _, err := open("n1", 100*time.Millisecond); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("the third watch = %v, want ErrUnavailable", err)
	}
	stop, err := open("n2", 0)
	if err != nil {
		t.Errorf("another's watch = %v", err)
	}
	stops[0]()
	if stops[0], err = open("n1", 0); err != nil {
		t.Errorf("a watch after one ended = %v", err)
	}
	stop()
	for _, stop := range stops {
		stop()
	}
}

// TestNotOurHandler: what answers in our place is no answer.
func TestNotOurHandler(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "<html>", "{}", `{"code":""}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, body)
		}))
		addr := system.NodeID(srv.Listener.Addr().String())
		s := remote.New(remote.Options{Servers: func() []system.NodeID { return []system.NodeID{addr} }, Transport: srv.Client().Transport, Timeout: 200 * time.Millisecond})
		if _, _, err := s.Range(t.Context(), ""); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("Range of %q = %v, want ErrUnavailable", body, err)
		}
		srv.Close()
	}
}
