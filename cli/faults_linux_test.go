package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
)

// small is a file system with room for so much.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullDiskAtUp(t *testing.T) {
	w := &world{t: t, dir: small(t, "3m")}
	w.write("compose.yaml", three)
	out, err := w.run("up", "-d")
	if err == nil || !strings.Contains(out, "no space left on device") || !strings.Contains(out, "next: df -h") {
		t.Errorf("up on a full disk: %v, want the reason and a look at the disk\n%s", err, out)
	}
	w.down()
	w.left()
}

// The disk fills while the system runs: requests go on, a change says what is wrong, and when there is
// room again all is as it was asked for.
func TestFullDiskWhileRunning(t *testing.T) {
	w := &world{t: t, dir: small(t, "160m")}
	w.write("compose.yaml", three)
	w.up()
	fill := filepath.Join(w.dir, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	for _, err = f.Write(block[:512]); err == nil; _, err = f.Write(block[:512]) {
	}
	f.Close()
	l := offer("http://"+w.door("node-2", "hits")+"/c/a", 50)
	out, err := w.run("restart", "hits", "--wait", "10s")
	if err == nil || !strings.Contains(out, "no space left") {
		t.Errorf("restart on a full disk: %v, want the reason\n%s", err, out)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	w.until("settled again", 60*time.Second, func(s admin.State) bool { return s.Settled })
	l.end(t)
}

// engine is the process of control's etcd; 0 while there is none.
func (w *world) engine() int {
	w.t.Helper()
	for pid, args := range w.family() {
		if strings.Contains(args, etcdVerb) {
			return pid
		}
	}
	return 0
}

// Control's engine is killed, then paused: no request fails, and a change is made afterwards.
func TestControlsEngineFails(t *testing.T) {
	w := start(t, three)
	before := w.ps()
	l := offer("http://"+w.door("node-3", "hits")+"/c/a", 100)
	was := w.engine()
	kill(t, was, syscall.SIGKILL)
	for late := time.After(20 * time.Second); w.engine() == was || w.engine() == 0; {
		select {
		case <-late:
			t.Fatal("etcd did not come back")
		case <-time.After(50 * time.Millisecond):
		}
	}
	w.until("control answers again", 20*time.Second, func(s admin.State) bool { return s.Control == "" })
	pause := 10 * time.Second
	if testing.Short() {
		pause = 5 * time.Second
	}
	paused := w.engine()
	kill(t, paused, syscall.SIGSTOP)
	<-time.After(pause)
	kill(t, paused, syscall.SIGCONT)
	w.until("settled again", 40*time.Second, func(s admin.State) bool { return s.Control == "" && s.Settled })
	same(t, before, w.ps())
	if out, err := w.run("scale", "hits=4"); err != nil {
		t.Errorf("scale afterwards: %v\n%s", err, out)
	}
	l.end(t)
}

// Nobody listens at the user's etcd: up says so at once and leaves nothing.
func TestForeignControlIsAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := "etcd://" + ln.Addr().String()
	ln.Close()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", three)
	began := time.Now()
	out, err := w.run("up", "-d", "--control", at)
	if err == nil || !strings.Contains(out, "control at "+at+" does not answer") || !strings.Contains(out, "next: ") {
		t.Errorf("up: %v, want who does not answer\n%s", err, out)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("said so after %v", took)
	}
	w.down()
	w.left()
}
