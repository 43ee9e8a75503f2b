// Package process runs plain executables. An instance is a process group of its own, with a private
// folder, exactly the environment that it was given, and the limits that this machine lets us set. It
// dies with its node, whatever happens to the node: see guard_unix.go and job_windows.go.
//
// It never builds, never restarts and never asks whether an instance is well: [driver.Supervisor] does.
// Start at [New], then prepared.Start in instance.go.
package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"servent/driver"
	"servent/system"
)

// Options of a [Driver].
type Options struct {
	StateDir string       // where running processes are noted for Sweep; empty notes none
	Self     string       // path that the program name "servent" stands for; empty: nothing special
	Log      *slog.Logger // nil discards
}

// Driver starts processes.
type Driver struct {
	opts   Options
	limits func() *limiter // what this machine lets us limit; looked up once

	mu      sync.Mutex // guards what follows
	closed  bool
	jobs    chan func() // to the keeper; nil before the first start
	running map[*instance]bool
	kept    sync.WaitGroup // the keeper
	quit    chan struct{}  // ends it

	guard guard // the keeper's own
}

var errClosed = errors.New("the process driver is closed")

// New makes a driver. It starts nothing. Close ends what it started.
func New(opts Options) *Driver {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{opts: opts, limits: sync.OnceValue(newLimiter), running: map[*instance]bool{},
		quit: make(chan struct{})}
}

// Name is process.
func (d *Driver) Name() string { return string(system.Process) }

// Probe says which limits are enforced here and what this machine cannot do.
func (d *Driver) Probe(context.Context) driver.Caps {
	caps := driver.Caps{OK: true, Move: driver.MoveWeak, Missing: map[string]string{},
		Versions: map[string]string{"os": runtime.GOOS + "/" + runtime.GOARCH}}
	d.limits().describe(&caps)
	for what, why := range guardMissing() {
		caps.Missing[what] = why
	}
	return caps
}

// Prepare checks that the program can be there. Its error wraps [driver.ErrArtifact] when it cannot.
func (d *Driver) Prepare(_ context.Context, a driver.Artifact) (driver.Prepared, error) {
	if a.Software.Kind != system.Process || len(a.Software.Run) == 0 || a.Software.Run[0] == "" {
		return nil, fmt.Errorf("prepare process: want a program to run, have %s %q: %w", a.Software.Kind, a.Software.Run, driver.ErrArtifact)
	}
	if a.Dir != "" {
		if info, err := os.Stat(a.Dir); err != nil {
			return nil, fmt.Errorf("prepare process: bundle: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("prepare process: bundle %s is no folder: %w", a.Dir, driver.ErrArtifact)
		}
	}
	if isPath(a.Software.Run[0]) { // a bare name waits for the instance's PATH
		if _, _, err := d.resolve(a.Software.Run, a.Dir, nil); err != nil {
			return nil, fmt.Errorf("prepare process: %w", err)
		}
	}
	return &prepared{d, a}, nil
}

// Close kills what still runs, waits for it and for all that the driver started.
func (d *Driver) Close() error {
	d.mu.Lock()
	again := d.closed
	d.closed = true
	idle := d.jobs == nil
	d.mu.Unlock()
	if idle || again {
		d.kept.Wait()
		return nil
	}
	if err := d.do(func() {}); err != nil { // what the keeper was starting is noted as running now
		return fmt.Errorf("close: %w", err)
	}
	d.mu.Lock()
	left := slices.Collect(maps.Keys(d.running))
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no grace
	var stops sync.WaitGroup
	errs := make([]error, len(left))
	for n, i := range left {
		stops.Go(func() { errs[n] = i.Stop(ctx, 0) })
	}
	stops.Wait()
	close(d.quit)
	d.kept.Wait()
	return errors.Join(errs...)
}

// do runs f on the keeper and waits for it. The keeper is the one goroutine that makes processes and
// feeds the guard. It keeps its thread: Linux sends a child its parent-death signal when the thread
// that made it ends, not when the process does (prctl(2), PR_SET_PDEATHSIG).
func (d *Driver) do(f func()) error {
	d.mu.Lock()
	if d.jobs == nil {
		if d.closed {
			d.mu.Unlock()
			return errClosed
		}
		d.jobs = make(chan func())
		d.kept.Go(d.keep)
	}
	d.mu.Unlock()
	done := make(chan struct{})
	select {
	case d.jobs <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-d.quit:
		return errClosed
	}
}

func (d *Driver) keep() {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	for {
		select {
		case job := <-d.jobs:
			job()
		case <-d.quit:
			d.guard.close()
			return
		}
	}
}

// add notes a running instance, unless the driver is closed.
func (d *Driver) add(i *instance) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.running[i] = true
	}
	return !d.closed
}

func (d *Driver) remove(i *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, i)
}

// base are the variables of a program's environment that come from the machine.
var base = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
	"SystemRoot", "SystemDrive", "windir", "ComSpec", "PATHEXT", "USERNAME", "USERPROFILE", "APPDATA",
	"LOCALAPPDATA", "ProgramData", "ProgramFiles", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE"}

// BaseEnv picks from an environment, such as [os.Environ]'s, what every program needs to work on this
// machine and nothing of the user's else. It always holds a PATH.
func BaseEnv(environ []string) []string {
	var env []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value != "" && slices.ContainsFunc(base, func(b string) bool { return sameName(b, name) }) {
			env = append(env, entry)
		}
	}
	if _, ok := lookup(env, "PATH"); !ok && runtime.GOOS != "windows" {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return env
}

// lookup finds the last value of a variable, the one that counts.
func lookup(env []string, name string) (string, bool) {
	for _, entry := range slices.Backward(env) {
		if n, value, ok := strings.Cut(entry, "="); ok && sameName(n, name) {
			return value, true
		}
	}
	return "", false
}

// sameName compares names of variables as the system does.
func sameName(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

// token is a mark in an instance's environment by which all its processes are known, wherever they
// went: SERVENT_RUN=….
func token() string { return tokenName + "=" + rand.Text() }

const tokenName = "SERVENT_RUN"
