package cli

import (
	"strings"
	"testing"
	"time"

	"servent/admin"
)

// A drained node is emptied without a failed request, keeps what is tied to its data, and gets nothing until it is uncordoned.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := start(t, `
name: shop
services:
  front:
    deploy: {replicas: 3}
    x-servent: {process: [servent, example, counter], architecture: replicated, route: /*}
  store: {x-servent: {builtin: kv}}
x-servent: {nodes: {node: {count: 3}}}
`)
	url := "http://" + w.published("front")
	victim := ""
	for _, in := range w.state().Instances {
		if in.Service == "store" {
			victim = string(in.Node)
		}
	}
	load := offer(url+"/c/x", 50)
	<-time.After(200 * time.Millisecond)
	out, err := w.run("drain", victim)
	if err != nil || !strings.Contains(out, victim+" is drained; store/1 stay") {
		t.Errorf("drain: %v\n%s", err, out)
	}
	w.until("settled", time.Minute, func(s admin.State) bool { return s.Settled })
	<-time.After(200 * time.Millisecond)
	load.end(t)
	for _, in := range w.state().Instances {
		if string(in.Node) == victim && in.Service != "store" {
			t.Errorf("%s is still on %s", in.Instance, victim)
		}
	}
	if out, err := w.run("node", "ls"); err != nil || !strings.Contains(out, "up, drained") {
		t.Errorf("node ls: %v\n%s", err, out)
	}
	if out, err := w.run("scale", "front=5"); err != nil {
		t.Fatalf("scale: %v\n%s", err, out)
	}
	on := func() (n int) {
		for _, in := range w.state().Instances {
			if string(in.Node) == victim && in.Service == "front" {
				n++
			}
		}
		return n
	}
	if n := on(); n != 0 {
		t.Errorf("%d new instances on a drained node", n)
	}
	if out, err := w.run("uncordon", victim); err != nil {
		t.Fatalf("uncordon: %v\n%s", err, out)
	}
	if out, err := w.run("scale", "front=6"); err != nil {
		t.Fatalf("scale: %v\n%s", err, out)
	}
	if n := on(); n != 1 {
		t.Errorf("%d instances on the node after it was uncordoned, want 1: the fewest are there", n)
	}
	if out, err := w.run("drain", "nobody"); err == nil || !strings.Contains(out, "servent node ls") {
		t.Errorf("drain nobody: %v\n%s", err, out)
	}
}
