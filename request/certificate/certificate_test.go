package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/identity"
	"servent/route"
	"servent/system"
)

var secret = identity.Secret("of this test")

// desk is an issuer whose clock stands where the test puts it.
type desk struct {
	t     *testing.T
	c     control.Cluster
	s     *Issuer
	now   time.Time
	pairs map[system.Digest][]byte
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, c: control.Cluster{Store: memory.New()}, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), pairs: map[system.Digest][]byte{}}
	var err error
	d.s, err = NewIssuer(Options{Cluster: d.c, Secret: secret, Dir: filepath.Join(t.TempDir(), "certificates"), Settle: time.Millisecond,
		Addresses: func(*system.Web) []string { return nil }, Now: func() time.Time { return d.now },
		Blob: func(digest system.Digest) ([]byte, error) {
			if b := d.pairs[digest]; b != nil {
				return b, nil
			}
			return nil, errors.New("no such bytes")
		}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tend is one turn of the issuer; it returns the names of what there is then.
func (d *desk) tend(sys *system.System) map[string]system.Certified {
	d.t.Helper()
	if _, err := d.c.Want(d.t.Context(), sys); err != nil {
		d.t.Fatal(err)
	}
	v := d.view()
	d.s.tend(d.t.Context(), v)
	out := map[string]system.Certified{}
	for _, c := range d.view().Certificates {
		out[c.Name] = c
	}
	return out
}

func (d *desk) view() *control.View {
	d.t.Helper()
	v, err := d.c.Read(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

func shop(web system.Web, hosts ...string) *system.System {
	s := system.Service{Name: "site", Switch: system.Switch{By: system.ByRequest}}
	for _, h := range hosts {
		s.Routes = append(s.Routes, system.Route{Host: h, Path: "/*"})
	}
	return &system.System{Name: "shop", Services: []system.Service{s}, Web: &web}
}

// pairFor is a certificate of the user's.
func (d *desk) pairFor(digest system.Digest, hosts ...string) {
	d.t.Helper()
	own, err := authority(d.t.TempDir(), "elsewhere", d.now)
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := issue(own, hosts, d.now)
	if err == nil {
		d.pairs[digest], err = pemOf(c)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestIssuer(t *testing.T) {
	d := newDesk(t)
	if got := d.tend(shop(system.Web{}, "shop.example.org")); len(got) != 0 {
		t.Errorf("without TLS there is %v", got)
	}
	https := system.Web{HTTPS: "127.0.0.1:8443"}
	first := d.tend(shop(https, "shop.example.org"))["own"]
	if want := []string{"127.0.0.1", "::1", "localhost", "shop.example.org"}; !slices.Equal(first.Hosts, want) || first.Failed != "" {
		t.Errorf("for %v %s, want %v", first.Hosts, first.Failed, want)
	}
	d.now = d.now.Add(leafLife / 2)
	if again := d.tend(shop(https, "shop.example.org"))["own"]; !bytes.Equal(again.Sealed, first.Sealed) {
		t.Error("it was made anew at half of its life")
	}
	d.now = d.now.Add(leafLife / 4)
	second := d.tend(shop(https, "shop.example.org"))["own"]
	if bytes.Equal(second.Sealed, first.Sealed) || !second.Until.Equal(d.now.Add(leafLife)) {
		t.Errorf("at three quarters of its life it ends at %v", second.Until)
	}
	if third := d.tend(shop(https, "shop.example.org", "www.example.org"))["own"]; !slices.Contains(third.Hosts, "www.example.org") {
		t.Errorf("a new route's host is not among %v", third.Hosts)
	}

	d.pairFor("sha256:1", "shop.example.org")
	mine := https
	mine.Certificates = []system.Pair{{Digest: "sha256:1"}}
	got := d.tend(shop(mine, "shop.example.org"))
	if c := got["file/1"]; !slices.Equal(c.Hosts, []string{"shop.example.org"}) || c.Failed != "" {
		t.Errorf("the user's: %+v", c)
	}
	if got := d.tend(shop(https, "shop.example.org")); len(got) != 1 {
		t.Errorf("the user's was taken back, and there is %v", got)
	}
	if got := d.tend(shop(system.Web{}, "shop.example.org")); len(got) != 0 {
		t.Errorf("TLS was taken back, and there is %v", got)
	}
}

// An authority that does not answer is asked again later and later, and a name that the user certifies himself never needs it.
func TestIssuerWaits(t *testing.T) {
	d := newDesk(t)
	hits := 0
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { hits++; http.Error(w, "out of order", http.StatusTeapot) }))
	t.Cleanup(broken.Close)
	web := system.Web{HTTPS: "127.0.0.1:8443", ACME: &system.ACME{Directory: broken.URL}}
	sys := shop(web, "shop.example.org")
	for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		c := d.tend(sys)["acme/shop.example.org"]
		if c.Failed == "" || len(c.Sealed) > 0 || !c.Again.Equal(d.now.Add(pause)) {
			t.Errorf("try %d: %+v at %v, want the next after %v", i, c, d.now, pause)
		}
		was := hits
		d.now = d.now.Add(pause - time.Second)
		if d.tend(sys); hits != was {
			t.Error("asked before its time")
		}
		d.now = d.now.Add(time.Second)
	}
	d.pairFor("sha256:1", "shop.example.org")
	sys.Web.Certificates = []system.Pair{{Digest: "sha256:1"}}
	was := hits
	if got := d.tend(sys); hits != was || len(got["acme/shop.example.org"].Name) > 0 {
		t.Errorf("%d questions for a name of the user's own, and %v", hits-was, got)
	}
}

// A node shows what fits the name, opens what its own secret sealed, and nothing else.
func TestShelf(t *testing.T) {
	d := newDesk(t)
	d.pairFor("sha256:1", "shop.example.org")
	all := d.tend(shop(system.Web{HTTPS: "127.0.0.1:8443", Certificates: []system.Pair{{Digest: "sha256:1"}}}, "shop.example.org"))
	certs := []system.Certified{all["file/1"], all["own"]}
	shelf, err := NewShelf(secret, d.s.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", shelf.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = c.(*tls.Conn).Handshake(); c.Close() }()
		}
	}()
	shown := func(name string, protos ...string) string {
		c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos})
		if err != nil {
			return "none"
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Issuer.CommonName
	}
	if got := shown("shop.example.org"); got != "none" {
		t.Errorf("an empty shelf shows %s", got)
	}
	shelf.Set(certs, nil)
	for name, want := range map[string]string{"shop.example.org": "Servent authority of elsewhere", "SHOP.example.org": "Servent authority of elsewhere",
		"localhost": "Servent authority of shop", "other.example.org": "Servent authority of shop", "": "Servent authority of shop"} {
		if got := shown(name, "http/1.1"); got != want {
			t.Errorf("%q is shown one of %s, want %s", name, got, want)
		}
	}
	if got := shown("shop.example.org", "acme-tls/1"); got != "none" {
		t.Errorf("a challenge that nobody set is met by %s", got)
	}

	// Sealed by another secret, for another place, or broken: left out, and the rest stays.
	other := *d.s
	if other.box, err = newBox(identity.Secret("another")); err != nil {
		t.Fatal(err)
	}
	text, _ := d.s.box.open("own", all["own"].Sealed)
	swapped := all["own"]
	swapped.Name = "file/2"
	foreign := system.Certified{Name: "file/3", Sealed: other.box.seal("file/3", text)}
	shelf.Set([]system.Certified{swapped, foreign, {Name: "file/4", Sealed: []byte("x")}, {Name: "file/5", Sealed: d.s.box.seal("file/5", []byte("no PEM"))}, all["own"]}, nil)
	if n := len(shelf.now.Load().certs); n != 1 {
		t.Errorf("%d certificates are taken, want 1", n)
	}
}

func TestFront(t *testing.T) {
	shelf, err := NewShelf(secret, newDesk(t).s.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	shelf.Set(nil, []system.Challenge{{Host: "a.example.org", Token: "tok", Answer: "tok.thumb"}})
	port := ""
	h := shelf.Front(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("through")) }), func() (string, bool) { return port, port != "" }, route.Loopback)
	for _, tt := range []struct {
		port, url, from, proto string
		tls                    bool
		want                   string
	}{
		{"", "http://a.example.org/x", "192.0.2.1:1", "", false, "through"},
		{"443", "http://a.example.org/x?y=%20z", "192.0.2.1:1", "", false, "https://a.example.org/x?y=%20z"},
		{"8443", "http://a.example.org:8080/", "192.0.2.1:1", "", false, "https://a.example.org:8443/"},
		{"443", "http://[::1]:8080/", "[::1]:1", "", false, "https://[::1]/"},
		{"443", "http://a.example.org//evil.example.org/", "192.0.2.1:1", "", false, "https://a.example.org//evil.example.org/"},
		{"443", "http://a.example.org/", "192.0.2.1:1", "", true, "through"},
		{"443", "http://a.example.org/", "127.0.0.1:1", "https", false, "through"},
		{"443", "http://a.example.org/", "192.0.2.1:1", "https", false, "https://a.example.org/"},
		{"443", "http://a.example.org/.well-known/acme-challenge/tok", "192.0.2.1:1", "", false, "tok.thumb"},
		{"", "http://a.example.org/.well-known/acme-challenge/other", "192.0.2.1:1", "", false, "through"},
	} {
		port = tt.port
		r := httptest.NewRequest("GET", tt.url, nil)
		r.RemoteAddr = tt.from
		if r.TLS = nil; tt.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if tt.proto != "" {
			r.Header.Set("X-Forwarded-Proto", tt.proto)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Header().Get("Location")
		if got == "" {
			got = w.Body.String()
		}
		if got != tt.want {
			t.Errorf("%s from %s: %q, want %q", tt.url, tt.from, got, tt.want)
		}
	}
}

// The authority outlives the process, its key is nobody else's to read, and a broken one is not replaced in silence.
func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certificates")
	now := time.Now()
	a, err := authority(dir, "shop", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := authority(dir, "shop", now)
	if err != nil || !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Errorf("another one comes after it: %v", err)
	}
	file := filepath.Join(dir, authorityFile)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("its file is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authority(dir, "shop", now); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for at, want := range map[string]string{"": "", "127.0.0.1:8443": "127.0.0.1", "[2001:db8::1]:443": "2001:db8::1"} {
		if got := strings.Join(Addresses(&system.Web{HTTPS: at}), " "); got != want {
			t.Errorf("at %q: %s, want %s", at, got, want)
		}
	}
	for _, a := range Addresses(&system.Web{HTTPS: "0.0.0.0:443"}) {
		if ip := net.ParseIP(a); ip == nil || ip.IsLoopback() {
			t.Errorf("an address %q", a)
		}
	}
}

// Nothing that control says makes a node fall over.
func FuzzShelf(f *testing.F) {
	f.Add("own", []byte("x"), "token")
	shelf, err := NewShelf(secret, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, text []byte, token string) {
		shelf.Set([]system.Certified{{Name: name, Sealed: text}, {Name: name, Sealed: shelf.box.seal(name, text)}}, []system.Challenge{{Host: name, Token: token, Answer: token}, {Host: name, Sealed: shelf.box.seal(challengePlace(name), text)}})
		_, _ = shelf.pick(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{token}, Conn: nowhere{}})
		shelf.Front(http.NotFoundHandler(), func() (string, bool) { return "443", true }, route.Loopback).ServeHTTP(httptest.NewRecorder(), (&http.Request{Host: name, URL: httptest.NewRequest("GET", "/", nil).URL, Header: http.Header{}, RemoteAddr: token}).WithContext(context.Background()))
	})
}

type nowhere struct{ net.Conn }

func (nowhere) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
