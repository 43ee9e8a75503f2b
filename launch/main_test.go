package launch

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"testing"

	"servent/node"
	"servent/system"
)

// TestMain makes this binary a node's process when it is told to be one.
func TestMain(m *testing.M) {
	if kind := os.Getenv("SERVENT_TEST_NODE"); kind != "" {
		os.Exit(pretend(kind))
	}
	os.Exit(m.Run())
}

// pretend is a node that only keeps the manners: it reads its boot line, says that it serves, and ends
// with its input.
func pretend(kind string) int {
	out := json.NewEncoder(os.Stdout)
	b, words, err := node.ReadBoot(os.Stdin)
	if err != nil {
		return 1
	}
	switch kind {
	case "fails":
		_ = out.Encode(node.Told{Failed: "the port of " + string(b.ID) + " is taken"})
		return 1
	case "dies":
		fmt.Println("a stray line that is no JSON")
		return 3
	}
	_ = out.Encode(node.Told{Serving: true})
	for w := range words {
		if w.Credential != nil {
			fmt.Fprintln(os.Stderr, "took a certificate")
		}
		if w.Faults != nil {
			_ = out.Encode(node.Told{Heard: w.Faults.Turn})
		}
	}
	if kind == "stubborn" {
		never := make(chan os.Signal, 1)
		signal.Notify(never, os.Interrupt)
		_, _ = io.Copy(io.Discard, os.Stdin)
		<-never
	}
	return 0
}

// group is a node group as a file has it.
func group(name string, count int) system.NodeGroup {
	return system.NodeGroup{Name: name, Count: count, Site: "local"}
}

// sysOf is a system of one replicated service on groups.
func sysOf(replicas int, groups ...system.NodeGroup) *system.System {
	return &system.System{Name: "t", Nodes: groups, Services: []system.Service{{
		Name: "web", Architecture: system.Replicated, Replicas: replicas,
		Software: system.Software{Kind: system.Process, Run: []string{"web"}},
	}}}
}
