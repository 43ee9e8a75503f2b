package lab

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/lab/result"
	"servent/system"
)

// alike is a service on nodes that are all alike.
func alike(a system.Architecture, change func(*system.System)) Variant {
	sys := &system.System{Name: "shop", Services: []system.Service{{Name: "cart", Architecture: a, Key: "/c/{key}"}},
		Nodes: []system.NodeGroup{{Name: "eu", Count: 3, Capacity: system.Capacity{Rate: 50}}}}
	if change != nil {
		change(sys)
	}
	return Variant{Name: string(a), System: sys}
}

func TestScale(t *testing.T) {
	groups := func(s *system.System) { s.Nodes = append(s.Nodes, system.NodeGroup{Name: "ap"}) }
	hot := func(s *system.System) { s.Services[0].Switch.Policy = "random" }
	for _, tt := range []struct {
		name string
		how  string
		all  []Variant
		want []string
	}{
		{"out", "out", []Variant{alike(system.Single, nil)}, []string{"single"}},
		{"up", "up", []Variant{alike(system.Partitioned, nil)}, []string{"partitioned up"}},
		{"both, and two that are one", "both", []Variant{alike(system.Single, nil), alike(system.Replicated, nil), alike(system.Partitioned, hot)},
			[]string{"single", "single up", "replicated", "replicated up: on one node it has one instance, as single up has", "partitioned", "partitioned up"}},
		{"an overlay", "up", []Variant{alike(system.Ring, nil)}, []string{"ring up: ring is made of many nodes: on one there is nobody to ask"}},
		{"a function", "up", []Variant{alike(system.Function, nil)}, []string{"function up: function has as many instances as calls need already"}},
		{"two groups", "up", []Variant{alike(system.Single, groups)}, []string{"single up: its nodes are in 2 groups: which of them would grow? Scaling up is compared where all nodes are alike"}},
		{"refused already", "both", []Variant{{Name: "x", Refused: "no"}}, []string{"x: no"}},
		{"sideways", "sideways", nil, nil},
	} {
		got, err := Scale(tt.all, "cart", tt.how)
		if (err != nil) != (tt.name == "sideways") {
			t.Errorf("%s: %v", tt.name, err)
		}
		var said []string
		for _, v := range got {
			if (v.System == nil) != (v.Refused != "") || v.Up != strings.HasSuffix(v.Name, " up") {
				t.Errorf("%s: %+v", tt.name, v)
			}
			said = append(said, strings.TrimSuffix(v.Name+": "+v.Refused, ": "))
		}
		if !slices.Equal(said, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, said, tt.want)
		}
	}
}

func TestUnlikeNodesAreRefused(t *testing.T) {
	first := alike(system.Single, nil)
	for _, tt := range []struct {
		change func(*system.NodeGroup)
		want   string
	}{
		{func(g *system.NodeGroup) {
			g.Labels, g.Pos.Line, g.Capacity.Workers = map[string]string{"disk": "ssd"}, 7, 1
		}, ""},
		{func(g *system.NodeGroup) { g.Count = 5 }, "5 nodes in eu, not 3"},
		{func(g *system.NodeGroup) { g.Capacity.Rate = 80 }, "eu serves 80/s with 1 worker, 800/s onward, not 50/s with 1 worker, 500/s onward"},
		{func(g *system.NodeGroup) { g.Capacity = system.Capacity{} }, "eu serves what is measured, not 50/s with 1 worker, 500/s onward"},
		{func(g *system.NodeGroup) { g.Site = "ap" }, "eu is at ap, not "},
		{func(g *system.NodeGroup) { g.Links = []system.LinkSpec{{To: "ap"}} }, "the links of eu differ"},
		{func(g *system.NodeGroup) { g.Price.Amount = 5 }, "a node of eu costs 5 , not 0 "},
		{func(g *system.NodeGroup) { g.Name = "us" }, "single has no group us; it has no group eu"},
	} {
		v := alike(system.Replicated, func(s *system.System) { tt.change(&s.Nodes[0]) })
		want := tt.want
		if want != "" {
			want = "its nodes are not those of single: " + want
		}
		if got := unlike(first, v); got != want {
			t.Errorf("unlike = %q, want %q", got, want)
		}
		p, err := newPlan(Options{Variants: []Variant{first, v}, Service: "cart", Repeats: 1})
		if err != nil {
			t.Fatal(err)
		}
		if (len(p.refused) == 1) != (tt.want != "") {
			t.Errorf("%q: %d are refused", tt.want, len(p.refused))
		}
	}
}

// Four workers behind one queue have work as long as anybody waits: 4μ. Four queues at random leave some idle:
// a closed balanced network of N customers at M stations has μN/(N+M−1)·M/M, Lazowska et al., Quantitative System
// Performance, table 5.1.
func TestTheoryOfUpAndOut(t *testing.T) {
	up, out := alike(system.Single, nil), alike(system.Replicated, nil)
	up.Up = true
	r := &run{plan: &plan{variants: []Variant{out, up}, service: "cart", base: out.System, nodes: []int{1, 4}, per: perWorker}}
	a, b := r.theory(up, up.System.Service("cart")), r.theory(out, out.System.Service("cart"))
	if a == nil || b == nil {
		t.Fatalf("theory %+v, %+v", a, b)
	}
	if got := a.Curve[1].Rate; math.Abs(got-200) > 1e-9 {
		t.Errorf("up on 4 workers of 50/s: %v, want 200", got)
	}
	const queues = 50.0 * 16 / (16 + 4 - 1) * 4
	for _, tt := range []struct {
		got  *result.Theory
		want string
	}{
		{a, "N·c·μ; one queue, M/M/4: 200/s with 16 clients, against 4 queues, 4·M/M/1 at random: " + perSecond(queues)},
		{b, "4 queues, 4·M/M/1 at random: " + perSecond(queues) + " with 16 clients, against one queue, M/M/4: 200/s"},
	} {
		if !strings.HasSuffix(tt.got.Formula, tt.want) || !strings.Contains(tt.got.Source, "Reiser and Lavenberg") {
			t.Errorf("theory %q (%s), want %q", tt.got.Formula, tt.got.Source, tt.want)
		}
	}
	r.variants = r.variants[:1]
	if b = r.theory(out, out.System.Service("cart")); strings.Contains(b.Formula, "queue") {
		t.Errorf("with nothing scaled up: %s", b.Formula)
	}
}

// The load is the first variant's: what speaks another protocol is refused, whichever of the two comes first.
func TestAnotherProtocolIsRefused(t *testing.T) {
	speaks := func(name string, by system.By) Variant {
		v := alike(system.Single, func(sys *system.System) {
			sys.Service("cart").Switch.By = by
			sys.Compare = &system.Compare{Load: system.Load{Send: "41\n"}}
		})
		v.Name = name
		return v
	}
	tcp, named, http, again := speaks("tcp", system.ByConnection), speaks("named", system.ByName), speaks("http", system.ByRequest), speaks("again", system.ByRequest)
	for _, tt := range []struct {
		all  []Variant
		why  string // the second one is refused
		over bool   // TCP
	}{
		{[]Variant{tcp, http, tcp}, "it is switched by request and tcp by connection: what is sent to the one is no request to the other", true},
		{[]Variant{named, http, tcp}, "it is switched by request and named by name: what is sent to the one is no request to the other", true},
		{[]Variant{http, tcp, again}, "it is switched by connection and http by request: what is sent to the one is no request to the other", false},
	} {
		p, err := newPlan(Options{Variants: tt.all, Service: "cart", Repeats: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.variants) != 2 || len(p.refused) != 1 || p.refused[0].Refused != tt.why || (p.tcp != nil) != tt.over {
			t.Errorf("%s first: %d run, refused %+v, TCP %v; want the second refused because %s", tt.all[0].Name, len(p.variants), p.refused, p.tcp != nil, tt.why)
		}
	}
}

// A connection carries HTTP as well as anything: where nobody says what is sent, one load is all variants'.
func TestEveryLayerInOneComparison(t *testing.T) {
	var all []Variant
	for _, by := range []system.By{system.ByConnection, system.ByRequest, system.ByName} {
		v := alike(system.Replicated, func(sys *system.System) { sys.Services[0].Switch = system.Switch{By: by, TTL: 2 * time.Second} })
		v.Name = string(by)
		all = append(all, v)
	}
	p, err := newPlan(Options{Variants: all, Service: "cart", Repeats: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.variants) != 3 || p.tcp != nil || p.resolvers != defaultResolvers || !strings.Contains(p.words(), "names through 8 caching resolvers") {
		t.Errorf("%d run, TCP %v, %q", len(p.variants), p.tcp, p.words())
	}
	if _, err := newPlan(Options{Variants: all[:1], Service: "cart", Repeats: 1}); err == nil || !strings.Contains(err.Error(), "what a client sends must stand in the file") {
		t.Errorf("by connection alone: %v", err)
	}
}

// Two resolvers on four instances give work to 4·(1−(3/4)²) = 1.75 of them on average.
func TestTheoryOfNames(t *testing.T) {
	named := func(ttl time.Duration) Variant {
		return alike(system.Replicated, func(sys *system.System) { sys.Services[0].Switch = system.Switch{By: system.ByName, TTL: ttl} })
	}
	v := named(2 * time.Second)
	r := &run{plan: &plan{variants: []Variant{v}, service: "cart", base: v.System, nodes: []int{1, 4}, per: perWorker, resolvers: 2}}
	got := r.theory(v, v.System.Service("cart"))
	if got.Curve[0].Rate != 50 || math.Abs(got.Curve[1].Rate-1.75*50) > 1e-9 || !strings.Contains(got.Formula, "R = 2 resolvers that keep an answer for 2s") {
		t.Errorf("%+v", got)
	}
	v = named(0)
	if got = r.theory(v, v.System.Service("cart")); got.Curve[1].Rate != 200 || strings.Contains(got.Formula, "resolver") {
		t.Errorf("nothing is kept: %+v", got)
	}
}
