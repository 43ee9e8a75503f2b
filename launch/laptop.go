package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/control"
	"servent/request/certificate"
	"servent/request/proxy"
	"servent/system"
)

// Options of [Run].
type Options struct {
	Folder  Folder
	Command []string        // program and arguments that become a node
	Blobs   string          // folder of bytes by digest; empty: the folder's own
	Control string          // an etcd of the user's, etcd://host:port; empty: as the last time, at first one of our own
	Listen  string          // HOST or HOST:PORT: be the first machine of a fleet; empty: as the last time, at first a laptop
	As      string          // this machine's name in its fleet; empty: as the last time, at first its own
	Console http.Handler    // pages of the admin door; nil: none
	Kill    <-chan struct{} // closed after ctx ended: end everything at once, open requests or not; nil: never
	Version string          // of this program
	Log     *slog.Logger    // nil discards
}

// laptop is one machine made into several nodes. It implements [admin.Machines].
type laptop struct {
	opt    Options
	us     *operator
	nodes  *nodes
	faults *faults
	ways   *publisher
	fleet  *gate // nil: none
	issuer *certificate.Issuer
	news   news

	began    time.Time
	stop     context.CancelFunc // asks Run to end
	stopping <-chan struct{}    // closed when Run ends
	turn     chan struct{}      // room for one Apply; at last for the end

	mu      sync.Mutex // guards what follows
	sys     *system.System
	bare    *control.View  // as control has it
	view    *control.View  // with what faults did
	told    []system.Event // what faults did
	trouble error          // why control does not answer
	volumes bool           // data goes, too
}

const (
	nodesWithin  = 10 * time.Second        // that a node may take to say that it is there
	nodeWithin   = 100 * time.Millisecond  // more for each other one that starts at once
	emptyWithin  = 15 * time.Second        // that instances may take to end before their nodes are ended
	wantWithin   = 30 * time.Second        // that control may take to hear what is wanted
	againWithin  = stopGrace + nodesWithin // that a node may take to end and to come again
	unwantWithin = 2 * time.Second         // that control may take to hear that nothing is wanted
	renewEvery   = time.Minute             // looks at the clock: a laptop that slept wakes with old certificates
	controlDisk  = 32 << 20                // bytes that control takes from the first moment on
	staleFor     = 10 * time.Second        // that control may show nodes of an earlier life: their leases, and some
)

var (
	// ErrRunning: another process runs this folder's system.
	ErrRunning  = errors.New("this system runs already")
	errStopping = errors.New("the system is stopping")
	errSilent   = fmt.Errorf("control did not answer within %s", wantWithin)
)

// Run keeps the admin door, the published ports and the nodes until ctx ends or Stop is asked for; then
// it ends all it started, in good order, and returns nil.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.Folder.Make(); err != nil {
		return err
	}
	unlock, err := o.Folder.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := newLaptop(o)
	if err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(ctx)
	defer l.stop()
	l.stopping = ctx.Done()
	d, err := l.door()
	if err != nil {
		return err
	}
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx)) // ends in the order of end
	defer stopBelow()
	var parts, nodes sync.WaitGroup
	parts.Go(func() { d.serve(below) })
	parts.Go(func() { l.follow(below) })
	parts.Go(func() { l.issuer.Run(below) })
	parts.Go(func() { l.faults.Run(below) })
	if l.fleet != nil {
		parts.Go(func() { l.fleet.serve(below) })
		if !l.fleet.foreign {
			parts.Go(func() { l.backUps(below) })
		}
	}
	running, stopNodes := context.WithCancel(below)
	defer stopNodes()
	nodes.Go(func() { l.nodes.Run(running, o.Kill) })
	every(ctx, renewEvery, func(now time.Time) {
		if !l.us.renew(now) {
			return
		}
		l.nodes.renew()
		if err := l.us.control.Pardon(ctx, now.UTC()); err != nil {
			l.opt.Log.Warn("forget who was put out long ago", "err", err)
		}
	})

	l.end(func() {
		stopNodes()
		nodes.Wait()
	})
	stopBelow()
	parts.Wait()
	l.us.http2.CloseIdleConnections()
	return nil
}

// newLaptop reads what the folder keeps and joins the parts; nothing runs yet.
func newLaptop(o Options) (*laptop, error) {
	kind := "laptop"
	if o.Listen != "" {
		kind = "fleet"
	}
	kept, ca, err := o.Folder.open(kind)
	if err == nil {
		err = kept.found(o.Listen, o.As)
	}
	if err != nil {
		return nil, err
	}
	if o.Control != "" && o.Control != kept.Control {
		if len(kept.Index) > 0 {
			return nil, &system.Hint{Err: errors.New("this system has its plan, and which node holds which data, in another control; it cannot move to " + o.Control),
				Next: "servent down --volumes   (removes the data, too)"}
		}
		kept.Control = o.Control
	}
	l := &laptop{opt: o, bare: &control.View{}, view: &control.View{}, began: time.Now(), turn: make(chan struct{}, 1)}
	l.news.init()
	l.nodes = &nodes{folder: o.Folder, command: o.Command, blobs: cmp.Or(o.Blobs, o.Folder.Blobs()), kept: kept, children: map[system.NodeID]*child{},
		claims: claims{}, wake: make(chan struct{}, 1), changed: l.news.tell, others: l.seen, joined: l.joined, log: o.Log}
	if l.us, err = newOperator(operatorName, kept.Cluster, ca, l.nodes.Servers, l.nodes.Resolve, o.Log); err != nil {
		return nil, err
	}
	l.nodes.issue = l.us.issue
	if l.nodes.sessions, err = l.us.ca.Secret("sessions"); err != nil {
		return nil, err
	}
	l.faults = newFaults(l.nodes, l.happened)
	l.nodes.came = l.faults.Spread
	passed, err := proxy.NewKey(l.nodes.sessions)
	if err != nil {
		return nil, err
	}
	l.ways = &publisher{view: l.look, changed: l.news.wait, reach: l.nodes.runs, inlet: l.nodes.inlet, key: passed, log: o.Log, web: kept.Web,
		names: &names{view: l.look, changed: l.news.wait, log: o.Log}}
	if l.issuer, err = l.newIssuer(); err != nil {
		return nil, err
	}
	if l.fleet, err = l.gate(kept); l.fleet != nil {
		l.nodes.refused = l.fleet.audit.write
	}
	return l, err
}

// Apply implements [admin.Machines]. When it returns, the view shows what is wanted.
func (l *laptop) Apply(ctx context.Context, sys *system.System) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with this call
		select {
		case <-l.stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := l.ways.Set(sys); err != nil {
		return err
	}
	if err := l.nodes.Set(sys, l.ways.Web()); err != nil {
		l.undo()
		return err
	}
	l.faults.End("ends with servent up", dead)
	l.mu.Lock()
	l.sys = sys
	l.mu.Unlock()
	l.news.tell()
	if err := l.awaitNodes(ctx, sys); err != nil {
		return err
	}
	if err := l.want(ctx, sys); err != nil {
		return err
	}
	if err := l.opt.Folder.remember(sys, time.Now()); err != nil { // it runs all the same
		l.opt.Log.Error("write down what is wanted", "err", err)
	}
	return nil
}

// dead says that a fault keeps its node dead, and no other.
func dead(f admin.Fault) bool { return f.Kind == admin.FaultKill && !f.Begins.After(time.Now()) }

// undo makes the ways in those of what runs again.
func (l *laptop) undo() {
	l.mu.Lock()
	sys := l.sys
	l.mu.Unlock()
	if sys == nil {
		return
	}
	if err := l.ways.Set(sys); err != nil {
		l.opt.Log.Error("open the published ports again", "err", err)
	}
}

// want stores what is wanted and waits until the view shows it.
func (l *laptop) want(ctx context.Context, sys *system.System) error {
	ctx, cancel := context.WithTimeoutCause(ctx, wantWithin, errSilent)
	defer cancel()
	rev, err := l.us.control.Want(ctx, sys)
	for errors.Is(err, control.ErrUnavailable) && ctx.Err() == nil { // its node starts, or starts again
		select {
		case <-time.After(50 * time.Millisecond):
			rev, err = l.us.control.Want(ctx, sys)
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return err
	}
	for {
		changed := l.news.wait()
		if v, _ := l.look(); v.Rev >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitNodes returns when every node of the system is seen: what is placed before that is placed on too
// few. A node that does not come in time is done without.
func (l *laptop) awaitNodes(ctx context.Context, sys *system.System) error {
	within := nodesWithin + time.Duration(len(l.nodes.list(sys)))*nodeWithin
	late := time.After(within)
	for {
		changed := l.news.wait()
		v, _ := l.look()
		missing := slices.DeleteFunc(l.nodes.list(sys), func(e own) bool { return v.Node(e.id) != nil })
		if len(missing) == 0 {
			return nil
		}
		if v.Rev == 0 { // control has never answered
			if err := l.unborn(l.nodes.Servers()[0]); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-late:
			if len(missing) < len(l.nodes.list(sys)) {
				l.opt.Log.Warn("placed without nodes that do not answer", "node", missing[0].id)
				return nil
			}
			return l.silent(missing[0].id, within)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unborn is why a node does not start; nil while it may still come.
func (l *laptop) unborn(id system.NodeID) error {
	why := l.nodes.Failed(id)
	if why == nil {
		return nil
	}
	f := l.opt.Folder
	h := &system.Hint{Err: fmt.Errorf("%s does not start: %w", id, why), Next: "cat " + f.Log(string(id))}
	if free, err := blob.Free(string(f)); err == nil && free < controlDisk {
		h.Err = fmt.Errorf("%w (%d MiB free on this disk; control alone needs %d)", h.Err, free>>20, controlDisk>>20)
		h.Next = "df -h " + string(f)
	}
	return h
}

// silent is the error of nodes none of which said that it is there.
func (l *laptop) silent(first system.NodeID, within time.Duration) error {
	if err := l.unborn(first); err != nil {
		return err
	}
	return &system.Hint{Err: fmt.Errorf("no node answered within %s", within), Next: "cat " + l.opt.Folder.Log(string(first))}
}

// Nodes implements [admin.Machines].
func (l *laptop) Nodes() []admin.NodeState { return l.nodes.State() }

// Published implements [admin.Machines].
func (l *laptop) Published() []admin.Published {
	l.mu.Lock()
	sys := l.sys
	l.mu.Unlock()
	return l.ways.Published(sys)
}

// RestartNode implements [admin.Machines]. It returns when the node's next life is seen.
func (l *laptop) RestartNode(ctx context.Context, id system.NodeID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, againWithin, fmt.Errorf("%s has not come back within %s", id, againWithin))
	defer cancel()
	life := func() time.Time {
		v, _ := l.look()
		if seen := v.Node(id); seen != nil {
			return seen.Started
		}
		return time.Time{}
	}
	was := life()
	ended := l.faults.End("ends with a restart", func(f admin.Fault) bool {
		return f.Node == id && (f.Kind == admin.FaultKill || f.Kind == admin.FaultPause) && !f.Begins.After(time.Now())
	})
	if !slices.ContainsFunc(ended, dead) { // else it comes back already
		if err := l.nodes.Restart(id); err != nil {
			return err
		}
	}
	for {
		changed := l.news.wait()
		if now := life(); !now.IsZero() && !now.Equal(was) {
			return nil
		}
		select {
		case <-changed:
		case <-l.stopping:
			return errStopping
		case <-ctx.Done():
			return &system.Hint{Err: context.Cause(ctx), Next: "cat " + l.opt.Folder.Log(string(id))}
		}
	}
}

// Stop implements [admin.Machines].
func (l *laptop) Stop(volumes bool) {
	l.mu.Lock()
	l.volumes = l.volumes || volumes
	l.mu.Unlock()
	l.stop()
}

// look is the last view, and why control does not answer now. Control that was killed keeps the reports
// of this machine's nodes' earlier lives until their leases end: those are left out.
func (l *laptop) look() (*control.View, error) {
	l.mu.Lock()
	v, trouble := l.view, l.trouble
	l.mu.Unlock()
	old := func(s system.Seen) bool { return s.Started.Before(l.began) && l.nodes.runs(s.Node) }
	if time.Since(l.began) < staleFor && slices.ContainsFunc(v.Seen, old) {
		fresh := *v
		fresh.Seen = slices.DeleteFunc(slices.Clone(v.Seen), old)
		v = &fresh
	}
	return v, trouble
}

// follow keeps the view until ctx ends.
func (l *laptop) follow(ctx context.Context) {
	_ = l.us.control.Follow(ctx, func(err error) { // nothing fails below, so it ends with ctx alone
		l.mu.Lock()
		l.trouble = err
		l.mu.Unlock()
		l.news.tell()
	}, func(v *control.View) error {
		l.mu.Lock()
		l.bare, l.view, l.trouble = v, among(v, l.told), nil
		l.mu.Unlock()
		l.news.tell()
		return nil
	})
}

// end takes everything down: first what is wanted, so that instances end as in any change of the plan,
// with their open requests answered, then the ways in, then the nodes, all at once. A Kill ends all waits.
func (l *laptop) end(stopNodes func()) {
	l.turn <- struct{}{} // an Apply under way sees that it is over; no other begins
	l.faults.End("ends with the system", func(admin.Fault) bool { return true })
	patient, hurry := context.WithCancel(context.Background())
	defer hurry()
	go func() { // ends with this call
		select {
		case <-l.opt.Kill:
			hurry()
		case <-patient.Done():
		}
	}()
	l.mu.Lock()
	volumes := l.volumes
	l.mu.Unlock()
	l.unwant(patient, volumes)
	l.ways.Close()
	stopNodes()
	l.nodes.claims.keep(nil)
	if volumes {
		if err := l.opt.Folder.removeData(); err != nil {
			l.opt.Log.Error("remove data", "err", err)
		}
	}
}

// unwant empties the plan, as far as control answers; with volumes it also forgets who holds data.
func (l *laptop) unwant(ctx context.Context, volumes bool) {
	if len(l.nodes.Servers()) == 0 {
		return // nothing ever ran
	}
	soon, cancel := context.WithTimeout(ctx, unwantWithin)
	defer cancel()
	if err := l.us.control.Unwant(soon); err != nil {
		l.opt.Log.Warn("say that nothing is wanted", "err", err)
		return
	}
	l.awaitEmpty(ctx)
	if !volumes {
		return
	}
	v, _ := l.look()
	for _, h := range v.Holders {
		if err := l.us.control.Forget(ctx, h.Instance); err != nil {
			l.opt.Log.Warn("forget who holds data", "instance", h.Instance, "err", err)
		}
	}
}

// awaitEmpty returns when nothing is planned any more, or control is away, or it takes too long: then
// the nodes end what is left.
func (l *laptop) awaitEmpty(ctx context.Context) {
	late := time.After(emptyWithin)
	for {
		changed := l.news.wait()
		if v, err := l.look(); err != nil || v.Plan == nil || v.Wanted == nil && len(v.Plan.Services) == 0 {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}
