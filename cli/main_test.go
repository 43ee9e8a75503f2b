package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

// program is this test binary under the name servent: as such it is the real program, in every process.
var program string

func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); strings.TrimSuffix(name, ".exe") == "servent" {
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(withProgram(m))
}

func withProgram(m *testing.M) int {
	self, err := os.Executable()
	if err == nil {
		var dir string
		if dir, err = os.MkdirTemp(filepath.Dir(self), "bin"); err == nil {
			defer os.RemoveAll(dir)
			program = filepath.Join(dir, "servent"+filepath.Ext(self))
			if filepath.Ext(self) != ".exe" {
				program = filepath.Join(dir, "servent")
			}
			err = os.Link(self, program)
		}
	}
	if err == nil { // the race detector lets every process sleep a second at its end
		err = os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// world is a system that runs for a test and leaves nothing behind.
type world struct {
	t   *testing.T
	dir string
}

// start writes compose.yaml and brings it up.
func start(t *testing.T, compose string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", compose)
	w.up()
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// up runs `servent up -d`; the end of the test runs `servent down`.
func (w *world) up(args ...string) {
	w.t.Helper()
	w.t.Cleanup(w.down)
	if out, err := w.run(append([]string{"up", "-d"}, args...)...); err != nil {
		w.t.Fatalf("up: %v\n%s\n%s", err, out, w.logs())
	}
}

func (w *world) down() {
	_, _ = w.run("down") // it may be down already
	for range 500 {
		if launch.FolderOf(w.dir).Free() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	w.t.Errorf("the system did not end\n%s", w.logs())
}

// run runs one command line and returns stdout and stderr together.
func (w *world) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-C", w.dir}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// ask runs a command line with --json and reads its answer.
func ask[T any](w *world, args ...string) T {
	w.t.Helper()
	cmd := exec.Command(program, append([]string{"-C", w.dir, "--json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	var v T
	if err := json.Unmarshal(out, &v); err != nil {
		w.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return v
}

func (w *world) ps() []admin.InstanceState { w.t.Helper(); return ask[[]admin.InstanceState](w, "ps") }

// state asks the admin door.
func (w *world) state() admin.State {
	w.t.Helper()
	client, err := launch.FolderOf(w.dir).Client()
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := client.State(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// until waits for a state that holds, at most as long as given.
func (w *world) until(what string, within time.Duration, holds func(admin.State) bool) time.Duration {
	w.t.Helper()
	client, err := launch.FolderOf(w.dir).Client()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	began := time.Now()
	var last admin.State
	_ = client.Watch(ctx, func(s admin.State) error {
		if last = s; holds(s) {
			return io.EOF
		}
		return nil
	})
	if !holds(last) {
		b, _ := json.MarshalIndent(last, "", " ")
		w.t.Fatalf("not %s within %v\n%s\n%s", what, within, b, w.logs())
	}
	return time.Since(began)
}

// node returns what is known of a node.
func (w *world) node(id system.NodeID) admin.NodeState {
	w.t.Helper()
	for _, n := range w.state().Nodes {
		if n.Node == id {
			return n
		}
	}
	w.t.Fatalf("no node %s", id)
	return admin.NodeState{}
}

// door is the address of a service's door on a node.
func (w *world) door(node system.NodeID, service system.ServiceName) string {
	w.t.Helper()
	for _, d := range w.state().Doors {
		if d.Node == node && d.Service == service {
			return d.Address
		}
	}
	w.t.Fatalf("no door of %s on %s", service, node)
	return ""
}

func (w *world) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(w.dir, ".servent", "log", "*.log"))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(f), text[max(0, len(text)-3000):])
	}
	return b.String()
}

// fetch GETs a URL and fails the test unless it answers 200.
func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v\n%s", url, resp.Status, err, b)
	}
	return string(b)
}

// traffic sends requests at a fixed rate until it is stopped, each on its own time, and keeps what failed.
type traffic struct {
	began        time.Time
	perSecond    int
	sent, failed atomic.Int64
	mu           sync.Mutex // guards first
	first        string     // failure
	stop         context.CancelFunc
	wg           sync.WaitGroup
}

// offer starts a load of perSecond GETs; a request may take up to 15 s.
func offer(url string, perSecond int) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	l := &traffic{began: time.Now(), perSecond: perSecond, stop: cancel}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 15 * time.Second}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			l.wg.Go(func() { l.one(client, url) })
		}
	})
	return l
}

func (l *traffic) one(client *http.Client, url string) {
	l.sent.Add(1)
	resp, err := client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failed.Add(1) == 1 {
			l.first = time.Now().Format("15:04:05.000") + " " + err.Error()
		}
	}
}

// end stops the load, waits for what is under way, and fails the test if anything failed. A busy machine
// may send fewer than it should, but not fewer than a quarter.
func (l *traffic) end(t *testing.T) {
	t.Helper()
	l.stop()
	atLeast := int64(time.Since(l.began).Seconds() * float64(l.perSecond) / 4)
	l.wg.Wait()
	if l.sent.Load() < max(atLeast, 10) {
		t.Errorf("only %d requests were sent, want %d: the test proves nothing", l.sent.Load(), atLeast)
	}
	if l.failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, first: %s", l.failed.Load(), l.sent.Load(), l.first)
	}
}
