package cli

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// A function that no client calls is woken by its cron, and goes on being called when the node that leads dies.
func TestCron(t *testing.T) {
	t.Parallel()
	w := start(t, `
name: jobs
services:
  job:
    x-servent:
      process: [servent, example, counter]
      architecture: function
      scale: {idle: 1h}
      on: [{cron: "@every 1s", request: POST /c/ticks, body: {why: "it is time"}}]
      route: /*
x-servent: {nodes: {node: {count: 2}}}
`)
	url := "http://" + w.published("job") + "/c/ticks"
	ticks := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(fetch(t, url)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	w.heals(30*time.Second, func() error {
		if n := ticks(); n < 3 {
			return errStillFew(n)
		}
		return nil
	})
	if out, err := w.run("restart", "node-1"); err != nil { // it leads
		t.Fatalf("restart: %v\n%s", err, out)
	}
	before := ticks()
	w.heals(30*time.Second, func() error {
		if n := ticks(); n < before+2 {
			return errStillFew(n)
		}
		return nil
	})
}

type errStillFew int

func (e errStillFew) Error() string { return "only " + strconv.Itoa(int(e)) + " ticks" }
