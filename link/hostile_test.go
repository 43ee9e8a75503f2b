package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"servent/identity"
	"servent/system"

	"golang.org/x/crypto/chacha20poly1305"
	"pgregory.net/rapid"
)

var ciphers = map[string]func([]byte) (cipher.AEAD, error){"aes": gcm, "chacha": chacha20poly1305.New}

// session returns what a sends b datagrams with, once there is one.
func (p post) session(t testing.TB, from, to system.NodeID) *session {
	t.Helper()
	d := p.mail[from].(*Datagrams)
	p.send(t, from, to, "hello")
	p.expect(t, to, from, "hello")
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.peers[to].sessions
	return s[len(s)-1]
}

// TestHostilePackets: whatever a stranger sends to the socket, nothing is received, nothing is answered,
// and the session goes on.
func TestHostilePackets(t *testing.T) {
	p := securePost(t, nil)
	s := p.session(t, "a", "b")
	stranger, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.at))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	sealed := func(n uint64, b string) []byte { return s.out.seal(nil, n, []byte(b)) }
	changed := func(i int) []byte {
		b := sealed(50, "changed")
		b[i] ^= 0x80
		return b
	}
	again := sealed(60, "a copy")
	var wrong [8]byte
	binary.BigEndian.PutUint64(wrong[:], s.in.number) // b's number for what a gets: the other direction's
	want := Lost{}
	for _, tt := range []struct {
		name   string
		packet []byte
		counts *int64
	}{
		{"nothing", nil, &want.Strange},
		{"garbage", []byte("GET / HTTP/1.1\r\n\r\n"), &want.Strange},
		{"a QUIC initial", append([]byte{0xc3, 0, 0, 0, 1}, make([]byte, 1195)...), &want.Strange},
		{"a head alone", sealed(50, "")[:headSize], &want.Strange},
		{"cut short", sealed(50, "short")[:overhead-1], &want.Strange},
		{"too long", sealed(50, strings.Repeat("x", MaxDatagram+1)), &want.Strange},
		{"as long as UDP lets it be", make([]byte, 60000), &want.Strange},
		{"another session", changed(0), &want.Strange},
		{"the other direction", append(wrong[:], sealed(50, "mirrored")[8:]...), &want.Strange},
		{"another number", changed(15), &want.Forged},
		{"a number far ahead", changed(8), &want.Forged},
		{"another byte", changed(headSize), &want.Forged},
		{"another tag", changed(overhead + 6), &want.Forged},
		{"a byte less", sealed(50, "less")[:overhead+3], &want.Forged},
		{"a byte more", append(sealed(50, "more"), 0), &want.Forged},
		{"number zero", sealed(0, "zero"), &want.Repeated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			*tt.counts++
			if _, err := stranger.Write(tt.packet); err != nil {
				t.Fatal(err)
			}
			until(t, "it is counted", func() bool { return p.mail["b"].Lost() == want })
		})
	}
	for range 3 { // whoever repeats a packet from wherever: the first counts
		if _, err := stranger.Write(again); err != nil {
			t.Fatal(err)
		}
	}
	p.expect(t, "b", "a", "a copy")
	want.Repeated += 2
	until(t, "copies are counted", func() bool { return p.mail["b"].Lost() == want })

	stranger.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := stranger.Read(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stranger was answered: %d bytes, %v", n, err)
	}
	p.send(t, "a", "b", "still here")
	p.expect(t, "b", "a", "still here")
	p.send(t, "b", "a", "so am I")
	p.expect(t, "a", "b", "so am I")
}

// FuzzPacket: no bytes harm the reader, and only what was sealed is received, once.
func FuzzPacket(f *testing.F) {
	newReader := func() (*Datagrams, *session) {
		d := New(Options{Identity: keeper(f, must(identity.NewAuthority("shop")), "b")}).Datagrams()
		l, err := newLane(bytes.Repeat([]byte{7}, laneSize), gcm)
		if err != nil {
			f.Fatal(err)
		}
		s := &session{peer: Peer{ID: id("a")}, in: l, tally: &tally{}}
		d.lanes[l.number] = s
		return d, s
	}
	d, s := newReader()
	good := s.in.seal(nil, 3, []byte("payload"))
	f.Add(good)
	f.Add(good[:overhead])
	f.Add(append(good[:headSize:headSize], make([]byte, 100)...))
	f.Add(bytes.Repeat([]byte{7}, packetSize+1))
	f.Fuzz(func(t *testing.T, packet []byte) {
		s.window = window{}
		isGood := bytes.Equal(packet, good)
		before := d.Lost()
		d.take(bytes.Clone(packet))
		d.take(bytes.Clone(packet))
		after := d.Lost()
		select {
		case l := <-d.letters:
			if !isGood || string(l.b) != "payload" || l.from != "a" {
				t.Fatalf("%x was received as %q from %s", packet, l.b, l.from)
			}
			before.Repeated++
		default:
			if isGood {
				t.Fatal("the good packet was not received")
			}
			before.Strange += 2 - (after.Forged - before.Forged) - (after.Repeated - before.Repeated)
			before.Forged, before.Repeated = after.Forged, after.Repeated
		}
		if before != after || len(d.letters) > 0 {
			t.Fatalf("lost %+v, want %+v", after, before)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestWindow compares with a twin that remembers everything.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		came, top := map[uint64]bool{}, uint64(0)
		near := func(t *rapid.T) uint64 {
			n := int64(top) + rapid.SampledFrom([]int64{-2 * reach, -reach - 1, -reach, -reach + 1, -64, -2, -1, 0, 1, 2, 63, 64, 65, reach, 10 * reach}).Draw(t, "near") +
				rapid.Int64Range(-3, 3).Draw(t, "off")
			return uint64(max(0, n))
		}
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			n := rapid.OneOf(rapid.Custom(near), rapid.Uint64Range(0, 3*reach)).Draw(t, "n")
			want := n == 0 || came[n] || n+reach <= top
			if got := w.seen(n); got != want {
				t.Fatalf("seen(%d) = %v, want %v; top %d", n, got, want, top)
			}
			if !want {
				w.mark(n)
				came[n], top = true, max(top, n)
			}
		}
	})
}

// TestStrangersSendNoDatagrams: one of another cluster of the same name gets no session.
func TestStrangersSendNoDatagrams(t *testing.T) {
	var at string
	known := func(system.NodeID) (Address, bool) { return Address{Host: at}, true }
	b, addr, log := serving(t, keeper(t, must(identity.NewAuthority("shop")), "b"), known, 0)
	at = addr
	inbox, _ := open(t, b)
	a, _, _ := serving(t, keeper(t, must(identity.NewAuthority("shop")), "a"), known, 0)
	stranger, _ := open(t, a)
	until(t, "the stranger is told why", func() bool {
		err := stranger.Send("b", []byte("let me in"))
		return err != nil && strings.Contains(err.Error(), "unknown authority")
	})
	if got := <-log; !strings.Contains(got, "bad certificate") {
		t.Errorf("b logged %q", got)
	}
	if len(inbox.letters) != 0 || len(inbox.lanes) != 0 {
		t.Errorf("b has %d datagrams and %d sessions", len(inbox.letters), len(inbox.lanes))
	}
}

// TestFloodOfMeetings: a peer that opens connections and says nothing on them holds two; others get their
// sessions meanwhile.
func TestFloodOfMeetings(t *testing.T) {
	p := securePost(t, nil)
	a, d := p.links["a"].(*Secure), p.mail["b"].(*Datagrams)
	for range 3 * maxMeetings {
		c, err := a.Dial(t.Context(), "b", Datagram)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	d.mu.Lock()
	if got := len(d.lanes); got > 2 {
		t.Errorf("%d half-made sessions of one peer, want at most 2", got)
	}
	d.mu.Unlock()
	p.send(t, "b", "b", "to myself")
	p.expect(t, "b", "b", "to myself")
}

// TestManySessionsOfOnePeer: a peer that makes sessions again and again has a few of them.
func TestManySessionsOfOnePeer(t *testing.T) {
	p := securePost(t, nil)
	a, d := p.links["a"].(*Secure), p.mail["b"].(*Datagrams)
	for range 20 {
		until(t, "a meeting", func() bool {
			c, err := a.Dial(t.Context(), "b", Datagram)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if _, err := c.Write([]byte{0, 9}); err != nil {
				t.Fatal(err)
			}
			_, err = c.Read(make([]byte, 2))
			return err == nil
		})
	}
	until(t, "two are left", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.lanes) == 2 && len(d.peers["a"].sessions) == 2
	})
}

func TestBothSendAtOnce(t *testing.T) {
	p := securePost(t, nil)
	const each = waitingSize
	go func() {
		for range each {
			if err := p.mail["b"].Send("a", []byte("b")); err != nil {
				t.Error(err)
			}
		}
	}()
	for range each {
		p.send(t, "a", "b", "a")
	}
	for range each {
		p.expect(t, "a", "b", "b")
		p.expect(t, "b", "a", "a")
	}
}

// TestSessionsAreRenewed without a datagram lost: after their time, after very many packets, and when a
// node has a new certificate.
func TestSessionsAreRenewed(t *testing.T) {
	ca := must(identity.NewAuthority("test"))
	var ats [2]string
	resolve := func(n system.NodeID) (Address, bool) { return Address{Host: ats[n[0]-'a']}, n == "a" || n == "b" }
	keepers := [2]*identity.Keeper{keeper(t, ca, "a"), keeper(t, ca, "b")}
	p := post{mail: map[system.NodeID]mailer{}}
	var ds [2]*Datagrams
	for i, k := range keepers {
		var s *Secure
		s, ats[i], _ = serving(t, k, resolve, 0)
		ds[i], _ = open(t, s)
		p.mail[s.Self().Node] = ds[i]
	}
	soon := time.Now()
	for _, tt := range []struct {
		name string
		at   time.Time
		age  func(s *session)
		by   int
	}{
		{"nothing", soon, func(*session) {}, -1},
		{"time", soon.Add(sessionAge + time.Minute), func(*session) {}, 0},
		{"packets", soon, func(s *session) { s.sent.Store(renewPackets + 1) }, 0},
		{"a's certificate", soon, func(*session) { renew(t, ca, keepers[0]) }, 0},
		{"b's certificate", soon, func(*session) { renew(t, ca, keepers[1]) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := p.session(t, "a", "b")
			tt.age(before)
			for i, d := range ds {
				if over := d.tidy(tt.at); len(over) > 0 {
					t.Fatalf("%v ends %d sessions", i, len(over))
				}
			}
			if tt.by >= 0 {
				until(t, "there is a new session", func() bool { return p.session(t, "a", "b") != before })
				p.send(t, "b", "a", "on the new one")
				p.expect(t, "a", "b", "on the new one")
			} else if p.session(t, "a", "b") != before {
				t.Error("there is a new session")
			}
		})
	}
	if got := ds[1].Lost(); got != (Lost{}) {
		t.Errorf("b lost %+v", got)
	}
}

func renew(t *testing.T, ca *identity.Authority, k *identity.Keeper) {
	t.Helper()
	c, err := ca.Issue(k.ID(), nil, 0)
	if err == nil {
		err = k.Set(c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSessionsEnd when nothing was said for long, when they are too old, and when their keys are used up;
// the next datagram makes a new one.
func TestSessionsEnd(t *testing.T) {
	for name, age := range map[string]func(d *Datagrams, s *session){
		"idle": func(d *Datagrams, s *session) {
			for range sessionIdle / sweepEvery {
				if len(d.tidy(time.Now())) > 0 {
					t.Error("idle too soon")
				}
			}
			for _, s := range d.tidy(time.Now()) {
				s.end()
			}
		},
		"old": func(d *Datagrams, s *session) {
			for _, s := range d.tidy(s.ends.Add(1)) {
				s.end()
			}
		},
		"used up": func(d *Datagrams, s *session) {
			s.sent.Store(maxPackets)
			if err := d.Send("b", nil); err == nil {
				t.Error("a packet too many was sent")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := securePost(t, nil)
			s := p.session(t, "a", "b")
			age(p.mail["a"].(*Datagrams), s)
			for _, n := range []system.NodeID{"a", "b"} {
				d := p.mail[n].(*Datagrams)
				until(t, string(n)+" has forgotten the session", func() bool {
					d.mu.Lock()
					defer d.mu.Unlock()
					return len(d.lanes) == 0
				})
				d.tidy(time.Now())
				if len(d.peers) > 0 {
					t.Errorf("%s still knows of %d peers", n, len(d.peers))
				}
			}
			if p.session(t, "a", "b") == s {
				t.Error("the old session is back")
			}
			for _, c := range p.links["a"].Counters() {
				if c.Open != 1 {
					t.Errorf("%d connections are open, want 1", c.Open)
				}
			}
		})
	}
}

// TestNothingIsLeft of datagrams that end while sessions are made and used.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("life", func(t *testing.T) {
		p := securePost(t, nil)
		p.send(t, "a", "b", "ping")
		p.expect(t, "b", "a", "ping")
		p.send(t, "b", "b", "on its way")
	})
	until(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// TestPeerIsKilled: after kill -9 a node is known as dead at once, and its next life is found at once.
func TestPeerIsKilled(t *testing.T) {
	ca := must(identity.NewAuthority("test"))
	var at atomic.Pointer[string] // where the living b is
	resolve := func(system.NodeID) (Address, bool) {
		host := at.Load()
		if host == nil {
			return Address{}, false
		}
		return Address{Host: *host}, true
	}
	a, addr, _ := serving(t, keeper(t, ca, "a"), resolve, 0)
	d, _ := open(t, a)
	for life := range 2 {
		b, host := startChild(t, ca, addr)
		at.Store(&host)
		word := fmt.Sprint("life ", life)
		until(t, "b answers", func() bool {
			if err := d.Send("b", []byte(word)); err != nil && !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			from, got, err := d.Receive(ctx)
			return err == nil && from == "b" && string(got) == word
		})
		if err := b.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = b.Wait()
		until(t, "b is known as dead", func() bool { return errors.Is(d.Send("b", []byte("?")), ErrRefused) })
	}
}

// startChild runs b in a process of its own and returns where its link is.
func startChild(t *testing.T, ca *identity.Authority, a string) (*exec.Cmd, string) {
	t.Helper()
	credential, err := must(ca.Issue(identity.ID{Cluster: ca.Cluster(), Role: identity.Node, Node: "b"}, nil, 0)).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(os.Environ(), "LINK_CHILD="+string(credential), "LINK_CHILD_A="+a)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil { // the child ends with it
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return child, strings.TrimSpace(line)
}

// TestChild is b in a process of its own: it sends back what it gets.
func TestChild(t *testing.T) {
	text := os.Getenv("LINK_CHILD")
	if text == "" {
		t.Skip("runs for TestPeerIsKilled")
	}
	var c identity.Credential
	if err := c.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Identity: must(identity.NewKeeper(c)), Resolve: func(system.NodeID) (Address, bool) {
		return Address{Host: os.Getenv("LINK_CHILD_A")}, true
	}})
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	go s.Serve(ctx, ln)
	d, _ := open(t, s)
	fmt.Println(ln.Addr())
	for {
		from, b, err := d.Receive(ctx)
		if err != nil {
			return
		}
		_ = d.Send(from, b)
	}
}
