package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T, cluster string) *Authority {
	t.Helper()
	ca, err := NewAuthority(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestToken(t *testing.T) {
	ca := newCA(t, "fleet-x")
	token := NewToken(Node, ca.Certificate())
	got, err := ParseToken(" " + token.Text() + "\n")
	if err != nil || got != token || got.Pin != PinOf(ca.Certificate()) {
		t.Errorf("ParseToken = %v, %v", got, err)
	}
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%#v", token), token.LogValue().String()} {
		if strings.Contains(text, token.Proof()) {
			t.Errorf("%q shows the secret", text)
		}
	}
	if other := NewToken(Node, ca.Certificate()); other.Proof() == token.Proof() || other.ID == token.ID {
		t.Error("two tokens are alike")
	}
	part := strings.Split(token.Text(), ".")
	for name, bad := range map[string]string{
		"empty": "", "half": token.Text()[:60], "another version": "sv2" + token.Text()[3:], "six parts": token.Text() + ".x",
		"role": "sv1.operator." + strings.Join(part[2:], "."), "secret": "sv1.node." + part[2] + ".SHORT." + part[4], "pin": strings.Join(part[:4], ".") + ".AAAA",
		"id": "sv1.node.A/B." + strings.Join(part[3:], "."),
	} {
		if got, err := ParseToken(bad); err == nil {
			t.Errorf("%s: %v, want an error", name, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("sv1.node.abc.ABCDEFGHIJKLMNOPQRSTUVWXYZ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("sv1....")
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := ParseToken(s); err == nil && token.Text() != strings.TrimSpace(s) {
			t.Errorf("%q became %q", s, token.Text())
		}
	})
}

// knock makes a handshake and says what each side thought of it; the client then sends one word.
func knock(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, heard string, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan string, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			done <- ""
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		b, _ := io.ReadAll(tls.Server(conn, server))
		done <- string(b)
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(conn, client)
	if err = c.Handshake(); err == nil {
		state = c.ConnectionState()
		_, err = c.Write([]byte("secret"))
	}
	c.Close()
	return state, <-done, err
}

// Who joins knows the authority's pin alone, and says nothing to a man in the middle, another cluster or a node of its own.
func TestPinned(t *testing.T) {
	ca, other := newCA(t, "fleet-x"), newCA(t, "fleet-x")
	door := func(ca *Authority, role Role, lasts time.Duration) *Keeper {
		cred, err := ca.Issue(ID{"fleet-x", role, "door"}, nil, lasts)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKeeper(cred)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	pin := PinOf(ca.Certificate())
	state, heard, err := knock(t, door(ca, Operator, 0).Welcome(), Pinned(pin))
	if err != nil || heard != "secret" {
		t.Fatalf("the right door: heard %q, %v", heard, err)
	}
	if got, err := AuthorityOf(state, pin); err != nil || !got.Equal(ca.Certificate()) {
		t.Errorf("AuthorityOf = %v, %v", got, err)
	}
	stolen := door(other, Operator, 0) // a man in the middle who shows the right authority above his own certificate
	middle := stolen.Welcome()
	middle.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := stolen.Credential().Certificate
		c.Certificate = append(c.Certificate, ca.Certificate().Raw)
		return &c, nil
	}
	for name, server := range map[string]*tls.Config{
		"another authority of the same name": stolen.Welcome(), "a certificate of another authority": middle, "a node": door(ca, Node, 0).Welcome(),
	} {
		if _, heard, err := knock(t, server, Pinned(pin)); !errors.Is(err, ErrStranger) || heard != "" {
			t.Errorf("%s: heard %q, %v; want ErrStranger and nothing said", name, heard, err)
		}
	}
}

// A machine whose clock is wrong by a day is told so.
func TestWrongClock(t *testing.T) {
	ca := newCA(t, "fleet-x")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-25 * time.Hour)
	leaf, err := ca.sign(ID{"fleet-x", Operator, "door"}, key.Public(), from, from.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pinned([]*x509.Certificate{leaf, ca.Certificate()}, PinOf(ca.Certificate()))
	if !errors.Is(err, ErrClock) || !strings.Contains(err.Error(), leaf.NotAfter.UTC().Format(time.DateTime)) {
		t.Errorf("a certificate of yesterday: %v", err)
	}
}

// Whoever was put out is refused by its key, and comes back only with another one.
func TestDeny(t *testing.T) {
	ca := newCA(t, "fleet-x")
	issue := func() *Keeper {
		cred, err := ca.Issue(ID{"fleet-x", Node, "b"}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKeeper(cred)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	here, out, again := issue(), issue(), issue()
	here.Deny(map[Pin]bool{PinOf(out.Credential().Certificate.Leaf): true})
	any := func(ID) error { return nil }
	for _, tt := range []struct {
		name string
		k    *Keeper
		want bool
	}{{"put out", out, false}, {"a new key", again, true}} {
		for side, conf := range map[string]*tls.Config{"link": here.Server(), "door": here.Welcome()} {
			if _, heard, _ := knock(t, conf, tt.k.Client(any)); (heard == "secret") != tt.want {
				t.Errorf("%s at the %s: heard %q", tt.name, side, heard)
			}
		}
	}
	if _, _, err := knock(t, out.Server(), here.Client(any)); !errors.Is(err, ErrExpelled) {
		t.Errorf("calling one that was put out: %v", err)
	}
}
