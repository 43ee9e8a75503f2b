//go:build unix

package process

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

// numbers of the processes that a tree has printed.
func numbers(t *testing.T, lines []string) (pids []int) {
	t.Helper()
	for _, l := range lines {
		pid, err := strconv.Atoi(l)
		if err != nil {
			t.Fatalf("a tree says %q, want a process number", l)
		}
		pids = append(pids, pid)
	}
	return pids
}

func lives(pid int) bool { return syscall.Kill(pid, 0) == nil && startOf(pid) != "" }

// gone wants that all these processes end, and says how long it took.
func gone(t *testing.T, pids []int) {
	t.Helper()
	begin := time.Now()
	for _, pid := range pids {
		for lives(pid) {
			if time.Since(begin) > 10*time.Second {
				t.Errorf("process %d of %v lives after 10s", pid, pids)
				syscall.Kill(pid, syscall.SIGKILL)
				break
			}
			runtime.Gosched()
		}
	}
	t.Logf("gone after %v", time.Since(begin))
}

func TestStopTakesTheWholeTree(t *testing.T) {
	i, log := run(t, newDriver(t), spec(t, 1), program("tree", "2"))
	pids := numbers(t, lines(t, log, 3))
	st, err := i.Stats(t.Context())
	if err != nil || st.Pids != 3 || st.Memory < 1<<20 {
		t.Errorf("Stats() = %+v, %v, want three processes and their memory", st, err)
	}
	if err := i.Stop(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if lives(pid) {
			t.Errorf("process %d lives after Stop returned", pid)
		}
	}
}

func TestWhatAProgramLeavesIsEnded(t *testing.T) {
	for _, role := range []string{"leave", "daemon"} {
		t.Run(role, func(t *testing.T) {
			if role == "daemon" && runtime.GOOS != "linux" {
				t.Skip("a daemon is found by its environment, on Linux alone")
			}
			i, log := run(t, newDriver(t), spec(t, 1), program(role))
			if exit := waited(t, i); !exit.OK() {
				t.Errorf("exit = %v, want that of the program, 0", exit)
			}
			if pid := numbers(t, lines(t, log, 1))[0]; lives(pid) {
				t.Errorf("process %d lives after the exit was told", pid)
				syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
}

// node starts a fake node that runs a tree, and returns it with the tree's processes.
func node(t *testing.T, dir string) (*exec.Cmd, []int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "role=node", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var all []byte
	for b := make([]byte, 4096); bytes.Count(all, []byte{'\n'}) < 3; {
		n, err := out.Read(b)
		if err != nil {
			t.Fatalf("the node says %q, then %v", all, err)
		}
		all = append(all, b[:n]...)
	}
	pids := numbers(t, strings.Fields(string(all)))
	t.Cleanup(func() {
		for _, pid := range pids {
			if lives(pid) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	return cmd, pids
}

func kill9(cmd *exec.Cmd) {
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Process.Wait()
}

// TestTheRestHasTheRestOfTheGrace: a shell ends at once when it is asked to, its program takes a moment.
func TestTheRestHasTheRestOfTheGrace(t *testing.T) {
	a := program("serve", "100ms")
	a.Software.Run = []string{"sh", "-c", strings.Join(a.Software.Run, " ") + " & wait"}
	s := spec(t, 1)
	i, _ := run(t, newDriver(t), s, a)
	serving(t, i)
	if err := i.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(s.Dir, "goodbye")); string(b) != "terminated" {
		t.Errorf("goodbye = %q, %v, want that of a program that was given its time", b, err)
	}
}

func TestInstancesDieWithTheirNode(t *testing.T) {
	cmd, pids := node(t, t.TempDir())
	kill9(cmd)
	gone(t, pids)
}

func TestSweep(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds the guard in /proc")
	}
	dir := t.TempDir()
	cmd, pids := node(t, dir)

	next := New(Options{StateDir: dir})
	if swept, err := next.Sweep(t.Context()); err == nil || len(swept) != 0 || !lives(pids[0]) ||
		!strings.Contains(err.Error(), "belongs to node process "+strconv.Itoa(cmd.Process.Pid)+", which runs") {
		t.Errorf("Sweep() beside a living node = %v, %v, want a refusal", swept, err)
	}
	for _, guard := range guards(cmd.Process.Pid) { // the worst case: everything of ours is killed
		syscall.Kill(guard, syscall.SIGKILL)
	}
	kill9(cmd)
	gone(t, pids[:1]) // the kernel does that
	if !lives(pids[1]) || !lives(pids[2]) {
		t.Fatal("nothing is left to be swept; is the guard still there?")
	}
	swept, err := next.Sweep(t.Context())
	if diff := cmp.Diff([]system.InstanceID{"api/1"}, swept); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, pid := range pids {
		if lives(pid) {
			t.Errorf("process %d lives after Sweep", pid)
		}
	}
	if swept, err := next.Sweep(t.Context()); len(swept) != 0 || err != nil {
		t.Errorf("a second Sweep() = %v, %v, want nothing to do", swept, err)
	}
}

// guards are the shells that a node has started.
func guards(node int) (pids []int) {
	out, _ := exec.Command("ps", "-A", "-o", "pid=,ppid=,args=").Output()
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[1] == strconv.Itoa(node) && f[2] == shellPath {
			pid, _ := strconv.Atoi(f[0])
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestSweepSparesStrangers: a process that has got a used number is not ours.
func TestSweepSparesStrangers(t *testing.T) {
	stranger := exec.Command("sleep", "60")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	dir := t.TempDir()
	for name, r := range map[string]record{
		"process-1.json": {Instance: "api/1", Pid: stranger.Process.Pid, Started: "another time", Token: token(), Node: 1 << 22},
		"process-2.json": {Instance: "api/2", Pid: 1 << 22, Started: startOf(stranger.Process.Pid), Token: token(), Node: 1 << 22},
		"process-3.json": {Instance: "api/3", Pid: 1, Started: startOf(1), Token: token(), Node: 1 << 22},
		"process-4.json": {Instance: "api/4", Pid: stranger.Process.Pid, Started: startOf(stranger.Process.Pid), Token: "", Node: 1 << 22},
	} {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "process-5.json"), []byte(`{"instance":"api/5","pid":`), 0o600); err != nil {
		t.Fatal(err)
	}
	swept, err := New(Options{StateDir: dir}).Sweep(t.Context())
	if len(swept) != 0 || err != nil {
		t.Errorf("Sweep() = %v, %v, want nothing", swept, err)
	}
	if !lives(stranger.Process.Pid) {
		t.Error("a stranger was killed")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d notes are left", len(left))
	}
}

// TestGuardIsReplaced: a killed guard is found out by the next start, and the new one knows all groups.
func TestGuardIsReplaced(t *testing.T) {
	d := newDriver(t)
	i, log := run(t, d, spec(t, 1), program("tree", "0"))
	first := numbers(t, lines(t, log, 1))
	var old int
	d.do(func() { old = d.guard.cmd.Process.Pid; d.guard.cmd.Process.Kill(); <-d.guard.gone })
	i2, log := run(t, d, spec(t, 1), program("tree", "0"))
	second := numbers(t, lines(t, log, 1))
	d.do(func() {
		if d.guard.cmd.Process.Pid == old || !d.guard.alive() {
			t.Error("no new guard")
		}
		d.guard.close() // as if the node died: what it knows is killed
	})
	gone(t, append(first, second...))
	waited(t, i)
	waited(t, i2)
}

func TestGuardKnowsWhoIsGone(t *testing.T) {
	d := newDriver(t)
	var g guard
	var sleepers [2]*exec.Cmd
	var tokens [2]string
	for n := range sleepers {
		sleepers[n] = exec.Command("sleep", "60")
		sleepers[n].SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := sleepers[n].Start(); err != nil {
			t.Fatal(err)
		}
		defer sleepers[n].Wait()
		defer sleepers[n].Process.Kill()
		tokens[n] = token() // which they do not have: they are known by their group alone
		g.add(d, tokens[n], sleepers[n].Process.Pid)
	}
	g.add(d, token(), 0)
	g.add(d, token(), 1<<22)
	g.remove(tokens[0])
	g.close()
	if !lives(sleepers[0].Process.Pid) {
		t.Error("the guard killed a group that it was told gone")
	}
	gone(t, []int{sleepers[1].Process.Pid})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"instance":"api/1","pid":12,"started":"x+1","token":"SERVENT_RUN=ABCDEFGHIJKLMNOPQRSTUVWXYZ"}`))
	f.Add([]byte(`{"pid":-1}`))
	f.Add([]byte(`{"pid":12,"token":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := parseRecord(b); r.Token != "" && (r.Pid < 0 || len(r.Token) < 20 || r.Pid == 1) {
			t.Errorf("a record that could kill strangers: %+v", r)
		}
	})
}
