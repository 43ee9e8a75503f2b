//go:build unix

// Command fn measures what a call of a function costs inside a node, beside what else answers a request: a handler of the node's own, a server that
// is always there, and a process for each request. All give the same five bytes. It needs the Go tool, for the functions.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"servent/driver"
	"servent/driver/wasm"
	"servent/system"
)

const (
	rounds = 10
	each   = 100 * time.Millisecond // of one row in one round
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fn:", err)
		os.Exit(1)
	}
}

// row is one way to answer.
type row struct {
	name    string
	handler http.Handler
	took    []time.Duration // of each request
	cpu     []float64       // microseconds a request, of each round, children included
}

func run() error {
	before := load()
	dir, err := os.MkdirTemp("", "fn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	native, module := filepath.Join(dir, "guest"), filepath.Join(dir, "guest.wasm")
	for to, env := range map[string][]string{native: nil, module: {"GOOS=wasip1", "GOARCH=wasm"}} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, "./bench/fn/guest")
		cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the guest: %w\n%s", err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "small.wasm"), small(), 0o600); err != nil {
		return err
	}
	d := wasm.New(wasm.Options{Cache: filepath.Join(dir, "cache")})
	var prepared []string
	function := func(name, file string) (*row, error) {
		began := time.Now()
		p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Wasm, From: file}, Dir: dir})
		if err != nil {
			return nil, err
		}
		prepared = append(prepared, fmt.Sprintf("%s %.0f ms", name, float64(time.Since(began).Microseconds())/1000))
		i, err := p.Start(context.Background(), driver.Spec{Instance: "fn/1", Dir: dir, Stdout: io.Discard, Stderr: io.Discard})
		if err != nil {
			return nil, err
		}
		return &row{name: name, handler: i.Endpoint().Handler}, nil
	}
	tiny, err := function("function: smallest module", "small.wasm")
	if err != nil {
		return err
	}
	golang, err := function("function: Go module", "guest.wasm")
	if err != nil {
		return err
	}
	server := exec.Command(native, "serve")
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	at, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	rows := []*row{
		{name: "handler of the node's own", handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })},
		{name: "server that is always there, over loopback", handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: strings.TrimSpace(at)})},
		tiny, golang,
		{name: "process for each request (net/http/cgi, Go program)", handler: &cgi.Handler{Path: native}},
	}
	for range rounds {
		for _, r := range rows {
			if err := r.turn(); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	fmt.Printf("# A call of a function\n\n`make bench-fn` · %s · %d CPUs · %s · load average %s before, %s after\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), before, load())
	fmt.Printf("Time from the request to its whole answer inside the node, one request at a time; %d rounds of %v in turns. Every call of a function begins with an empty memory: it is a cold start, once the module is compiled (%s, once a node).\n\n",
		rounds, each, strings.Join(prepared, ", "))
	fmt.Println("| | p50 µs | p99 µs | CPU µs a request (median of rounds) | requests |\n|---|---|---|---|---|")
	for _, r := range rows {
		slices.Sort(r.took)
		slices.Sort(r.cpu)
		fmt.Printf("| %s | %.0f | %.0f | %.0f | %d |\n", r.name, micro(r.took[len(r.took)/2]), micro(r.took[len(r.took)*99/100]), r.cpu[len(r.cpu)/2], len(r.took))
	}
	fmt.Println("\nWhat counting instructions costs in a tight loop: `go test ./driver/wasm -run '^$' -bench Loop`.")
	return nil
}

// turn asks for as long as a turn lasts.
func (r *row) turn() error {
	cpu, n := used(), 0
	for end := time.Now().Add(each); time.Now().Before(end) || n == 0; n++ {
		began := time.Now()
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		r.took = append(r.took, time.Since(began))
		if w.Code != http.StatusOK || w.Body.String() != "hello" {
			return errors.New("it answered " + w.Result().Status + " " + w.Body.String())
		}
	}
	r.cpu = append(r.cpu, micro(used()-cpu)/float64(n))
	return nil
}

// used is the processor time of this process and of its children that have ended. The server that is always there does not end, so its own is not in it.
func used() (all time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			all += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return all
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// small is the smallest module that answers: one call of fd_write, as what a C compiler makes of a write.
func small() []byte {
	const text = "Content-Type: text/plain\n\nhello"
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	data := append([]byte{1, 0, 0x41, 0, 0x0b, byte(8 + len(text)), 8, 0, 0, 0, byte(len(text)), 0, 0, 0}, text...) // at 0: address and length, then the text
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0),
		section(2, slices.Concat([]byte{1, 22}, []byte("wasi_snapshot_preview1"), []byte{8}, []byte("fd_write"), []byte{0, 0})...),
		section(3, 1, 1),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2, 6}, []byte("memory"), []byte{2, 0, 6}, []byte("_start"), []byte{0, 1})...),
		section(10, 1, 13, 0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 0x38, 0x10, 0, 0x1a, 0x0b),
		section(11, data...))
}
