package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// key returns the credential's secret key.
func (c Credential) key() crypto.Signer { return c.Certificate.PrivateKey.(crypto.Signer) }

// shake makes one connection and lets the server say one byte, so that both sides know the outcome.
func shake(t *testing.T, server, client *tls.Config) (clientState, serverState tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return shakeOver(a, b, server, client)
}

func shakeOver(a, b net.Conn, server, client *tls.Config) (clientState, serverState tls.ConnectionState, clientErr, serverErr error) {
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		_, err := s.Write([]byte{1})
		serverState = s.ConnectionState()
		s.Close()
		done <- err
	}()
	_, clientErr = io.ReadFull(c, make([]byte, 1))
	clientState = c.ConnectionState()
	b.Close() // a server that still writes must not wait
	serverErr = <-done
	return clientState, serverState, clientErr, serverErr
}

func TestHandshakeNamesBothSides(t *testing.T) {
	a := authority(t, "shop")
	one, two := keep(t, issue(t, a, Node, "one")), keep(t, issue(t, a, Server, "two"))
	for range 2 {
		cs, ss, cerr, serr := shake(t, two.Server("h2", "http/1.1"), one.Client(Is("two"), "http/1.1"))
		if cerr != nil || serr != nil {
			t.Fatalf("client %v, server %v", cerr, serr)
		}
		if got, err := PeerID(cs); got != two.ID() || err != nil {
			t.Errorf("client sees %v, %v, want %v", got, err, two.ID())
		}
		if got, err := PeerID(ss); got != one.ID() || err != nil {
			t.Errorf("server sees %v, %v, want %v", got, err, one.ID())
		}
		if cs.NegotiatedProtocol != "http/1.1" || cs.Version != tls.VersionTLS13 {
			t.Errorf("protocol %q, version %x", cs.NegotiatedProtocol, cs.Version)
		}
	}
}

func TestHandshakeRefuses(t *testing.T) {
	shop, twin, bank := authority(t, "shop"), authority(t, "shop"), authority(t, "bank")
	now := time.Now()
	// made returns a keeper whose certificate is made by hand: NewKeeper would refuse it.
	made := func(a *Authority, id ID, from, to time.Time) *Keeper {
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := a.sign(id, key.Public(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		return forced(Credential{id, tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, []*x509.Certificate{shop.Certificate()}})
	}
	id := ID{"shop", Node, "n"}
	good := keep(t, issue(t, shop, Node, "n"))
	bankTrusted := made(bank, ID{"bank", Node, "n"}, now, now.Add(time.Hour))
	trusting := forced(Credential{good.ID(), good.Credential().Certificate, []*x509.Certificate{shop.Certificate(), bank.Certificate()}})

	for _, tt := range []struct {
		name string
		peer *Keeper
		we   *Keeper
		want string
	}{
		{"wrong authority", made(twin, id, now, now.Add(time.Hour)), good, "unknown authority"},
		{"another cluster", made(bank, ID{"bank", Node, "n"}, now, now.Add(time.Hour)), good, "unknown authority"},
		{"another cluster, its authority trusted", bankTrusted, trusting, "another cluster"},
		{"expired", made(shop, id, now.Add(-48*time.Hour), now.Add(-time.Second)), good, "expired"},
		{"not yet valid", made(shop, id, now.Add(skew+time.Hour), now.Add(48*time.Hour)), good, "not yet valid"},
		{"a clock four minutes ahead", made(shop, id, now.Add(4*time.Minute), now.Add(time.Hour)), good, ""},
		{"signed by a node", forged(t, issue(t, shop, Node, "n"), shop, nil), good, "unknown authority"},
		{"two names", forged(t, issue(t, shop, Node, "n"), shop, shop.key, "spiffe://shop/node/n", "spiffe://shop/server/n"), good, "want one SPIFFE name"},
		{"the authority itself", forced(Credential{id, tls.Certificate{Certificate: [][]byte{shop.cert.Raw}, PrivateKey: shop.key, Leaf: shop.cert}, good.Credential().Authorities}), good, "incompatible key usage|authority's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := func(side string, err error) {
				t.Helper()
				if tt.want == "" {
					if err != nil {
						t.Errorf("as %s: %v", side, err)
					}
					return
				}
				for want := range strings.SplitSeq(tt.want, "|") {
					if err != nil && strings.Contains(err.Error(), want) {
						return
					}
				}
				t.Errorf("as %s: %v, want an error with %q", side, err, tt.want)
			}
			anybody := func(ID) error { return nil }
			client, server := tt.peer.Client(anybody, "x"), tt.peer.Server("x")
			client.VerifyConnection, server.VerifyConnection = nil, nil // a bad peer takes all
			_, _, _, serverErr := shake(t, tt.we.Server("x"), client)
			check("client", serverErr)
			_, _, clientErr, _ := shake(t, server, tt.we.Client(anybody, "x"))
			check("server", clientErr)
		})
	}
}

// forced is a keeper that did not check what it keeps.
func forced(c Credential) *Keeper {
	k := &Keeper{id: c.ID}
	k.now.Store(&held{c, pool(c.Authorities)})
	return k
}

// forged makes a certificate that only a thief would: signed by a node (signer nil) that claims to be a
// server, or by an authority that was made to sign several names.
func forged(t *testing.T, thief Credential, a *Authority, signer crypto.Signer, names ...string) *Keeper {
	t.Helper()
	parent := a.cert
	chain := [][]byte{}
	if signer == nil {
		signer, parent, names = thief.key(), thief.Certificate.Leaf, []string{"spiffe://shop/server/n"}
		chain = [][]byte{thief.Certificate.Leaf.Raw}
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "n"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		u, err := url.Parse(n)
		if err != nil {
			t.Fatal(err)
		}
		leaf.URIs = append(leaf.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return forced(Credential{thief.ID, tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key, Leaf: leaf}, thief.Authorities})
}

func TestClientChecksWhomItDialled(t *testing.T) {
	a := authority(t, "shop")
	one, two := keep(t, issue(t, a, Node, "one")), keep(t, issue(t, a, Node, "two"))
	_, _, err, _ := shake(t, two.Server("x"), one.Client(Is("three"), "x"))
	if err == nil || !strings.Contains(err.Error(), "want node three") {
		t.Errorf("dialled three, two answered: %v", err)
	}
	denied := errors.New("no edges here")
	_, _, err, _ = shake(t, two.Server("x"), one.Client(func(ID) error { return denied }, "x"))
	if !errors.Is(err, denied) {
		t.Errorf("rule of the caller: %v, want %v", err, denied)
	}
}

func TestServerWantsACertificateAndTLS13(t *testing.T) {
	k := keep(t, issue(t, authority(t, "shop"), Node, "n"))
	for _, tt := range []struct {
		name   string
		client *tls.Config
		want   string
	}{
		{"no certificate", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}}, "didn't provide a certificate"},
		{"TLS 1.2", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}, MaxVersion: tls.VersionTLS12}, "unsupported versions"},
		{"another protocol", k.Client(Is("n"), "y"), "unsupported application protocols"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := shake(t, k.Server("x"), tt.client)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("server says %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRenewalUnderOpenConfigurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shake := func(server, client *tls.Config) (err1, err2 error) {
			a, b := net.Pipe()
			soon := time.Now().Add(time.Minute) // both may write at once, and a pipe has no buffer
			a.SetDeadline(soon)
			b.SetDeadline(soon)
			_, _, err1, err2 = shakeOver(a, b, server, client)
			return err1, err2
		}
		a := authority(t, "shop")
		one, two := keep(t, issue(t, a, Node, "one")), keep(t, issue(t, a, Node, "two"))
		server, client := two.Server("x"), one.Client(Is("two"), "x")
		for day := range 5 {
			if cerr, serr := shake(server, client); cerr != nil || serr != nil {
				t.Fatalf("day %d: client %v, server %v", day, cerr, serr)
			}
			time.Sleep(time.Until(one.RenewAt()))
			for _, k := range []*Keeper{one, two} {
				c, err := a.Issue(k.ID(), nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := k.Set(c); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(25 * time.Hour) // nobody renewed: nobody is believed
		cerr, serr := shake(server, client)
		if cerr == nil || serr == nil {
			t.Errorf("expired: client %v, server %v, want two errors", cerr, serr)
		}
	})
}
