package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"servent/system"
)

// logs joins the nodes' log lines. What is kept already comes sorted by time; what is written from now
// on comes as it arrives. Nodes that appear later are followed too.
func (d *Door) logs(w http.ResponseWriter, r *http.Request) {
	q, err := logQuery(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	out := stream(w)
	lines, err := d.kept(r.Context(), q)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	newest := map[system.NodeID]time.Time{}
	for _, line := range lines {
		if newest[line.Node] = line.Time; out(line) != nil {
			return
		}
	}
	if q.Follow {
		d.follow(r.Context(), q, newest, out)
	}
}

// kept reads what every node has, and checks that somebody knows what is asked for.
func (d *Door) kept(ctx context.Context, q LogQuery) ([]LogLine, error) {
	v, _ := d.View() // logs are worth reading while control is away
	if q.Of != "" && v.Plan != nil && !planned(v.Plan, q.Of) {
		return nil, unknownLog(v.Wanted, q.Of)
	}
	q.Follow = false
	var lines []LogLine
	for _, seen := range v.Seen {
		_ = d.read(ctx, seen.Node, q, func(l LogLine) error { // a node that does not answer has no lines to show
			lines = append(lines, l)
			return nil
		})
	}
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	return lines, nil
}

func unknownLog(wanted *system.System, what string) error {
	if wanted == nil {
		return &system.Hint{Err: errors.New("nothing runs"), Next: "servent up"}
	}
	return unknown(wanted, what)
}

func planned(p *system.Plan, what string) bool {
	for _, d := range p.Services {
		if string(d.Service.Name) == what {
			return true
		}
		for _, a := range d.Assignments {
			if string(a.Instance) == what {
				return true
			}
		}
	}
	return false
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

// follow reads every node until ctx ends, again after a node came back, and shows no line twice.
func (d *Door) follow(ctx context.Context, q LogQuery, newest map[system.NodeID]time.Time, out func(any) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex // guards the writer and reading
		reading = map[system.NodeID]bool{}
	)
	defer wg.Wait()
	q.Tail = -1
	for {
		changed := d.Changed()
		v, _ := d.View()
		for _, seen := range v.Seen {
			node, from := seen.Node, newest[seen.Node]
			mu.Lock()
			busy := reading[node]
			reading[node] = true
			mu.Unlock()
			if busy {
				continue
			}
			wg.Go(func() {
				last := from
				_ = d.read(ctx, node, q, func(l LogLine) error { // it ends with the node; the next view starts it again
					if !l.Time.After(from) {
						return nil
					}
					last = l.Time
					mu.Lock()
					defer mu.Unlock()
					return out(l)
				})
				mu.Lock()
				defer mu.Unlock()
				delete(reading, node)
				newest[node] = last
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		select { // a node that cannot be read is tried again once a second
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}
