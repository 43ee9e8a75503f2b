package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

// buyer places one order after the other and keeps the keys of those that were answered.
type buyer struct {
	acked  []string
	failed []error // answers other than placed; each was tried again under its key
	stop   context.CancelFunc
	done   chan struct{}
}

func buys(t *testing.T, url, prefix string) *buyer {
	ctx, cancel := context.WithCancel(t.Context())
	b := &buyer{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		for n := 0; ctx.Err() == nil; {
			key := fmt.Sprintf("%s-%d", prefix, n)
			try, end := context.WithTimeout(ctx, 30*time.Second)
			a, status, err := shop(try, "POST", url+"/api/orders", key, `{"product": 2, "quantity": 1}`)
			end()
			if err == nil && status < 300 && a.Placed.Order.Key == key {
				b.acked = append(b.acked, key)
				n++
				continue
			}
			if ctx.Err() == nil {
				b.failed = append(b.failed, cmp.Or(err, fmt.Errorf("%d %s", status, a.Error)))
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return b
}

// end stops the buyer and returns the keys of the orders that were acknowledged.
func (b *buyer) end() []string {
	b.stop()
	<-b.done
	return b.acked
}

// keeps fails the test unless every acknowledged order is there, and at least some were acknowledged.
func keeps(t *testing.T, url string, acked []string, atLeast int) {
	t.Helper()
	all := ordered(t, url)
	var lost []string
	for _, key := range acked {
		if all[key] == 0 {
			lost = append(lost, key)
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d acknowledged orders are lost: %v", len(lost), len(acked), lost)
	}
	if len(acked) < atLeast {
		t.Errorf("only %d orders were acknowledged, want %d: the test proves nothing", len(acked), atLeast)
	}
}

// The node that holds the data dies: nothing starts empty elsewhere, and all is there when it is back.
func TestDataWaitsForItsNode(t *testing.T) {
	t.Parallel()
	have(t, "go")
	for _, node := range []system.NodeID{"node-2", "node-1"} { // node-1 answers for control, too
		t.Run(string(node), func(t *testing.T) {
			if node == "node-1" && testing.Short() {
				t.Skip("one node is enough for a short test")
			}
			w := example(t, "shop")
			w.write("there.yaml", fmt.Sprintf("services: {data: {deploy: {placement: {constraints: [node.id == %s]}}}}\n", node))
			w.up("-f", "compose.yaml", "-f", "there.yaml")
			url := "http://" + w.published("web")
			b := buys(t, url, string(node))
			defer b.end()
			w.heals(10*time.Second, func() error {
				if n := len(ordered(t, url)); n < 20 {
					return fmt.Errorf("%d orders", n)
				}
				return nil
			})
			pid := w.node(node).Pid
			murder(t, pid)
			elsewhere := w.watchData(node)
			w.until("waiting", 20*time.Second, func(s admin.State) bool {
				i := slices.IndexFunc(s.Instances, func(in admin.InstanceState) bool { return in.Service == "data" })
				return i >= 0 && !s.Instances[i].Healthy
			})
			if node != "node-1" {
				w.until("said to wait for its node", 20*time.Second, func(s admin.State) bool {
					return slices.ContainsFunc(s.Instances, func(in admin.InstanceState) bool {
						return in.Service == "data" && in.State == system.StateWaiting && strings.Contains(in.Why, "for "+string(node)+", which holds its data")
					})
				})
				if out, err := w.run("ps"); err != nil || !strings.Contains(out, "waiting for "+string(node)+", which holds its data") || !strings.Contains(out, "next: servent restart "+string(node)) {
					t.Errorf("ps: %v, want who waits for what, and the next command\n%s", err, out)
				}
			}
			w.until("settled with the node back", 40*time.Second, func(s admin.State) bool {
				return s.Settled && s.Control == "" && slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool {
					return n.Node == node && n.State == "up" && n.Pid != pid
				})
			})
			if places := elsewhere(); len(places) > 0 {
				t.Errorf("data ran on %v, want %s alone", places, node)
			}
			back := len(ordered(t, url))
			w.heals(20*time.Second, func() error {
				if n := len(ordered(t, url)); n < back+5 {
					return fmt.Errorf("%d orders, %d when the node came back", n, back)
				}
				return nil
			})
			acked := b.end()
			keeps(t, url, acked, 25)
			t.Logf("%d orders acknowledged, %d tries failed: %v", len(acked), len(b.failed), b.failed)
		})
	}
}

// watchData looks at every state until it is ended, and returns the other nodes on which data had a process.
func (w *world) watchData(home system.NodeID) (end func() []system.NodeID) {
	w.t.Helper()
	client, err := launch.FolderOf(w.dir).Client()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	found := make(chan []system.NodeID, 1)
	go func() {
		var places []system.NodeID
		_ = client.Watch(ctx, func(s admin.State) error { // it ends with ctx
			for _, in := range s.Instances {
				if in.Service == "data" && in.Node != home {
					places = append(places, in.Node)
				}
			}
			return nil
		})
		found <- places
	}()
	return func() []system.NodeID { cancel(); return <-found }
}
