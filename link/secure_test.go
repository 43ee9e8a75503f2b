package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"servent/identity"
	"servent/system"
)

// serving is one link on loopback, its address and its log.
func serving(t *testing.T, k *identity.Keeper, resolve Resolver, handshake time.Duration) (*Secure, string, chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(lines, 100)
	s := New(Options{Identity: k, Resolve: resolve, Handshake: handshake, Log: slog.New(slog.NewTextHandler(lines, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String(), lines
}

// lines is a log as a channel.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

func TestStrangersAreRefused(t *testing.T) {
	ca, err := identity.NewAuthority("shop")
	if err != nil {
		t.Fatal(err)
	}
	twin, err := identity.NewAuthority("shop")
	if err != nil {
		t.Fatal(err)
	}
	var at string
	known := func(n system.NodeID) (Address, bool) { return Address{Host: at}, n != "nobody" }
	b, addr, log := serving(t, keeper(t, ca, "b"), known, 0)
	at = addr
	ln := b.Accept(Tunnel)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			t.Errorf("a stranger was let in as %v", c.(Conn).Peer())
		}
	}()
	expectLog := func(want string) {
		t.Helper()
		select {
		case got := <-log:
			if !strings.Contains(got, want) {
				t.Errorf("logged %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("nothing logged, want %q", want)
		}
	}

	// One of another cluster with the same name: it does not believe us, and we do not believe it.
	stranger := New(Options{Identity: keeper(t, twin, "a"), Resolve: known})
	if _, err := stranger.Dial(t.Context(), "b", Tunnel); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("stranger dials: %v", err)
	}
	expectLog("bad certificate")

	// One of ours at an address that is another's.
	a := New(Options{Identity: keeper(t, ca, "a"), Resolve: known})
	if _, err := a.Dial(t.Context(), "c", Tunnel); err == nil || !strings.Contains(err.Error(), "want node c") {
		t.Errorf("b answers for c: %v", err)
	}
	expectLog("bad certificate")

	for _, tt := range []struct {
		name   string
		keeper *identity.Keeper
		protos []string
		log    string
	}{
		{"believes everybody", keeper(t, twin, "a"), []string{string(Tunnel)}, "unknown authority"},
		{"says that it is another", keeper(t, ca, "a"), []string{string(Tunnel), hello + "c"}, "said that it was c"},
		{"asks for nothing", keeper(t, ca, "a"), nil, "nobody here answers"},
		{"asks for what nobody answers", keeper(t, ca, "a"), []string{"ftp"}, "unsupported application protocols"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := tt.keeper.Client(func(identity.ID) error { return nil }, tt.protos...)
			config.VerifyConnection = nil
			c, err := tls.Dial("tcp", addr, config)
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if err == nil {
				t.Error("was answered")
			}
			expectLog(tt.log)
		})
	}
	ln.Close()
}

func TestHandshakeIsBounded(t *testing.T) {
	ca, err := identity.NewAuthority("shop")
	if err != nil {
		t.Fatal(err)
	}
	_, addr, log := serving(t, keeper(t, ca, "b"), func(system.NodeID) (Address, bool) { return Address{}, false }, 50*time.Millisecond)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the silent caller was answered")
	}
	if got := <-log; !strings.Contains(got, "no end after 50ms") {
		t.Errorf("logged %q", got)
	}

	// The other way round: a listener that never speaks.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := New(Options{
		Identity: keeper(t, ca, "a"), Handshake: 50 * time.Millisecond,
		Resolve: func(system.NodeID) (Address, bool) { return Address{Host: ln.Addr().String()}, true },
	})
	_, err = a.Dial(t.Context(), "b", Tunnel)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrRefused) || t.Context().Err() != nil {
		t.Errorf("Dial() = %v, want the handshake's bound", err)
	}
}

func TestServeSaysWhenItsListenerFails(t *testing.T) {
	ca, err := identity.NewAuthority("shop")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Identity: keeper(t, ca, "b"), Resolve: func(system.NodeID) (Address, bool) { return Address{}, false }})
	ln.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want net.ErrClosed", err)
	}
}

// BenchmarkDial is one connection with mutual TLS beside one of plain TCP, back to back: the ratio counts.
func BenchmarkDial(b *testing.B) {
	h := secures(b, nil)
	go answer(h.links["b"].Accept(Tunnel))
	plain := plainEcho(b)
	var tcp, secure time.Duration
	for b.Loop() {
		tcp += timed(func() { hangUp(net.Dial("tcp", plain)) })
		secure += timed(func() { hangUp(h.links["a"].Dial(b.Context(), "b", Tunnel)) })
	}
	b.ReportMetric(float64(secure)/float64(b.N), "ns/dial")
	b.ReportMetric(float64(secure)/float64(tcp), "x/tcp")
}

// BenchmarkEcho is 256 bytes there and back on an open connection, beside plain TCP.
func BenchmarkEcho(b *testing.B) {
	h := secures(b, nil)
	go answer(h.links["b"].Accept(Tunnel))
	plain, err := net.Dial("tcp", plainEcho(b))
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	ours, err := h.links["a"].Dial(b.Context(), "b", Tunnel)
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	message, got := make([]byte, 256), make([]byte, 256)
	turn := func(c net.Conn) {
		if _, err := c.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
	}
	var tcp, secure time.Duration
	for b.Loop() {
		tcp += timed(func() { turn(plain) })
		secure += timed(func() { turn(ours) })
	}
	b.ReportMetric(float64(secure)/float64(b.N), "ns/echo")
	b.ReportMetric(float64(secure)/float64(tcp), "x/tcp")
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// hangUp waits for one byte, so that both sides have done their part, and closes.
func hangUp[C net.Conn](c C, err error) {
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		panic(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		panic(err)
	}
}

func plainEcho(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go answer(ln)
	return ln.Addr().String()
}

// answer echoes on every connection until ln is closed.
func answer(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			p := make([]byte, 4096)
			for {
				n, err := c.Read(p)
				if err != nil {
					return
				}
				if _, err := c.Write(p[:n]); err != nil {
					return
				}
			}
		}()
	}
}
