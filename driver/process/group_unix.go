//go:build unix

package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"servent/driver"
)

// group is all processes of one instance: a session and process group of its own. A program that
// leaves both (a daemon) is still known by the token in its environment, on Linux.
type group struct {
	pgid    int
	token   string
	cage    *cage // its cgroup; nil without
	watched bool  // its memory is ours to watch

	dying map[int]uint64 // strays that were killed and are not gone yet, by when they began; only Linux knows any
}

// spawn makes the process, having told the guard and the notes of it. It runs on the keeper. Limits are
// set before the program's first instruction: see attributes.
func (d *Driver) spawn(s driver.Spec, token string, build func() *exec.Cmd) (*exec.Cmd, *group, error) {
	cage, err := d.limits().cage(s.Limits)
	if err != nil {
		return nil, nil, err
	}
	g := &group{token: token, cage: cage, watched: d.limits().watches}
	if err := d.note(s.Instance, g); err != nil {
		d.forget(g)
		return nil, nil, err
	}
	d.guard.add(d, token, 0)
	gated := cage != nil || s.Limits.OpenFiles > 0
	cmd := build()
	cmd.SysProcAttr = attributes(gated)
	err = cmd.Start()
	if gated && errors.Is(err, syscall.EPERM) { // no tracing here: the limits come a moment later
		gated = false
		cmd = build()
		cmd.SysProcAttr = attributes(gated)
		err = cmd.Start()
	}
	if err != nil {
		d.forget(g)
		return nil, nil, explain(cmd.Path, err)
	}
	g.pgid = cmd.Process.Pid
	d.guard.add(d, token, g.pgid)
	err = d.note(s.Instance, g)
	if err == nil {
		err = confine(g.pgid, cage, s.Limits)
	}
	if gated {
		err = errors.Join(err, open(g.pgid))
	}
	if err != nil {
		g.kill()
		cmd.Wait() // it was killed; there is nothing to learn
		d.forget(g)
		return nil, nil, err
	}
	return cmd, g, nil
}

// forget takes an ended group from the guard and the notes. It runs on the keeper.
func (d *Driver) forget(g *group) {
	d.guard.remove(g.token)
	g.cage.remove()
	if d.opts.StateDir != "" {
		os.Remove(d.notePath(g)) // a note too many is found out by Sweep
	}
}

// explain says more than the kernel about a program that cannot be executed.
func explain(program string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist) && interpreter(program) != "":
		return fmt.Errorf("%s wants the interpreter %s, which is not here: %w", program, interpreter(program), driver.ErrArtifact)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is no program for %s/%s: %w", program, runtime.GOOS, runtime.GOARCH, driver.ErrArtifact)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", err, driver.ErrArtifact)
	}
	return err
}

// interpreter of a script's first line, or "".
func interpreter(program string) string {
	f, err := os.Open(program)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	line, isScript := bytes.CutPrefix(head[:n], []byte("#!"))
	line, _, _ = bytes.Cut(line, []byte{'\n'})
	fields := bytes.Fields(line)
	if !isScript || len(fields) == 0 {
		return ""
	}
	return string(fields[0])
}

func (g *group) signal(name string) error {
	sig, err := signalNumber(name)
	if err != nil {
		return err
	}
	return syscall.Kill(-g.pgid, sig)
}

func (g *group) kill() {
	syscall.Kill(-g.pgid, syscall.SIGKILL) // no such group: what we want
	g.cage.kill()
}

func (g *group) oom() bool { return g.cage.oom() }

// knownSignal is asked before the start, so that a stop cannot fail by a typing error.
func knownSignal(name string) error {
	_, err := signalNumber(name)
	return err
}

func signalNumber(name string) (syscall.Signal, error) {
	if name == "" {
		return syscall.SIGTERM, nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if sig := unix.SignalNum(full); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("stop signal %q: want a name such as SIGTERM or SIGINT: %w", name, driver.ErrArtifact)
}

func exitOf(state *os.ProcessState, err error) driver.Exit {
	if state == nil {
		return driver.Exit{Code: -1, Err: err}
	}
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		return driver.Exit{Code: -1, Signal: ws.Signal().String()}
	}
	return driver.Exit{Code: state.ExitCode()}
}

// lead makes a health command the leader of a group that ends with its context.
func lead(cmd *exec.Cmd) {
	cmd.SysProcAttr = attributes(false)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
