// Package wasm runs WebAssembly modules: handlers that any tool chain for WASI makes, in this process, in a
// sandbox without files, sockets or the host's environment. A command is called as a CGI program for every request
// (RFC 3875) and keeps nothing; a reactor, which exports handle, lives on and reads each request as an SCGI server does.
// Either asks the host for a little more: other services of its system, if the file lets it. It uses the engine
// wazero and counts instructions by a module that it has rewritten itself.
// Start at [New]; engine.go is a module that is compiled, call.go one request, warm.go reactors, host.go what the host does, [Meter] the counting.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"servent/driver"
	"servent/system"
)

// What bounds a call where the file does not.
const (
	defaultMemory      = 256 << 20
	defaultTimeout     = 30 * time.Second
	defaultOutput      = 64 << 20
	defaultConcurrency = 64 // calls at a time; as many more wait for their turn

	page       = 64 << 10
	mostModule = 64 << 20 // bytes of a module
	slice      = 100_000  // instructions until a call looks at its time again
)

// Driver is the engine.
type Driver struct {
	cache string
	lane  *lane
}

// Options of [New].
type Options struct {
	Cache string // folder of compiled modules, shared by all that use it; empty: each module is compiled anew
}

// New returns a driver. It starts nothing.
func New(o Options) *Driver { return &Driver{cache: o.Cache, lane: newLane()} }

// Name implements [driver.Driver].
func (d *Driver) Name() string { return string(system.Wasm) }

// Probe implements [driver.Driver]: wazero is part of this program, and runs wherever it runs.
func (d *Driver) Probe(context.Context) driver.Caps {
	return driver.Caps{OK: true, Limits: []string{"memory", "fuel", "timeout", "output", "concurrency"}, Move: driver.MoveWeak,
		Versions: map[string]string{"wasi": "snapshot preview 1"}}
}

// Prepare reads, rewrites and compiles a module: the file that From names, in the bundle.
func (d *Driver) Prepare(ctx context.Context, a driver.Artifact) (driver.Prepared, error) {
	if a.Software.Kind != system.Wasm || a.Dir == "" || a.Software.From == "" {
		return nil, fmt.Errorf("%w: no module", driver.ErrArtifact)
	}
	file := filepath.Join(a.Dir, filepath.Base(a.Software.From))
	info, err := os.Stat(file)
	if err != nil || info.IsDir() || info.Size() > mostModule {
		return nil, fmt.Errorf("%w: %s is no file of at most %d MiB", driver.ErrArtifact, filepath.Base(file), mostModule>>20)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	if module, err = Meter(module); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", driver.ErrArtifact, filepath.Base(file), err)
	}
	p := &prepared{name: filepath.Base(file), module: module, lane: d.lane}
	p.users.Store(1)
	if d.cache != "" {
		if p.cache, err = wazero.NewCompilationCacheWithDir(d.cache); err != nil {
			return nil, fmt.Errorf("open the folder of compiled modules: %w", err)
		}
	} else {
		p.cache = wazero.NewCompilationCache()
	}
	if err := p.begin(ctx); err != nil { // now, not at the first request; the limits of an instance come later
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Start implements [driver.Prepared]. An instance of a module that is not compiled yet is interpreted until it is.
func (p *prepared) Start(ctx context.Context, s driver.Spec) (driver.Instance, error) {
	c := newCaller(p, s)
	compiled := p.compiled()
	at, err := c.open(ctx, !compiled)
	if err != nil {
		c.host.close()
		return nil, err
	}
	c.place = at
	life, stop := context.WithCancel(context.Background()) // an instance outlives the ctx of its start
	p.users.Add(1)
	var following sync.WaitGroup
	if !compiled {
		following.Go(func() { c.follow(life) })
	}
	end := func() {
		stop()
		following.Wait()
		c.end()
		_ = p.Close() // frees memory; nothing is left to lose
	}
	return &instance{driver.Host(string(s.Instance), http.HandlerFunc(c.serve), func(context.Context) error { return nil }, end), c}, nil
}

// instance is where calls of a module run.
type instance struct {
	driver.Instance
	calls *caller
}

// Check implements [driver.Checker]: a module that started is well.
func (i *instance) Check(context.Context) error { return nil }

// Stats implements [driver.Instance].
func (i *instance) Stats(ctx context.Context) (driver.Stats, error) {
	st, err := i.Instance.Stats(ctx)
	if err == nil {
		i.calls.mu.Lock()
		st.Interpreted, st.Made, st.Idle = i.calls.interpreted, i.calls.made, len(i.calls.place.idle)
		for _, w := range i.calls.place.idle {
			if m := w.module.Memory(); m != nil {
				st.Memory += int64(m.Size())
			}
		}
		i.calls.mu.Unlock()
	}
	return st, err
}
