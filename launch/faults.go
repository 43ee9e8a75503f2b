package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/control"
	"servent/link"
	"servent/node"
	"servent/system"
)

const (
	mostFaults  = 1000            // at a time
	heardWithin = 2 * time.Second // that a node may take to say that it has its faults
)

// faults are the troubles that were asked for. Each begins and ends by itself while Run runs; what they
// come to, all together, is handed to the nodes at every change, whole.
type faults struct {
	nodes *nodes
	tell  func(system.Event) // of every beginning and end
	wake  chan struct{}      // room for one: the list changed

	mu   sync.Mutex // guards what follows
	list []fault    // the oldest first
	last int        // ID
	turn int64      // of what the nodes were handed
}

type fault struct {
	admin.Fault
	begun bool
}

// trouble is what all faults come to for one node.
type trouble struct {
	turn   int64
	ways   int64 // the turn by which to last changed
	down   bool  // it is dead, and does not come back
	paused bool
	to     link.Faults
	why    string // in words; empty: nothing that keeps it from being seen
}

func newFaults(ns *nodes, tell func(system.Event)) *faults {
	return &faults{nodes: ns, tell: tell, wake: make(chan struct{}, 1)}
}

// Run begins and ends faults when it is time, until ctx ends.
func (fs *faults) Run(ctx context.Context) {
	for {
		due, waits := fs.next()
		var come <-chan time.Time
		if waits {
			come = time.After(time.Until(due))
		}
		select {
		case <-come:
			fs.step(time.Now())
		case <-fs.wake:
		case <-ctx.Done():
			return
		}
	}
}

// next is when the next fault begins or ends; false when none will.
func (fs *faults) next() (due time.Time, waits bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.list {
		at := f.Ends
		if !f.begun {
			at = f.Begins
		}
		if !at.IsZero() && (!waits || at.Before(due)) {
			due, waits = at, true
		}
	}
	return due, waits
}

// Add takes a fault in. One that begins now has begun when Add returns.
func (fs *faults) Add(t admin.Trouble) (admin.Fault, error) {
	now := time.Now()
	fs.mu.Lock()
	if len(fs.list) >= mostFaults {
		fs.mu.Unlock()
		return admin.Fault{}, &system.Hint{Err: fmt.Errorf("fault: %d are there or to come already", mostFaults), Next: "servent fault heal"}
	}
	fs.last++
	f := fault{Fault: admin.Fault{ID: fs.last, Trouble: t, Begins: now.Add(t.After)}}
	if t.For > 0 {
		f.Ends = f.Begins.Add(t.For)
	}
	fs.list = append(fs.list, f)
	fs.mu.Unlock()
	fs.step(now)
	offer(fs.wake)
	return f.Fault, nil
}

// step begins and ends what is due.
func (fs *faults) step(now time.Time) {
	fs.mu.Lock()
	var told []system.Event
	fs.list = slices.DeleteFunc(fs.list, func(f fault) bool {
		over := f.begun && !f.Ends.IsZero() && !now.Before(f.Ends)
		if over {
			told = append(told, f.event(f.Ends, "is over"))
		}
		return over
	})
	for i := range fs.list {
		if f := &fs.list[i]; !f.begun && !now.Before(f.Begins) {
			f.begun = true
			told = append(told, f.event(f.Begins, f.lasts()))
		}
	}
	fs.mu.Unlock()
	fs.changed(told)
}

// changed tells what happened and hands all nodes what follows from it.
func (fs *faults) changed(told []system.Event) {
	if len(told) == 0 {
		return
	}
	for _, e := range told {
		fs.tell(e)
	}
	fs.Spread()
}

// List are the faults that are or will be, the oldest first.
func (fs *faults) List() []admin.Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var out []admin.Fault
	for _, f := range fs.list {
		out = append(out, f.Fault)
	}
	return out
}

// End ends faults, or takes back what was to come, and returns them. how ends the sentence of what happened.
func (fs *faults) End(how string, which func(admin.Fault) bool) (ended []admin.Fault) {
	now := time.Now()
	var told []system.Event
	fs.mu.Lock()
	fs.list = slices.DeleteFunc(fs.list, func(f fault) bool {
		if !which(f.Fault) {
			return false
		}
		ended = append(ended, f.Fault)
		told = append(told, f.event(now, how))
		return true
	})
	fs.mu.Unlock()
	fs.changed(told)
	offer(fs.wake)
	return ended
}

// Spread hands every node what all faults come to for it.
func (fs *faults) Spread() {
	children := fs.nodes.all()
	fs.mu.Lock()
	fs.turn++
	out := troubles(fs.list, slices.Sorted(maps.Keys(children)), fs.turn)
	fs.mu.Unlock()
	for id, c := range children {
		c.suffer(out[id])
	}
}

// troubles is what faults come to for each of the nodes.
func troubles(list []fault, nodes []system.NodeID, turn int64) map[system.NodeID]trouble {
	out := map[system.NodeID]trouble{}
	for _, id := range nodes {
		out[id] = trouble{turn: turn, to: link.Faults{}}
	}
	for _, f := range list {
		if !f.begun {
			continue
		}
		t, here := out[f.Node]
		switch f.Kind {
		case admin.FaultKill, admin.FaultPause:
			if here {
				t.down = t.down || f.Kind == admin.FaultKill
				t.paused = t.paused || f.Kind == admin.FaultPause
				t.why = f.why()
				out[f.Node] = t
			}
			continue
		}
		on := link.Fault{Cut: f.Kind == admin.FaultCut, Slow: f.Latency, Jitter: f.Jitter, Rate: f.Rate}
		for _, peer := range nodes {
			if !here || peer == f.Node || f.Peer != "" && peer != f.Peer {
				continue
			}
			t.to[peer] = t.to[peer].And(on)
			if !f.OneWay {
				out[peer].to[f.Node] = out[peer].to[f.Node].And(on)
			}
		}
		if here && f.Kind == admin.FaultCut && f.Peer == "" && t.why == "" {
			t.why = f.why()
			out[f.Node] = t
		}
	}
	return out
}

// event tells of a fault: what it is, and a word on it.
func (f *fault) event(at time.Time, word string) system.Event {
	return system.Event{Time: at, Kind: "fault", Node: f.Node, Text: fmt.Sprintf("fault %d, %s, %s", f.ID, f.Trouble, word)}
}

func (f *fault) lasts() string {
	if f.For == 0 {
		return "begins, until it is healed"
	}
	return "begins, for " + f.For.String()
}

// why is what is said of its node.
func (f *fault) why() string {
	until := "it is healed: servent fault heal " + string(f.Node)
	if !f.Ends.IsZero() {
		until = f.Ends.Format("15:04:05")
	}
	return fmt.Sprintf("fault %d, %s, until %s", f.ID, f.Trouble, until)
}

// all are the children there are.
func (ns *nodes) all() map[system.NodeID]*child {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return maps.Clone(ns.children)
}

// suffer takes what all faults come to for the node. It does not wait; [child.deaf] says whether
// the node knows.
func (c *child) suffer(t trouble) {
	c.mu.Lock()
	was, p := c.trouble, c.process
	if t.turn < was.turn { // a later one was quicker
		c.mu.Unlock()
		return
	}
	t.ways = was.ways
	if !maps.Equal(t.to, was.to) {
		t.ways = t.turn
	}
	c.trouble = t
	if p != nil && t.down && !was.down {
		_ = p.Kill() // one that just ended is as dead
	}
	if p != nil && t.paused != was.paused {
		if t.paused {
			_ = pause(p) // the same
		} else {
			_ = proceed(p)
		}
	}
	c.mu.Unlock()
	if t.ways != was.ways || was.paused && !t.paused {
		offer(c.ways)
	}
	if was.down && !t.down || t.down && !was.down && p == nil {
		offer(c.again) // whoever waits for its return looks again
	}
	c.changed()
}

// offer leaves a word for who looks next; one that is there already says the same.
func offer(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// mayLive waits while a fault keeps the node dead. It returns false when ctx ends.
func (c *child) mayLive(ctx context.Context) bool {
	for {
		c.mu.Lock()
		t := c.trouble
		if t.down {
			c.failed = errors.New(t.why)
		}
		c.mu.Unlock()
		if !t.down {
			return true
		}
		c.set("gone", t.why, 0)
		select {
		case <-c.again:
		case <-ctx.Done():
			return false
		}
	}
}

// down says that a fault keeps the node dead.
func (c *child) down() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trouble.down
}

// born makes a process that just started suffer what its node does. It returns what is to be called when
// the process has ended.
func (c *child) born(p *os.Process) (died func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.heard = p, 0
	if c.trouble.down {
		_ = p.Kill() // it has just started
	}
	if c.trouble.paused {
		_ = pause(p) // the same
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.process = nil
	}
}

// faults are those of the node's link.
func (c *child) faults() node.Faults {
	c.mu.Lock()
	defer c.mu.Unlock()
	return node.Faults{Turn: c.trouble.ways, To: c.trouble.to}
}

// tell hands the node its faults. One that is paused reads nothing, and must not fill its input; it is told
// when it goes on.
func (c *child) tell(words *json.Encoder) {
	c.mu.Lock()
	paused := c.trouble.paused
	c.mu.Unlock()
	if paused {
		return
	}
	f := c.faults()
	_ = words.Encode(node.Word{Faults: &f}) // one that just died is told at its start
}

func (c *child) hears(turn int64) {
	c.mu.Lock()
	c.heard = max(c.heard, turn)
	c.mu.Unlock()
	c.changed()
}

// deaf says that the node runs and does not have its faults yet.
func (c *child) deaf() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.State == "up" && c.process != nil && !c.trouble.paused && !c.trouble.down && c.heard < c.trouble.ways
}

// Trouble implements [admin.Machines].
func (l *laptop) Trouble(ctx context.Context, t admin.Trouble) (admin.Fault, error) {
	if t.Kind == admin.FaultPause && !pauses {
		return admin.Fault{}, &system.Hint{Err: errors.New("fault: Windows cannot stop a process and let it go on; a node that is cut off is as silent"),
			Next: "servent fault cut " + string(t.Node)}
	}
	if t.After == 0 && (t.Kind == admin.FaultKill || t.Kind == admin.FaultPause) {
		for _, n := range l.nodes.State() {
			if n.Node == t.Node && n.Pid == 0 {
				return admin.Fault{}, &system.Hint{Err: fmt.Errorf("fault: %s does not run: it is %s%s", n.Node, n.State, because(n.Why)), Next: "servent ps"}
			}
		}
	}
	f, err := l.faults.Add(t)
	if err != nil {
		return f, err
	}
	return f, l.heard(ctx)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + strings.TrimSpace(why) + ")"
}

// Faults implements [admin.Machines].
func (l *laptop) Faults() []admin.Fault { return l.faults.List() }

// Heal implements [admin.Machines].
func (l *laptop) Heal(ctx context.Context, which func(admin.Fault) bool) []admin.Fault {
	healed := l.faults.End("is healed", which)
	_ = l.heard(ctx) // they hear it, or they die: then nothing is left to heal
	return healed
}

// heard waits until every node that runs has its faults, or until it takes too long: one that does not
// read is told when it does.
func (l *laptop) heard(ctx context.Context) error {
	late := time.After(heardWithin)
	for {
		changed := l.news.wait()
		deaf := slices.ContainsFunc(slices.Collect(maps.Values(l.nodes.all())), (*child).deaf)
		if !deaf {
			return nil
		}
		select {
		case <-changed:
		case <-late:
			l.opt.Log.Warn("a node has not heard of a fault", "err", fmt.Errorf("no word within %s", heardWithin))
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// happened keeps what a fault did among the events, for as long as this process lives: control may be away
// just then.
func (l *laptop) happened(e system.Event) {
	l.mu.Lock()
	l.told = append(l.told, e)
	l.told = l.told[max(0, len(l.told)-mostFaults):]
	l.view = among(l.bare, l.told)
	l.mu.Unlock()
	l.news.tell()
}

// among is a view with more events, in their places.
func among(v *control.View, more []system.Event) *control.View {
	if len(more) == 0 {
		return v
	}
	with := *v
	with.Events = slices.Concat(v.Events, more)
	slices.SortStableFunc(with.Events, func(a, b system.Event) int { return a.Time.Compare(b.Time) })
	return &with
}
