package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	netproxy "golang.org/x/net/proxy"
	"golang.org/x/sys/unix"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// abroad is another machine: a network of its own, joined to this one by a cable, of the range for tests of networks
// (RFC 2544). It answers on port 80 and 81; near is the node's address on the cable.
func abroad(t *testing.T) (far, near string) {
	t.Helper()
	r, err := newRoom(networked)
	if err != nil {
		t.Fatal(err)
	}
	here, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(here)
	far, near = "198.18.0.2", "198.18.0.1"
	const name = "servent-test"
	t.Cleanup(func() { // it goes with the last of its sockets, and the next test makes it anew
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
			if _, err := net.InterfaceByName(name); err != nil {
				return
			}
		}
		t.Error("the other machine stays")
	})
	err = r.do(func() error { return cable("out", name, here) })
	if err == nil {
		err = address(name, netip.MustParseAddr(near))
	}
	if err == nil {
		err = r.do(func() error { return address("out", netip.MustParseAddr(far)) })
	}
	if err != nil {
		r.close()
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no second machine: %v", err)
	}
	for _, port := range []string{"80", "81"} {
		ln, err := r.listen(net.JoinHostPort(far, port))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "abroad "+r.Host+" "+r.Header.Get("X-Forwarded-For"))
		})}
		go server.Serve(ln)
		t.Cleanup(func() { server.Close() })
	}
	t.Cleanup(r.close) // before the servers end: the cable goes with the last of its sockets
	return far, near
}

// With egress an instance reaches what is outside, by a proxy, and nothing of its node; without, nothing leaves.
func TestEgress(t *testing.T) { onEvery(t, testEgress) }

func testEgress(t *testing.T, d *Driver) {
	far, near := abroad(t)
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(far, "80"), 5*time.Second); err != nil {
		t.Fatalf("the node itself does not reach the other machine: %v", err)
	} else {
		c.Close()
	}
	node, err := net.Listen("tcp", net.JoinHostPort(near, "0")) // a service of the node, on all who reach it
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	go http.Serve(node, http.NotFoundHandler())
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "door") }))
	t.Cleanup(door.Close)

	asked := func(i driver.Instance, path, url_ string) (int, string) {
		t.Helper()
		status, body, err := drivertest.Ask(t.Context(), i.Endpoint(), path+"?url="+url.QueryEscape(url_))
		if err != nil {
			t.Fatal(err)
		}
		return status, body
	}
	kept := up(t, d, onDisk(t, probeImage(t, v1.Config{}), nil), specFor(t, 1))
	for _, path := range []string{"/ask", "/straight"} {
		if status, body := asked(kept, path, "http://"+far+"/"); status != http.StatusBadGateway {
			t.Errorf("without egress %s of %s: %d %q", path, far, status, body)
		}
	}
	if env := ask(t, kept, "/env"); strings.Contains(strings.ToLower(env), "proxy") {
		t.Errorf("without egress it is told of a proxy: %s", env)
	}

	s := specFor(t, 2)
	s.Ways = []driver.Way{{Name: "db", Port: 80, To: strings.TrimPrefix(door.URL, "http://")}}
	i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), &system.Container{Egress: true}), s)
	for path, want := range map[string]string{"/ask": "abroad " + far + " ", "/tunnel": "abroad " + far + " ", "/socks": "abroad " + far + " "} {
		if status, body := asked(i, path, "http://"+far+"/"); status != 200 || body != want {
			t.Errorf("%s of %s: %d %q, want %q", path, far, status, body, want)
		}
	}
	if status, body := asked(i, "/ask", "http://db/"); status != 200 || body != "door" {
		t.Errorf("a service: %d %q", status, body)
	}
	if status, body := asked(i, "/straight", "http://"+far+"/"); status != http.StatusBadGateway {
		t.Errorf("past the proxy: %d %q", status, body)
	}
	for _, inward := range []string{door.URL, "http://" + node.Addr().String(), "http://[::ffff:" + near + "]:" + door.URL[strings.LastIndex(door.URL, ":")+1:],
		"http://169.254.169.254/latest/meta-data/", "http://0.0.0.0:22/", "http://localhost:1/"} {
		for _, path := range []string{"/through", "/tunnel"} {
			if status, body := asked(i, path, inward); status == 200 || !strings.Contains(body, "egress leads outside alone") && !strings.Contains(body, "Forbidden") {
				t.Errorf("%s of %s: %d %q, want that it is refused", path, inward, status, body)
			}
		}
		if status, body := asked(i, "/socks", inward); status != http.StatusBadGateway || !strings.Contains(body, "not allowed") {
			t.Errorf("/socks of %s: %d %q, want that it is refused", inward, status, body)
		}
	}
}

func TestOutside(t *testing.T) {
	own := []net.Addr{&net.IPNet{IP: net.IPv4(10, 0, 0, 5), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2001:db8::5"), Mask: net.CIDRMask(64, 128)}}
	for at, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.6": true, "2001:db8::6": true, "fd00::1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"10.0.0.5": false, "::ffff:10.0.0.5": false, "2001:db8::5": false,
	} {
		if err := outside(netip.MustParseAddr(at), own); (err == nil) != want || err != nil && !errors.Is(err, errInward) {
			t.Errorf("outside(%s) = %v, want outside: %v", at, err, want)
		}
	}
}

// proxied serves both proxies on loopback, of a dialler that may go anywhere.
func proxied(t *testing.T) (web, socks string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	p := newProxy(dial, New(Options{}).opts.Log)
	w, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 2)
	go func() { p.serve(ctx, w); done <- true }()
	go func() { each(ctx, s, func(c net.Conn) { p.socks(ctx, c) }); done <- true }()
	stop = func() {
		cancel()
		w.Close()
		s.Close()
		for range 2 {
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Error("a proxy does not end")
			}
		}
	}
	return w.Addr().String(), s.Addr().String(), stop
}

// Others' clients go through: Go's, and curl's.
func TestProxyClients(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+string(b)+r.Header.Get("Proxy-Connection")+r.Header.Get("X-Forwarded-For"))
	}))
	defer plain.Close()
	secure := httptest.NewTLSServer(plain.Config.Handler)
	defer secure.Close()
	web, socks, stop := proxied(t)
	defer stop()
	client := secure.Client()
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: web})
	dialer, err := netproxy.SOCKS5("tcp", socks, nil, netproxy.Direct)
	if err != nil {
		t.Fatal(err)
	}
	by := &http.Client{Transport: &http.Transport{DialContext: dialer.(netproxy.ContextDialer).DialContext, DisableKeepAlives: true}}
	for name, one := range map[string]struct {
		c  *http.Client
		to string
	}{"HTTP": {client, plain.URL}, "CONNECT": {client, secure.URL}, "SOCKS": {by, plain.URL}} {
		res, err := one.c.Post(one.to, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != "POST hello" {
			t.Errorf("%s: %q", name, b)
		}
	}
	curl, err := exec.LookPath("curl")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip("curl is not installed")
	}
	for _, args := range [][]string{{"-x", "http://" + web, plain.URL}, {"-x", "http://" + web, "-k", secure.URL}, {"-p", "-x", "http://" + web, plain.URL},
		{"-x", "socks5h://" + socks, plain.URL}, {"-x", "socks5://" + socks, "-k", secure.URL}} {
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--noproxy", "", "-m", "20", "-d", "x"}, args...)...).CombinedOutput()
		if err != nil || string(out) != "POST x" {
			t.Errorf("curl %q: %v %q", args, err, out)
		}
	}
	client.CloseIdleConnections()
}

// Each half of a tunnel ends by itself, and an open one does not keep the proxy.
func TestTunnelHalves(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				c.Write(bytes.ToUpper(b))
			}()
		}
	}()
	web, socks, stop := proxied(t)
	greet := func(at, words string, answer int) *net.TCPConn {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, words)
		if _, err := io.ReadFull(c, make([]byte, answer)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	a := ln.Addr().(*net.TCPAddr)
	connect := "CONNECT " + a.String() + " HTTP/1.1\r\nHost: x\r\n\r\n"
	viaSocks := "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string([]byte{byte(a.Port >> 8), byte(a.Port)})
	for name, c := range map[string]*net.TCPConn{"CONNECT": greet(web, connect, len("HTTP/1.1 200 OK\r\n\r\n")), "SOCKS": greet(socks, viaSocks, 2+10)} {
		io.WriteString(c, "halves")
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "HALVES" {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	greet(web, connect+"early", len("HTTP/1.1 200 OK\r\n\r\n")) // stays open
	greet(socks, viaSocks, 2+10)
	greet(web, "", 0)
	stop()
}

type said struct {
	io.Reader
	io.Writer
}

func FuzzSocks(f *testing.F) {
	for _, s := range []string{"", "\x05\x01\x00\x05\x01\x00\x03\x04host\x00\x50", "\x05\x02\x01\x00\x05\x03\x00\x01\x01\x02\x03\x04\x00\x50", "\x05\x00", "\x04\x01\x00\x50\x01\x02\x03\x04\x00",
		"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb", "\x05\x01\x02", "\x05\x01\x00\x05\x01\x00\x03\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		address, _, err := askedOf(said{bytes.NewReader(b), io.Discard})
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(address); err != nil && !strings.ContainsAny(address, "[]:%") {
			t.Errorf("%q leads to %q: %v", b, address, err)
		}
	})
}
