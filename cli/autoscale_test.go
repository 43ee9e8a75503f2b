package cli

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
)

// A replicated service with a goal grows from 1 to 8 under load and shrinks again, without a failed request, and says why.
func TestAutoscale(t *testing.T) {
	t.Parallel()
	w := start(t, `
name: shop
services:
  front:
    x-servent:
      process: [servent, example, counter]
      architecture: replicated
      scale: {min: 1, max: 8, inflight: 4, idle: 3s}
      route: /*
x-servent: {nodes: {node: {count: 4, capacity: {rate: 20/s}}}}
`)
	url := "http://" + w.published("front") + "/c/x"
	if n := running(w.state()); n != 1 {
		t.Fatalf("%d instances at first, want 1", n)
	}
	stop := hammer(t, url, 40, 0)
	took := w.until("8 instances", time.Minute, func(s admin.State) bool { return running(s) == 8 })
	t.Logf("1 → 8 in %v", took)
	if out, err := w.run("explain", "front"); err != nil || !strings.Contains(out, "8 instances: requests at a time of late") || !strings.Contains(out, "scale.max is 8") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	stop()
	took = w.until("1 instance", time.Minute, just(1))
	t.Logf("8 → 1 in %v", took)
}

const burner = `package main

import (
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
		}
		io.WriteString(w, "burnt")
	})
	http.ListenAndServe(os.Getenv("HOST")+":"+os.Getenv("PORT"), nil)
}
`

// A service whose goal is processor time grows while it uses much, and shrinks when it does not.
func TestAutoscaleByProcessorTime(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("go.mod", "module burner\n\ngo 1.26\n")
	w.write("main.go", burner)
	w.write("compose.yaml", `
name: hot
services:
  front:
    deploy: {resources: {limits: {cpus: "0.2"}}}
    x-servent:
      process: {run: [bin/burner], build: [go, build, -o, bin/, .]}
      architecture: replicated
      switch: {by: request}
      scale: {min: 1, max: 3, cpu: 40%, idle: 3s}
      route: /*
x-servent: {nodes: {node: {count: 2}}}
`)
	w.up()
	url := "http://" + w.published("front") + "/"
	stop := hammer(t, url, 3, 5*time.Millisecond)
	took := w.until("3 instances", time.Minute, just(3))
	t.Logf("1 → 3 in %v", took)
	if out, err := w.run("explain", "front"); err != nil || !strings.Contains(out, "processors used of late: ") || !strings.Contains(out, "0.08 for each instance") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	stop()
	took = w.until("1 instance", time.Minute, just(1))
	t.Logf("3 → 1 in %v", took)
}

// A service whose goal is latency grows while its answers are late, and shrinks when nobody asks.
func TestAutoscaleByLatency(t *testing.T) {
	t.Parallel()
	w := start(t, `
name: late
services:
  front:
    x-servent:
      process: [servent, example, counter]
      architecture: replicated
      scale: {min: 1, max: 4, latency: 300ms, idle: 4s}
      route: /*
x-servent: {nodes: {node: {count: 4, capacity: {rate: 20/s}}}}
`)
	stop := hammer(t, "http://"+w.published("front")+"/c/x", 16, 0)
	took := w.until("4 instances", time.Minute, func(s admin.State) bool { return running(s) == 4 })
	t.Logf("1 → 4 in %v", took)
	if out, err := w.run("explain", "front"); err != nil || !strings.Contains(out, "95 of 100 answers began within") || !strings.Contains(out, "300ms is the goal") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	stop()
	took = w.until("1 instance", time.Minute, just(1))
	t.Logf("4 → 1 in %v", took)
}

// running counts the instances that are ready.
func running(s admin.State) (n int) {
	for _, in := range s.Instances {
		if in.State == "ready" {
			n++
		}
	}
	return n
}

// just says that so many are there, all ready.
func just(n int) func(admin.State) bool {
	return func(s admin.State) bool { return running(s) == n && len(s.Instances) == n }
}

// hammer has clients ask for a URL again and again, with a pause after each answer, until it is stopped. A failed request fails the test.
func hammer(t *testing.T, url string, clients int, pause time.Duration) (stop func()) {
	t.Helper()
	ended := make(chan struct{})
	var all sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 30 * time.Second}
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(pause):
				}
				resp, err := client.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s", resp.Status)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(ended)
		all.Wait()
		client.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return stop
}
