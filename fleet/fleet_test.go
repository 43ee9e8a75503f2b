package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/identity"
	"servent/system"
)

// gate is an open door of a fleet of one.
type gate struct {
	t       *testing.T
	ca      *identity.Authority
	cluster control.Cluster
	at      string

	mu   sync.Mutex
	acts []system.Act
}

func open(t *testing.T, name string) *gate {
	t.Helper()
	g, _ := openWith(t, name, nil)
	return g
}

func openWith(t *testing.T, name string, more func(*Door)) (*gate, *Door) {
	t.Helper()
	ca, err := identity.NewAuthority(name)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ca.Issue(identity.ID{Cluster: name, Role: identity.Operator, Node: "door"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	keep, err := identity.NewKeeper(cred)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, ca: ca, cluster: control.Cluster{Store: memory.New()}, at: ln.Addr().String()}
	d := &Door{Cluster: g.cluster, Authority: ca, Keeper: keep, Sessions: identity.Secret("sessions"),
		Servers: func() []Server { return []Server{{Node: "a", Link: "192.0.2.1:20000"}} },
		Audit: func(a system.Act) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.acts = append(g.acts, a)
		}}
	if more != nil {
		more(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return g, d
}

func (g *gate) token(ttl time.Duration) identity.Token { return g.tokenFor(identity.Node, ttl) }

func (g *gate) tokenFor(role identity.Role, ttl time.Duration) identity.Token {
	g.t.Helper()
	token := identity.NewToken(role, g.ca.Certificate())
	if err := g.cluster.Invite(g.t.Context(), token.ID, system.Invitation{Role: string(role), Digest: identity.Digest(token.Proof()).String()}, ttl); err != nil {
		g.t.Fatal(err)
	}
	return token
}

func (g *gate) join(token identity.Token, as system.NodeID) (Joined, error) {
	return Join(g.t.Context(), g.at, token, as, "eu", map[string]string{"disk": "ssd"})
}

// refusedWith says whether the last thing written down is a refusal with the word.
func (g *gate) refusedWith(word string) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.acts) == 0 || !strings.Contains(g.acts[len(g.acts)-1].Why, word) || g.acts[len(g.acts)-1].From == "" {
		g.t.Errorf("written down: %+v, want a refusal with %q", g.acts, word)
	}
}

// A machine joins by a token, renews its certificate by it, and leaves; then it is out.
func TestJoinRenewLeave(t *testing.T) {
	g := open(t, "fleet-x")
	token := g.token(time.Minute)
	j, err := g.join(token, "b")
	if err != nil {
		t.Fatal(err)
	}
	if want := (identity.ID{Cluster: "fleet-x", Role: identity.Node, Node: "b"}); j.Credential.ID != want || j.Host != "127.0.0.1" || len(j.Servers) != 1 || string(j.Sessions) != "sessions" {
		t.Errorf("joined as %v, at %s, with %v", j.Credential.ID, j.Host, j.Servers)
	}
	m, err := g.cluster.Member(t.Context(), "b")
	if err != nil || m.Site != "eu" || m.Labels["disk"] != "ssd" || m.By != token.ID || m.From != "127.0.0.1" || m.Key != identity.PinOf(j.Credential.Certificate.Leaf).String() {
		t.Errorf("member %+v, %v", m, err)
	}
	next, w, err := Renew(t.Context(), []string{g.at}, j.Credential)
	if err != nil || next.ID != j.Credential.ID || len(w.Servers) != 1 || bytes.Equal(next.Certificate.Leaf.Raw, j.Credential.Certificate.Leaf.Raw) {
		t.Errorf("renewed %v, %v", next.ID, err)
	}
	if _, err := g.join(token, "c"); err == nil || !strings.Contains(err.Error(), control.ErrNoInvitation.Error()) || system.Next(err) == "" {
		t.Errorf("a used token: %v", err)
	}
	g.refusedWith("used up")
	if _, err := g.join(g.token(time.Minute), "b"); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a taken name: %v", err)
	}
	if _, err := g.join(g.token(time.Minute), "a"); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("the server's name: %v", err)
	}
	if err := Leave(t.Context(), []string{g.at}, next); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Renew(t.Context(), []string{g.at}, next); !errors.Is(err, ErrOut) {
		t.Errorf("renewed after it left: %v", err)
	}
	g.refusedWith("not of the fleet")
	again, err := g.join(g.token(time.Minute), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Renew(t.Context(), []string{g.at}, next); !errors.Is(err, ErrOut) {
		t.Errorf("renewed by the key of an earlier life: %v", err)
	}
	if _, _, err := Renew(t.Context(), []string{g.at}, again.Credential); err != nil {
		t.Errorf("renewed after it came back: %v", err)
	}
}

// Tokens that do not count, and certificates of others, open nothing; what was tried is written down.
func TestRefused(t *testing.T) {
	g, other := open(t, "fleet-x"), open(t, "fleet-y")
	token, foreign := g.token(time.Minute), other.token(time.Minute)
	if _, err := Join(t.Context(), g.at, foreign, "b", "", nil); !errors.Is(err, identity.ErrStranger) {
		t.Errorf("a token of another fleet: %v", err)
	}
	guess, err := identity.ParseToken(strings.Replace(token.Text(), token.Proof(), strings.Repeat("A", 26), 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.join(guess, "b"); err == nil || !strings.Contains(err.Error(), control.ErrNoInvitation.Error()) {
		t.Errorf("a guessed secret: %v", err)
	}
	g.refusedWith("never given")
	if _, err := g.join(token, "b"); err != nil {
		t.Errorf("the token after somebody guessed: %v", err)
	}
	if _, err := g.join(g.token(time.Minute), "a b/c"); err == nil {
		t.Error("a name of more than letters was taken")
	}
	j, err := other.join(foreign, "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Renew(t.Context(), []string{g.at}, j.Credential); err == nil {
		t.Error("a member of another fleet got a certificate")
	}
	forged, err := other.ca.Issue(identity.ID{Cluster: "fleet-y", Role: identity.Node, Node: "never"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Renew(t.Context(), []string{other.at}, forged); !errors.Is(err, ErrOut) {
		t.Errorf("a certificate of nobody who joined: %v", err)
	}
	if err := Leave(t.Context(), []string{other.at}, forged); err == nil {
		t.Error("nobody left")
	}
}

// Bytes that are no call are refused, and a door that is held by the silent opens for the next.
func TestBadCalls(t *testing.T) {
	g := open(t, "fleet-x")
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: identity.Pinned(identity.PinOf(g.ca.Certificate()))}}
	defer c.CloseIdleConnections()
	for name, tt := range map[string]struct {
		path, body string
		status     int
	}{
		"nothing": {"join", "", 400}, "no JSON": {"join", "<xml>", 400}, "two": {"join", `{}{}`, 400}, "unknown": {"join", `{"role":"server"}`, 400},
		"no request": {"join", `{"node":"b"}`, 400}, "bad request": {"join", `{"node":"b","request":"AAAA"}`, 400}, "long": {"join", `{"node":"` + strings.Repeat("x", 64<<10) + `"}`, 400},
		"no certificate": {"renew", `{}`, 401}, "leave": {"leave", `{}`, 401}, "no call": {"take", `{}`, 404},
	} {
		resp, err := c.Post("https://"+g.at+"/v1/"+tt.path, "application/json", strings.NewReader(tt.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var f failure
		if tt.status != 404 && (json.Unmarshal(b, &f) != nil || f.Error == "") || resp.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d and words", name, resp.StatusCode, b, tt.status)
		}
	}
	for range 10 {
		conn, err := net.Dial("tcp", g.at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	if _, err := g.join(g.token(time.Minute), "b"); err != nil {
		t.Errorf("beside silent connections: %v", err)
	}
	if conn, err := tls.Dial("tcp", g.at, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was answered")
	}
}

func FuzzAsked(f *testing.F) {
	f.Add([]byte(`{"node":"b","labels":{"a":"b"},"request":"AAAA"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var q Asked
		if json.Unmarshal(b, &q) == nil {
			if key, err := q.check("fleet-x"); err == nil && key.public == nil {
				t.Errorf("%s: no key and no error", b)
			}
		}
	})
}

// TestAnotherDoor: who keeps the fleet's authority is told it, nobody else; a door that does not answer is no matter when another one does.
func TestAnotherDoor(t *testing.T) {
	g := open(t, "fleet-x")
	for _, role := range []identity.Role{identity.Node, identity.Edge, identity.Server} {
		j, err := g.join(g.tokenFor(role, time.Minute), system.NodeID(role))
		if err != nil {
			t.Fatal(err)
		}
		next, w, err := Renew(t.Context(), []string{"127.0.0.1:1", g.at}, j.Credential)
		if err != nil || next.ID != j.Credential.ID {
			t.Errorf("%s renews at the second door: %v, %v", role, next.ID, err)
		}
		for _, told := range [][]byte{j.Authority, w.Authority} {
			ca, err := identity.ParseAuthority(told)
			if is := err == nil && ca.Certificate().Equal(g.ca.Certificate()); is != (role == identity.Server) {
				t.Errorf("%s is told the authority: %v", role, is)
			}
		}
		if err := Leave(t.Context(), []string{"127.0.0.1:1", g.at}, next); err != nil {
			t.Errorf("%s leaves at the second door: %v", role, err)
		}
		if _, _, err := Renew(t.Context(), []string{g.at, "127.0.0.1:1"}, next); !errors.Is(err, ErrOut) {
			t.Errorf("%s renews after it has left: %v, want ErrOut", role, err)
		}
	}
	if got := DoorOf("[2001:db8::1]:20128"); got != "[2001:db8::1]:7077" || DoorOf("nowhere") != "" {
		t.Errorf("DoorOf = %q", got)
	}
}
