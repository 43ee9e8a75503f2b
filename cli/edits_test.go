package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"servent/system"
)

const edited = `name: edited
services:
  hits:
    environment: {VERSION: "%d"}
    deploy: {replicas: %d}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      route: /*
      switch: {by: request}
`

// A stateless service is changed twenty times under load: replicas, environment, and so a new version.
func TestTwentyEditsFailNoRequest(t *testing.T) {
	t.Parallel()
	edits := 20
	if testing.Short() {
		edits = 4
	}
	w := start(t, fmt.Sprintf(edited, 0, 2))
	l := offer("http://"+w.door("node-2", "hits")+"/c/a", 100)
	for i := range edits {
		w.write("compose.yaml", fmt.Sprintf(edited, i/2+i%2, 2+i%3)) // every second edit leaves the environment
		if out, err := w.run("up", "-d"); err != nil {
			t.Fatalf("edit %d: %v\n%s\n%s", i, err, out, w.logs())
		}
	}
	l.end(t)
}

// What did not change is left alone, by process.
func TestAnEditChangesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	two := func(version int) string {
		return fmt.Sprintf(edited, version, 2) + "  other:\n    x-servent: {process: {run: [servent, example, counter]}, route: /other/*}\n"
	}
	w := start(t, two(1))
	pid := func(id system.InstanceID) int {
		for _, in := range w.ps() {
			if in.Instance == id {
				return in.Pid
			}
		}
		return 0
	}
	before := pid("other/1")
	if out, err := w.run("up", "-d"); err != nil || !strings.Contains(out, "nothing changed") {
		t.Errorf("up without an edit: %v, want \"nothing changed\"\n%s", err, out)
	}
	w.write("compose.yaml", two(2))
	if out, err := w.run("plan"); err != nil || !strings.Contains(out, "VERSION") || strings.Contains(out, "other") {
		t.Errorf("plan: %v, want VERSION and no word of other\n%s", err, out)
	}
	if out, err := w.run("up", "-d"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if after := pid("other/1"); after != before || before == 0 {
		t.Errorf("pid of other/1 = %d, want %d: it did not change", after, before)
	}
}

// The file may be deleted while the system runs; what runs is not the file's.
func TestDownNeedsNoFile(t *testing.T) {
	t.Parallel()
	w := start(t, fmt.Sprintf(edited, 1, 1))
	if err := os.Remove(w.dir + "/compose.yaml"); err != nil {
		t.Fatal(err)
	}
	if out, err := w.run("down"); err != nil || !strings.Contains(out, "stopped") {
		t.Errorf("down: %v\n%s", err, out)
	}
	if out, err := w.run("ps"); err == nil || !strings.Contains(out, "next: servent up") {
		t.Errorf("ps after down: %v, want a hint to servent up\n%s", err, out)
	}
}
