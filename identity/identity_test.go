package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"servent/system"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want ID
		ok   bool
	}{
		{"spiffe://shop/node/node-1", ID{"shop", Node, "node-1"}, true},
		{"spiffe://shop.example.org/server/A_b.c", ID{"shop.example.org", Server, "A_b.c"}, true},
		{"spiffe://shop/edge/e", ID{"shop", Edge, "e"}, true},
		{"spiffe://shop/operator/me", ID{"shop", Operator, "me"}, true},
		{"https://shop/node/node-1", ID{}, false},
		{"spiffe://shop/root/node-1", ID{}, false},
		{"spiffe://shop/node/", ID{}, false},
		{"spiffe://shop/node", ID{}, false},
		{"spiffe:///node/node-1", ID{}, false},
		{"spiffe://shop/node/a/b", ID{}, false},
		{"spiffe://shop/node/a%2Fb", ID{}, false},
		{"spiffe://shop/node/%61", ID{}, false},
		{"spiffe://shop/node/..", ID{}, false},
		{"spiffe://shop//node/a", ID{}, false},
		{"spiffe://Shop/node/a", ID{}, false},
		{"spiffe://shop:80/node/a", ID{}, false},
		{"spiffe://me@shop/node/a", ID{}, false},
		{"spiffe://shop/node/a?role=server", ID{}, false},
		{"spiffe://shop/node/a#server", ID{}, false},
		{"spiffe:shop/node/a", ID{}, false},
		{"spiffe://shop/node/" + strings.Repeat("a", 256), ID{}, false},
	} {
		t.Run(tt.in, func(t *testing.T) {
			u, err := url.Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(u)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("Parse() = %+v, %v, want %+v, ok %v", got, err, tt.want, tt.ok)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"spiffe://shop/node/node-1", "spiffe://shop/server/a%20b", "spiffe://u@h:1/edge/x?q#f", "//a/node/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		id, err := Parse(u)
		if err != nil {
			return
		}
		if err := id.Check(); err != nil {
			t.Fatalf("Parse(%q) = %+v, which is wrong: %v", s, id, err)
		}
		if got := id.String(); got != u.String() {
			t.Fatalf("Parse(%q) writes %q", s, got)
		}
		again, err := Parse(id.URI())
		if err != nil || again != id {
			t.Fatalf("Parse(URI()) = %+v, %v, want %+v", again, err, id)
		}
	})
}

// authority makes a cluster's authority or ends the test.
func authority(t testing.TB, cluster string) *Authority {
	t.Helper()
	a, err := NewAuthority(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, role Role, node system.NodeID) Credential {
	t.Helper()
	c, err := a.Issue(ID{a.Cluster(), role, node}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keep(t testing.TB, c Credential) *Keeper {
	t.Helper()
	k, err := NewKeeper(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAuthorityOutlivesItsFile(t *testing.T) {
	a := authority(t, "shop")
	b, err := ParseAuthority(a.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.Cluster(), "shop"; got != want {
		t.Errorf("Cluster() = %q, want %q", got, want)
	}
	leaf, err := b.Sign(ID{"shop", Node, "n"}, issue(t, a, Node, "n").Certificate.Leaf.PublicKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.CheckSignatureFrom(a.Certificate()); err != nil {
		t.Errorf("what the read authority signs, the first does not know: %v", err)
	}
	other := authority(t, "shop")
	for name, text := range map[string][]byte{
		"empty":            nil,
		"no key":           certPEM(a.Certificate()),
		"another's key":    append(certPEM(a.Certificate()), keyPEM(other.key)...),
		"two certificates": append(certPEM(other.Certificate()), a.PEM()...),
		"a node's":         append(certPEM(leaf), keyPEM(a.key)...),
		"rubbish after":    append(a.PEM(), "rubbish"...),
	} {
		if _, err := ParseAuthority(text); err == nil {
			t.Errorf("%s: ParseAuthority() = nil, want an error", name)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	a := authority(t, "shop")
	good, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		id   ID
		key  any
		ok   bool
	}{
		{"as it should be", ID{"shop", Node, "n"}, good.Public(), true},
		{"another cluster", ID{"bank", Node, "n"}, good.Public(), false},
		{"no node", ID{"shop", Node, ""}, good.Public(), false},
		{"unknown role", ID{"shop", "root", "n"}, good.Public(), false},
		{"a name with a path", ID{"shop", Node, "n/server/m"}, good.Public(), false},
		{"another curve", ID{"shop", Node, "n"}, p384.Public(), false},
		{"RSA", ID{"shop", Node, "n"}, weak.Public(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := a.Sign(tt.id, tt.key, 0); (err == nil) != tt.ok {
				t.Errorf("Sign() = %v, want ok %v", err, tt.ok)
			}
		})
	}
	if _, err := NewAuthority("Shop Floor"); err == nil {
		t.Error(`NewAuthority("Shop Floor") = nil, want an error`)
	}
}

func TestLifeOfACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t, "shop")
		c := issue(t, a, Node, "n")
		now := time.Now()
		if got, want := c.Certificate.Leaf.NotBefore, now.Add(-skew); !got.Equal(want) {
			t.Errorf("NotBefore = %v, want %v", got, want)
		}
		if got, want := c.Expires(), now.Add(24*time.Hour); !got.Equal(want) {
			t.Errorf("Expires() = %v, want %v", got, want)
		}
		k := keep(t, c)
		if got, want := k.RenewAt(), now.Add(16*time.Hour); !got.Equal(want) {
			t.Errorf("RenewAt() = %v, want %v", got, want)
		}
		long, err := a.Issue(c.ID, nil, 2*authorityLife)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := long.Expires(), a.Certificate().NotAfter; !got.Equal(want) {
			t.Errorf("Expires() = %v, want the authority's %v", got, want)
		}
		time.Sleep(25 * time.Hour)
		if err := k.Set(c); err == nil {
			t.Error("Set(expired) = nil, want an error")
		}
	})
}

func TestCredentialText(t *testing.T) {
	a := authority(t, "shop")
	c := issue(t, a, Node, "node-1")
	message, err := json.Marshal(struct{ Credential Credential }{c}) // as it goes through a pipe
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Credential Credential }
	if err := json.Unmarshal(message, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(back.Credential.ID, c.ID); diff != "" {
		t.Error(diff)
	}
	if !c.Certificate.Leaf.Equal(back.Credential.Certificate.Leaf) || len(back.Credential.Authorities) != 1 {
		t.Error("the certificates did not come back")
	}
	keep(t, back.Credential)

	other := issue(t, a, Node, "node-2")
	foreign := authority(t, "shop")
	for name, text := range map[string][]byte{
		"empty":         nil,
		"rubbish":       []byte("rubbish"),
		"another's key": fmt.Append(nil, string(certPEM(c.Certificate.Leaf)), string(keyPEM(other.key())), string(certPEM(a.Certificate()))),
		"foreign CA":    fmt.Append(nil, string(certPEM(c.Certificate.Leaf)), string(keyPEM(c.key())), string(certPEM(foreign.Certificate()))),
		"no CA":         fmt.Append(nil, string(certPEM(c.Certificate.Leaf)), string(keyPEM(c.key()))),
		"leaf as CA":    fmt.Append(nil, string(certPEM(c.Certificate.Leaf)), string(keyPEM(c.key())), string(certPEM(other.Certificate.Leaf))),
	} {
		var got Credential
		if err := got.UnmarshalText(text); err == nil {
			t.Errorf("%s: UnmarshalText() = nil, want an error", name)
		}
	}
}

func FuzzCredential(f *testing.F) {
	a := authority(f, "shop")
	text, err := issue(f, a, Node, "n").MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(a.PEM())
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Credential
		if c.UnmarshalText(text) == nil {
			if err := c.check(); err != nil {
				t.Fatalf("read, but wrong: %v", err)
			}
		}
		_, _ = ParseAuthority(text)
	})
}

// A secret is the same on every node, outlives the file, and is another one for every cluster and purpose.
func TestSecret(t *testing.T) {
	a := authority(t, "shop")
	again, err := ParseAuthority(a.PEM())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, from := range map[string]*Authority{"a": a, "another of that name": authority(t, "shop"), "another cluster": authority(t, "other")} {
		for _, purpose := range []string{"sessions", "something else"} {
			s, err := from.Secret(purpose)
			if err != nil || len(s) != 32 {
				t.Fatalf("Secret(%s) = %d bytes, %v, want 32", purpose, len(s), err)
			}
			if other, ok := seen[string(s)]; ok {
				t.Errorf("%s of %s is that of %s", purpose, name, other)
			}
			seen[string(s)] = name
		}
	}
	s, err := again.Secret("sessions")
	if err != nil || seen[string(s)] != "a" {
		t.Errorf("after a restart another secret, %v", err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "secret", s)
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), log.String()} {
		if len(got) > 100 || strings.Contains(got, string(s)) || strings.Contains(got, "0x") {
			t.Errorf("prints %q", got)
		}
	}
}

func TestNothingPrintsAKey(t *testing.T) {
	c := issue(t, authority(t, "shop"), Node, "n")
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "credential", c)
	for _, got := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), log.String()} {
		if !strings.Contains(got, "spiffe://shop/node/n") || len(got) > 200 {
			t.Errorf("prints %q, want the name alone", got)
		}
	}
}

func TestKeeperKeepsOneName(t *testing.T) {
	a := authority(t, "shop")
	k := keep(t, issue(t, a, Node, "n"))
	for name, c := range map[string]Credential{
		"another node": issue(t, a, Node, "m"),
		"higher role":  issue(t, a, Server, "n"),
		"empty":        {ID: k.ID()},
		"forged name":  {ID: k.ID(), Certificate: issue(t, a, Node, "m").Certificate, Authorities: []*x509.Certificate{a.Certificate()}},
	} {
		if err := k.Set(c); err == nil {
			t.Errorf("%s: Set() = nil, want an error", name)
		}
	}
	next := issue(t, a, Node, "n")
	if err := k.Set(next); err != nil {
		t.Fatal(err)
	}
	if !k.Credential().Certificate.Leaf.Equal(next.Certificate.Leaf) {
		t.Error("Credential() is not the one that was set")
	}
}
