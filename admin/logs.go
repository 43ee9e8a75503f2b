package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"servent/control"
	"servent/system"
)

const (
	quietFor   = 3 * time.Second        // a node that says nothing for so long is done without
	againAfter = 500 * time.Millisecond // a log that broke off is opened again
	maxKept    = 64 << 20               // bytes of text held to be sorted
	ownStream  = "servent"              // of lines that we say ourselves
)

// place is where a log is: times grow strictly within one, so they name its lines.
type place struct {
	node     system.NodeID
	instance system.InstanceID
}

// logs joins the nodes' log lines. What is kept already comes sorted by time; what is written from now
// on comes as it arrives, of nodes and instances that appear later, too.
func (d *Door) logs(w http.ResponseWriter, r *http.Request) error {
	q, err := logQuery(r.URL.Query())
	if err != nil {
		return err
	}
	began := time.Now()
	k := d.kept(r.Context(), q)
	if v, _ := d.View(); q.Of != "" && len(k.newest) == 0 && !planned(v.Plan, q.Of) {
		return unknown(v.Wanted, q.Of)
	}
	out := stream(w)
	for _, line := range k.lines {
		if out(line) != nil {
			return nil
		}
	}
	if q.Follow {
		f := follower{door: d, q: q, began: began, kept: k, out: out, open: map[place]bool{}, lines: make(chan LogLine), ended: make(chan stopped)}
		f.run(r.Context())
	}
	return nil
}

// kept is what the nodes had when a request came.
type kept struct {
	lines  []LogLine
	newest map[place]time.Time
	heard  map[system.NodeID]bool
}

// kept reads what every node has, all at once.
func (d *Door) kept(ctx context.Context, q LogQuery) kept {
	v, _ := d.View() // logs are worth reading while control is away
	ask := q
	ask.Follow = false
	if q.Tail == 0 {
		ask.Tail = 1 // to know where to go on
	}
	parts, errs := make([][]LogLine, len(v.Seen)), make([]error, len(v.Seen))
	var wg sync.WaitGroup
	for i := range v.Seen {
		wg.Go(func() { parts[i], errs[i] = d.hear(ctx, v.Seen[i].Node, ask, maxKept/len(v.Seen)) })
	}
	wg.Wait()
	k := kept{newest: map[place]time.Time{}, heard: map[system.NodeID]bool{}}
	for i, lines := range parts {
		node := v.Seen[i].Node
		for _, l := range lines {
			k.newest[place{node, l.Instance}] = l.Time
		}
		if q.Tail != 0 {
			k.lines = append(k.lines, lines...)
		}
		k.heard[node] = errs[i] == nil
		if errs[i] != nil {
			k.lines = append(k.lines, LogLine{time.Now(), node, "", ownStream, fmt.Sprintf("lines of %s are missing: %v", node, errs[i])})
		}
	}
	slices.SortStableFunc(k.lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	return k
}

// hear reads what one node has. What came before an error stands.
func (d *Door) hear(ctx context.Context, node system.NodeID, q LogQuery, most int) (lines []LogLine, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietFor, func() { cancel(fmt.Errorf("it does not answer within %s", quietFor)) })
	defer quiet.Stop()
	err = d.read(ctx, node, q, func(l LogLine) error {
		quiet.Reset(quietFor)
		if most -= len(l.Text); most < 0 {
			return errors.New("they are too many to be sorted; ask for one instance, or with a smaller --tail")
		}
		lines = append(lines, l)
		return nil
	})
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return lines, err
}

func (d *Door) read(ctx context.Context, node system.NodeID, q LogQuery, each func(LogLine) error) error {
	body, err := d.Nodes.Logs(ctx, node, q)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var l LogLine
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(l); err != nil {
			return err
		}
	}
}

// planned says that a service or an instance has a place.
func planned(p *system.Plan, what string) bool {
	return p != nil && slices.ContainsFunc(p.Services, func(d system.Deployment) bool {
		return string(d.Service.Name) == what || slices.ContainsFunc(d.Assignments, func(a system.Assignment) bool { return string(a.Instance) == what })
	})
}

// follower reads logs as they grow, each by a goroutine of its own, and opens them again after a node was
// away. The time of the last line that was shown says where to go on: no line comes twice or is lost.
type follower struct {
	door  *Door
	q     LogQuery
	began time.Time
	kept  kept
	out   func(any) error
	open  map[place]bool
	lines chan LogLine
	ended chan stopped
}

// stopped is a log that broke off.
type stopped struct {
	place
	last time.Time // of its lines
}

// run returns when ctx ends or nobody takes the lines any more.
func (f *follower) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		changed := f.door.Changed()
		v, _ := f.door.View()
		for _, p := range f.places(v) {
			if f.open[p] {
				continue
			}
			f.open[p] = true
			from := f.from(p)
			wg.Go(func() { f.follow(ctx, p, from) })
		}
		for same := true; same; {
			select {
			case l := <-f.lines:
				if f.out(l) != nil {
					return
				}
			case e := <-f.ended:
				delete(f.open, e.place)
				f.kept.newest[e.place], same = e.last, false
			case <-changed:
				same = false
			case <-ctx.Done():
				return
			}
		}
	}
}

// places are the logs on the nodes that are there: of instances that run, and of those that did, whose
// last lines may not have been read before their node died.
func (f *follower) places(v *control.View) []place {
	var out []place
	for i := range v.Seen {
		seen := &v.Seen[i]
		for _, in := range seen.Instances {
			if service, _, _ := strings.Cut(string(in.Instance), "/"); f.q.Of == "" || f.q.Of == string(in.Instance) || f.q.Of == service {
				out = append(out, place{seen.Node, in.Instance})
			}
		}
		for p := range f.kept.newest {
			if p.node == seen.Node && v.Instance(p.node, p.instance) == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// from is the time of the last line that was shown. A log that was not there at the start is new; one on
// a node that was away then has old lines that nobody asked for.
func (f *follower) from(p place) time.Time {
	if last, ok := f.kept.newest[p]; ok || f.kept.heard[p.node] {
		return last
	}
	return f.began
}

// follow passes on what a log has after from until it breaks off, which ends in a pause.
func (f *follower) follow(ctx context.Context, p place, from time.Time) {
	last := from
	_ = f.door.read(ctx, p.node, LogQuery{Of: string(p.instance), Tail: -1, Follow: true}, func(l LogLine) error { // it is opened again
		if !l.Time.After(from) {
			return nil
		}
		select {
		case f.lines <- l:
			last = l.Time
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	select {
	case <-time.After(againAfter):
	case <-ctx.Done():
		return
	}
	select {
	case f.ended <- stopped{p, last}:
	case <-ctx.Done():
	}
}
