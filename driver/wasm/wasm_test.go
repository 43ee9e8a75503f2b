package wasm

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// code assembles a module: a command whose _start is the given instructions. It may call fd_write, which
// is function 0, and itself, which is function 1; its memory has a page, with the text at 64 and, at 0, the
// vector that says so.
func code(text string, start ...byte) []byte {
	vector := func(items ...string) string { return string(number(nil, uint32(len(items)))) + strings.Join(items, "") }
	named := func(s string) string { return string(number(nil, uint32(len(s)))) + s }
	sized := func(b []byte) string { return named(string(b)) }
	body := sized(append(append([]byte{1, 1, i32}, start...), opEnd)) // one local
	var iov [8]byte
	iov[0], iov[4], iov[5] = 64, byte(len(text)), byte(len(text)>>8)
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id   byte
		body string
	}{
		{typeSection, vector("\x60\x00\x00", "\x60\x04\x7f\x7f\x7f\x7f\x01\x7f")},
		{importSection, vector(named("wasi_snapshot_preview1") + named("fd_write") + "\x00\x01")},
		{functionSection, vector("\x00")},
		{5, vector("\x00\x01")}, // memory
		{exportSection, vector(named("_start")+"\x00\x01", named("memory")+"\x02\x00")},
		{codeSection, vector(body)},
		{dataSection, vector("\x00\x41\x00\x0b"+named(string(iov[:])), "\x00\x41\xc0\x00\x0b"+named(text))},
	} {
		out = section(out, s.id, []byte(s.body))
	}
	return out
}

// say writes the text to a descriptor.
func say(fd byte) []byte {
	return []byte{0x41, fd, 0x41, 0, 0x41, 1, 0x41, 32, opCall, 0, 0x1a} // i32.const …, call, drop
}

var forever = []byte{opLoop, empty, opBr, 0, opEnd}

func artifact(t testing.TB, module []byte) driver.Artifact {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.wasm"), module, 0o600); err != nil {
		t.Fatal(err)
	}
	return driver.Artifact{Dir: dir, Software: system.Software{Kind: system.Wasm, From: "./x/m.wasm"}}
}

// log is what a module's calls say, of which several run at once.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts an instance of a module.
func begin(t testing.TB, module []byte, limits system.Limits) (http.Handler, *log) {
	t.Helper()
	p, err := New(Options{}).Prepare(t.Context(), artifact(t, module))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	var stderr log
	i, err := p.Start(t.Context(), driver.Spec{Instance: "f/1", Limits: limits, Env: []string{"GREETING=hello"}, Stderr: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(t.Context(), 0) })
	return i.Endpoint().Handler, &stderr
}

func newRequest() *http.Request { return httptest.NewRequest("GET", "/", nil) }

func ask(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if what := recover(); what != nil && what != http.ErrAbortHandler {
				panic(what)
			} else if what != nil {
				w.Code = -1
			}
		}()
		h.ServeHTTP(w, r)
	}()
	return w
}

func TestConforms(t *testing.T) {
	hello := code("Content-Type: text/plain\n\nhello", say(1)...)
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		dir := artifact(t, hello).Dir
		wrong := func(kind system.SoftwareKind, from, dir string) driver.Artifact {
			return driver.Artifact{Dir: dir, Software: system.Software{Kind: kind, From: from}}
		}
		return drivertest.Subject{Driver: New(Options{Cache: t.TempDir()}), Good: artifact(t, hello), Path: "/", Says: "hello",
			Spec: func(_ *testing.T, n int) driver.Spec {
				return driver.Spec{Instance: system.Instance("f", n)}
			},
			Bad: map[string]driver.Artifact{
				"another kind": wrong(system.Files, "m.wasm", dir),
				"no bundle":    wrong(system.Wasm, "m.wasm", ""),
				"no file":      wrong(system.Wasm, "other.wasm", dir),
				"no module":    artifact(t, []byte("#!/bin/sh\n")),
				"cut":          artifact(t, hello[:len(hello)-20]),
				"a component":  artifact(t, []byte("\x00asm\x0d\x00\x01\x00")),
				"a library":    artifact(t, bytes.Replace(hello, []byte("_start"), []byte("_other"), 1)),
				"what it asks": artifact(t, bytes.Replace(hello, []byte("fd_write"), []byte("fd_wrote"), 1)),
			}}
	})
}

// What a hostile module does is ended within its bound, and says why.
func TestHostile(t *testing.T) {
	ok := "Content-Type: text/plain\n\n"
	flood := append([]byte{opLoop, empty}, append(say(1), opBr, 0, opEnd)...)
	grow := []byte{opLoop, empty, 0x41, 1, opGrow, 0, 0x1a, opBr, 0, opEnd}
	fill := []byte{opLoop, empty, 0x41, 0, 0x41, 0, 0x41, 0xff, 0xff, 0x03, prefixBulk, 11, 0, opBr, 0, opEnd}
	copies := []byte{opLoop, empty, 0x41, 0, 0x41, 0, 0x41, 0xff, 0xff, 0x03, prefixBulk, 10, 0, 0, opBr, 0, opEnd}
	for _, tt := range []struct {
		name   string
		module []byte
		limits system.Limits
		status int
		says   string
	}{
		{"loops for ever", code("", forever...), system.Limits{Timeout: 100 * time.Millisecond}, 504, "too long"},
		{"loops, and has fuel", code("", forever...), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"recurses for ever", code("", opCall, 1), system.Limits{}, 502, "stack overflow"},
		{"recurses, and has fuel", code("", opCall, 1), system.Limits{Fuel: 1000}, 502, "fuel"},
		{"branches for ever", code("", opLoop, empty, 0x41, 1, opBrIf, 0, opEnd), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"a table of branches", code("", opLoop, empty, 0x41, 7, opBrTable, 1, 0, 0, opEnd), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"asks for all memory", code("", grow...), system.Limits{Fuel: 1e6, Resources: system.Resources{Memory: 1 << 20}}, 502, "fuel"},
		{"fills for ever", code("", fill...), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"copies for ever", code("", copies...), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"writes for ever", code(strings.Repeat("Content-Type: text/plain\n", 100), flood...), system.Limits{}, 502, "header lines"},
		{"a body for ever", code(ok+"x", append(say(1), flood...)...), system.Limits{Output: 1 << 20}, -1, "more than it may"},
		{"reads where nothing is", code("", 0x41, 0x7f, 0x28, 2, 0, 0x1a), system.Limits{}, 502, "out of bounds"},
		{"divides by zero", code("", 0x41, 1, 0x41, 0, 0x6d, 0x1a), system.Limits{}, 502, "divide by zero"},
		{"traps", code("", opUnreachable), system.Limits{}, 502, "unreachable"},
		{"says nothing", code(""), system.Limits{}, 502, "without an answer"},
		{"no header lines", code("hello\n\nworld", say(1)...), system.Limits{}, 502, "no CGI response"},
		{"no empty line", code("Content-Type: text/plain\n", say(1)...), system.Limits{}, 502, "no CGI response"},
		{"a wild status", code("Status: 999 Wild\n\n", say(1)...), system.Limits{}, 502, "want a number"},
		{"traps in its answer", code(ok+"half", append(say(1), opUnreachable)...), system.Limits{}, -1, "unreachable"},
		{"floods its log", code("lorem ipsum\n", append(append([]byte{opLoop, empty}, say(2)...), opBr, 0, opEnd)...), system.Limits{Fuel: 1e5}, 502, "fuel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, said := begin(t, tt.module, tt.limits)
			w := ask(h, newRequest())
			if w.Code != tt.status || tt.status > 0 && !strings.Contains(w.Body.String(), tt.says) || !strings.Contains(said.String(), tt.says) {
				t.Errorf("answer %d %q, log %.200q; want %d and %q", w.Code, w.Body, said, tt.status, tt.says)
			}
			if w := ask(h, newRequest()); w.Code != tt.status {
				t.Errorf("the second call is answered %d, want %d again", w.Code, tt.status)
			}
		})
	}
}

// A client that goes away ends the call.
func TestClientGoesAway(t *testing.T) {
	h, _ := begin(t, code("", forever...), system.Limits{Concurrency: 1})
	server := httptest.NewServer(h)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 200 * time.Millisecond}
	for range 3 { // the only turn is free again each time
		if _, err := client.Do(r); err == nil || !strings.Contains(err.Error(), "Timeout") {
			t.Fatalf("Do() = %v, want the client's own time-out", err)
		}
	}
}

// What waits is bounded.
func TestTurns(t *testing.T) {
	h, _ := begin(t, code("", forever...), system.Limits{Concurrency: 2, Timeout: time.Second})
	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for range 8 {
		all.Go(func() {
			w := ask(h, newRequest())
			mu.Lock()
			defer mu.Unlock()
			got[w.Code]++
		})
	}
	all.Wait()
	if got[http.StatusServiceUnavailable] < 4 || got[http.StatusGatewayTimeout] < 2 || got[200] > 0 {
		t.Errorf("answers by status: %v; want 2 that ran out of time, and at least 4 refused", got)
	}
}

// guest compiles a Go program for WASI, once.
var guest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the guest: %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// A program in Go that uses the standard library's net/http/cgi answers as it would under any web server.
func TestGoProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	module, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	h, said := begin(t, module, system.Limits{})
	r := httptest.NewRequest("POST", "http://shop.example.org:8080/c/a%2Fb?x=1&y=2", strings.NewReader("some text"))
	r.Header.Set("X-User", "ada")
	r.Header.Set("Proxy", "http://evil.example")
	r.Header.Set("Content-Type", "text/plain")
	w := ask(h, r)
	want := "POST /c/a/b x=1&y=2 shop.example.org:8080 text/plain ada hello proxy= body=some text\n"
	if w.Code != http.StatusAccepted || w.Body.String() != want || w.Header().Get("X-Guest") != "go" {
		t.Errorf("answer %d %v %q, want 202 %q; log %s", w.Code, w.Header(), w.Body, want, said)
	}
	r = httptest.NewRequest("PUT", "/", io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000))))
	r.ContentLength = -1 // as in chunks
	if w := ask(h, r); w.Code != http.StatusAccepted || len(w.Body.String()) < 100_000 {
		t.Errorf("a body in chunks: answer %d with %d bytes", w.Code, w.Body.Len())
	}
	if w := ask(h, httptest.NewRequest("GET", "/panic", nil)); w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "exit 2") {
		t.Errorf("a panic: answer %d %q, want 502 and exit 2", w.Code, w.Body)
	}
	if w := ask(h, httptest.NewRequest("GET", "/file", nil)); w.Body.String() != "no file\n" {
		t.Errorf("a module opened a file: %q", w.Body)
	}
}
