package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"servent/architecture"
	"servent/driver"
	"servent/system"
)

// function is a service that is prepared before anybody calls it and as long as the plan has it: what a driver
// keeps of that, such as a compiled module, the first call does not wait for. Fields below done are set when it is
// closed; users and dropped are guarded by Agent.mu.
type function struct {
	service *system.Service
	spec    system.Digest
	done    chan struct{}

	prepared driver.Prepared // nil: it could not be
	bundle   string
	err      error
	tries    int // that failed before this one

	users   int  // instances that are made from it
	dropped bool // the plan has it no more: it is closed with its last user
}

// warm prepares the functions of the plan, each version once, and drops those that it no longer has.
func (a *Agent) warm(ctx context.Context, live *sync.WaitGroup) {
	a.mu.Lock()
	if a.plan == nil {
		a.mu.Unlock()
		return
	}
	var fresh, old []*function
	named := map[system.Digest]bool{}
	for i := range a.plan.Services {
		d := &a.plan.Services[i]
		if !architecture.Wakes(&d.Service) || a.opts.Drivers[d.Service.Software.Kind] == nil {
			continue
		}
		named[d.Spec] = true
		if a.functions[d.Spec] == nil {
			f := &function{service: &d.Service, spec: d.Spec, done: make(chan struct{})}
			a.functions[d.Spec], fresh = f, append(fresh, f)
		}
	}
	for spec, f := range a.functions {
		if !named[spec] {
			delete(a.functions, spec)
			if f.dropped = true; f.users == 0 {
				old = append(old, f)
			}
		}
	}
	a.mu.Unlock()
	for _, f := range fresh {
		live.Go(func() { a.ready(ctx, f) })
	}
	for _, f := range old {
		live.Go(func() { a.unready(f) })
	}
}

// ready prepares one function; one after the other, for it is work that nobody waits for yet.
func (a *Agent) ready(ctx context.Context, f *function) {
	select {
	case a.turn <- struct{}{}:
		f.prepared, f.bundle, f.err = a.fetch(ctx, &f.service.Software)
		<-a.turn
	case <-ctx.Done():
		f.err = ctx.Err()
	}
	close(f.done)
	if f.err != nil && ctx.Err() == nil {
		a.opts.Log.Warn("function is not prepared", "service", f.service.Name, "err", f.err)
	}
	a.mu.Lock()
	a.publish()
	a.mu.Unlock()
	if f.err != nil && ctx.Err() == nil && !errors.Is(f.err, driver.ErrArtifact) {
		a.again(ctx, f)
	}
}

const (
	prepareAgain = 2 * time.Second // after a first failure; then twice as long, …
	prepareMost  = time.Minute
)

// again prepares a function anew after a while, if the plan still has it: what failed may have been the network, or a disk that was full. Bytes that are bad stay so.
func (a *Agent) again(ctx context.Context, f *function) {
	select {
	case <-time.After(min(prepareAgain<<min(f.tries, 8), prepareMost)):
	case <-ctx.Done():
		return
	}
	next := &function{service: f.service, spec: f.spec, done: make(chan struct{}), tries: f.tries + 1}
	a.mu.Lock()
	wanted := a.functions[f.spec] == f
	if wanted {
		a.functions[f.spec] = next
	}
	a.mu.Unlock()
	if wanted {
		a.ready(ctx, next)
	}
}

// unready closes what nobody uses any more.
func (a *Agent) unready(f *function) {
	<-f.done
	if f.prepared == nil {
		return
	}
	if err := f.prepared.Close(); err != nil {
		a.opts.Log.Warn("close a function", "service", f.service.Name, "err", err)
	}
}

// function returns what the plan's function of that spec is made from, when it is prepared, and false when there is
// none or it could not be. The caller closes it.
func (a *Agent) function(ctx context.Context, spec system.Digest) (driver.Prepared, string, bool) {
	a.mu.Lock()
	f := a.functions[spec]
	if f != nil {
		f.users++
	}
	a.mu.Unlock()
	if f == nil {
		return nil, "", false
	}
	s := &shared{agent: a, function: f}
	select {
	case <-f.done:
		if s.Prepared = f.prepared; s.Prepared != nil {
			return s, f.bundle, true
		}
	case <-ctx.Done():
	}
	_ = s.Close() // nothing is closed but our share
	return nil, "", false
}

// shared is a function's software for one instance.
type shared struct {
	driver.Prepared
	agent    *Agent
	function *function
}

// Close lets go; the last one closes what the plan has dropped.
func (s *shared) Close() error {
	s.agent.mu.Lock()
	s.function.users--
	last := s.function.dropped && s.function.users == 0
	s.agent.mu.Unlock()
	if last {
		s.agent.unready(s.function)
	}
	return nil
}

// dropFunctions closes all of them, when nothing runs any more.
func (a *Agent) dropFunctions() error {
	a.mu.Lock()
	all := a.functions
	a.functions = map[system.Digest]*function{}
	a.mu.Unlock()
	var errs []error
	for _, f := range all {
		if f.prepared != nil {
			errs = append(errs, f.prepared.Close())
		}
	}
	return errors.Join(errs...)
}

// Prepared says which functions are prepared here, or cannot be, sorted by service. It is shared: read only.
func (a *Agent) Prepared() []system.Prepared {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.prepared
}

// preparedNow is what [Agent.Prepared] is to say. mu is held.
func (a *Agent) preparedNow() []system.Prepared {
	var out []system.Prepared
	for _, f := range a.functions {
		select {
		case <-f.done:
			p := system.Prepared{Service: f.service.Name, Spec: f.spec}
			if f.err != nil {
				p.Why = f.err.Error()
			}
			out = append(out, p)
		default:
		}
	}
	slices.SortFunc(out, func(a, b system.Prepared) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Spec, b.Spec))
	})
	return out
}
