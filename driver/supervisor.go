package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"servent/system"
)

const (
	firstBackoff = 100 * time.Millisecond // when Restart.Delay says nothing
	maxBackoff   = 30 * time.Second
	healthyReset = 10 * time.Second // ready for so long: earlier ends are forgotten
	defaultGrace = 10 * time.Second
	killAllow    = 10 * time.Second // that a driver may need after the grace
	quiet        = time.Second      // between reports that change words alone
)

// Job is one instance to be kept running.
type Job struct {
	Instance system.InstanceID
	Service  *system.Service // as the instance is made from; read only
	// Prepare fetches the bundle and hands it to a driver. It is tried again with back-off unless its
	// error is [ErrArtifact].
	Prepare func(ctx context.Context) (Prepared, error)
	Spec    Spec // Stdout and Stderr are replaced when Options.Output is set
}

// Status is what a supervisor says of its instance.
type Status struct {
	State    system.State
	Since    time.Time     // of the state
	Started  time.Time     // of the running instance, or of the last one
	Took     time.Duration // until that one was ready; 0: it is not yet
	Endpoint Endpoint      // zero while nothing runs
	Pid      int           // 0 when nothing runs or it has no process of its own
	Restarts int           // starts after the first
	Exit     string        // of the last end: "exit 1", "signal killed"; empty before
	Why      string        // of a state that is not ready, in words
}

// Options of a [Supervisor]. The zero value works.
type Options struct {
	// Report is called with every new status, one call at a time, from Run. It must not block for long.
	Report func(Status)
	Output *Log         // takes the instance's output; nil leaves Spec.Stdout and Spec.Stderr alone
	Log    *slog.Logger // nil discards
}

// Supervisor keeps one instance running: prepares, starts, probes, restarts, stops.
type Supervisor struct {
	job  Job
	opts Options

	mu     sync.Mutex // guards what follows
	status Status
	inst   Instance // nil while nothing runs

	// Run's own.
	ends       int       // in a row, without a healthy time between
	readySince time.Time // zero when not ready
	reported   time.Time // zero before the first report
}

// New makes a supervisor. It starts nothing.
func New(job Job, opts Options) *Supervisor {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Log = opts.Log.With("instance", job.Instance)
	return &Supervisor{job: job, opts: opts, status: Status{State: system.StatePreparing}}
}

// Status is the newest.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Stats asks the running instance.
func (s *Supervisor) Stats(ctx context.Context) (Stats, error) {
	s.mu.Lock()
	inst, started, took := s.inst, s.status.Started, s.status.Took
	s.mu.Unlock()
	if inst == nil {
		return Stats{}, fmt.Errorf("stats of %s: it does not run", s.job.Instance)
	}
	st, err := inst.Stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("stats of %s: %w", s.job.Instance, err)
	}
	st.Started, st.Took = started, took
	return st, nil
}

// Run keeps the instance running until ctx ends; then it stops it gracefully and returns when nothing
// is left. An instance that will not start again (failed, done) holds its state until ctx ends. The
// error says what could not be stopped.
func (s *Supervisor) Run(ctx context.Context) error {
	s.enter(system.StatePreparing, "")
	prepared := s.prepare(ctx)
	if prepared == nil {
		<-ctx.Done()
		s.enter(system.StateStopped, "")
		return nil
	}
	err := s.keep(ctx, prepared)
	if closed := prepared.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("close what %s was made from: %w", s.job.Instance, closed))
	}
	return err
}

// prepare returns nil when ctx ended or the artifact is bad.
func (s *Supervisor) prepare(ctx context.Context) Prepared {
	for tries := 1; ; tries++ {
		p, err := s.job.Prepare(ctx)
		if err == nil {
			return p
		}
		if !s.again(ctx, err, tries) {
			return nil
		}
		s.enter(system.StatePreparing, "")
	}
}

// again says a failed try and waits for the next. It returns false when there will be none.
func (s *Supervisor) again(ctx context.Context, err error, tries int) bool {
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, ErrArtifact):
		s.enter(system.StateFailed, err.Error())
		return false
	}
	wait := s.backoff(tries)
	s.enter(system.StateBackoff, fmt.Sprintf("%v; next try in %v", err, wait))
	return sleep(ctx, wait)
}

// keep starts the instance, again and again.
func (s *Supervisor) keep(ctx context.Context, p Prepared) error {
	refused := 0 // starts in a row that the driver refused
	for ctx.Err() == nil {
		inst, flush, err := s.start(ctx, p)
		if err != nil {
			refused++
			if s.again(ctx, err, refused) {
				continue
			}
			break
		}
		refused = 0
		exit, ended := s.attend(ctx, inst)
		if !ended {
			return s.stop(ctx, inst, flush)
		}
		s.gone(exit, flush)
		if !s.ended(ctx, exit) {
			break
		}
	}
	<-ctx.Done()
	s.enter(system.StateStopped, "")
	return nil
}

// start makes an instance; flush passes on the last, unfinished lines of its output.
func (s *Supervisor) start(ctx context.Context, p Prepared) (inst Instance, flush func(), err error) {
	spec := s.job.Spec
	flush = func() {}
	if out := s.opts.Output; out != nil {
		stdout, stderr := out.Stream(Stdout), out.Stream(Stderr)
		spec.Stdout, spec.Stderr = stdout, stderr
		flush = func() { stdout.Close(); stderr.Close() }
	}
	begun := time.Now() // its first words may come before Start returns
	inst, err = p.Start(ctx, spec)
	if err != nil {
		flush()
		return nil, nil, err
	}
	pid := 0
	if p, ok := inst.(interface{ Pid() int }); ok {
		pid = p.Pid()
	}
	s.mu.Lock()
	s.inst = inst
	s.mu.Unlock()
	s.update(func(st *Status) {
		if !st.Started.IsZero() {
			st.Restarts++
		}
		st.Started, st.Took, st.Endpoint, st.Pid = begun, 0, inst.Endpoint(), pid
	})
	s.enter(system.StateStarting, "")
	s.say("started, " + inst.ID())
	return inst, flush, nil
}

// attend probes the instance until it ends by itself or ctx does.
func (s *Supervisor) attend(ctx context.Context, inst Instance) (exit Exit, ended bool) {
	ctx, cancel := context.WithCancel(ctx)
	health := declared(s.job.Service.Health, inst)
	check, every := newCheck(&health, inst), newPace(&health)
	results := make(chan error)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	if check == nil {
		s.ready()
	} else {
		probing.Go(func() { probe(ctx, check, every, results) })
	}
	failures := 0
	for {
		select {
		case exit = <-inst.Wait():
			return exit, true
		case <-ctx.Done():
			return Exit{}, false
		case err := <-results:
			if err == nil {
				failures = 0
				s.ready()
				continue
			}
			failures++
			s.opts.Log.Debug("check failed", "err", err)
			s.sick(err, failures, every)
		}
	}
}

// ready takes the instance into traffic.
func (s *Supervisor) ready() {
	if s.readySince.IsZero() {
		s.readySince = time.Now()
		s.update(func(st *Status) {
			if st.Took == 0 {
				st.Took = s.readySince.Sub(st.Started)
			}
		})
		s.enter(system.StateReady, "")
	}
}

// sick judges a failed check, the n-th in a row.
func (s *Supervisor) sick(err error, n int, every pace) {
	now := time.Now()
	st := s.Status()
	age := now.Sub(st.Started)
	switch {
	case st.State == system.StateStarting && age >= every.patience:
		s.enter(st.State, fmt.Sprintf("not healthy after %v: %v; it must answer where PORT says, or its check must be another",
			every.patience, err))
	case st.State == system.StateStarting && age >= quiet:
		s.enter(st.State, fmt.Sprintf("not yet healthy: %v", err))
	case st.State != system.StateStarting && n >= every.retries:
		s.leaveReady(now)
		s.enter(system.StateUnhealthy, fmt.Sprintf("%d checks failed: %v", every.retries, err))
	}
}

// leaveReady forgets earlier ends when the instance was well for long.
func (s *Supervisor) leaveReady(now time.Time) {
	if !s.readySince.IsZero() && now.Sub(s.readySince) >= healthyReset {
		s.ends = 0
	}
	s.readySince = time.Time{}
}

// gone notes the end of the instance.
func (s *Supervisor) gone(exit Exit, flush func()) {
	flush()
	s.mu.Lock()
	s.inst = nil
	s.mu.Unlock()
	s.leaveReady(time.Now())
	s.update(func(st *Status) { st.Exit, st.Endpoint, st.Pid = exit.String(), Endpoint{}, 0 })
	s.say("ended, " + exit.String())
}

// ended decides after an end by itself: it waits and returns true for another start.
func (s *Supervisor) ended(ctx context.Context, exit Exit) bool {
	s.ends++
	st := s.Status()
	restart := s.job.Service.Restart
	why := fmt.Sprintf("%v after %v", exit, short(time.Since(st.Started)))
	if s.ends > 1 {
		why += fmt.Sprintf(", %d times", s.ends)
	}
	last := s.lastWords(st.Started)
	switch {
	case ctx.Err() != nil:
		return false
	case exit.OK() && (restart.Condition == "none" || restart.Condition == "on-failure"):
		s.enter(system.StateDone, "")
		return false
	case restart.Condition == "none":
		s.enter(system.StateFailed, why+"; restart is none"+last)
		return false
	case restart.Max > 0 && s.ends > restart.Max:
		s.enter(system.StateFailed, fmt.Sprintf("%s; %d restarts are allowed%s", why, restart.Max, last))
		return false
	}
	wait := s.backoff(s.ends)
	s.opts.Log.Debug("instance ended", "exit", exit.String())
	s.enter(system.StateBackoff, fmt.Sprintf("%s; next try in %v%s", why, wait, last))
	return sleep(ctx, wait)
}

// stop ends the instance at the user's wish.
func (s *Supervisor) stop(ctx context.Context, inst Instance, flush func()) error {
	s.enter(system.StateDraining, "stopping")
	grace := s.job.Service.Stop.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+killAllow)
	defer cancel()
	err := inst.Stop(bound, grace)
	if err != nil {
		flush()
		s.enter(system.StateUnhealthy, "cannot be stopped: "+err.Error())
		return fmt.Errorf("stop %s: %w", s.job.Instance, err)
	}
	select {
	case exit := <-inst.Wait():
		s.gone(exit, flush)
	case <-bound.Done():
		flush()
		return fmt.Errorf("stop %s: the driver never said how it ended", s.job.Instance)
	}
	s.enter(system.StateStopped, "")
	return nil
}

// backoff before the next try after n failed ones.
func (s *Supervisor) backoff(n int) time.Duration {
	wait := s.job.Service.Restart.Delay
	if wait <= 0 {
		wait = firstBackoff
	}
	limit := max(wait, maxBackoff)
	for ; n > 1 && wait < limit; n-- {
		wait *= 2
	}
	return min(wait, limit)
}

// lastWords of the instance that started then, as an ending of a sentence.
func (s *Supervisor) lastWords(started time.Time) string {
	if s.opts.Output == nil {
		return ""
	}
	if text := s.opts.Output.lastWords(started); text != "" {
		return ": " + text
	}
	return ""
}

// say writes a line of our own into the instance's log.
func (s *Supervisor) say(text string) {
	if s.opts.Output != nil {
		s.opts.Output.Add(Own, text)
	}
}

// enter reports a state. The same state with other words is reported once in a while, for a check
// that fails with a counter in its message would be news every time.
func (s *Supervisor) enter(state system.State, why string) {
	now, st := time.Now(), s.Status()
	if st.State == state && !s.reported.IsZero() && (st.Why == why || now.Sub(s.reported) < quiet) {
		return
	}
	s.reported = now
	s.update(func(st *Status) {
		if st.State != state || st.Since.IsZero() {
			st.Since = now
		}
		st.State, st.Why = state, why
	})
	if s.opts.Report != nil {
		s.opts.Report(s.Status())
	}
}

func (s *Supervisor) update(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// sleep says whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// short rounds a duration for reading: 0.1s, 4.2s, 3m10s.
func short(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
