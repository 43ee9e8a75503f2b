//go:build unix

package cli

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

const onARing = `name: rings
services:
  hits:
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: %s
      key: /c/{key}
      route: /*%s
x-servent:
  nodes: {node: {count: %d}}
`

// post counts a key by a node's door and returns status, answer and how long the way was.
func post(t *testing.T, door, key string) (status int, answer, timing string) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second}
	resp, err := client.Post("http://"+door+"/c/"+key, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b)), resp.Header.Get("Server-Timing")
}

// hops are those of a lookup, as Server-Timing has them.
func hops(timing string) string { return described(timing, "lookup") }

// Wherever a request enters, its key has one owner, found over the overlay; when a node dies, the next one on the
// circle answers for its keys, and nobody else's keys notice. From neighbour to neighbour the farthest of four is 3
// hops away; by Chord's four successors the farthest of six is 2.
func TestRing(t *testing.T)  { testOverlay(t, "ring", 4, "3") }
func TestChord(t *testing.T) { testOverlay(t, "chord", 6, "2") }

// Few nodes know all others under Pastry and Kademlia: one hop.
func TestPastry(t *testing.T)   { testOverlay(t, "pastry", 4, "1") }
func TestKademlia(t *testing.T) { testOverlay(t, "kademlia", 4, "1") }

func testOverlay(t *testing.T, architecture string, nodes int, farthest string) {
	t.Parallel()
	w := start(t, fmt.Sprintf(onARing, architecture, "", nodes))
	// What lies between has been learnt when no lookup takes longer than it must.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		most := ""
		for i := range 3 * nodes {
			_, _, timing := post(t, w.door(system.NodeID(fmt.Sprint("node-", i%nodes+1)), "hits"), fmt.Sprint("early-", i))
			most = max(most, hops(timing))
		}
		if most <= farthest {
			break
		}
	}
	const keys = 24
	owner := map[string]string{}
	far := false
	for i := range keys {
		key := fmt.Sprint("key-", i)
		for n := 1; n <= 3; n++ {
			status, answer, timing := post(t, w.door(system.NodeID(fmt.Sprint("node-", n)), "hits"), key)
			if status != http.StatusOK || answer != fmt.Sprint(n) {
				t.Fatalf("%s by node-%d: %d %q, want %d: somebody else counts, too", key, n, status, answer, n)
			}
			at, _, _ := strings.Cut(timing, ",")
			if owner[key] != "" && owner[key] != at {
				t.Errorf("%s is answered by %s and %s", key, owner[key], at)
			}
			owner[key] = at
			way := hops(timing)
			if way > farthest {
				t.Errorf("%s by node-%d took %s hops, want at most %s", key, n, way, farthest)
			}
			far = far || way == farthest
		}
	}
	if !far {
		t.Errorf("no lookup took %s hops; some must", farthest)
	}
	dead := system.NodeID("node-3") // not the one that answers for control
	kill(t, w.node(dead).Pid, syscall.SIGKILL)
	for key, was := range owner {
		status, answer, _ := post(t, w.door("node-2", "hits"), key)
		want := "4"
		if was == fmt.Sprintf("node;desc=%q", dead) {
			want = "1" // what it held in memory is gone
			// A POST may meet the instance while it dies with its node, and is not sent twice.
			for end := time.Now().Add(10 * time.Second); status == http.StatusBadGateway && time.Now().Before(end); {
				status, answer, _ = post(t, w.door("node-2", "hits"), key)
			}
		}
		if status != http.StatusOK || answer != want {
			t.Errorf("%s of %s after a node's death: %d %q, want %q", key, was, status, answer, want)
		}
	}
	w.until("the node is back on the ring", 30*time.Second, func(s admin.State) bool { return s.Settled && len(s.Instances) == nodes })
	out, err := w.run("explain", "hits")
	if err != nil || strings.Count(out, "of the ring") != nodes {
		t.Errorf("explain: %v, want %d shares of the ring\n%s", err, nodes, out)
	}
}

// Of data on disk nobody but its holder answers: the keys of a dead node are away, and it is said why.
func TestRingOfTiedData(t *testing.T) {
	t.Parallel()
	w := start(t, fmt.Sprintf(onARing, "ring", "\n      data: {kind: hard, path: /data}", 4))
	pid := w.node("node-3").Pid
	kill(t, pid, syscall.SIGSTOP)
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	w.until("node-3 is missed", 30*time.Second, func(s admin.State) bool {
		for _, n := range s.Nodes {
			if n.Node == "node-3" {
				return n.State != "up"
			}
		}
		return true
	})
	got := map[int]int{}
	for i := range 24 {
		status, answer, _ := post(t, w.door("node-2", "hits"), fmt.Sprint("key-", i))
		got[status]++
		if status != http.StatusOK && !strings.Contains(answer, "node-3") {
			t.Errorf("answer %d %q, want a word of node-3", status, answer)
		}
	}
	if got[http.StatusOK] == 0 || got[http.StatusServiceUnavailable] == 0 {
		t.Errorf("answers by status %v, want some keys answered and those of node-3 refused", got)
	}
}

// Under overlays whose keys belong to the nearest member, too, a node that is killed while keys are written takes nothing with
// it that was acknowledged: its keys wait for it, all others go on, and a node that joins afterwards finds every key.
func TestKVNearest(t *testing.T) {
	t.Parallel()
	for _, architecture := range []string{"pastry", "kademlia"} {
		t.Run(architecture, func(t *testing.T) {
			t.Parallel()
			w := start(t, fmt.Sprintf(kvFile, architecture))
			at := "http://" + w.door("node-1", "db")
			may := map[string][]string{} // what a key holds: the last value that was acknowledged, or one that was tried since
			away := 0
			put := func(turn int) {
				for i := range 40 {
					key, value := fmt.Sprint("key-", i), fmt.Sprint(turn, " of ", i)
					switch status, _, body := askKV(t, "PUT", at+"/kv/"+key, value); {
					case status/100 == 2:
						may[key] = []string{value}
					case status == http.StatusServiceUnavailable || status == http.StatusBadGateway:
						away++
						may[key] = append(may[key], value)
					default:
						t.Fatalf("PUT %s = %d %s", key, status, body)
					}
				}
			}
			whole := func(nodes int) {
				t.Helper()
				w.until("all nodes are there", 30*time.Second, func(s admin.State) bool { return s.Settled && len(s.Instances) == nodes })
				for key, want := range may {
					if status, _, got := askKV(t, "GET", at+"/kv/"+key, ""); status != 200 || !slices.Contains(want, got) {
						t.Errorf("%s = %d %q, want one of %q", key, status, got, want)
					}
				}
			}
			put(1)
			if away > 0 {
				t.Fatalf("%d of 40 keys are not written while all is well", away)
			}
			kill(t, w.node("node-3").Pid, syscall.SIGKILL)
			put(2)
			if away == 40 {
				t.Error("no key could be written while one node of three is away")
			}
			whole(3)
			put(3)
			w.write("compose.yaml", strings.Replace(w.read("compose.yaml"), "count: 3", "count: 4", 1))
			if out, err := w.run("up"); err != nil {
				t.Fatalf("up with a fourth node: %v\n%s", err, out)
			}
			whole(4)
		})
	}
}
