//go:build unix

package cli

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
)

// What dies while a function is warm costs no request: another instance of it, a node with one, or control, without
// which nobody learns of calls, while those that are warm answer on.
func TestWarmFunctionSurvives(t *testing.T) {
	t.Parallel()
	w := start(t, strings.Replace(fmt.Sprintf(functions, 4, 4, 8), "idle: 3s", "idle: 20s", 1))
	url := "http://" + w.door("node-4", "hits") + "/"
	l := offer(url, 80)
	w.until("warm", 30*time.Second, readyOnes(3))

	s := w.state()
	i := slices.IndexFunc(s.Instances, func(in admin.InstanceState) bool { return in.Healthy && in.Node != "node-1" && in.Node != "node-4" })
	if i < 0 {
		t.Fatalf("no instance away from where the calls come in: %+v", s.Instances)
	}
	hurt := s.Instances[i].Node
	pid := w.node(hurt).Pid
	kill(t, pid, syscall.SIGKILL)
	w.until("warm without it", 20*time.Second, func(s admin.State) bool {
		ready := 0
		for _, in := range s.Instances {
			if in.Healthy && in.Pid != s.Instances[i].Pid {
				ready++
			}
		}
		return ready >= 3
	})
	w.until("the node is back", 30*time.Second, func(s admin.State) bool {
		return !slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool { return n.State != "up" })
	})

	before := w.state()
	pid = w.node("node-1").Pid
	kill(t, pid, syscall.SIGKILL)
	is := func(state string) func(s admin.State) bool {
		return func(s admin.State) bool {
			i := slices.IndexFunc(s.Nodes, func(n admin.NodeState) bool { return n.Node == "node-1" })
			return s.Nodes[i].State == state && s.Nodes[i].Pid != pid
		}
	}
	w.until("control's node is gone", 5*time.Second, is("gone"))
	w.until("control's node is back", 30*time.Second, is("up"))
	w.until("settled", 40*time.Second, func(s admin.State) bool { return s.Control == "" && s.Settled && woken(s).Ready >= 2 })
	for _, in := range w.state().Instances {
		for _, was := range before.Instances {
			if in.Instance == was.Instance && in.Node == was.Node && in.Node != "node-1" && was.Healthy && in.Pid != was.Pid {
				t.Errorf("%s on %s is process %d, was %d before control went away", in.Instance, in.Node, in.Pid, was.Pid)
			}
		}
	}
	l.end(t)
}
