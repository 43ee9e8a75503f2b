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
