package fleet

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/identity"
	"servent/system"
)

// heardBy is all that somebody in the middle could read.
type heardBy struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (h *heardBy) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes.Write(p)
}

func (h *heardBy) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes.String()
}

// middle answers each connection with serve, until the test ends.
func middle(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	return ln.Addr().String()
}

// A man in the middle, with whatever he can show, gets not a byte of the call, and so neither the token's secret nor the request with the key. One
// who only passes bytes on reads neither, and the machine joins.
func TestManInTheMiddle(t *testing.T) {
	g := open(t, "fleet-x")
	twin, err := identity.NewAuthority("fleet-x") // of the same name
	if err != nil {
		t.Fatal(err)
	}
	own, err := twin.Issue(identity.ID{Cluster: "fleet-x", Role: identity.Operator, Node: "door"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	member, err := g.ca.Issue(identity.ID{Cluster: "fleet-x", Role: identity.Node, Node: "thief"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	realCA := g.ca.Certificate().Raw
	shown := func(c identity.Credential, more ...[]byte) tls.Certificate {
		cert := c.Certificate
		cert.Certificate = append([][]byte{cert.Certificate[0]}, more...)
		return cert
	}
	for name, cert := range map[string]tls.Certificate{
		"an authority of his own":                     shown(own, twin.Certificate().Raw),
		"the fleet's authority above his certificate": shown(own, realCA),
		"both authorities":                            shown(own, twin.Certificate().Raw, realCA),
		"a member's certificate":                      shown(member, realCA),
		"no authority":                                shown(own),
	} {
		t.Run(name, func(t *testing.T) {
			var heard heardBy
			at := middle(t, func(conn net.Conn) {
				c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13})
				_ = c.SetDeadline(time.Now().Add(callWithin))
				_, _ = io.Copy(&heard, c) // the joiner leaves
			})
			token := g.token(time.Minute)
			_, err := Join(t.Context(), at, token, "b", "", nil)
			if !errors.Is(err, identity.ErrStranger) || !strings.Contains(err.Error(), "the token was not sent") || system.Next(err) == "" {
				t.Errorf("joined by a man in the middle: %v", err)
			}
			if got := heard.text(); got != "" {
				t.Errorf("he heard %q", got)
			}
			if _, err := g.join(token, system.NodeID("after-"+string(token.ID[:4]))); err != nil {
				t.Errorf("the token at its own fleet afterwards: %v", err)
			}
		})
	}
	var heard heardBy
	at := middle(t, func(conn net.Conn) {
		up, err := net.Dial("tcp", g.at)
		if err != nil {
			return
		}
		defer up.Close()
		var both sync.WaitGroup
		both.Go(func() {
			_, _ = io.Copy(io.MultiWriter(up, &heard), conn)
			_ = up.(*net.TCPConn).CloseWrite()
		})
		_, _ = io.Copy(io.MultiWriter(conn, &heard), up)
		conn.Close()
		both.Wait()
	})
	token := g.token(time.Minute)
	if _, err := Join(t.Context(), at, token, "c", "", nil); err != nil {
		t.Fatalf("joined through a relay: %v", err)
	}
	if text := heard.text(); len(text) < 500 || strings.Contains(text, token.Proof()) || strings.Contains(text, token.ID) {
		t.Errorf("a relay read the token, or nothing, in %d bytes", len(text))
	}
}

// A token counts once, also when many come with it at the same time, and not after its time; refusals are written down, with who came and from where.
func TestTokensCountOnceAndInTime(t *testing.T) {
	g := open(t, "fleet-x")
	token := g.token(time.Minute)
	const many = 8
	errs := make(chan error, many)
	for i := range many {
		go func() {
			_, err := g.join(token, system.NodeID("n"+string(rune('a'+i))))
			errs <- err
		}()
	}
	joined := 0
	for range many {
		err := <-errs
		if err == nil {
			joined++
		} else if !strings.Contains(err.Error(), control.ErrNoInvitation.Error()) || system.Next(err) == "" {
			t.Errorf("one too many: %v", err)
		}
	}
	if joined != 1 {
		t.Errorf("%d machines joined by one token", joined)
	}
	g.refusedWith("used up")
	short := g.token(control.MinTTL)
	for deadline := time.Now().Add(time.Minute); ; {
		kvs, _, err := g.cluster.Range(t.Context(), control.PrefixJoin+short.ID)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the token outlives its time: %v", err)
		}
		if len(kvs) == 0 {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	if _, err := g.join(short, "late"); err == nil || !strings.Contains(err.Error(), "its time is over") {
		t.Errorf("after its time: %v", err)
	}
	g.refusedWith("its time is over")
}
