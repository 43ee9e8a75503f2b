// Package agent is the loop on every node that makes its part of the plan true and says what is seen. It
// starts, drains and stops instances through drivers, gives each its folder and its environment, and decides
// nothing: what runs where is the plan's word. It never speaks to control or to other nodes.
// Start at [Diff], then [Agent.Run]; [Environ] is what programs are told.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"servent/control"
	"servent/driver"
	"servent/system"
)

const (
	settle       = time.Second           // until every node's table leaves a draining instance out
	look         = 25 * time.Millisecond // between looks at the open requests of a draining instance
	defaultGrace = 10 * time.Second      // Compose's stop_grace_period
)

// Options of an [Agent].
type Options struct {
	Node     system.NodeID
	Site     system.Site
	Host     string // address of this node's doors and instances
	PortBase int    // that offsets of the plan count from
	Dir      string // its own: instances/, volumes/ and logs/ are made in it

	Drivers map[system.SoftwareKind]driver.Driver
	// Bundle returns the folder of an unpacked bundle, Blob the bytes of a config or a secret; both fetch
	// what is not here. nil: this node has none.
	Bundle func(context.Context, system.Digest) (string, error)
	Blob   func(context.Context, system.Digest) (io.ReadCloser, error)
	// Inflight says how many requests this node's switches have given an instance that are not answered
	// yet. A draining instance is stopped when there are none. nil: never any.
	Inflight func(system.InstanceID) int

	BaseEnv []string     // PATH, HOME, …: all that programs get of this process's environment
	Log     *slog.Logger // nil discards
}

// Agent is used by pointer; all methods may be called at once, Run once.
type Agent struct {
	opts Options
	wake chan struct{} // one waiting wake is as good as many
	turn chan struct{} // of capacity 1: who prepares functions has it

	mu         sync.Mutex                        // guards what follows; held across no I/O and no call outward
	plan       *system.Plan                      // the newest; nil before the first
	generation int64                             // of the plan that the instances follow
	instances  map[system.InstanceID]*instance   // running, or idle
	waiting    map[system.InstanceID]time.Time   // assignments that wait, since when
	logs       map[system.InstanceID]*driver.Log // open ones
	ended      bool                              // Run has
	functions  map[system.Digest]*function       // of the plan, by spec
	prepared   []system.Prepared                 // the newest; never changed after it is handed out
	seen       []system.InstanceSeen             // the newest snapshot; never changed after it is handed out
	told       int64                             // generation at that snapshot
	changed    chan struct{}                     // closed when seen or generation change
}

// instance is one that this node has. Its fields are guarded by Agent.mu; only Run changes its phase, but
// for the end of it.
type instance struct {
	assignment system.Assignment
	service    *system.Service // as it is made; read only
	phase      Phase
	drained    bool      // it ends because the plan lets it go
	since      time.Time // it drains
	status     driver.Status
	supervisor *driver.Supervisor // nil until its folder's log is open
	cancel     context.CancelFunc
}

func (in *instance) have() Have {
	return Have{in.assignment.Spec, in.assignment.Port, in.assignment.Folder, in.phase}
}

// New makes an agent. It starts nothing.
func New(o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Inflight == nil {
		o.Inflight = func(system.InstanceID) int { return 0 }
	}
	return &Agent{
		opts:      o,
		wake:      make(chan struct{}, 1),
		turn:      make(chan struct{}, 1),
		instances: map[system.InstanceID]*instance{},
		waiting:   map[system.InstanceID]time.Time{},
		logs:      map[system.InstanceID]*driver.Log{},
		functions: map[system.Digest]*function{},
		changed:   make(chan struct{}),
	}
}

// Follow hands in the newest plan, which is never changed afterwards. It does not block. A plan that is not
// newer than the one followed, or was written by a conductor that has been replaced, is ignored; so is nil. One of a later epoch
// is newer whatever its number is.
func (a *Agent) Follow(p *system.Plan) {
	if p == nil {
		return
	}
	a.mu.Lock()
	newer := a.plan == nil || p.Generation > a.plan.Generation && p.Fence >= a.plan.Fence || epoch(p) > epoch(a.plan)
	if newer {
		a.plan = p
	}
	a.mu.Unlock()
	if newer {
		a.poke()
	}
}

func epoch(p *system.Plan) int64 { return control.Rev(p.Fence).Epoch() }

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run follows plans until ctx ends. Then it stops all instances, gracefully and at once, and returns when
// nothing is left. The error says what could not be stopped.
func (a *Agent) Run(ctx context.Context) error {
	var live sync.WaitGroup
	var wait <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			live.Wait()
			return errors.Join(a.stuck(), a.dropFunctions(), a.closeLogs())
		case <-a.wake:
		case <-wait:
		}
		a.step(ctx, &live)
		a.warm(ctx, &live)
		wait = nil
		if a.drain() {
			wait = time.After(look)
		}
	}
}

// step takes all steps towards the plan that can be taken now. The steps themselves take their time
// elsewhere.
func (a *Agent) step(ctx context.Context, live *sync.WaitGroup) {
	a.mu.Lock()
	if a.plan == nil {
		a.mu.Unlock()
		return
	}
	have := map[system.InstanceID]Have{}
	for id, in := range a.instances {
		have[id] = in.have()
	}
	actions := Diff(have, a.plan, a.opts.Node)
	now := time.Now()
	for _, act := range actions {
		switch in := a.instances[act.Instance]; act.Do {
		case Start:
			in = &instance{assignment: *act.Assignment, service: act.Service,
				status: driver.Status{State: system.StatePreparing, Since: now}}
			own, cancel := context.WithCancel(ctx)
			in.cancel = cancel
			a.instances[act.Instance] = in
			live.Go(func() { a.live(own, in) })
		case Drain:
			in.phase, in.since = Draining, now
		case Resume:
			in.phase = Running
		case Stop:
			in.phase = Stopping
			in.cancel()
		case Forget:
			delete(a.instances, act.Instance)
		}
	}
	a.hold(now)
	a.generation = a.plan.Generation
	a.publish()
	a.mu.Unlock()
	for _, act := range actions {
		if act.Do != Forget {
			a.opts.Log.Info("towards the plan", "do", act.Do, "instance", act.Instance, "why", act.Why)
		}
	}
}

// hold notes since when assignments wait. mu is held.
func (a *Agent) hold(now time.Time) {
	was := a.waiting
	a.waiting = map[system.InstanceID]time.Time{}
	for as := range a.mine() {
		if as.Goal == system.GoalWait {
			a.waiting[as.Instance] = now
			if since, ok := was[as.Instance]; ok {
				a.waiting[as.Instance] = since
			}
		}
	}
}

// drain stops the draining instances whose requests have ended, or which had their time. It says whether
// others still drain.
func (a *Agent) drain() (more bool) {
	a.mu.Lock()
	draining := map[system.InstanceID]*instance{}
	for id, in := range a.instances {
		if in.phase == Draining {
			draining[id] = in
		}
	}
	a.mu.Unlock()
	for id, in := range draining {
		open := a.opts.Inflight(id)
		a.mu.Lock()
		if in.phase == Draining && in.mayStop(time.Now(), open) {
			in.phase, in.drained = Stopping, true
			in.cancel()
		}
		more = more || in.phase == Draining
		a.mu.Unlock()
	}
	return more
}

// mayStop judges a draining instance that holds so many open requests. mu is held.
func (in *instance) mayStop(now time.Time, open int) bool {
	grace := in.service.Stop.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	age := now.Sub(in.since)
	nobody := !answers(in) // nothing runs: nothing can be open
	return nobody || age >= settle && open == 0 || age >= max(settle, grace)
}

// live keeps one instance until ctx ends and it is gone.
func (a *Agent) live(ctx context.Context, in *instance) {
	id := in.assignment.Instance
	log := a.opts.Log.With("instance", id)
	f := &folder{root: a.opts.Dir, service: in.service, name: in.assignment.Folder, blob: a.opts.Blob}
	output, err := a.openLog(id)
	if err != nil {
		log.Warn("output is not kept", "err", err)
	}
	s := driver.New(driver.Job{
		Instance: id,
		Service:  in.service,
		Prepare:  func(ctx context.Context) (driver.Prepared, error) { return a.prepare(ctx, in, f) },
		Spec: driver.Spec{
			Instance: id,
			Host:     a.opts.Host,
			Port:     a.opts.PortBase + in.assignment.Port,
			Dir:      f.dir(),
			Limits:   in.service.Limits,
			Stop:     in.service.Stop,
		},
	}, driver.Options{
		Report: func(st driver.Status) { a.report(in, st, log) },
		Output: output,
		Log:    log,
	})
	a.mu.Lock()
	in.supervisor = s
	a.mu.Unlock()
	if err = s.Run(ctx); err != nil {
		// It may still run: its folder stays locked, its record stays, and nothing is started in its place.
		log.Error("cannot be stopped", "err", err)
		return
	}
	if err := f.leave(); err != nil {
		log.Warn("private folder is not cleaned", "err", err)
	}
	a.mu.Lock()
	in.supervisor = nil
	if in.drained {
		in.phase = Idle
	} else {
		delete(a.instances, id)
	}
	a.publish()
	a.mu.Unlock()
	a.poke()
}

// prepare fetches the bundle and hands it to the driver. What it returns furnishes the private folder
// before every start.
func (a *Agent) prepare(ctx context.Context, in *instance, f *folder) (driver.Prepared, error) {
	p, dir, ok := a.function(ctx, in.assignment.Spec)
	if !ok {
		var err error
		if p, dir, err = a.fetch(ctx, &in.service.Software); err != nil {
			return nil, err
		}
	}
	return &furnisher{Prepared: p, agent: a, in: in, folder: f, bundle: dir}, nil
}

// fetch fetches software and has its driver prepare it. dir is the folder of its bundle, empty where it has none.
func (a *Agent) fetch(ctx context.Context, s *system.Software) (p driver.Prepared, dir string, err error) {
	engine := a.opts.Drivers[s.Kind]
	if engine == nil {
		return nil, "", fmt.Errorf("%w: %s has no driver for %s", driver.ErrArtifact, a.opts.Node, s.Kind)
	}
	if s.Digest != "" {
		if a.opts.Bundle == nil {
			return nil, "", fmt.Errorf("%w: %s has no store of bundles", driver.ErrArtifact, a.opts.Node)
		}
		if dir, err = a.opts.Bundle(ctx, s.Digest); err != nil {
			return nil, "", fmt.Errorf("fetch the bundle: %w", err)
		}
	}
	p, err = engine.Prepare(ctx, driver.Artifact{Software: *s, Dir: dir})
	return p, dir, err
}

// furnisher makes folder and environment before each start. The newest plan is told, so that an instance
// that starts again knows its present peers.
type furnisher struct {
	driver.Prepared
	agent   *Agent
	in      *instance
	folder  *folder
	bundle  string
	started bool
}

// Start is called by one supervisor, one call at a time.
func (p *furnisher) Start(ctx context.Context, spec driver.Spec) (driver.Instance, error) {
	made, err := p.folder.furnish(ctx, !p.started)
	if err != nil {
		return nil, err
	}
	p.started = true
	a := p.agent
	a.mu.Lock()
	plan := a.plan
	a.mu.Unlock()
	at := Place{
		Node: a.opts.Node, Site: a.opts.Site, Host: a.opts.Host, PortBase: a.opts.PortBase, Base: a.opts.BaseEnv,
		Dir: made.dir, Data: made.data, Temp: made.temp, Bundle: p.bundle, Mounts: made.env,
	}
	switch p.in.service.Software.Kind {
	case system.Image:
		at.contain(made)
		spec.Mounts = made.mounts
		spec.Ways = Ways(plan, &p.in.assignment, p.in.service, at, a.opts.Host)
	case system.Wasm:
		spec.Ways = Calls(plan, p.in.service, at)
	case system.VM:
		at.enclose()
		spec.Ways = Ways(plan, &p.in.assignment, p.in.service, at, a.opts.Host)
	}
	spec.Env = Environ(plan, &p.in.assignment, p.in.service, at)
	return p.Prepared.Start(ctx, spec)
}

// openLog returns the log of an instance, of this life or of an earlier one; it is kept until Run ends.
func (a *Agent) openLog(id system.InstanceID) (*driver.Log, error) {
	a.mu.Lock()
	l := a.logs[id]
	a.mu.Unlock()
	if l != nil {
		return l, nil
	}
	path, err := a.logFile(id)
	if err != nil {
		return nil, err
	}
	if l, err = driver.OpenLog(path, driver.LogOptions{}); err != nil {
		return nil, err
	}
	a.mu.Lock()
	have := a.logs[id]
	if have == nil && !a.ended {
		a.logs[id], have = l, l
	}
	a.mu.Unlock()
	switch {
	case have == nil:
		return nil, errors.Join(errors.New("the node is leaving"), l.Close())
	case have != l:
		return have, l.Close() // another was first
	}
	return l, nil
}

func (a *Agent) logFile(id system.InstanceID) (string, error) {
	service, n, err := id.Split()
	if err == nil {
		err = single(string(service))
	}
	if err != nil {
		return "", fmt.Errorf("open log: %w", err)
	}
	return filepath.Join(a.opts.Dir, "logs", fmt.Sprintf("%s.%d.log", service, n)), nil
}

func (a *Agent) closeLogs() error {
	a.mu.Lock()
	logs := a.logs
	a.logs, a.ended = map[system.InstanceID]*driver.Log{}, true
	a.mu.Unlock()
	var errs []error
	for _, l := range logs {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// stuck says what is left when all that can be stopped has been.
func (a *Agent) stuck() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for id, in := range a.instances {
		if in.phase != Idle {
			errs = append(errs, fmt.Errorf("%s: %s", id, in.status.Why))
		}
	}
	return errors.Join(errs...)
}
