package wasm

import (
	"bytes"
	"errors"
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
	return importing("wasi_snapshot_preview1", "fd_write", 4, true, text, start...)
}

// reactor is the same code as one that lives on.
func reactor(text string, start ...byte) []byte {
	return bytes.Replace(code(text, start...), []byte("_start"), []byte("handle"), 1)
}

// importing is code whose function 0 is another one of the host's, of so many numbers.
func importing(module, name string, takes int, gives bool, text string, start ...byte) []byte {
	vector := func(items ...string) string { return string(number(nil, uint32(len(items)))) + strings.Join(items, "") }
	named := func(s string) string { return string(number(nil, uint32(len(s)))) + s }
	sized := func(b []byte) string { return named(string(b)) }
	body := sized(append(append([]byte{1, 1, i32}, start...), opEnd)) // one local
	kind := "\x60" + named(strings.Repeat("\x7f", takes)) + "\x00"
	if gives {
		kind = kind[:len(kind)-1] + "\x01\x7f"
	}
	var iov [8]byte
	iov[0], iov[4], iov[5] = 64, byte(len(text)), byte(len(text)>>8)
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id   byte
		body string
	}{
		{typeSection, vector("\x60\x00\x00", kind)},
		{importSection, vector(named(module) + named(name) + "\x00\x01")},
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
func begin(t testing.TB, module []byte, limits system.Limits, ways ...driver.Way) (http.Handler, *log) {
	t.Helper()
	i, stderr := start(t, module, limits, ways...)
	return i.Endpoint().Handler, stderr
}

func start(t testing.TB, module []byte, limits system.Limits, ways ...driver.Way) (driver.Instance, *log) {
	t.Helper()
	p, err := New(Options{}).Prepare(t.Context(), artifact(t, module))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	var stderr log
	i, err := p.Start(t.Context(), driver.Spec{Instance: "f/1", Limits: limits, Env: []string{"GREETING=hello"}, Ways: ways, Stderr: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(t.Context(), 0) })
	return i, &stderr
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
				"its type":     artifact(t, importing("servent", "log", 2, false, "")),
				"counts":       artifact(t, importing("servent", "fuel", 1, true, "")),
				"its handle":   artifact(t, bytes.Replace(reactor(""), []byte("\x06handle\x00\x01"), []byte("\x06handle\x00\x00"), 1)),
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
	number := func(n ...byte) []byte { // that many numbers, each 0 to 63
		var out []byte
		for _, x := range n {
			out = append(out, 0x41, x)
		}
		return out
	}
	asks := func(name string, takes int, gives bool, text string, args []byte, after ...byte) []byte {
		body := append(append([]byte{opLoop, empty}, args...), opCall, 0)
		if gives {
			body = append(body, 0x1a)
		}
		return importing("servent", name, takes, gives, text, append(append(body, after...), opEnd)...)
	}
	growTable := []byte{0xd0, 0x70, 0x41, 0x80, 0x80, 0x04, prefixBulk, 15, 0, 0x41, 0x7f, 0x47, opIf, empty, opBr, 1, opEnd} // ref.null, 65536, table.grow, again unless -1
	again, outside := []byte{opBr, 0}, []byte{0x41, 0x7f, 0x41, 0x20}                                                         // 32 bytes from the last on
	neighbour, _ := begin(t, code(ok+"a neighbour", say(1)...), system.Limits{})
	for _, tt := range []struct {
		name   string
		module []byte
		limits system.Limits
		status int
		says   string
	}{
		{"asks for all tables", with(code(ok+"x", append(append([]byte{opLoop, empty}, growTable...), append([]byte{opEnd}, say(1)...)...)...), tableSection, "\x02\x70\x00\x00\x70\x01\x00\xff\xff\xff\xff\x0f"), system.Limits{}, 200, ""},
		{"a reactor loops for ever", reactor("", forever...), system.Limits{Timeout: 100 * time.Millisecond}, 504, "too long"},
		{"a reactor loops, and has fuel", reactor("", forever...), system.Limits{Fuel: 1e6}, 502, "fuel"},
		{"a reactor recurses for ever", reactor("", opCall, 1), system.Limits{}, 502, "stack overflow"},
		{"a reactor traps", reactor("", opUnreachable), system.Limits{}, 502, "unreachable"},
		{"a reactor says nothing", reactor(""), system.Limits{}, 502, "without an answer"},
		{"a reactor floods its answer", reactor(ok+"x", append(say(1), flood...)...), system.Limits{Output: 1 << 20}, -1, "more than it may"},
		{"logs for ever", asks("log", 3, false, "lorem", number(1, 0, 32), again...), system.Limits{Fuel: 1e5}, 502, "fuel"},
		{"logs, and has time", asks("log", 3, false, "lorem", number(1, 0, 32), again...), system.Limits{Timeout: 100 * time.Millisecond}, 504, "too long"},
		{"logs what is not there", asks("log", 3, false, "", append(number(1), outside...)), system.Limits{}, 502, "outside of its memory"},
		{"calls what is not there", asks("call", 2, true, "", outside), system.Limits{}, 502, "outside of its memory"},
		{"takes to where nothing is", asks("take", 2, true, "", []byte{0x41, 0x7f, 0x41, 0x7f}), system.Limits{}, 502, "outside of its memory"},
		{"calls for ever", asks("call", 2, true, "GET http://db/ HTTP/1.1\r\n\r\n", []byte{0x41, 0xc0, 0, 0x41, 27}, again...), system.Limits{Fuel: 1e5}, 502, "fuel"},
		{"calls nonsense for ever", asks("call", 2, true, "", number(0, 32), again...), system.Limits{Fuel: 1e5}, 502, "fuel"},
		{"reads keys for ever", asks("kv_get", 4, true, "", number(0, 8, 0, 8), again...), system.Limits{Timeout: 100 * time.Millisecond}, 504, "too long"},
		{"writes what is not there", asks("kv_put", 6, true, "", append(number(0, 8, 0, 8), outside...)), system.Limits{}, 502, "outside of its memory"},
		{"deletes what has no name", asks("kv_del", 4, true, "", append(number(0, 8), outside...)), system.Limits{}, 502, "outside of its memory"},
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
			if tt.status == 200 && w.Code == 200 {
				return // it is well within its bounds, then
			}
			if w.Code != tt.status || tt.status > 0 && !strings.Contains(w.Body.String(), tt.says) || !strings.Contains(said.String(), tt.says) {
				t.Errorf("answer %d %q, log %.200q; want %d and %q", w.Code, w.Body, said, tt.status, tt.says)
			}
			if w := ask(h, newRequest()); w.Code != tt.status {
				t.Errorf("the second call is answered %d, want %d again", w.Code, tt.status)
			}
			if w := ask(neighbour, newRequest()); w.Body.String() != "a neighbour" {
				t.Errorf("a neighbour answers %d %q afterwards", w.Code, w.Body)
			}
		})
	}
}

// with is a module that has another section, instead of its own of the kind or where it belongs.
func with(module []byte, id byte, body string) []byte {
	out, written := bytes.Clone(module[:8]), false
	for r := (&reader{b: module, at: 8}); !r.done(); {
		is, was := r.byte(), r.bytes()
		if !written && order(is) >= order(id) {
			out, written = section(out, id, []byte(body)), true
		}
		if is != id {
			out = section(out, is, was)
		}
	}
	if !written {
		out = section(out, id, []byte(body))
	}
	return out
}

// What takes the node's memory before it runs is refused. The engine would believe each of these, and take up to terabytes.
func TestTooLarge(t *testing.T) {
	many := string(number(nil, mostOf+1))
	hello := code("Content-Type: text/plain\n\nhello", say(1)...)
	locals := func(n uint32) string {
		body := "\x01" + string(number(nil, n)) + "\x7f\x0b"
		return "\x01" + string(number(nil, uint32(len(body)))) + body
	}
	for name, module := range map[string][]byte{
		"segments that are not there": with(hello, dataSection, "\xff\xff\xff\xff\x0f"),
		"a segment that is not there": with(hello, dataSection, "\x01\x00\x41\x00\x0b\xff\xff\xff\xff\x0f"),
		"exports that are not there":  with(hello, exportSection, "\xff\xff\xff\xff\x0f"),
		"tables that are not there":   with(hello, tableSection, "\xff\xff\xff\xff\x0f"),
		"memories that are not there": with(hello, memorySection, "\xff\xff\xff\xff\x0f"),
		"elements that are not there": with(hello, elementSection, "\x01\x01\x00\xff\xff\xff\xff\x0f"),
		"too many segments":           with(hello, dataSection, many+strings.Repeat("\x01\x00", mostOf+1)),
		"a large table":               with(hello, tableSection, "\x01\x70\x00\x80\x80\x80\x20"),
		"two tables":                  with(hello, tableSection, "\x02\x70\x00\x80\x80\x30\x70\x00\x80\x80\x30"),
		"local variables":             with(hello, codeSection, locals(mostLocals+1)),
		"parameters":                  with(hello, typeSection, "\x01\x60"+string(number(nil, 1001))+strings.Repeat("\x7f", 1001)+"\x00"),
		"an unknown section":          with(hello, 13, "\xff\xff\xff\xff\x0f"),
	} {
		_, err := New(Options{}).Prepare(t.Context(), artifact(t, module))
		if !errors.Is(err, driver.ErrArtifact) {
			t.Errorf("%s: Prepare() = %v, want a bad artifact", name, err)
		}
	}
	if _, err := Meter(with(hello, codeSection, locals(mostLocals))); err != nil {
		t.Errorf("as many local variables as there may be: %v", err)
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

// guest and lasting compile Go programs for WASI, each once.
var (
	guest   = sync.OnceValues(func() ([]byte, error) { return compile("guest") })
	lasting = sync.OnceValues(func() ([]byte, error) { return compile("reactor", "-buildmode=c-shared") })
)

func compile(name string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", out, "./testdata/"+name)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the guest: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

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
