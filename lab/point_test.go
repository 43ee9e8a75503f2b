package lab

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"servent/admin"
	"servent/lab/check"
	"servent/lab/load"
	"servent/lab/result"
	"servent/system"
)

// What nodes send onward is counted whoever asked for it: a client, or the program that it asked. A request is
// answered the way it came; a lookup goes on and on, and its owner answers once.
func TestMessages(t *testing.T) {
	meters := func(passed ...int64) map[system.NodeID]admin.NodeMeter {
		all := map[system.NodeID]admin.NodeMeter{}
		for i, n := range passed {
			id := system.NodeID([]string{"eu-1", "eu-2"}[i])
			all[id] = admin.NodeMeter{Node: id, Station: &admin.Station{Served: 10, Passed: n}}
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		hops    int // of every client's request, lookups too
		lookup  int
		passed  []int64 // by each node, for ten requests
		want    float64
		onEntry int // requests that their first node answered
	}{
		{"a hop each", 1, 0, []int64{4, 6}, 2, 0},
		{"nothing goes on", 0, 0, []int64{0, 0}, 0, 10},
		{"each makes its program ask another node twice", 1, 0, []int64{10, 20}, 6, 0},
		{"two lookups, the answer, the request and its own", 1, 2, []int64{10, 20}, 5, 0},
		{"half of them are the first node's own", 1, 2, []int64{10, 5}, 2.5, 5},
	} {
		r := fullRun(enough, system.Ring)
		p := &point{at: at{"ring", 2}, clients: 4, metered: 10}
		res := &load.Result{Sent: 10, Good: 10}
		for i := range 10 {
			rec := load.Record{Good: true, Hops: tt.hops, Lookup: tt.lookup}
			if i < tt.onEntry {
				rec.Hops, rec.Lookup = 0, 0
			}
			res.Records = append(res.Records, rec)
		}
		p.add(res, 0)
		p.count(meters(0, 0), meters(tt.passed...))
		if got := p.result(r).Messages; math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v messages a request, want %v", tt.name, got, tt.want)
		}
	}
}

// Neighbours that only send a lookup on are different nodes, and none sends a message to itself.
func TestStepsOfALookup(t *testing.T) {
	all := steps(load.Record{Method: "GET", Path: "/c/a", Lookup: 3, Hops: 1, Node: "eu-4", Instance: "cart/4", Status: 200, Done: 100}, "eu-1")
	var way []string
	for _, s := range all {
		if s.From == s.To {
			t.Errorf("%+v: from a node to itself", s)
		}
		if s.What == "lookup" {
			way = append(way, s.From+" → "+s.To)
		}
	}
	want := []string{"eu-1 → neighbour 1", "neighbour 1 → neighbour 2", "neighbour 2 → eu-4"}
	if !slices.Equal(way, want) {
		t.Errorf("lookups %q, want %q", way, want)
	}
	if last := all[len(all)-1]; last.To != "client" || last.AtMS <= 0 {
		t.Errorf("the last message is %+v, want the answer to the client", last)
	}
}

// One request is drawn from four nodes or fewer, if there are: of more only where there is nothing else.
func TestDrawnOf(t *testing.T) {
	for _, tt := range []struct {
		nodes []int
		want  string
	}{{[]int{1, 2, 4, 8}, "4"}, {[]int{1, 2}, "2"}, {[]int{1, 8, 16}, "8"}, {[]int{1}, ""}} {
		r := fullRun(enough, system.Ring)
		r.nodes = tt.nodes
		for _, n := range tt.nodes {
			p := &point{at: at{"ring", n}, trace: []result.Step{{From: "client"}}, traceWhat: fmt.Sprint(n)}
			p.check = check.New(r.checks, r.looks)
			p.add(&load.Result{Sent: 1, Good: 1}, 0)
			r.points[p.at] = p
		}
		if got := r.variant(r.variants[0]).TraceWhat; got != tt.want {
			t.Errorf("nodes %v: drawn of %q, want %q", tt.nodes, got, tt.want)
		}
	}
}
