package cli

import (
	"strings"
	"testing"
	"time"

	"servent/admin"
)

// An edited file is gone back from, under load and without a failed request, to the very bytes that were there.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	file := `
name: shop
services:
  site:
    deploy: {replicas: 2}
    x-servent: {files: ./public, architecture: replicated, route: /*}
x-servent: {nodes: {node: {count: 2}}}
`
	w.write("compose.yaml", file)
	w.write("public/index.html", "one")
	w.up()
	url := "http://" + w.published("site") + "/"
	if out, err := w.run("rollback"); err == nil || !strings.Contains(out, "nothing else was wanted before") {
		t.Errorf("rollback of the first: %v\n%s", err, out)
	}
	if out, err := w.run("up", "-d"); err != nil { // nothing changed, nothing is written down
		t.Fatalf("up: %v\n%s", err, out)
	}
	load := offer(url, 50)
	w.write("public/index.html", "two")
	w.write("compose.yaml", strings.Replace(file, "replicas: 2", "replicas: 3", 1))
	if out, err := w.run("up", "-d"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if got := fetch(t, url); got != "two" {
		t.Errorf("after the edit: %q", got)
	}
	if out, err := w.run("rollback"); err != nil {
		t.Fatalf("rollback: %v\n%s", err, out)
	}
	w.until("settled", time.Minute, func(s admin.State) bool { return s.Settled })
	if got := fetch(t, url); got != "one" || len(w.ps()) != 2 {
		t.Errorf("after the rollback: %q from %d instances", got, len(w.ps()))
	}
	if out, err := w.run("rollback", "2"); err != nil {
		t.Fatalf("rollback 2: %v\n%s", err, out)
	}
	if got := fetch(t, url); got != "two" {
		t.Errorf("after rollback 2: %q", got)
	}
	load.end(t)
	out, err := w.run("history")
	for _, want := range []string{"first: site", "site is made of something else", "4 now"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("history: %v\n%s\nwant %q", err, out, want)
		}
	}
	if out, err := w.run("rollback", "99"); err == nil || !strings.Contains(out, "servent history") {
		t.Errorf("rollback 99: %v\n%s", err, out)
	}
}
