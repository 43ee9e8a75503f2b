//go:build unix

// Command fn measures what a call of a function costs inside a node, beside what else answers a request: a handler of the node's own, a server that
// is always there, and a process or a container for each request. All give the same five bytes. It needs the Go tool, for the functions.
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
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"servent/driver"
	"servent/driver/wasm"
	"servent/lab/host"
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
	first   time.Duration   // the very first request
	took    []time.Duration // of each request
	cpu     []float64       // microseconds a request, of each round, children included
}

func run() error {
	if len(os.Args) == 3 && os.Args[1] == "idle" {
		return idle(os.Args[2])
	}
	before := host.Loads()
	dir, err := os.MkdirTemp("", "fn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	native, module, lasting := filepath.Join(dir, "guest"), filepath.Join(dir, "guest.wasm"), filepath.Join(dir, "lasting.wasm")
	for to, flags := range map[string][]string{native: nil, module: nil, lasting: {"-buildmode=c-shared"}} {
		cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", to}, flags, []string{"./bench/fn/guest"})...)
		if cmd.Env = append(os.Environ(), "CGO_ENABLED=0"); to != native {
			cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the guest: %w\n%s", err, out)
		}
	}
	for name, export := range map[string]string{"small.wasm": "_start", "handle.wasm": "handle"} {
		if err := os.WriteFile(filepath.Join(dir, name), small(export), 0o600); err != nil {
			return err
		}
	}
	d := wasm.New(wasm.Options{Cache: filepath.Join(dir, "cache")})
	var prepared []string
	function := func(name, file string) (*row, error) {
		began := time.Now()
		p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Wasm, From: file}, Dir: dir})
		if err != nil {
			return nil, err
		}
		ready := time.Since(began)
		said := make(compiled)
		i, err := p.Start(context.Background(), driver.Spec{Instance: "fn/1", Dir: dir, Stdout: io.Discard, Stderr: said})
		if err != nil {
			return nil, err
		}
		r := &row{name: name, handler: i.Endpoint().Handler}
		for said := (<-chan string)(said); ; { // by the interpreter, until it is compiled
			began := time.Now()
			if err := r.ask(); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if r.first == 0 {
				r.first = time.Since(began)
			}
			st, err := i.Stats(context.Background())
			if err != nil {
				return nil, err
			}
			if st.Interpreted == 0 {
				break
			}
			select {
			case line := <-said:
				prepared = append(prepared, fmt.Sprintf("| %s | %.0f | %.0f | %s |", name, milli(ready), milli(r.first), strings.TrimPrefix(strings.TrimSpace(line), "compiled in ")))
				return r, nil
			default:
			}
		}
		prepared = append(prepared, fmt.Sprintf("| %s | %.0f | %.1f | compiled before it was called |", name, milli(ready), milli(r.first)))
		return r, nil
	}
	var functions []*row
	for _, f := range [][2]string{{"smallest module, thrown away", "small.wasm"}, {"smallest module, lives on", "handle.wasm"}, {"Go module, thrown away", "guest.wasm"}, {"Go module, lives on", "lasting.wasm"}} {
		r, err := function("function: "+f[0], f[1])
		if err != nil {
			return err
		}
		functions = append(functions, r)
	}
	server, stop, err := serving(native, "serve")
	if err != nil {
		return err
	}
	defer stop()
	watchdog, stop, err := serving(native, "watchdog")
	if err != nil {
		return err
	}
	defer stop()
	rows := slices.Concat([]*row{
		{name: "handler of the node's own", handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })},
		{name: "server that is always there, over loopback", handler: server},
	}, functions, []*row{
		{name: "process for each request (net/http/cgi, Go program)", handler: &cgi.Handler{Path: native}},
		{name: "the same by a watchdog that is always there, over loopback", handler: watchdog},
	})
	boxed, without, err := contained(dir, native)
	switch {
	case err != nil:
		return err
	case boxed != nil:
		rows = append(rows, &row{name: "container for each request (runc, Go program)", handler: boxed})
	}
	for range rounds {
		for _, r := range rows {
			if err := r.turn(); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	fmt.Printf("# A call of a function\n\n`make bench-fn` · %s · %d CPUs · %s · load average %s before, %s after\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), before, host.Loads())
	fmt.Printf("Time from the request to its whole answer inside the node, one request at a time; %d rounds of %v in turns. A module with _start begins each call with an empty memory, one with handle lives on.\n\n", rounds, each)
	fmt.Println("| | p50 µs | p99 µs | CPU µs a request (median of rounds) | requests |\n|---|---|---|---|---|")
	for _, r := range rows {
		slices.Sort(r.took)
		slices.Sort(r.cpu)
		fmt.Printf("| %s | %.0f | %.0f | %.0f | %d |\n", r.name, micro(r.took[len(r.took)/2]), micro(r.took[len(r.took)*99/100]), r.cpu[len(r.cpu)/2], len(r.took))
	}
	if without != "" {
		fmt.Printf("\nContainers are not here: %s.\n", without)
	}
	fmt.Println("\nProcessor time of servers that are always there is not in the table.")
	fmt.Printf("\n## Until a module is compiled\n\nOnce a node. A module that the compiler has not done in 0.15 s is interpreted meanwhile: so long until it can be called, its first call, and how it went on.\n\n| | ready after ms | first call ms | compiled in |\n|---|---|---|---|\n%s\n", strings.Join(prepared, "\n"))
	if err := crowds(filepath.Join(dir, "handle.wasm")); err != nil {
		return err
	}
	if err := hostile(d, dir); err != nil {
		return err
	}
	return fuel(dir)
}

// serving starts the guest as a server and returns a way to it.
func serving(guest, as string) (http.Handler, func(), error) {
	cmd := exec.Command(guest, as)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	stop := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	at, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, err
	}
	return httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: strings.TrimSpace(at)}), stop, nil
}

// compiled takes the log of an instance, which says when it is compiled.
type compiled chan string

// Write implements [io.Writer].
func (c compiled) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "compiled in ") {
		line := string(p)
		go func() { c <- line }()
	}
	return len(p), nil
}

// crowds measures idle instances in a process of their own.
func crowds(file string) error {
	out, err := exec.Command(os.Args[0], "idle", file).Output()
	if err != nil {
		return fmt.Errorf("idle instances: %w", err)
	}
	var before, after, most int64
	if _, err := fmt.Sscan(string(out), &before, &after, &most); err != nil {
		return fmt.Errorf("idle instances: %w", err)
	}
	fmt.Printf("\n## Idle instances\n\n%d instances of the smallest module that lives on (64 KiB of memory each), every one called once, in one process: %.0f MiB resident, %.0f MiB at the most, %.0f MiB before; %.0f KiB an instance.\n",
		crowd, mib(after), mib(most), mib(before), float64(after-before)/1024/crowd)
	return nil
}

// fuel measures what counting instructions costs, by the benchmark of the counter: with and without in turns.
func fuel(dir string) error {
	test := filepath.Join(dir, "wasm.test")
	if out, err := exec.Command("go", "test", "-c", "-o", test, "./driver/wasm").CombinedOutput(); err != nil {
		return fmt.Errorf("fuel: %w\n%s", err, out)
	}
	took := map[string][]float64{}
	var ratios []float64
	for range 2 * rounds {
		out, err := exec.Command(test, "-test.run", "^$", "-test.bench", "Loop", "-test.benchtime", "200ms").Output()
		if err != nil {
			return fmt.Errorf("fuel: %w\n%s", err, out)
		}
		all := regexp.MustCompile(`counted=(no|yes)\S*\s.*\s([0-9.]+) ns/round`).FindAllStringSubmatch(string(out), -1)
		if len(all) != 2 {
			return fmt.Errorf("fuel: cannot read\n%s", out)
		}
		now := map[string]float64{}
		for _, m := range all {
			if now[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
				return err
			}
			took[m[1]] = append(took[m[1]], now[m[1]])
		}
		ratios = append(ratios, now["yes"]/now["no"])
	}
	middle := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	fmt.Printf("\n## Fuel\n\nA round of a tight loop (a step of FNV-1a, by way of memory): %.2f ns, with its instructions counted %.2f ns, %.2f times as long. Medians of %d runs of each, in turns: `go test ./driver/wasm -run '^$' -bench Loop`.\n",
		middle(took["no"]), middle(took["yes"]), middle(ratios), len(ratios))
	return nil
}

// turn asks for as long as a turn lasts.
func (r *row) turn() error {
	cpu, n := used(), 0
	for end := time.Now().Add(each); time.Now().Before(end) || n == 0; n++ {
		began := time.Now()
		if err := r.ask(); err != nil {
			return err
		}
		r.took = append(r.took, time.Since(began))
	}
	r.cpu = append(r.cpu, micro(used()-cpu)/float64(n))
	return nil
}

// ask makes one request.
func (r *row) ask() error {
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK || w.Body.String() != "hello" {
		return errors.New("it answered " + w.Result().Status + " " + w.Body.String())
	}
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

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func milli(d time.Duration) float64 { return micro(d) / 1000 }

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// small is the smallest module that answers: one call of fd_write, as what a C compiler makes of a write. It exports that by a name of six letters.
func small(export string) []byte {
	const text = "Content-Type: text/plain\n\nhello"
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	data := append([]byte{1, 0, 0x41, 0, 0x0b, byte(8 + len(text)), 8, 0, 0, 0, byte(len(text)), 0, 0, 0}, text...) // at 0: address and length, then the text
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0),
		section(2, slices.Concat([]byte{1, 22}, []byte("wasi_snapshot_preview1"), []byte{8}, []byte("fd_write"), []byte{0, 0})...),
		section(3, 1, 1),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2, 6}, []byte("memory"), []byte{2, 0, 6}, []byte(export), []byte{0, 1})...),
		section(10, 1, 13, 0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 0x38, 0x10, 0, 0x1a, 0x0b),
		section(11, data...))
}
