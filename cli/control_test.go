package cli

import (
	"net/url"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"servent/system"
)

// stock is an etcd as a user runs it.
func stock(t *testing.T) (at string, e *embed.Etcd) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = t.TempDir(), "error"
	door := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{door}, []url.URL{door}
	cfg.ListenPeerUrls = []url.URL{door}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return "etcd://" + e.Clients[0].Addr().String(), e
}

// The plan is kept in the user's etcd, under a prefix of its own, and found there again without its being
// named a second time; another control is refused, for it would not know who holds which data.
func TestForeignControl(t *testing.T) {
	t.Parallel()
	at, e := stock(t)
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", three)
	w.up("--control", at)
	if got, err := e.Server.KV().Range(t.Context(), []byte("/servent/"), []byte("/servent0"), mvcc.RangeOptions{}); err != nil || len(got.KVs) == 0 {
		t.Errorf("keys below /servent/: %v, want the plan", err)
	}
	before := w.ps()
	for _, line := range []string{"down", "up -d"} {
		if out, err := w.run(strings.Fields(line)...); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	if after := w.ps(); len(after) != len(before) {
		t.Errorf("%d instances after the second up, want %d", len(after), len(before))
	}
	if _, err := w.run("down"); err != nil {
		t.Fatal(err)
	}
	if out, err := w.run("up", "-d", "--control", "etcd://127.0.0.1:1"); err == nil || !strings.Contains(out, "it cannot move to etcd://127.0.0.1:1") || !strings.Contains(out, "next: servent down --volumes") {
		t.Errorf("up with another control: %v\n%s", err, out)
	}
	if _, err := w.run("down", "--volumes"); err != nil {
		t.Fatal(err)
	}
	if out, err := w.run("up", "-d", "--control", at); err != nil {
		t.Errorf("up after the data was removed: %v\n%s", err, out)
	}
}

// The number of nodes is edited while the system runs, under load: 3, 5, 2, 4; and a group is renamed.
func TestNodesAreEdited(t *testing.T) {
	t.Parallel()
	with := func(nodes string) string { return strings.Replace(three, "node: {count: 4}", nodes, 1) }
	w := start(t, with("node: {count: 3}"))
	l := offer("http://"+w.door("node-1", "hits")+"/c/a", 50)
	for _, edit := range []struct {
		nodes string
		want  []system.NodeID
	}{
		{"node: {count: 5}", []system.NodeID{"node-1", "node-2", "node-3", "node-4", "node-5"}},
		{"node: {count: 2}", []system.NodeID{"node-1", "node-2"}},
		{"node: {count: 4}", []system.NodeID{"node-1", "node-2", "node-3", "node-4"}},
		{"node: {count: 2}\n    alpha: {count: 1}", []system.NodeID{"node-1", "node-2", "alpha-1"}},
		{"node: {count: 2}\n    beta: {count: 1}", []system.NodeID{"node-1", "node-2", "beta-1"}},
	} {
		w.write("compose.yaml", with(edit.nodes))
		if out, err := w.run("up", "-d"); err != nil {
			t.Fatalf("%s: %v\n%s\n%s", edit.nodes, err, out, w.logs())
		}
		w.nodes(edit.want)
	}
	l.end(t)
	was := w.ps()
	w.write("compose.yaml", with("machine: {count: 3}"))
	if out, err := w.run("up", "-d"); err == nil || !strings.Contains(out, "node-1 answers for control") || !strings.Contains(out, "next: servent down && servent up") {
		t.Errorf("the server's group is renamed: %v, want why not, and what to do\n%s", err, out)
	}
	same(t, was, w.ps())
	if out, err := w.run("down"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	w.up()
	w.nodes([]system.NodeID{"machine-1", "machine-2", "machine-3"})
}
