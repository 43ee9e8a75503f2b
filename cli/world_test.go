package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// lives is a service that keeps data: every start of its program adds a line to a file there.
const lives = `name: lives
services:
  hits:
    volumes: ["kept:/data"]
    x-servent:
      process: {run: [sh, -c, 'echo born >> "$$SERVENT_DATA/lives"; %s']}
      route: /*
volumes:
  kept:
`

// three are instances of one stateless service on four nodes.
const three = `name: three
services:
  hits:
    deploy: {replicas: 3}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      route: /*
      switch: {by: request}
x-servent:
  nodes:
    node: {count: 4}
`

// births counts the starts that the data of lives remember.
func (w *world) births() int {
	w.t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(w.dir, ".servent", "nodes"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "lives" && d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			n += strings.Count(string(b), "born")
			return err
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// nodes waits until the nodes are these and all are up, and the system is settled.
func (w *world) nodes(want []system.NodeID) {
	w.t.Helper()
	slices.Sort(want)
	w.until("on the nodes "+fmt.Sprint(want), 40*time.Second, func(s admin.State) bool {
		var have []system.NodeID
		for _, n := range s.Nodes {
			if n.State != "up" {
				return false
			}
			have = append(have, n.Node)
		}
		slices.Sort(have)
		return s.Settled && slices.Equal(have, want)
	})
}

// same asserts that every instance is where it was.
func same(t *testing.T, before, after []admin.InstanceState) {
	t.Helper()
	is := map[system.InstanceID]system.NodeID{}
	for _, in := range after {
		is[in.Instance] = in.Node
	}
	for _, in := range before {
		if is[in.Instance] != in.Node {
			t.Errorf("%s is on %q after control came back, was on %s", in.Instance, is[in.Instance], in.Node)
		}
	}
}
