package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"servent/identity"
	"servent/system"

	"pgregory.net/rapid"
)

// mailer is what both links' datagrams offer.
type mailer interface {
	Send(to system.NodeID, b []byte) error
	Receive(ctx context.Context) (from system.NodeID, b []byte, err error)
	Lost() Lost
}

// post is a house whose nodes send datagrams.
type post struct {
	house
	mail map[system.NodeID]mailer
}

func memoryPost(t testing.TB, em map[system.NodeID]Emulation) post {
	p := post{memories(t, em), map[system.NodeID]mailer{}}
	for n, l := range p.links {
		p.mail[n] = l.(*Memory).Datagrams()
	}
	return p
}

func securePost(t testing.TB, em map[system.NodeID]Emulation) post {
	h := secures(t, em)
	p := post{h, map[system.NodeID]mailer{}}
	ends := map[system.NodeID]func(){}
	for n, l := range h.links {
		p.mail[n], ends[n] = open(t, l.(*Secure))
	}
	p.kill = func(n system.NodeID) {
		ends[n]()
		h.kill(n)
	}
	return p
}

// open serves a link's datagrams on loopback until end is called or the test ends.
func open(t testing.TB, s *Secure) (d *Datagrams, end func()) {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	d = s.Datagrams()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, socket) }()
	stopped := false
	end = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve of %s = %v", s.Self().Node, err)
		}
	}
	t.Cleanup(end)
	return d, end
}

// bothPosts runs a test on both links.
func bothPosts(t *testing.T, test func(t *testing.T, p post)) {
	t.Run("memory", func(t *testing.T) { test(t, memoryPost(t, nil)) })
	t.Run("secure", func(t *testing.T) { test(t, securePost(t, nil)) })
}

func (p post) send(t testing.TB, from, to system.NodeID, word string) {
	t.Helper()
	if err := p.mail[from].Send(to, []byte(word)); err != nil {
		t.Fatal(err)
	}
}

// expect receives one datagram.
func (p post) expect(t testing.TB, at, from system.NodeID, word string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	who, b, err := p.mail[at].Receive(ctx)
	if err != nil || who != from || string(b) != word {
		t.Fatalf("%s receives %.60q from %q, %v, want %.60q from %s", at, b, who, err, word, from)
	}
}

// silent receives nothing that has come until now.
func (p post) silent(t testing.TB, at system.NodeID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if who, b, err := p.mail[at].Receive(ctx); err == nil {
		t.Fatalf("%s receives %q from %s, want nothing", at, b, who)
	}
}

// until polls in real time.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(2*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("20s have passed, and not yet: %s", what)
		}
	}
}

func TestDatagramsArrive(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		p.send(t, "a", "b", "ping")
		p.expect(t, "b", "a", "ping")
		p.send(t, "b", "a", "pong")
		p.expect(t, "a", "b", "pong")
		p.send(t, "a", "b", "")
		p.expect(t, "b", "a", "")
		full := strings.Repeat("x", MaxDatagram)
		p.send(t, "a", "b", full)
		p.expect(t, "b", "a", full)
		if err := p.mail["a"].Send("b", make([]byte, MaxDatagram+1)); err == nil || !strings.Contains(err.Error(), "1201 bytes") {
			t.Errorf("one byte too many: %v", err)
		}
		p.send(t, "a", "a", "to myself")
		p.expect(t, "a", "a", "to myself")
		for n, want := range map[system.NodeID]Lost{"a": {Unsent: 1}, "b": {}} {
			if got := p.mail[n].Lost(); got != want {
				t.Errorf("%s lost %+v, want %+v", n, got, want)
			}
		}
	})
}

// TestDatagramBytesAreTheCallers: a buffer may be reused after Send.
func TestDatagramBytesAreTheCallers(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		b := []byte("first")
		for range 2 { // the first waits for a session
			if err := p.mail["a"].Send("b", b); err != nil {
				t.Fatal(err)
			}
			copy(b, "other")
			p.expect(t, "b", "a", "first")
			copy(b, "first")
		}
	})
}

func TestDatagramErrors(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		a := p.mail["a"]
		if err := a.Send("nobody", nil); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("unknown node: %v", err)
		}
		p.kill("b")
		until(t, "a learns that b is dead", func() bool { return errors.Is(a.Send("b", []byte("x")), ErrRefused) })
		if got := a.Lost(); got.Unsent < 2 {
			t.Errorf("a lost %+v, want two unsent at least", got)
		}
		if err := p.mail["b"].Send("a", nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead node sends: %v", err)
		}
		if _, _, err := p.mail["b"].Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead node receives: %v", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := a.Receive(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestNobodyReceives(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		p.send(t, "a", "b", "first")
		p.expect(t, "b", "a", "first")
		sent := int64(0)
		until(t, "the inbox is full", func() bool {
			p.send(t, "a", "b", "more")
			sent++
			return p.mail["b"].Lost().Full > 0
		})
		if sent <= inboxSize {
			t.Errorf("full after %d, want room for %d", sent, inboxSize)
		}
	})
}

func TestDatagramCounters(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		p.send(t, "a", "b", "first")
		p.expect(t, "b", "a", "first")
		p.send(t, "b", "a", "back") // both ends have said all that a session begins with
		p.expect(t, "a", "b", "back")
		a, b := p.links["a"].Counters()[0], p.links["b"].Counters()[0]
		for range 3 {
			p.send(t, "a", "b", "0123456789")
			p.expect(t, "b", "a", "0123456789")
		}
		size := int64(10)
		if _, ok := p.mail["a"].(*Datagrams); ok {
			size += overhead
		}
		a2, b2 := p.links["a"].Counters()[0], p.links["b"].Counters()[0]
		if got, want := (Traffic{a2.Sent.Bytes - a.Sent.Bytes, a2.Sent.Messages - a.Sent.Messages}), (Traffic{3 * size, 3}); got != want {
			t.Errorf("a sent %+v more, want %+v", got, want)
		}
		if got, want := (Traffic{b2.Received.Bytes - b.Received.Bytes, b2.Received.Messages - b.Received.Messages}), (Traffic{3 * size, 3}); got != want {
			t.Errorf("b received %+v more, want %+v", got, want)
		}
	})
}

func TestDatagramsTakeTheEmulatedWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memoryPost(t, far(Path{Delay: 120 * ms}, Path{Delay: 80 * ms, Rate: 8e3})) // back: 1 kB/s
		began := time.Now()
		p.send(t, "a", "b", "there")
		p.expect(t, "b", "a", "there")
		if got, want := time.Since(began), 120*ms; got != want {
			t.Errorf("there took %v, want %v", got, want)
		}
		began = time.Now()
		for i := range 10 {
			p.send(t, "b", "a", fmt.Sprintf("%0100d", i))
		}
		for i := range 10 {
			p.expect(t, "a", "b", fmt.Sprintf("%0100d", i))
			if got, want := time.Since(began), 80*ms+time.Duration(i+1)*100*ms; got != want {
				t.Errorf("datagram %d of 100 bytes took %v, want %v", i, got, want)
			}
		}
	})
}

// TestDatagramsOvertake: one whose way became shorter meanwhile.
func TestDatagramsOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memoryPost(t, nil)
		p.links["a"].Fault("b", Fault{Slow: time.Second})
		p.send(t, "a", "b", "first")
		time.Sleep(ms)
		p.links["a"].Fault("b", Fault{Slow: 10 * ms})
		p.send(t, "a", "b", "second")
		began := time.Now()
		p.expect(t, "b", "a", "second")
		if got, want := time.Since(began), 10*ms; got != want {
			t.Errorf("the second took %v, want %v", got, want)
		}
		p.expect(t, "b", "a", "first")
	})
}

func TestCutLosesDatagrams(t *testing.T) {
	bothPosts(t, func(t *testing.T, p post) {
		p.send(t, "a", "b", "before")
		p.expect(t, "b", "a", "before")
		for name, set := range map[string]func(Fault){
			"node": func(f Fault) { p.links["a"].Fault("b", f) },
			"site": func(f Fault) { p.links["a"].FaultSite("ap", f) },
		} {
			lost := p.mail["a"].Lost().Cut
			set(Fault{Cut: true})
			p.send(t, "a", "b", "lost")
			p.silent(t, "b")
			p.send(t, "b", "a", "the other way is open")
			p.expect(t, "a", "b", "the other way is open")
			set(Fault{})
			p.send(t, "a", "b", "after")
			p.expect(t, "b", "a", "after")
			if got := p.mail["a"].Lost().Cut - lost; got != 1 {
				t.Errorf("%s cut: %d lost, want 1", name, got)
			}
		}
	})
}

// TestFullWayLosesDatagrams: what a router's queue does not hold is gone; what it holds arrives.
func TestFullWayLosesDatagrams(t *testing.T) {
	for _, tt := range []struct {
		name string
		path Path
		held int64 // datagrams
	}{
		{"narrow", Path{Rate: 8e5}, 1 + int64(queueMost/(12*ms))}, // 12ms each, and the one that overflows
		{"long", Path{Delay: time.Hour}, maxRoom / MaxDatagram},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := memoryPost(t, far(tt.path, Path{}))
				for range 2 * tt.held {
					p.send(t, "a", "b", strings.Repeat("x", MaxDatagram))
				}
				time.Sleep(2 * time.Hour)
				if got := p.mail["a"].Lost().Cut; got != tt.held {
					t.Errorf("%d lost, want %d", got, tt.held)
				}
				if got := p.links["b"].Counters()[0].Received.Messages; got != tt.held {
					t.Errorf("%d arrived, want %d", got, tt.held)
				}
			})
		})
	}
}

// TestDatagramsUnderChangingFaults: whatever happens to the way, a datagram comes once or not at all, never
// before its delay, and only cuts and queues that are full lose it.
func TestDatagramsUnderChangingFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		faults := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Fault {
			return Fault{
				Cut:  rapid.Bool().Draw(t, "cut"),
				Slow: time.Duration(rapid.IntRange(0, 200).Draw(t, "slow")) * ms,
				Rate: rapid.SampledFrom([]int64{0, 8e4, 8e6}).Draw(t, "rate"),
			}
		}), 1, 12).Draw(rt, "faults")
		delay := time.Duration(rapid.IntRange(0, 50).Draw(rt, "delay")) * ms
		synctest.Test(t, func(t *testing.T) {
			p := memoryPost(t, far(Path{Delay: delay}, Path{}))
			const all = 200
			var sent [all]time.Time
			go func() {
				for i := range all {
					sent[i] = time.Now()
					p.send(t, "a", "b", string([]byte{byte(i)}))
					time.Sleep(3 * ms)
				}
			}()
			go func() {
				for i, f := range faults {
					time.Sleep(time.Duration(20+i*7%30) * ms)
					p.links["a"].Fault("b", f)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			came := map[byte]bool{}
			for {
				_, b, err := p.mail["b"].Receive(ctx)
				if err != nil {
					break
				}
				if i := b[0]; came[i] || time.Since(sent[i]) < delay {
					t.Fatalf("datagram %d took %v, came before: %v", i, time.Since(sent[i]), came[i])
				}
				came[b[0]] = true
			}
			if got := int64(len(came)) + p.mail["a"].Lost().Cut; got != all {
				t.Errorf("%d came and %d were lost, want %d together", len(came), p.mail["a"].Lost().Cut, all)
			}
		})
	})
}

// TestKillForgetsDatagrams: the end of a bubble finds nothing on its way.
func TestKillForgetsDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memoryPost(t, far(Path{Delay: time.Hour}, Path{}))
		p.send(t, "a", "b", "never")
		began := time.Now()
		p.kill("a")
		if got := time.Since(began); got != 0 {
			t.Errorf("Kill took %v", got)
		}
		time.Sleep(2 * time.Hour)
		p.silent(t, "b")
	})
}

// TestSecureDatagramsTakeTheEmulatedWay: on real sockets only lower bounds hold. Keys cost a round trip
// of TCP, one of TLS and one word; a link that ends with datagrams on their way leaves nothing behind.
func TestSecureDatagramsTakeTheEmulatedWay(t *testing.T) {
	p := securePost(t, far(Path{Delay: 30 * ms}, Path{Delay: 20 * ms}))
	began := time.Now()
	p.send(t, "a", "b", "first")
	p.expect(t, "b", "a", "first")
	if got, least := time.Since(began), 2*50*ms+30*ms; got < least {
		t.Errorf("the first took %v, want at least %v", got, least)
	}
	began = time.Now()
	p.send(t, "a", "b", "second")
	p.expect(t, "b", "a", "second")
	if got, least := time.Since(began), 30*ms; got < least {
		t.Errorf("the second took %v, want at least %v", got, least)
	}
	p.links["a"].Fault("b", Fault{Slow: time.Hour})
	p.send(t, "a", "b", "never")
}

// TestWaitingDatagramsAreFew: a peer that does not speak costs a bounded queue.
func TestWaitingDatagramsAreFew(t *testing.T) {
	ca, err := identity.NewAuthority("shop")
	if err != nil {
		t.Fatal(err)
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	s, _, _ := serving(t, keeper(t, ca, "a"), func(system.NodeID) (Address, bool) { return Address{Host: mute.Addr().String()}, true }, 0)
	d, _ := open(t, s)
	for range waitingSize {
		if err := d.Send("b", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Send("b", []byte("x")); err == nil {
		t.Errorf("%d wait, want at most %d", waitingSize+1, waitingSize)
	}
	refused := 0
	for i := range maxMeetings + maxWanted + 10 { // peers
		if d.Send(system.NodeID(fmt.Sprint(i)), []byte("x")) != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Errorf("all of %d peers are being dialled", maxMeetings+maxWanted+10)
	}
}

func TestLanesOfBothCiphers(t *testing.T) {
	for name, cipherOf := range ciphers {
		secret := bytes.Repeat([]byte{7}, laneSize)
		l, err := newLane(secret, cipherOf)
		if err != nil {
			t.Fatal(err)
		}
		packet := l.seal(nil, 5, []byte("hello"))
		number, n, err := readHead(packet)
		if err != nil || number != l.number || n != 5 || len(packet) != overhead+5 {
			t.Fatalf("%s: head %x, %d, %v of %d bytes", name, number, n, err, len(packet))
		}
		if b, err := l.open(nil, n, packet); string(b) != "hello" || err != nil {
			t.Errorf("%s: open = %q, %v", name, b, err)
		}
		for i := range packet {
			bad := bytes.Clone(packet)
			bad[i] ^= 1
			_, n, _ := readHead(bad)
			if _, err := l.open(nil, n, bad); err == nil {
				t.Errorf("%s: byte %d changed, and it was opened", name, i)
			}
		}
	}
}

// BenchmarkDatagram is 200 bytes there and back in an open session, beside plain UDP.
func BenchmarkDatagram(b *testing.B) {
	p := securePost(b, nil)
	go echoDatagrams(b.Context(), p.mail["b"])
	plain := plainUDP(b)
	message, got := make([]byte, 200), make([]byte, MaxDatagram)
	ours := func() {
		if err := p.mail["a"].Send("b", message); err != nil {
			b.Fatal(err)
		}
		if _, _, err := p.mail["a"].Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	ours()
	var udp, secure time.Duration
	for b.Loop() {
		udp += timed(func() {
			if _, err := plain.Write(message); err != nil {
				b.Fatal(err)
			}
			if _, err := plain.Read(got); err != nil {
				b.Fatal(err)
			}
		})
		secure += timed(ours)
	}
	b.ReportMetric(float64(secure)/float64(b.N), "ns/echo")
	b.ReportMetric(float64(secure)/float64(udp), "x/udp")
}

func echoDatagrams(ctx context.Context, m mailer) {
	for {
		from, b, err := m.Receive(ctx)
		if err != nil {
			return
		}
		_ = m.Send(from, b)
	}
}

// plainUDP is a socket whose peer echoes.
func plainUDP(b *testing.B) net.Conn {
	far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { far.Close() })
	go func() {
		p := make([]byte, MaxDatagram)
		for {
			n, from, err := far.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			_, _ = far.WriteToUDPAddrPort(p[:n], from)
		}
	}()
	near, err := net.Dial("udp", far.LocalAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { near.Close() })
	return near
}
