//go:build unix

package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/control"
)

// TestDiesWithItsParent: a server whose parent was killed ends by itself, and the next one takes its place.
func TestDiesWithItsParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(program(t), "parent", dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	socket, ok := strings.CutPrefix(lines.Text(), "unix://")
	cmd.Process.Kill()
	cmd.Wait()
	if !ok {
		t.Fatalf("the child's door is %q, want a socket", lines.Text())
	}
	soon(t, "the child has ended", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	child, _ := start(t, dir)
	put(t, open(t, child), "k", "v")
}

// TestSilent: a server that hangs is noticed by calls and watches, and both work when it goes on.
func TestSilent(t *testing.T) {
	t.Parallel()
	child, _ := start(t, t.TempDir())
	s := open(t, child)
	rev := put(t, s, "k", "1")
	quiet := make(chan error, 1)
	go func() {
		quiet <- s.Watch(t.Context(), "", rev+1, func(control.Batch) error { return nil })
	}()
	if err := syscall.Kill(child.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var err error
	for tries := 0; err == nil && tries < 100; tries++ { // the stop takes effect a moment after the call
		_, _, err = s.Range(t.Context(), "")
	}
	if !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Range of a silent server = %v, want ErrUnavailable", err)
	}
	if err := <-quiet; !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Watch of a silent server = %v, want ErrUnavailable", err)
	}
	t.Logf("noticed after %v", time.Since(began).Round(time.Millisecond))
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.Commit(short, control.Txn{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit with a short ctx = %v, want its error", err)
	}
	if err := syscall.Kill(child.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "2")
}

// TestStopsCleanly: a stop with an open watch is quick and leaves nothing behind.
func TestStopsCleanly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var pid int
	began := time.Now()
	t.Run("run", func(t *testing.T) {
		child, _ := start(t, dir)
		s := open(t, child)
		rev := put(t, s, "k", "1")
		pid = child.Pid()
		status, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
		for line := range strings.Lines(string(status)) {
			if err == nil && strings.HasPrefix(line, "VmRSS") {
				t.Logf("answered after %v, %s", time.Since(began).Round(time.Millisecond), strings.TrimSpace(line))
			}
		}
		go s.Watch(context.Background(), "", rev+1, func(control.Batch) error { return nil })
		began = time.Now()
	})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the stop took %v: it was killed for not ending", took)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child still runs: %v", err)
	}
}
