package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const handed = `services:
  counter:
    deploy: {replicas: %d}
    environment: {VERSION: "%d"}
    x-servent:
      process: [servent, example, counter]
      architecture: partitioned
      key: /c/{key}
      data: {kind: soft, export: "GET /_export/{key}", import: "PUT /_import/{key}"}
      route: /*
`

// Names are counted without a break while their instances become more, fewer, and others: every number is right in the end, though each
// is in the memory of one instance alone.
func TestKeysFollowTheirOwners(t *testing.T) {
	t.Parallel()
	w := start(t, fmt.Sprintf(handed, 2, 1)+"x-servent: {nodes: {node: {count: 3}}}\n")
	const names = 40
	url := func(i int) string { return fmt.Sprintf("http://%s/c/name-%d", w.door("node-1", "counter"), i) }
	first := url(0)[:strings.LastIndex(url(0), "-")]
	client := &http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	ask := func(ctx context.Context, method string, i int) (int, error) {
		r, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s-%d", first, i), nil)
		if err != nil {
			return 0, err
		}
		res, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s: %d %s %w", r.URL, res.StatusCode, b, err)
		}
		return strconv.Atoi(strings.TrimSpace(string(b)))
	}
	var counted [names]atomic.Int64
	var ends atomic.Bool
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := c; !ends.Load(); i++ {
				if _, err := ask(t.Context(), http.MethodPost, i%names); err != nil {
					t.Error(err)
					return
				}
				counted[i%names].Add(1)
			}
		})
	}
	for _, to := range []struct{ replicas, version int }{{3, 1}, {1, 1}, {3, 1}, {3, 2}, {2, 2}} {
		w.write("compose.yaml", fmt.Sprintf(handed, to.replicas, to.version)+"x-servent: {nodes: {node: {count: 3}}}\n")
		if out, err := w.run("up", "-d"); err != nil {
			t.Fatalf("%v: %v\n%s\n%s", to, err, out, w.logs())
		}
	}
	ends.Store(true)
	clients.Wait()
	total := 0
	for i := range names {
		got, err := ask(t.Context(), http.MethodGet, i)
		if want := int(counted[i].Load()); err != nil || got != want {
			t.Errorf("name-%d = %d, %v; want %d", i, got, err, want)
		}
		total += got
	}
	t.Logf("%d counted", total)
	if t.Failed() {
		t.Log(w.logs())
	}
}
