package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// secured is a fleet of two nodes whose doors speak TLS, and what a client must trust.
func secured(t *testing.T) (*fleet, *x509.CertPool) {
	if reference {
		t.Skip("the reference knows no TLS")
	}
	lender := httptest.NewTLSServer(nil) // of a certificate
	t.Cleanup(lender.Close)
	roots := x509.NewCertPool()
	roots.AddCert(lender.Certificate())
	return newFleet(t, 2, func(o *Options) {
		o.TLS = &tls.Config{Certificates: lender.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	}), roots
}

// speaks is a client of one protocol under TLS.
func speaks(t *testing.T, roots *x509.CertPool, second bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!second)
	p.SetHTTP2(second)
	tr := &http.Transport{Protocols: p, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// One door answers HTTP/1.1 and HTTP/2 under TLS, and plain HTTP.
func TestTLS(t *testing.T) {
	f, roots := secured(t)
	f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-End")
		fmt.Fprintf(w, "%s %s %s %d", r.Method, r.Header.Get("X-Forwarded-Proto"), r.Proto, len(body))
		w.Header().Set("X-End", "yes")
	}))
	for _, node := range []system.NodeID{"node-1", "node-2"} {
		door := f.door(node)
		over := strings.Replace(door, "http:", "https:", 1)
		for _, tt := range []struct {
			name, url, proto, scheme string
			c                        *http.Client
		}{
			{"plain", door, "HTTP/1.1", "http", client(t)},
			{"HTTP/1.1", over, "HTTP/1.1", "https", speaks(t, roots, false)},
			{"HTTP/2", over, "HTTP/2.0", "https", speaks(t, roots, true)},
		} {
			for i, body := range []string{"", "x", strings.Repeat("y", 1<<20)} {
				res, got := ask(t, tt.c, "POST", fmt.Sprintf("%s/%d", tt.url, i), strings.NewReader(body))
				if want := fmt.Sprintf("POST %s HTTP/1.1 %d", tt.scheme, len(body)); got != want || res.Proto != tt.proto || res.Trailer.Get("X-End") != "yes" {
					t.Errorf("%s at %s: %q by %s, trailer %q; want %q by %s", tt.name, node, got, res.Proto, res.Trailer.Get("X-End"), want, tt.proto)
				}
			}
		}
	}
}

func TestTLSWithoutCertificates(t *testing.T) {
	f := newFleet(t, 1)
	f.run("node-1", 1, text("hello"))
	_, err := tls.Dial("tcp", strings.TrimPrefix(f.door("node-1"), "http://"), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		t.Error("a door without certificates made a handshake")
	}
}

func TestUpgradeOverTLS(t *testing.T) {
	f, roots := secured(t)
	f.run("node-2", 1, echo)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(f.door("node-1"), "http://"), &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	long := strings.Repeat("a\x00b", 50_000)
	go func() { // ends with the connection
		_, _ = io.WriteString(conn, long)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello "+long+" bye" {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(long)+10)
	}
}

// An answer that breaks must not look whole, and who has left is not served on.
func TestHTTP2Breaks(t *testing.T) {
	f, roots := secured(t)
	gone := make(chan struct{})
	f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(gone)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("z", 100_000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	c, door := speaks(t, roots, true), strings.Replace(f.door("node-1"), "http:", "https:", 1)
	res, err := c.Get(door + "/break")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("an answer that broke looked whole")
	}
	ctx, leave := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", door+"/wait", nil)
	if res, err = c.Do(r); err != nil {
		t.Fatal(err)
	}
	leave()
	res.Body.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the instance does not learn that the client has left")
	}
}

// A door that closes answers what is open, and takes no more.
func TestHTTP2Drains(t *testing.T) {
	f, roots := secured(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "late")
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- f.nodes["node-1"].sw.Serve(ctx, ln, f.nodes["node-1"].sw.Door("api")) }()
	got := make(chan string, 1)
	c := speaks(t, roots, true)
	go func() {
		res, err := c.Get("https://" + ln.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(b), err)
	}()
	<-begun
	stop()
	time.AfterFunc(100*time.Millisecond, func() { close(finish) })
	if s := <-got; s != "late<nil>" {
		t.Errorf("the open request got %s", s)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve() = %v", err)
	}
}

// What begins as a handshake and is none, or never ends, is cut and leaves nothing.
func TestBrokenHandshakes(t *testing.T) {
	f, _ := secured(t)
	hurried(f)
	f.run("node-1", 1, text("hello"))
	addr := strings.TrimPrefix(f.door("node-1"), "http://")
	before := runtime.NumGoroutine()
	for _, junk := range []string{"\x16", "\x16\x03\x01\x02\x00\x01", "\x16\x03\x01\xff\xff" + strings.Repeat("a", 100), "\x16GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, junk)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") || strings.Contains(string(b), "HTTP") {
			t.Errorf("%q: got %q, %v; want the connection closed", junk, b, err)
		}
		conn.Close()
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 }) // a loop began with the first connection
}
