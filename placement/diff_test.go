package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"servent/system"
)

func TestDiff(t *testing.T) {
	base := func(change ...func(*system.Service)) *system.System {
		return sys(service("api", 3, append([]func(*system.Service){version1("1")}, change...)...), service("db", 1, tied))
	}
	for _, tt := range []struct {
		name string
		next *system.System
		want []string
	}{
		{"no change", base(), []string{"= api: no change", "= api/1 node-1: stays", "= api/2 node-2: stays", "= api/3 node-3: stays", "= db: no change", "= db/1 node-1: stays"}},
		{"one more", base(func(s *system.Service) { s.Replicas = 4 }), []string{
			"~ api: replicas: 3 → 4", "= api/1 node-1: stays", "= api/2 node-2: stays", "= api/3 node-3: stays",
			"+ api/4 node-2: spread: fewest instances of api (1) in site ap", "= db: no change", "= db/1 node-1: stays"}},
		{"a new version", base(version1("2")), []string{
			"* api: environment VERSION: 1 → 2; 3 new instances first, then the old stop",
			"* api/1 node-1: the new version takes its place", "* api/2 node-2: the new version takes its place", "* api/3 node-3: the new version takes its place",
			"+ api/4 node-2: fewest instances in all (0)", "= db: no change", "= db/1 node-1: stays"}},
		{"a new version of what is tied", sys(service("api", 3, version1("1")), service("db", 1, tied, version1("2"))), []string{
			"= api: no change", "= api/1 node-1: stays", "= api/2 node-2: stays", "= api/3 node-3: stays",
			"* db: environment VERSION: none → 2; 1 instance made anew in place, the old one stopped first, as its data stays",
			"* db/1 node-1: stops: the new version takes its place"}},
		{"a service less", sys(service("api", 3, version1("1"))), []string{
			"= api: no change", "= api/1 node-1: stays", "= api/2 node-2: stays", "= api/3 node-3: stays",
			"- db: no longer wanted: stops 1 instance; its data stays where it is", "- db/1 node-1: stops: its service is no longer wanted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, base(), fleetOf(3)...)
			old := w.settle()
			w.in.System = tt.next
			var got []string
			for _, l := range Diff(old, w.decide().Plan) {
				who := string(l.Service)
				if l.Instance != "" {
					who = string(l.Instance) + " " + string(l.Node)
				}
				got = append(got, l.Op+" "+who+": "+l.Text)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
	if got := Diff(nil, nil); len(got) != 0 {
		t.Errorf("Diff(nil, nil) = %v", got)
	}
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*system.Service)
		want   string
	}{
		{"nothing", func(s *system.Service) { s.Pos.Line = 9 }, ""},
		{"replicas", func(s *system.Service) { s.Replicas = 2 }, "replicas: 1 → 2"},
		{"variable set", func(s *system.Service) { s.Environment = map[string]string{"A": "b"} }, "environment A: none → b"},
		{"secret variable", func(s *system.Service) { s.Environment = map[string]string{"API_KEY": "b"} }, "environment API_KEY: changed"},
		{"program", func(s *system.Service) { s.Software.Run = []string{"./x", "-v"} }, "software run: [./api] → [./x -v]"},
		{"bundle", func(s *system.Service) { s.Software.Digest = "sha256:0123456789abcdef" }, "software digest: none → 0123456789ab"},
		{"interval", func(s *system.Service) { s.Health.Interval = 3 * time.Second }, "health interval: none → 3s"},
		{"data", tied, "data kind: none → hard"},
		{"cache", func(s *system.Service) { s.Cache = &system.Cache{Size: 5} }, "cache: none → 5"},
		{"route", func(s *system.Service) { s.Routes = []system.Route{{Path: "/a/*", Pos: system.Pos{Line: 3}}} }, "routes: none → [/a/*]"},
		{"constraint", func(s *system.Service) {
			s.Placement.Constraints = []system.Constraint{{Attribute: "node.site", Value: "eu"}}
		}, "placement constraints: none → [node.site eu]"},
		{"long", func(s *system.Service) { s.Key = strings.Repeat("é", 100) }, "key: none → " + strings.Repeat("é", 57) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := service("api", 1), service("api", 1)
			tt.change(&b)
			if got := strings.Join(changes(&a, &b), ", "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	const gib = 1 << 30
	w := newWorld(t, sys(service("api", 3, func(s *system.Service) { s.Reserve.Memory = 2 * gib })), fleetOf(3)...)
	w.nodes["node-1"].Resources.Memory = 3 * gib
	w.nodes["node-2"].Resources.Memory = 3 * gib
	w.nodes["node-3"].Resources.Memory = gib
	got := Explain(w.input(), "api")
	if len(got) != 3 {
		t.Fatalf("%d choices, want two instances and one without a place: %+v", len(got), got)
	}
	first, none := got[0], got[2]
	if first.Instance != "api/1" || first.Node != "node-1" || first.Second != nil || first.Reason != "only node that fits" {
		t.Errorf("first choice is %+v", first)
	}
	for i, want := range []Considered{
		{Node: "node-1", Fits: true, Cost: first.Cost},
		{Node: "node-2", Why: "needs 2 GiB, 1 GiB free"},
		{Node: "node-3", Why: "needs 2 GiB, 1 GiB free"},
	} {
		if first.Nodes[i] != want {
			t.Errorf("considered %+v, want %+v", first.Nodes[i], want)
		}
	}
	if none.Instance != "" || !strings.HasPrefix(none.Reason, "node-1, node-2, node-3: needs 2 GiB, 1 GiB free") {
		t.Errorf("without a place: %+v", none)
	}

	w.nodes["node-3"].Resources.Memory = 3 * gib
	w.settle()
	got = Explain(w.input(), "api")
	if want := "stays: it ran here; it came here because: only node that fits"; len(got) != 3 || got[0].Reason != want {
		t.Errorf("reason is %q, want %q", got[0].Reason, want)
	}
	w.nodes["node-1"].Resources.Memory = 9 * gib
	got = Explain(w.input(), "api")
	if second := got[1].Second; second == nil || second.Node != "node-1" || second.Cost.Compare(got[1].Cost) <= 0 {
		t.Errorf("second best of %+v is %+v, want node-1 at a higher cost", got[1], second)
	}
	if got, want := got[1].Cost.String(), "sites 1, nodes 1, all 1"; got != want {
		t.Errorf("cost is %q, want %q", got, want)
	}
	if Explain(w.input(), "absent") != nil {
		t.Error("Explain of no service says something")
	}
}
