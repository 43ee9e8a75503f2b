//go:build unix

package cli

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/launch"
)

// processes are all that run on the machine: for each its parent, and its line of ps. One that has ended
// and that nobody has asked after does not run.
func processes(t *testing.T) (parent map[int]int, line map[int]string) {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=,args=").Output()
	if err != nil {
		t.Fatalf("ps: %v", err)
	}
	parent, line = map[int]int{}, map[int]string{}
	for l := range strings.Lines(string(out)) {
		var pid, ppid int
		var stat string
		if _, err := fmt.Sscan(l, &pid, &ppid, &stat); err == nil && !strings.HasPrefix(stat, "Z") {
			parent[pid], line[pid] = ppid, l
		}
	}
	return parent, line
}

// family are a process and all that it started, and those in their turn: the keeper, nodes, etcd, the
// programs and their guards; with every one its line of ps.
func family(t *testing.T, root int) map[int]string {
	t.Helper()
	parent, line := processes(t)
	all := map[int]string{root: line[root]}
	for grown := true; grown; {
		grown = false
		for pid, ppid := range parent {
			if all[ppid] != "" && all[pid] == "" {
				all[pid], grown = line[pid], true
			}
		}
	}
	return all
}

// family is every process of the running system.
func (w *world) family() map[int]string {
	w.t.Helper()
	info, err := launch.FolderOf(w.dir).Info()
	if err != nil {
		w.t.Fatal(err)
	}
	return family(w.t, info.Pid)
}

// ends waits until none of the processes runs any more.
func ends(t *testing.T, all map[int]string) {
	t.Helper()
	var left []string
	for began := time.Now(); time.Since(began) < 15*time.Second; <-time.After(50 * time.Millisecond) {
		left = nil
		_, line := processes(t)
		for pid := range all {
			if line[pid] != "" {
				left = append(left, line[pid])
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("these run still:\n%s", strings.Join(left, ""))
}

// Everything is killed at once; the next up finds every acknowledged order, and nothing of before runs.
func TestDataSurvivesKillOfEverything(t *testing.T) {
	t.Parallel()
	have(t, "go", "ps")
	w := example(t, "shop")
	var acked []string
	rounds := []struct {
		what  string
		dying func(args string) bool
	}{
		{"everything", func(string) bool { return true }},
		{"the keeper, the nodes and etcd", func(args string) bool { return strings.Contains(args, "__") }}, // programs end by themselves
	}
	if testing.Short() {
		rounds = rounds[:1]
	}
	for round, kills := range rounds {
		w.up()
		url := "http://" + w.published("web")
		keeps(t, url, acked, len(acked))
		b := buys(t, url, fmt.Sprint(round))
		w.heals(20*time.Second, func() error {
			if n := len(ordered(t, url)); n < len(acked)+20 {
				return fmt.Errorf("only %d orders", n)
			}
			return nil
		})
		all := w.family()
		for pid, args := range all {
			if kills.dying(args) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended with its parent
			}
		}
		ends(t, all)
		acked = append(acked, b.end()...)
		t.Logf("%s killed: %d processes; %d orders acknowledged until then", kills.what, len(all), len(acked))
	}
	w.up()
	keeps(t, "http://"+w.published("web"), acked, 20)
	all := w.family()
	if len(all) < 8 {
		t.Errorf("only %d processes are known, want the keeper, 3 nodes, etcd and 3 programs: the test proves nothing", len(all))
	}
	w.down()
	ends(t, all)
}
