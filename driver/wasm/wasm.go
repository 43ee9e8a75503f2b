// Package wasm runs WebAssembly modules: a handler that any tool chain for WASI makes, called as a CGI
// program for every request (RFC 3875), in this process, in a sandbox without files, sockets or the host's
// environment. It uses the engine wazero and counts instructions by a module that it has rewritten itself.
// It never keeps anything from one call to the next: an instance of a service is where its calls run.
// Start at [New]; call.go is one request, [Meter] the counting.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

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
	mostModule = 64 << 20  // bytes of a module
	slice      = 1_000_000 // instructions until a call looks at its time again
)

// Driver is the engine.
type Driver struct {
	cache string
}

// Options of [New].
type Options struct {
	Cache string // folder of compiled modules, shared by all that use it; empty: each module is compiled anew
}

// New returns a driver. It starts nothing.
func New(o Options) *Driver { return &Driver{cache: o.Cache} }

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
	p := &prepared{name: filepath.Base(file), module: module}
	p.users.Store(1)
	if d.cache != "" {
		if p.cache, err = wazero.NewCompilationCacheWithDir(d.cache); err != nil {
			return nil, fmt.Errorf("open the folder of compiled modules: %w", err)
		}
	} else {
		p.cache = wazero.NewCompilationCache()
	}
	e, err := p.engine(ctx, 0) // compiled now, not at the first request; the limits of an instance come later
	if err == nil {
		err = e.runtime.Close(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// prepared is a module that is compiled.
type prepared struct {
	name   string
	module []byte
	cache  wazero.CompilationCache // what runs is in it
	users  atomic.Int64            // instances, and who prepared it; the last one closes the cache
}

// engine is a runtime with the module, the one thing that memory's bound belongs to.
type engine struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// engine makes one; a module that was compiled before comes from the cache.
func (p *prepared) engine(ctx context.Context, memory int64) (*engine, error) {
	if memory <= 0 {
		memory = defaultMemory
	}
	pages := uint32(max(1, min(memory/page, 65536)))
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(p.cache).WithMemoryLimitPages(pages).WithCoreFeatures(api.CoreFeaturesV2))
	e := &engine{runtime: r}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("make the module's surroundings: %w", err), r.Close(ctx))
	}
	_, err := r.NewHostModuleBuilder("servent").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(refuel), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export("fuel").Instantiate(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the module's surroundings: %w", err), r.Close(ctx))
	}
	if e.compiled, err = r.CompileModule(ctx, p.module); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", driver.ErrArtifact, p.name, err), r.Close(ctx))
	}
	if err := fits(e.compiled, r); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s %w", driver.ErrArtifact, p.name, err), r.Close(ctx))
	}
	return e, nil
}

// fits says what a module lacks, or wants that there is not.
func fits(m wazero.CompiledModule, r wazero.Runtime) error {
	var missing []string
	asked := 0
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		switch host := r.Module(module); {
		case module == "servent" && name == "fuel":
			asked++
		case host == nil || host.ExportedFunctionDefinitions()[name] == nil:
			missing = append(missing, module+"."+name)
		}
	}
	for _, mem := range m.ImportedMemories() {
		module, name, _ := mem.Import()
		missing = append(missing, module+"."+name)
	}
	switch start := m.ExportedFunctions()["_start"]; {
	case len(missing) > 0:
		return fmt.Errorf("imports %s, which is not offered; there is WASI snapshot preview 1 (GOOS=wasip1, wasm32-wasi)", strings.Join(missing, ", "))
	case asked > 1:
		return errors.New("imports servent.fuel, which is not for modules")
	case start == nil || len(start.ParamTypes())+len(start.ResultTypes()) > 0:
		return errors.New("has no function _start: want a command (package main), not a library")
	}
	return nil
}

// Start implements [driver.Prepared].
func (p *prepared) Start(_ context.Context, s driver.Spec) (driver.Instance, error) {
	life := context.Background() // an instance outlives the ctx of its start
	e, err := p.engine(life, s.Limits.Memory)
	if err != nil {
		return nil, err
	}
	c := newCaller(e, p.name, s)
	p.users.Add(1)
	end := func() { _, _ = e.runtime.Close(life), p.Close() } // frees memory; nothing is left to lose
	check := func(context.Context) error { return nil }
	return driver.Host(string(s.Instance), http.HandlerFunc(c.serve), check, end), nil
}

// Close implements [driver.Prepared].
func (p *prepared) Close() error {
	if p.users.Add(-1) > 0 {
		return nil
	}
	return p.cache.Close(context.Background())
}
