package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"servent/identity"
	"servent/system"

	"golang.org/x/net/nettest"
)

// faulty is what both links offer beyond the contract.
type faulty interface {
	Link
	Fault(system.NodeID, Fault)
	FaultSite(system.Site, Fault)
	SetFaults(Faults)
	Counters() []Counter
	Sever(system.NodeID)
}

// house is some nodes, and the way to kill one.
type house struct {
	links map[system.NodeID]faulty
	kill  func(system.NodeID)
}

var sites = map[system.NodeID]system.Site{"a": "eu", "b": "ap"}

func id(node system.NodeID) identity.ID {
	return identity.ID{Cluster: "test", Role: identity.Node, Node: node}
}

// memories builds a and b in memory.
func memories(t testing.TB, em map[system.NodeID]Emulation) house {
	hub := NewHub()
	t.Cleanup(hub.Close)
	h := house{map[system.NodeID]faulty{}, hub.Kill}
	for n, site := range sites {
		h.links[n] = hub.LinkAt(id(n), site, em[n])
	}
	return h
}

// secures builds a and b on loopback; they end with the test.
func secures(t testing.TB, em map[system.NodeID]Emulation) house {
	ca, err := identity.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	at := map[system.NodeID]Address{}
	resolve := func(n system.NodeID) (Address, bool) {
		mu.Lock()
		defer mu.Unlock()
		a, ok := at[n]
		return a, ok
	}
	h := house{links: map[system.NodeID]faulty{}}
	ends := map[system.NodeID]func(){}
	for n, site := range sites {
		k := keeper(t, ca, n)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		at[n] = Address{ln.Addr().String(), site}
		mu.Unlock()
		s := New(Options{Identity: k, Resolve: resolve, Emulation: em[n], Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, ln) }()
		h.links[n] = s
		ends[n] = sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve of %s = %v", n, err)
			}
		})
		t.Cleanup(ends[n])
	}
	h.kill = func(n system.NodeID) { ends[n]() }
	return h
}

func keeper(t testing.TB, ca *identity.Authority, n system.NodeID) *identity.Keeper {
	t.Helper()
	c, err := ca.Issue(identity.ID{Cluster: ca.Cluster(), Role: identity.Node, Node: n}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	k, err := identity.NewKeeper(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// both runs a test on both links.
func both(t *testing.T, test func(t *testing.T, h house)) {
	t.Run("memory", func(t *testing.T) { test(t, memories(t, nil)) })
	t.Run("secure", func(t *testing.T) { test(t, secures(t, nil)) })
}

// connect opens one connection from a to b.
func connect(t testing.TB, h house, proto Proto) (ours, theirs Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ln := h.links["b"].Accept(proto)
	ours, err := h.links["a"].Dial(ctx, "b", proto)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	theirs = c.(Conn)
	t.Cleanup(func() { theirs.Close(); ours.Close() }) // in this order: TLS gives a peer that does not read 5s
	return ours, theirs
}

// say writes a word on one end and reads it on the other.
func say(t testing.TB, from, to net.Conn, word string) {
	t.Helper()
	if _, err := io.WriteString(from, word); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != word {
		t.Fatalf("read %q, %v, want %q", got, err, word)
	}
}

func TestBothEndsKnowEachOther(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		if got, want := ours.Peer(), (Peer{id("b"), "ap"}); got != want {
			t.Errorf("a's peer = %v, want %v", got, want)
		}
		if got, want := theirs.Peer(), (Peer{id("a"), "eu"}); got != want {
			t.Errorf("b's peer = %v, want %v", got, want)
		}
		if got, want := h.links["a"].Self(), id("a"); got != want {
			t.Errorf("Self() = %v, want %v", got, want)
		}
		say(t, ours, theirs, "ping")
		say(t, theirs, ours, "pong")
	})
}

func TestHalfClose(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		go func() {
			io.WriteString(ours, "question")
			ours.CloseWrite()
		}()
		got, err := io.ReadAll(theirs)
		if string(got) != "question" || err != nil {
			t.Fatalf("b reads %q, %v", got, err)
		}
		say(t, theirs, ours, "answer") // the other direction is still open
		theirs.Close()
		if got, err := io.ReadAll(ours); len(got) != 0 || err != nil {
			t.Errorf("after the end a reads %q, %v", got, err)
		}
	})
}

func TestManyBytesArriveInOrder(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		sent := make([]byte, 4<<20)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		go func() {
			ours.Write(sent)
			ours.CloseWrite()
		}()
		got, err := io.ReadAll(theirs)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes arrived of %d, %v, equal %v", len(got), len(sent), err, bytes.Equal(got, sent))
		}
	})
}

func TestDialErrors(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		a := h.links["a"]
		ln := h.links["b"].Accept(Tunnel)
		if _, err := a.Dial(t.Context(), "nobody", Tunnel); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("unknown node: %v", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Dial(gone, "b", Tunnel); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if _, err := a.Dial(t.Context(), "b", Alive); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("a protocol nobody answers: %v, want an error that does not say the node is dead", err)
		}
		ln.Close()
		if _, err := a.Dial(t.Context(), "b", Tunnel); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("a protocol nobody answers any more: %v", err)
		}
		h.kill("b")
		if _, err := a.Dial(t.Context(), "b", Tunnel); !errors.Is(err, ErrRefused) {
			t.Errorf("dead node: %v", err)
		}
	})
}

func TestAcceptOncePerProtocol(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		b := h.links["b"]
		ln := b.Accept(Tunnel)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the second Accept did not panic")
				}
			}()
			b.Accept(Tunnel)
		}()
		ln.Close()
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed listener: %v", err)
		}
		b.Accept(Tunnel).Close()
	})
}

func TestConnectionsNobodyTakesAreClosed(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ln := h.links["b"].Accept(Tunnel)
		c, err := h.links["a"].Dial(t.Context(), "b", Tunnel)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for queue := ln.(*listener).queue; len(queue) == 0; { // the server may still be at its handshake
			runtime.Gosched()
		}
		ln.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("Read() = nil, want the connection closed")
		}
	})
}

func TestDeadlines(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		ours.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Read() = %v, want the deadline", err)
		}
		ours.SetReadDeadline(time.Time{})
		say(t, theirs, ours, "still here")
		ours.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		for block := make([]byte, 1<<20); ; { // b does not read: a must fill up
			if _, err := ours.Write(block); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Write() = %v, want the deadline", err)
				}
				break
			}
		}
	})
}

func TestCloseUnblocksReader(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, _ := connect(t, h, Tunnel)
		done := make(chan error, 1)
		go func() {
			_, err := ours.Read(make([]byte, 1))
			done <- err
		}()
		ours.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read() = %v, want net.ErrClosed", err)
		}
		if err := ours.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close() = %v", err)
		}
	})
}

func TestDeathBreaksConnections(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, _ := connect(t, h, Alive)
		h.kill("b")
		if _, err := ours.Read(make([]byte, 1)); err == nil {
			t.Error("Read() = nil, want the connection broken")
		}
		if _, err := h.links["b"].Dial(t.Context(), "a", Alive); err == nil {
			t.Error("a dead node dials")
		}
	})
}

// Severed connections break at both ends; those with others stay, and new ones are made.
func TestSever(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Alive)
		h.links["b"].Sever("c")
		say(t, ours, theirs, "still here")
		h.links["b"].Sever("a")
		for name, c := range map[string]Conn{"a's": ours, "b's": theirs} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s end = nil, want the connection broken", name)
			}
		}
		ours, theirs = connect(t, h, HTTP)
		say(t, ours, theirs, "here again")
	})
}

func TestCutHoldsAndHealGoesOn(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		say(t, ours, theirs, "before")
		for name, set := range map[string]func(Fault){
			"node": func(f Fault) { h.links["a"].Fault("b", f) },
			"site": func(f Fault) { h.links["a"].FaultSite("ap", f) },
		} {
			set(Fault{Cut: true})
			io.WriteString(ours, "held ")
			io.WriteString(ours, "back")
			theirs.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
			if n, err := theirs.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s cut: Read() = %d, %v, want silence", name, n, err)
			}
			theirs.SetReadDeadline(time.Time{})
			say(t, theirs, ours, "the other way is open")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			if _, err := h.links["a"].Dial(ctx, "b", Tunnel); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s cut: Dial() = %v, want it to wait until ctx ends", name, err)
			}
			cancel()
			set(Fault{})
			say(t, ours, theirs, "") // nothing new
			got := make([]byte, len("held back"))
			if _, err := io.ReadFull(theirs, got); string(got) != "held back" || err != nil {
				t.Fatalf("%s healed: %q, %v, want what was held", name, got, err)
			}
			say(t, ours, theirs, "after")
		}
	})
}

// TestCutAtTheAnsweringEnd: what answers a dial takes the cut way, too.
func TestCutAtTheAnsweringEnd(t *testing.T) {
	h := secures(t, nil)
	h.links["b"].Accept(Tunnel)
	h.links["b"].Fault("a", Fault{Cut: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.links["a"].Dial(ctx, "b", Tunnel); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial() = %v, want silence", err)
	}
}

func TestCounters(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ours, theirs := connect(t, h, Tunnel)
		before := [2]Counter{h.links["a"].Counters()[0], h.links["b"].Counters()[0]}
		for range 3 {
			say(t, ours, theirs, "question")
		}
		say(t, theirs, ours, "answer")
		a, b := h.links["a"].Counters()[0], h.links["b"].Counters()[0]
		if a.Peer != "b" || a.Site != "ap" || b.Peer != "a" || b.Site != "eu" {
			t.Errorf("a counts %s at %s, b counts %s at %s", a.Peer, a.Site, b.Peer, b.Site)
		}
		if got, want := a.Sent.Messages-before[0].Sent.Messages, int64(3); got != want {
			t.Errorf("a sent %d messages, want %d", got, want)
		}
		if got, want := b.Sent.Messages-before[1].Sent.Messages, int64(1); got != want {
			t.Errorf("b sent %d messages, want %d", got, want)
		}
		if got, want := a.Received.Messages-before[0].Received.Messages, int64(1); got != want {
			t.Errorf("a received %d messages, want %d", got, want)
		}
		if a.Sent.Bytes != b.Received.Bytes || b.Sent.Bytes != a.Received.Bytes || a.Sent.Bytes < 24 {
			t.Errorf("a sent %d, b received %d; b sent %d, a received %d", a.Sent.Bytes, b.Received.Bytes, b.Sent.Bytes, a.Received.Bytes)
		}
		if a.Opened != 1 || a.Open != 1 || b.Opened != 1 || b.Open != 1 {
			t.Errorf("a opened %d, open %d; b opened %d, open %d, want 1 all", a.Opened, a.Open, b.Opened, b.Open)
		}
		ours.Close()
		ours.Close()
		if got := h.links["a"].Counters()[0]; got.Open != 0 || got.Opened != 1 {
			t.Errorf("after Close: opened %d, open %d, want 1, 0", got.Opened, got.Open)
		}
	})
}

func TestManyConnectionsAtOnce(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		ln := h.links["b"].Accept(Tunnel)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
		defer ln.Close()
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				c, err := h.links["a"].Dial(t.Context(), "b", Tunnel)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if _, err := io.WriteString(c, "echo"); err != nil {
					t.Error(err)
				}
				c.CloseWrite()
				if got, err := io.ReadAll(c); string(got) != "echo" || err != nil {
					t.Errorf("echo = %q, %v", got, err)
				}
			})
		}
		all.Wait()
	})
}

func TestSelfDial(t *testing.T) {
	both(t, func(t *testing.T, h house) {
		a := h.links["a"]
		a.FaultSite("eu", Fault{Cut: true}) // a node is never cut from itself
		ln := a.Accept(Tunnel)
		c, err := a.Dial(t.Context(), "a", Tunnel)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		d, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		say(t, c, d, "to myself")
		if got := d.(Conn).Peer().Node; got != "a" {
			t.Errorf("peer = %s, want a", got)
		}
	})
}

func TestEmulate(t *testing.T) {
	ms := time.Millisecond
	groups := []system.NodeGroup{
		{Name: "ap", Site: "ap", Links: []system.LinkSpec{{To: "eu", Latency: 120 * ms, Rate: 50e6}}},
		{Name: "ap-slow", Site: "ap", Links: []system.LinkSpec{{To: "eu", Latency: 300 * ms}}},
		{Name: "ap-plain", Site: "ap"},
		{Name: "eu", Site: "eu", Links: []system.LinkSpec{{To: "us", Latency: 40 * ms}, {To: "eu", Latency: ms}}},
		{Name: "us", Site: "us", Links: []system.LinkSpec{{To: "eu", Latency: 60 * ms}}},
	}
	for _, tt := range []struct {
		group    string
		to       system.Site
		out, in  Path
		emulated bool
	}{
		{"ap", "eu", Path{120 * ms, 50e6}, Path{120 * ms, 50e6}, true},
		{"ap-slow", "eu", Path{300 * ms, 0}, Path{300 * ms, 0}, true},
		{"ap-plain", "eu", Path{120 * ms, 50e6}, Path{120 * ms, 50e6}, true},
		{"eu", "ap", Path{120 * ms, 50e6}, Path{120 * ms, 50e6}, true},
		{"eu", "us", Path{40 * ms, 0}, Path{60 * ms, 0}, true},
		{"us", "eu", Path{60 * ms, 0}, Path{40 * ms, 0}, true},
		{"eu", "eu", Path{ms, 0}, Path{ms, 0}, true},
		{"us", "ap", Path{}, Path{}, false},
		{"none", "eu", Path{}, Path{}, false},
	} {
		em := Emulate(tt.group, groups)
		out, ok := em.To[tt.to]
		if in := em.From[tt.to]; out != tt.out || in != tt.in || ok != tt.emulated {
			t.Errorf("%s to %s: out %v, in %v, emulated %v, want %v, %v, %v", tt.group, tt.to, out, in, ok, tt.out, tt.in, tt.emulated)
		}
	}
}

// TestServeEndsClean: nothing is left of a link that ends with an answer on its way.
func TestServeEndsClean(t *testing.T) {
	h := secures(t, map[system.NodeID]Emulation{"b": {To: map[system.Site]Path{"eu": {Delay: time.Hour}}}})
	h.links["b"].Accept(Tunnel)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.links["a"].Dial(ctx, "b", Tunnel); err == nil {
		t.Error("Dial() over an hour's delay = nil")
	}
	b := h.links["b"].(*Secure)
	h.kill("b") // fails the test unless Serve returns nil, and hangs it if anything is left behind
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wires) != 0 {
		t.Errorf("%d wires are left", len(b.wires))
	}
}

// TestConnsAreNetConns runs the standard suite for a net.Conn on connections over free and slow ways.
func TestConnsAreNetConns(t *testing.T) {
	for name, path := range map[string]Path{"free": {}, "slow": {Delay: time.Millisecond}, "narrow": {Rate: 1e9}} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
				h := memories(t, far(path, path))
				ours, theirs := connect(t, h, Tunnel)
				return ours, theirs, func() { h.kill("a"); h.kill("b") }, nil
			})
		})
	}
}
