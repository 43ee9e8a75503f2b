package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"servent/driver"
)

// patience is how long Prepare waits for the compiler before it has the interpreter answer meanwhile.
const patience = 150 * time.Millisecond

// prepared is a module that runs: compiled, or interpreted until it is.
type prepared struct {
	name    string
	module  []byte
	lane    *lane                   // of calls that take long, whatever module they are of
	cache   wazero.CompilationCache // what the compiler made
	meant   wazero.CompilationCache // what the interpreter runs; nil: the compiler was done at once
	compile context.CancelFunc      // ends the compiler
	done    chan struct{}           // closed when the compiler has ended
	took    time.Duration           // and how it did, from then on
	err     error
	users   atomic.Int64 // instances, and who prepared it; the last one closes the cache

	mu      sync.Mutex // guards what follows
	engines map[engineKey]*engine
}

// engineKey tells engines apart: instances of one memory's bound share one.
type engineKey struct {
	pages       uint32
	interpreted bool
}

// open returns the engine of a bound of memory, and close lets go of it: it goes with its last user.
func (p *prepared) open(ctx context.Context, memory int64, interpreted bool) (*engine, error) {
	p.mu.Lock() // held while one is made, so that none is made twice
	defer p.mu.Unlock()
	key := engineKey{pagesOf(memory), interpreted}
	e := p.engines[key]
	if e == nil {
		var err error
		if e, err = p.engine(ctx, key); err != nil {
			return nil, err
		}
		if p.engines == nil {
			p.engines = map[engineKey]*engine{}
		}
		p.engines[key] = e
	}
	e.users++
	return e, nil
}

func (p *prepared) close(e *engine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(p.engines, e.key)
		_ = e.runtime.Close(context.Background()) // frees memory; nothing is left to lose
	}
}

func pagesOf(memory int64) uint32 {
	if memory <= 0 {
		memory = defaultMemory
	}
	return uint32(max(1, min(memory/page, 65536)))
}

// begin starts the compiler and returns as soon as the module can run either way.
func (p *prepared) begin(ctx context.Context) error {
	life, cancel := context.WithCancel(context.Background())
	p.compile, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		began := time.Now()
		// More than one worker: the compiler looks at its ctx then alone.
		e, err := p.engine(experimental.WithCompilationWorkers(life, max(2, runtime.GOMAXPROCS(0)/2)), engineKey{pages: pagesOf(0)})
		if err == nil {
			err = e.runtime.Close(life)
		}
		p.took, p.err = time.Since(began), err
	}()
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
	}
	p.meant = wazero.NewCompilationCache()
	e, err := p.engine(ctx, engineKey{pagesOf(0), true})
	if err == nil {
		err = e.runtime.Close(ctx)
	}
	return err
}

// compiled says that the compiler has ended well.
func (p *prepared) compiled() bool {
	select {
	case <-p.done:
		return p.err == nil
	default:
		return false
	}
}

// Close implements [driver.Prepared].
func (p *prepared) Close() error {
	if p.users.Add(-1) > 0 {
		return nil
	}
	p.compile()
	<-p.done
	errs := []error{p.cache.Close(context.Background())}
	if p.meant != nil {
		errs = append(errs, p.meant.Close(context.Background()))
	}
	return errors.Join(errs...)
}

// engine is a runtime with the module, the one thing that memory's bound belongs to.
type engine struct {
	key     engineKey
	runtime wazero.Runtime
	module  wazero.CompiledModule
	reactor bool // it has handle, and lives on; else _start
	users   int  // guarded by prepared.mu
}

// engine makes one; a module that was compiled before comes from the cache.
func (p *prepared) engine(ctx context.Context, key engineKey) (*engine, error) {
	config := wazero.NewRuntimeConfig().WithCompilationCache(p.cache)
	if key.interpreted {
		config = wazero.NewRuntimeConfigInterpreter().WithCompilationCache(p.meant)
	}
	r := wazero.NewRuntimeWithConfig(ctx, config.WithMemoryLimitPages(key.pages).WithCoreFeatures(api.CoreFeaturesV2))
	e := &engine{key: key, runtime: r}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("make the module's surroundings: %w", err), r.Close(ctx))
	}
	if err := offer(ctx, r); err != nil {
		return nil, errors.Join(fmt.Errorf("make the module's surroundings: %w", err), r.Close(ctx))
	}
	var err error
	if e.module, err = r.CompileModule(ctx, p.module); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", driver.ErrArtifact, p.name, err), r.Close(context.WithoutCancel(ctx)))
	}
	if e.reactor, err = fits(e.module, r); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s %w", driver.ErrArtifact, p.name, err), r.Close(ctx))
	}
	return e, nil
}

// fits says what a module lacks, or wants that there is not, and else whether it lives on.
func fits(m wazero.CompiledModule, r wazero.Runtime) (reactor bool, err error) {
	var missing, wrong []string
	asked := 0
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		var is api.FunctionDefinition
		if host := r.Module(module); host != nil {
			is = host.ExportedFunctionDefinitions()[name]
		}
		switch {
		case module == "servent" && name == "fuel":
			asked++
		case is == nil:
			missing = append(missing, module+"."+name)
		case !slices.Equal(is.ParamTypes(), f.ParamTypes()) || !slices.Equal(is.ResultTypes(), f.ResultTypes()):
			wrong = append(wrong, fmt.Sprintf("%s.%s as %s, which is %s", module, name, signature(f), signature(is)))
		}
	}
	for _, mem := range m.ImportedMemories() {
		module, name, _ := mem.Import()
		missing = append(missing, module+"."+name)
	}
	start, handle := m.ExportedFunctions()["_start"], m.ExportedFunctions()["handle"]
	plain := func(f api.FunctionDefinition) bool { return f != nil && len(f.ParamTypes())+len(f.ResultTypes()) == 0 }
	switch {
	case len(missing) > 0:
		return false, fmt.Errorf("imports %s, which is not offered; there is WASI snapshot preview 1 (GOOS=wasip1, wasm32-wasi) and servent's own (docs/wasm.md)", strings.Join(missing, ", "))
	case len(wrong) > 0:
		return false, fmt.Errorf("imports %s", strings.Join(wrong, ", "))
	case asked > 1:
		return false, errors.New("imports servent.fuel, which is not for modules")
	case plain(start):
		return false, nil
	case plain(handle):
		return true, nil
	case handle != nil:
		return false, fmt.Errorf("has a function handle that is %s: want () -> ()", signature(handle))
	}
	return false, errors.New("has no function _start or handle: want a command (package main), or a library that exports handle")
}

// signature is a function's type as text: (i32, i32) -> (i32).
func signature(f api.FunctionDefinition) string {
	words := func(types []api.ValueType) string {
		var out []string
		for _, t := range types {
			out = append(out, api.ValueTypeName(t))
		}
		return "(" + strings.Join(out, ", ") + ")"
	}
	return words(f.ParamTypes()) + " -> " + words(f.ResultTypes())
}
