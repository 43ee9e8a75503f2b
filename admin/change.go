package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/control"
	"servent/system"
)

const (
	maxSystem   = 16 << 20        // bytes of a system in a request
	maxCounts   = 1 << 20         // bytes of numbers of instances
	maxScale    = 1000            // instances of one service
	shownWithin = 5 * time.Second // after which a change is answered though it does not show yet
)

// turn lets changes through one at a time. Unlike with a mutex, who waits may give up.
type turn struct {
	once sync.Once
	free chan struct{}
}

func (t *turn) take(ctx context.Context) (leave func(), err error) {
	t.once.Do(func() { t.free = make(chan struct{}, 1) })
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change: %w", ctx.Err())
	}
}

func (d *Door) want(w http.ResponseWriter, r *http.Request) error {
	sys, err := readSystem(http.MaxBytesReader(w, r.Body, maxSystem))
	if err != nil {
		return err
	}
	if err := d.apply(r.Context(), sys); err != nil {
		return err
	}
	return answer(w, d.said(r))
}

// apply makes a system what is wanted.
func (d *Door) apply(ctx context.Context, sys *system.System) error {
	leave, err := d.turn.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if d.Machines != nil {
		err = d.Machines.Apply(ctx, sys)
	} else {
		_, err = d.Cluster.Want(ctx, sys)
	}
	if err != nil {
		return err
	}
	return d.shown(ctx)
}

// change edits what is wanted, as it stands in control: the last view may be older than a change that
// was just made.
func (d *Door) change(ctx context.Context, edit func(*system.System) error) error {
	leave, err := d.turn.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	v, err := d.Cluster.Read(ctx)
	if err != nil {
		return err
	}
	if v.Wanted == nil {
		return &system.Hint{Err: errors.New("nothing runs"), Next: "servent up"}
	}
	if err := edit(v.Wanted); err != nil {
		return err
	}
	if _, err = d.Cluster.Want(ctx, v.Wanted); err != nil {
		return err
	}
	return d.shown(ctx)
}

// shown returns when the view has what is wanted now: whoever asks after the answer to a change sees the
// change, and never takes the state before it for a system that has settled.
func (d *Door) shown(ctx context.Context) error {
	kvs, _, err := d.Cluster.Range(ctx, control.PrefixWanted)
	if err != nil {
		return err
	}
	var rev control.Rev
	for _, kv := range kvs {
		rev = max(rev, kv.Modified)
	}
	return d.showing(ctx, func(v *control.View) bool { return v.Rev >= rev })
}

// showing returns when something holds of the view, or when it is late: a change is made all the same.
func (d *Door) showing(ctx context.Context, holds func(*control.View) bool) error {
	late := time.After(shownWithin)
	for {
		changed := d.Changed()
		if v, _ := d.View(); holds(v) {
			return nil
		}
		select {
		case <-changed:
		case <-late:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *Door) unwant(w http.ResponseWriter, r *http.Request) error {
	volumes, err := flag(r.URL.Query(), "volumes")
	if err != nil {
		return err
	}
	if who, far := callerOf(r.Context()); far {
		return &coded{http.StatusForbidden, &system.Hint{Err: fmt.Errorf("down: %s may not end the fleet's first machine", who.Who),
			Next: "on the first machine: servent down; of this one alone: Ctrl-C where it joined, or servent leave"}}
	}
	if d.Machines != nil {
		d.Machines.Stop(volumes)
		return answer(w, struct{}{})
	}
	if volumes {
		return &coded{http.StatusBadRequest, errors.New("volumes: a fleet's data is not removed from here")}
	}
	if err := d.Cluster.Unwant(r.Context()); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

func (d *Door) scale(w http.ResponseWriter, r *http.Request) error {
	counts, err := readCounts(http.MaxBytesReader(w, r.Body, maxCounts))
	if err != nil {
		return err
	}
	err = d.change(r.Context(), func(sys *system.System) error {
		for name, n := range counts {
			s := sys.Service(name)
			if s == nil {
				return unknown(sys, string(name))
			}
			if err := Scale(s, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer(w, d.said(r))
}

// Scale sets the number of a service's instances where its architecture leaves it open.
func Scale(s *system.Service, n int) error {
	switch {
	case s.Architecture != system.Replicated && s.Architecture != system.Partitioned:
		return &system.Hint{Err: fmt.Errorf("scale %s: %s decides the number of its instances itself; replicated and partitioned can be scaled", s.Name, s.Architecture),
			Next: "servent explain " + string(s.Name)}
	case n == 0:
		return &system.Hint{Err: fmt.Errorf("scale %s: 0 instances would serve nobody", s.Name), Next: "servent down"}
	case n < 0 || n > maxScale:
		return fmt.Errorf("scale %s: want 1…%d instances, have %d", s.Name, maxScale, n)
	}
	s.Replicas, s.Scale.Min = n, n
	s.Scale.Max = max(s.Scale.Max, n)
	return nil
}

func (d *Door) restart(w http.ResponseWriter, r *http.Request) error {
	what := r.URL.Query().Get("what")
	if d.Machines != nil && slices.ContainsFunc(d.Machines.Nodes(), func(n NodeState) bool { return string(n.Node) == what }) {
		if err := d.Machines.RestartNode(r.Context(), system.NodeID(what)); err != nil {
			return err
		}
		return answer(w, d.said(r))
	}
	err := d.change(r.Context(), func(sys *system.System) error {
		s := sys.Service(system.ServiceName(what))
		if s == nil {
			return unknown(sys, what)
		}
		s.Restarts++
		return nil
	})
	if err != nil {
		return err
	}
	return answer(w, d.said(r))
}

func (d *Door) history(w http.ResponseWriter, _ *http.Request) error {
	if d.Machines == nil {
		return answer(w, []Revision{})
	}
	all, err := d.Machines.History()
	if err != nil {
		return err
	}
	return answer(w, all)
}

// rollback makes what was wanted once what is wanted now. It is a change like any other, and a revision of its own.
func (d *Door) rollback(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("to"), "0"))
	if err != nil || n < 0 {
		return &coded{http.StatusBadRequest, errors.New("to: want the number of a revision")}
	}
	if d.Machines == nil {
		return &coded{http.StatusNotFound, errors.New("no history is kept here")}
	}
	sys, err := d.Machines.Revision(n)
	if err != nil {
		return err
	}
	if err := d.apply(r.Context(), sys); err != nil {
		return err
	}
	return answer(w, d.State())
}

// drain has a node emptied.
func (d *Door) drain(w http.ResponseWriter, r *http.Request) error { return d.mark(w, r, true) }

// uncordon lets a node get instances again.
func (d *Door) uncordon(w http.ResponseWriter, r *http.Request) error { return d.mark(w, r, false) }

func (d *Door) mark(w http.ResponseWriter, r *http.Request, drained bool) error {
	node, s := system.NodeID(r.URL.Query().Get("node")), d.State()
	if s.node(node) == nil {
		var names []string
		for _, n := range s.Nodes {
			names = append(names, string(n.Node))
		}
		return &coded{http.StatusNotFound, &system.Hint{Err: fmt.Errorf("no node %q; the nodes are %s", node, strings.Join(names, ", ")), Next: "servent node ls"}}
	}
	say := d.Cluster.Uncordon
	if drained {
		say = func(ctx context.Context, node system.NodeID) error {
			return d.Cluster.Drain(ctx, node, time.Now().UTC())
		}
	}
	if err := say(r.Context(), node); err != nil {
		return err
	}
	err := d.showing(r.Context(), func(v *control.View) bool {
		return slices.ContainsFunc(v.Drains, func(x system.Drain) bool { return x.Node == node }) == drained
	})
	if err != nil {
		return err
	}
	return answer(w, d.State())
}

// unknown says that nobody has the name, and which names there are.
func unknown(sys *system.System, what string) error {
	if sys == nil {
		return &system.Hint{Err: errors.New("nothing runs"), Next: "servent up"}
	}
	names := make([]string, len(sys.Services))
	for i, s := range sys.Services {
		names[i] = string(s.Name)
	}
	return &coded{http.StatusNotFound, &system.Hint{Err: fmt.Errorf("nothing here is named %q; the services are %s", what, strings.Join(names, ", ")), Next: "servent ps"}}
}

// readSystem reads a system out of a request. What it does not know it refuses: a key that is dropped in
// silence would be a wish that is not kept.
func readSystem(r io.Reader) (*system.System, error) {
	var sys system.System
	if err := decode(r, &sys); err != nil {
		return nil, &coded{http.StatusBadRequest, fmt.Errorf("read the system: %w", err)}
	}
	if sys.Name == "" {
		return nil, &coded{http.StatusBadRequest, errors.New("read the system: it has no name")}
	}
	slices.SortFunc(sys.Services, func(a, b system.Service) int { return strings.Compare(string(a.Name), string(b.Name)) })
	for i, s := range sys.Services {
		if s.Name == "" || i > 0 && s.Name == sys.Services[i-1].Name {
			return nil, &coded{http.StatusBadRequest, fmt.Errorf("read the system: want a name of its own for every service, have %q", s.Name)}
		}
	}
	return &sys, nil
}

func readCounts(r io.Reader) (map[system.ServiceName]int, error) {
	var counts map[system.ServiceName]int
	if err := decode(r, &counts); err != nil {
		return nil, &coded{http.StatusBadRequest, fmt.Errorf(`read the numbers of instances, as {"api": 4}: %w`, err)}
	}
	if len(counts) == 0 {
		return nil, &coded{http.StatusBadRequest, errors.New(`want numbers of instances, as {"api": 4}`)}
	}
	return counts, nil
}

// decode reads exactly one JSON document of known fields.
func decode(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one JSON document, have more")
	}
	return nil
}

// flag reads a yes or no of a query; it is no when it is not there.
func flag(q url.Values, name string) (bool, error) {
	text := q.Get(name)
	if text == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(text)
	if err != nil {
		return false, &coded{http.StatusBadRequest, fmt.Errorf("%s: want true or false, have %q", name, text)}
	}
	return yes, nil
}

// logQuery reads which lines a query asks for.
func logQuery(q url.Values) (LogQuery, error) {
	lq := LogQuery{Of: q.Get("of"), Tail: 100}
	if text := q.Get("tail"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return lq, &coded{http.StatusBadRequest, fmt.Errorf("tail: want a whole number, have %q", text)}
		}
		lq.Tail = max(n, -1)
	}
	var err error
	lq.Follow, err = flag(q, "follow")
	return lq, err
}
