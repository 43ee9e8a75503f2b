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
	running := func(s admin.State) (n int) {
		for _, in := range s.Instances {
			if in.State == "ready" {
				n++
			}
		}
		return n
	}
	if n := running(w.state()); n != 1 {
		t.Fatalf("%d instances at first, want 1", n)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for range 40 { // clients that ask again as soon as they are answered
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
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
	took := w.until("8 instances", time.Minute, func(s admin.State) bool { return running(s) == 8 })
	t.Logf("1 → 8 in %v", took)
	if out, err := w.run("explain", "front"); err != nil || !strings.Contains(out, "8 instances: requests at a time of late") || !strings.Contains(out, "scale.max is 8") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	close(stop)
	all.Wait()
	took = w.until("1 instance", time.Minute, func(s admin.State) bool { return running(s) == 1 && len(s.Instances) == 1 })
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
	stop := make(chan struct{})
	var all sync.WaitGroup
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for range 3 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
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
	ready := func(n int) func(admin.State) bool {
		return func(s admin.State) bool {
			is := 0
			for _, in := range s.Instances {
				if in.State == "ready" {
					is++
				}
			}
			return is == n && len(s.Instances) == n
		}
	}
	took := w.until("3 instances", time.Minute, ready(3))
	t.Logf("1 → 3 in %v", took)
	if out, err := w.run("explain", "front"); err != nil || !strings.Contains(out, "processors used of late: ") || !strings.Contains(out, "0.08 for each instance") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	close(stop)
	all.Wait()
	took = w.until("1 instance", time.Minute, ready(1))
	t.Logf("3 → 1 in %v", took)
}
