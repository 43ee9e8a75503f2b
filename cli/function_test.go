package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// functions is a service that runs while it is called. Each of its nodes needs 50 ms for a request, so that
// requests are under way at the same time.
const functions = `name: functions
services:
  hits:
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: function
      route: /*
      scale: {max: %d, inflight: 1, idle: 3s}
x-servent:
  nodes:
    node: {count: %d, capacity: {rate: 20/s, workers: %d}}
`

// woken is the function of a state.
func woken(s admin.State) admin.ServiceState {
	i := slices.IndexFunc(s.Services, func(x admin.ServiceState) bool { return x.Service == "hits" })
	if i < 0 || s.Services[i].Called == nil {
		return admin.ServiceState{Called: &system.Called{Want: -1}}
	}
	return s.Services[i]
}

func readyOnes(n int) func(admin.State) bool {
	return func(s admin.State) bool { return woken(s).Ready >= n }
}

func asleepAgain(s admin.State) bool {
	return s.Settled && woken(s).Called.Want == 0 && len(s.Instances) == 0
}

// From none to several and back to none, with no failed request.
func TestFunctionFollowsItsCalls(t *testing.T) {
	burst(t, 3, 8, 5, 60, 3)
}

func TestFunctionFollowsManyCalls(t *testing.T) {
	if os.Getenv("SERVENT_LONG") == "" {
		t.Skip("fifty processes are too many for every day; SERVENT_LONG=1 runs it")
	}
	burst(t, 4, 32, 50, 1200, 50)
}

// burst calls a function that can have most instances perSecond times a second, whether it has answered
// or not, until it has as many as those calls need.
func burst(t *testing.T, nodes, workers, most, perSecond, need int) {
	w := start(t, fmt.Sprintf(functions, most, nodes, workers))
	if s := w.state(); !asleepAgain(s) {
		t.Fatalf("up is not at rest without instances: %+v", s)
	}
	if out, err := w.run("ps"); err != nil || !strings.Contains(out, "hits: 0 instances, wakes when called; woken 0 times so far") {
		t.Errorf("ps: %v\n%s", err, out)
	}
	url := "http://" + w.door("node-2", "hits") + "/"
	began := time.Now()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	timing := resp.Header.Get("Server-Timing")
	if resp.StatusCode != http.StatusOK || !strings.Contains(timing, "cold;dur=") || !strings.Contains(timing, `node;desc="node-2"`) {
		t.Errorf("first call: %s, %s; want a cold start on node-2, where it was called", resp.Status, timing)
	}
	t.Logf("first answer after %v: %s", time.Since(began), timing)
	if resp, err = http.Get(url); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if timing := resp.Header.Get("Server-Timing"); strings.Contains(timing, "cold") {
		t.Errorf("second call: %s, want it warm", timing)
	}
	w.until("asleep", 20*time.Second, asleepAgain)

	l := offer(url, perSecond)
	took := w.until("warm", 60*time.Second, readyOnes(need))
	t.Logf("%d ready after %v", need, took)
	<-time.After(time.Second)
	if got := woken(w.state()).Called.Want; got > most {
		t.Errorf("%d instances are wanted, at most %d may be", got, most)
	}
	if out, err := w.run("explain", "hits"); err != nil || !strings.Contains(out, "requests at a time of late: ") || !strings.Contains(out, "woken 2 times") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	l.end(t)
	took = w.until("asleep", time.Minute, asleepAgain)
	t.Logf("none is left %v after the last call", took)
	if out, err := w.run("explain", "hits"); err != nil || !strings.Contains(out, "hits has 0 instances: nobody calls; the first call makes one") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	if out, err := w.run("scale", "hits=3"); err == nil || !strings.Contains(out, "function decides the number of its instances itself") {
		t.Errorf("scale: %v\n%s", err, out)
	}
}

// A module is a function, too: compiled before it is called, its first answer does not wait for that, and a crowd of
// first calls costs none of them.
func TestModuleIsFunction(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	w := &world{t: t, dir: t.TempDir()}
	text := strings.Replace(wasmSystem, "architecture: replicated", "architecture: function\n      scale: {max: 3, inflight: 20, idle: 2s}", 1)
	text = strings.Replace(text, "    deploy: {replicas: 2}\n", "", 1)
	w.write("compose.yaml", text+"x-servent: {nodes: {node: {count: 2}}}\n")
	w.write("go.mod", "module greet\n\ngo 1.26\n")
	w.write(filepath.Join("greet", "main.go"), greet)
	w.up()
	url := "http://" + w.door("node-2", "greet") + "/ada"
	var all sync.WaitGroup
	began := time.Now()
	for range 60 {
		all.Go(func() {
			resp, err := http.Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s", resp.Status)
			}
		})
	}
	all.Wait()
	t.Logf("60 first calls are answered after %v", time.Since(began))
	rest := func(s admin.State) bool { return s.Settled && len(s.Instances) == 0 }
	w.until("asleep", 30*time.Second, rest)
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if want := "hello, /ada\n"; string(body) != want || err != nil {
		t.Errorf("answer %q, %v, want %q", body, err, want)
	}
	t.Logf("a cold start: %s", resp.Header.Get("Server-Timing"))
	w.until("asleep again", 30*time.Second, rest)
	w.write("compose.yaml", strings.Replace(w.read("compose.yaml"), "module: ./greet.wasm, build: [go, build, -o, greet.wasm, ./greet]", "module: ./compose.yaml", 1))
	if out, err := w.run("up", "-d"); err == nil || !strings.Contains(out, "greet cannot be called: ") {
		t.Errorf("a module that is none: %v, want a word before anybody calls\n%s", err, out)
	}
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// A function that is called every few seconds, with less than that of idle time, is there when it is called, once that is learnt.
func TestFunctionLearnsItsCalls(t *testing.T) {
	if os.Getenv("SERVENT_LONG") == "" {
		t.Skip("it takes minutes of calls; SERVENT_LONG=1 runs it")
	}
	w := start(t, strings.Replace(fmt.Sprintf(functions, 3, 2, 4), "idle: 3s", "idle: 1s, warm: 1m", 1))
	url := "http://" + w.door("node-2", "hits") + "/"
	cold := 0
	for n := range 19 {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if n >= 14 && strings.Contains(resp.Header.Get("Server-Timing"), "cold") {
			cold++
		}
		<-time.After(8 * time.Second)
	}
	if cold > 1 {
		t.Errorf("%d of the last 5 calls found none", cold)
	}
	if out, err := w.run("explain", "hits"); err != nil || !strings.Contains(out, "times without calls nearly all took") {
		t.Errorf("explain: %v\n%s", err, out)
	}
}
