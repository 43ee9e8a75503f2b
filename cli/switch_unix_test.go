//go:build unix

package cli

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

const sessions = `name: sessions
services:
  hits:
    deploy: {replicas: 3}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      switch: {by: request, policy: roundrobin, sticky: cookie}
      route: /*
x-servent:
  nodes: {node: {count: 3}}
`

// visit counts at a door with a cookie, or without one, and returns the count, the instance, why that one, and
// the cookie to come back with.
func visit(t *testing.T, door, cookie string) (count, instance, why, next string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+door+"/c/visits", nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		r.Header.Set("Cookie", "servent-hits="+cookie)
	}
	res, err := (&http.Client{Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d %v: %s", door, res.StatusCode, err, b)
	}
	timing := res.Header.Get("Server-Timing")
	next = cookie
	for _, c := range res.Cookies() {
		if c.Name == "servent-hits" {
			next = c.Value
		}
	}
	return strings.TrimSpace(string(b)), described(timing, "instance"), described(timing, "why"), next
}

// A client with a cookie finds its own instance by every node's door. When that one is killed it moves once, and
// what the instance held of it in memory is gone.
func TestSessions(t *testing.T) {
	t.Parallel()
	w := start(t, sessions)
	var doors []string
	for n := 1; n <= 3; n++ {
		doors = append(doors, w.door(system.NodeID(fmt.Sprint("node-", n)), "hits"))
	}
	count, home, why, cookie := visit(t, doors[0], "")
	if count != "1" || why != "policy" || cookie == "" {
		t.Fatalf("first visit: count %s, why %s, cookie %q; want 1, policy, one", count, why, cookie)
	}
	for i := 2; i <= 10; i++ {
		got, at, why, next := visit(t, doors[i%3], cookie)
		if got != fmt.Sprint(i) || at != home || why != "sticky" || next != cookie {
			t.Errorf("visit %d: count %s by %s, why %s; want %d by %s, sticky, the same cookie", i, got, at, why, i, home)
		}
	}
	if _, at, _, _ := visit(t, doors[1], "1"+cookie); at == home {
		if _, again, _, _ := visit(t, doors[1], "1"+cookie); again == home {
			t.Errorf("a forged cookie leads to %s twice; want round robin", home)
		}
	}
	for pid, id := range w.pids("hits") {
		if string(id) == home {
			kill(t, pid, syscall.SIGKILL)
		}
	}
	// The POST may meet the dying instance and is not sent twice: ask until its end is known.
	w.until("the death is seen", 20*time.Second, func(s admin.State) bool {
		for _, in := range s.Instances {
			if string(in.Instance) == home {
				return in.State != system.StateReady || in.Restarts > 0
			}
		}
		return true
	})
	count, second, _, moved := visit(t, doors[2], cookie)
	if second == home {
		if count != "1" { // it is back already, and empty
			t.Fatalf("%s counts on at %s after it was killed", home, count)
		}
	} else if moved == cookie {
		t.Errorf("moved from %s to %s without a new cookie", home, second)
	}
	was := count
	w.until("whole again", 30*time.Second, func(s admin.State) bool { return s.Settled && len(s.Instances) == 3 })
	for i := range 6 {
		got, at, why, _ := visit(t, doors[i%3], moved)
		if at != second || why != "sticky" {
			t.Errorf("after the move: %s by %s, why %s (it was %s by %s); want it to stay", got, at, why, was, second)
		}
	}
	out, err := w.run("explain", "hits")
	if want := "hits is switched by request: roundrobin; clients stay by cookie servent-hits"; err != nil || !strings.Contains(out, want) {
		t.Errorf("explain: %v\n%s\nwant %s", err, out, want)
	}
}

const unequal = `name: unequal
services:
  hits:
    deploy: {replicas: 2}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      switch: {by: request, policy: weighted}
      route: /*
x-servent:
  nodes:
    big: {count: 1, capacity: {rate: 300/s}}
    small: {count: 1, capacity: {rate: 100/s}}
`

// Nodes of different capacity get their shares, by either's door.
func TestWeighted(t *testing.T) {
	w := start(t, unequal)
	at := map[system.InstanceID]system.NodeID{}
	for _, in := range w.ps() {
		at[in.Instance] = in.Node
	}
	for _, node := range []system.NodeID{"big-1", "small-1"} {
		got := map[system.NodeID]int{}
		for range 40 {
			_, instance, _, _ := visit(t, w.door(node, "hits"), "")
			got[at[system.InstanceID(instance)]]++
		}
		if got["big-1"] != 30 || got["small-1"] != 10 {
			t.Errorf("by the door of %s: %v, want 30 and 10", node, got)
		}
	}
	out, err := w.run("explain", "hits")
	if err != nil || !strings.Contains(out, "75 %") || !strings.Contains(out, "25 %") {
		t.Errorf("explain: %v\n%s\nwant 75 %% and 25 %%", err, out)
	}
}

// Policies and stickiness are variants as everything else in the file.
func TestComparePolicies(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", `name: counter
services:
  counter:
    deploy: {replicas: 2}
    x-servent: {process: [servent, example, counter], architecture: replicated, key: "/c/{key}"}
x-servent:
  nodes: {node: {count: 2, capacity: {rate: 50/s}}}
  compare: {load: {mix: {"POST /c/{key}": 1}, keys: uniform of 40}}
`)
	r := compared(t, w, "--vary", "switch.policy=weighted,nearest,hash,maglev", "--nodes", "2", "--repeats", "1", "--no-fault")
	if len(r.Variants) != 4 {
		t.Fatalf("%d variants, want 4", len(r.Variants))
	}
	for _, v := range r.Variants {
		if v.Refused != "" || len(v.Points) == 0 || v.Points[0].Requests == 0 || v.Points[0].Errors > 0 {
			t.Errorf("%s: refused %q, points %+v", v.Name, v.Refused, v.Points)
			continue
		}
		for _, s := range v.Points[0].NodeLoad {
			if 5*s.Served < v.Points[0].Requests || 5*s.Served > 4*v.Points[0].Requests {
				t.Errorf("%s: %s served %d of %d, want both to work", v.Name, s.Node, s.Served, v.Points[0].Requests)
			}
		}
	}
}
