package l7

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"servent/route"
	"servent/system"
)

// byFirst is a locator by the key's first letter: a… to api/1, b… to api/2 and so on.
type byFirst struct {
	nodes  int
	epoch  uint64
	hops   int
	swap   *atomic.Bool // the first two change places
	failed *atomic.Int64
}

func (l byFirst) instance(key route.Key) int {
	n := int(key[0]-'a')%l.nodes + 1
	if l.swap != nil && l.swap.Load() && n <= 2 {
		n = 3 - n
	}
	return n
}

func (l byFirst) Locate(_ context.Context, key route.Key) (route.Location, error) {
	if l.failed != nil && l.failed.Add(-1) >= 0 {
		return route.Location{}, fmt.Errorf("nobody answered")
	}
	n := l.instance(key)
	return route.Location{Node: system.NodeID(fmt.Sprint("node-", n)), Instance: system.Instance("api", n), Hops: l.hops, Epoch: l.epoch}, nil
}

func (l byFirst) Owns(key route.Key, id system.InstanceID, epoch uint64) error {
	if own := system.Instance("api", l.instance(key)); own != id {
		if epoch > l.epoch {
			return route.ErrBehind
		}
		return fmt.Errorf("%s owns the key", own)
	}
	return nil
}

func keyedBy(t testing.TB, f *fleet, template string, l route.Locator) {
	rule, err := route.ParseKey(template)
	if err != nil {
		t.Fatal(err)
	}
	f.change(func() {
		f.service("api").Key, f.service("api").Locator = rule, l
	})
}

// named says which instance answers, and what it got of our headers.
func named(n int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for name := range r.Header {
			if strings.HasPrefix(name, ours) {
				n = -1
			}
		}
		fmt.Fprint(w, n)
	})
}

// Whatever node a request enters at, its key's owner answers.
func TestKeyDecides(t *testing.T) {
	for _, tt := range []struct {
		template string
		ask      func(key string) (method, path, body string, header []string)
	}{
		{"/c/{key}/*", func(k string) (string, string, string, []string) { return "GET", "/c/" + k + "/x", "", nil }},
		{"header:X-User", func(k string) (string, string, string, []string) { return "GET", "/", "", []string{"X-User: " + k} }},
		{"query:id", func(k string) (string, string, string, []string) { return "PUT", "/?id=" + k, "v", nil }},
		{"cookie:sid", func(k string) (string, string, string, []string) { return "GET", "/", "", []string{"Cookie: sid=" + k} }},
		{"json:user.id", func(k string) (string, string, string, []string) {
			return "POST", "/", `{"user":{"id":"` + k + `"}}`, nil
		}},
	} {
		t.Run(tt.template, func(t *testing.T) {
			f := newFleet(t, 3)
			for n := 1; n <= 3; n++ {
				f.run(system.NodeID(fmt.Sprint("node-", n)), n, named(n))
			}
			keyedBy(t, f, tt.template, byFirst{nodes: 3, hops: 4})
			c := client(t)
			for node := 1; node <= 3; node++ {
				door := f.door(system.NodeID(fmt.Sprint("node-", node)))
				for i, key := range []string{"anna", "bert", "carl"} {
					method, path, body, header := tt.ask(key)
					res, got := ask(t, c, method, door+path, strings.NewReader(body), append(header, "Servent-Key: zoe", "Servent-Epoch: 99")...)
					if want := fmt.Sprint(i + 1); res.StatusCode != 200 || got != want {
						t.Errorf("%s at node-%d: %d %q, want the answer of %s", key, node, res.StatusCode, got, want)
					}
					if timing := res.Header.Get("Server-Timing"); !strings.Contains(timing, `lookup;desc="4"`) {
						t.Errorf("Server-Timing is %q, want the lookup's hops in it", timing)
					}
				}
			}
		})
	}
}

func TestNoKey(t *testing.T) {
	f := newFleet(t, 2)
	f.run("node-1", 1, named(1))
	f.run("node-2", 2, named(2))
	keyedBy(t, f, "/c/{key}", byFirst{nodes: 2})
	c, door := client(t), f.door("node-1")
	res, body := ask(t, c, "GET", door+"/other", nil)
	if res.StatusCode != 400 || !strings.Contains(body, "/c/{key}") {
		t.Errorf("%d %q, want 400 that says what is wanted", res.StatusCode, body)
	}
	f.change(func() { f.service("api").Key.Any = true })
	if res, body = ask(t, c, "GET", door+"/other", nil); res.StatusCode != 200 {
		t.Errorf("nokey any: %d %q, want an answer of any instance", res.StatusCode, body)
	}
	f.change(func() { f.service("api").Key.Any = false })
	long := strings.NewReader(`{"id":"` + strings.Repeat("a", 2*replay) + `"}`)
	keyedBy(t, f, "json:id", byFirst{nodes: 2})
	if res, body = ask(t, c, "POST", door+"/", long); res.StatusCode != 400 {
		t.Errorf("a body too long to read for its key: %d %q, want 400", res.StatusCode, body)
	}
}

// A view that is old is corrected by the owner's node, without a failed request and without suspicion.
func TestOwnerChecksItsOwnView(t *testing.T) {
	f := newFleet(t, 2)
	one, two := f.run("node-1", 1, named(1)), f.run("node-2", 2, named(2))
	old := &flips{byFirst: byFirst{nodes: 2, swap: new(atomic.Bool)}, until: 3}
	old.swap.Store(true)
	keyedBy(t, f, "/c/{key}", byFirst{nodes: 2})
	// node-1 believes at first that api/2 owns what begins with a.
	n := f.nodes["node-1"]
	was := *n.table.Load()
	svc := *was.Services["api"]
	svc.Locator = old
	was.Services = map[system.ServiceName]*route.Service{"api": &svc}
	n.table.Store(&was)
	res, body := ask(t, client(t), "POST", f.door("node-1")+"/c/a", strings.NewReader("x"))
	if res.StatusCode != 200 || body != "1" {
		t.Errorf("%d %q, want the answer of api/1", res.StatusCode, body)
	}
	if one.hits.Load() != 1 || two.hits.Load() != 0 {
		t.Errorf("api/1 was asked %d times, api/2 %d times; want 1 and 0", one.hits.Load(), two.hits.Load())
	}
}

// flips is wrong for some questions and right from then on.
type flips struct {
	byFirst
	until, asked int
}

func (l *flips) Locate(ctx context.Context, key route.Key) (route.Location, error) {
	if l.asked++; l.asked == l.until {
		l.swap.Store(false)
	}
	return l.byFirst.Locate(ctx, key)
}

// A request waits while its own key's owner is coming, and not because others are.
func TestOwnerIsAwaited(t *testing.T) {
	f := newFleet(t, 2)
	f.run("node-1", 1, named(1))
	keyedBy(t, f, "/c/{key}", byFirst{nodes: 2})
	f.change(func() {
		f.service("api").Absent = []route.Absent{{ID: "api/2", Node: "node-2", Why: "waiting for node-2, which holds its data"}}
	})
	c, door := client(t), f.door("node-1")
	res, body := ask(t, c, "GET", door+"/c/b", nil)
	if res.StatusCode != 503 || !strings.Contains(body, "waiting for node-2, which holds its data") {
		t.Errorf("%d %q, want 503 at once, with the reason", res.StatusCode, body)
	}
	f.change(func() { f.service("api").Absent[0].Coming = true })
	done := make(chan string, 1)
	go func() {
		_, body := ask(t, c, "GET", door+"/c/b", nil)
		done <- body
	}()
	eventually(t, "the request is held", func() bool { return f.nodes["node-1"].sw.waiting.Load() == 1 })
	f.run("node-2", 2, named(2))
	if got := <-done; got != "2" {
		t.Errorf("the held request got %q, want the answer of api/2", got)
	}
}

// A lookup that fails is made again.
func TestLookupIsRepeated(t *testing.T) {
	f := newFleet(t, 1)
	f.run("node-1", 1, named(1))
	l := byFirst{nodes: 1, failed: new(atomic.Int64)}
	l.failed.Store(3)
	keyedBy(t, f, "/c/{key}", l)
	if res, body := ask(t, client(t), "GET", f.door("node-1")+"/c/a", nil); res.StatusCode != 200 || body != "1" {
		t.Errorf("%d %q, want 200 after three lookups that failed", res.StatusCode, body)
	}
}
