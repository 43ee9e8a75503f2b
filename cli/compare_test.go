package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"servent/lab/result"
	"servent/system"
)

// compared runs a comparison in a folder and reads what it wrote.
func compared(t *testing.T, w *world, args ...string) *result.Result {
	t.Helper()
	out, err := w.run(append([]string{"compare"}, args...)...)
	if err != nil {
		t.Fatalf("compare: %v\n%s", err, out)
	}
	r, err := result.Read(filepath.Join(w.dir, ".servent", "results", "0001"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "EMULATED") || !strings.Contains(out, ".servent/results/0001/report.html") {
		t.Errorf("compare says\n%s\nwant EMULATED, and where the result is", out)
	}
	page, err := os.ReadFile(filepath.Join(w.dir, ".servent", "results", "0001", "report.html"))
	if err != nil || !strings.Contains(string(page), "EMULATED") || !strings.Contains(string(page), "<svg") {
		t.Errorf("the report has %d bytes, %v; want a page with figures", len(page), err)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, ".servent", "lab")); err == nil {
		t.Errorf("%d stages are left behind", len(left))
	}
	return r
}

// The course's lesson, on real processes: copies that know nothing of one another count for themselves, one
// instance and divided keys count right, and divided keys are faster than one instance.
func TestCompareCounter(t *testing.T) {
	t.Parallel()
	w := example(t, "counter")
	r := compared(t, w, "--nodes", "1,2", "--repeats", "4", "--no-fault")
	rate := map[string]float64{}
	for _, v := range r.Variants {
		want := "right"
		if v.Name == "replicated" {
			want = "WRONG"
		}
		if v.Answers.Verdict != want || v.Answers.Checked == 0 || v.Answers.Checker != "counter" {
			t.Errorf("%s: answers %+v, want %s", v.Name, v.Answers, want)
		}
		if len(v.Points) < 2 || v.Points[1].Nodes != 2 || v.Points[1].Mode != result.Emulated || v.Points[1].Requests == 0 {
			t.Fatalf("%s: %d points, want emulated ones of 1 and 2 nodes, then simulated ones", v.Name, len(v.Points))
		}
		rate[v.Name] = v.Points[1].Rate.Median
	}
	if rate["ring"] == 0 || rate["partitioned"] == 0 {
		t.Fatalf("variants %v, want single, replicated, partitioned and ring", rate)
	}
	if rate["single"] > 51 || rate["partitioned"] < 1.2*rate["single"] {
		t.Errorf("on two nodes of 50/s: single %.0f/s, partitioned %.0f/s; want 50 at most, and clearly more", rate["single"], rate["partitioned"])
	}
	if r.Mode != result.Emulated || r.Capacity[0].Source != "typed" || !strings.Contains(r.Capacity[0].Where, "compose.yaml:11:") {
		t.Errorf("mode %s, capacity %+v; want emulated, and typed in the file", r.Mode, r.Capacity)
	}

	before, err := os.ReadFile(filepath.Join(w.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := w.run("apply", "replicated"); err == nil || !strings.Contains(out, "WRONG") {
		t.Errorf("apply of a wrong variant: %v\n%s", err, out)
	}
	if out, err := w.run("apply", "partitioned"); err != nil || !strings.Contains(out, "compose.yaml:7:21  services.counter.x-servent.architecture: single → partitioned\n") {
		t.Errorf("apply: %v\n%s", err, out)
	}
	after, err := os.ReadFile(filepath.Join(w.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(string(before), "architecture: single", "architecture: partitioned", 1); string(after) != want {
		t.Errorf("apply made\n%s\nwant one word changed", after)
	}
}

// A killed node costs divided keys their share and a single instance all that it had, and every key is read again:
// on two nodes, too, each has somewhere to go. Without a capacity in the file it is measured and said to be.
func TestCompareSurvives(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", `name: counter
services:
  counter:
    x-servent: {process: [servent, example, counter], key: "/c/{key}"}
x-servent:
  nodes: {node: {count: 2}}
  compare: {load: {mix: {"POST /c/{key}": 1}, keys: uniform of 40}}
`)
	r := compared(t, w, "--vary", "architecture=single,partitioned,superpeer", "--nodes", "2", "--repeats", "1")
	if r.Capacity[0].Source != "measured" || r.Capacity[0].Rate < 1 {
		t.Errorf("capacity %+v, want a measured one", r.Capacity)
	}
	if len(r.Variants) != 3 || r.Variants[2].Refused == "" {
		t.Fatalf("variants %+v, want superpeer refused as long as it is not built", r.Variants)
	}
	for _, v := range r.Variants[:2] {
		s := v.Survival
		if s == nil || len(s.Timeline) == 0 {
			t.Fatalf("%s: survival %+v, want one with a timeline", v.Name, s)
		}
		if s.KeysLost <= 0 || strings.Contains(s.LostText, "no answer") {
			t.Errorf("%s: %v of the keys lost, %s; want some, and an answer about each", v.Name, s.KeysLost, s.LostText)
		}
		if s.Recovery > 6 {
			t.Errorf("%s: recovered after %.1f s, want its instance elsewhere within 2 s, three times that at most", v.Name, s.Recovery)
		}
	}
	if one, some := r.Variants[0].Survival.KeysLost, r.Variants[1].Survival.KeysLost; one <= some { // keys of after the fault are not lost
		t.Errorf("lost %v of the keys of single and %v of partitioned, want more of single", one, some)
	}
}

// A full comparison, short: every variant on every number of nodes has a rate that was found and rates that were
// tried, in open loop, in the file's time although it ran stretched; what is simulated says so.
func TestCompareFull(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", `name: counter
services:
  counter:
    x-servent: {process: [servent, example, counter], key: "/c/{key}"}
x-servent:
  nodes: {node: {count: 2, capacity: {rate: 200/s}}}
  compare: {load: {mix: {"POST /c/{key}": 1}, keys: uniform of 40}}
`)
	out, err := w.run("compare", "--full", "--vary", "architecture=single,partitioned", "--nodes", "1,2", "--samples", "60", "--repeats", "2", "--slow", "2", "--no-fault", "--json")
	if err != nil {
		t.Fatalf("compare --full: %v\n%s", err, out)
	}
	if !strings.Contains(out, "full: 2 variants on 1, 2 nodes, a rate judged by 60 requests at least: about") || !strings.Contains(out, "slow ×2") {
		t.Errorf("it says nothing of how long it takes:\n%s", out)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, ".servent", "results", "0001", "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, printed, _ := strings.Cut(out, "\n{")
	if p, err := result.Parse("stdout", []byte("{"+printed)); err != nil || p.Depth != result.Full || len(p.Variants) != 2 {
		t.Errorf("--json prints no result: %v\n%s", err, out)
	}
	r, err := result.Parse("result.json", text)
	if err != nil {
		t.Fatal(err)
	}
	if r.Depth != result.Full || r.Slow != 2 || r.Goal.Percentile != 99 || !r.Goal.Default || r.Host.Ceiling <= 0 || !strings.HasPrefix(r.Load, "open loop") {
		t.Errorf("depth %s, slow %v, goal %+v, host %+v, load %q", r.Depth, r.Slow, r.Goal, r.Host, r.Load)
	}
	if len(r.Variants) != 2 {
		t.Fatalf("%d variants", len(r.Variants))
	}
	for _, v := range r.Variants {
		found, tried := map[int]bool{}, 0
		for _, p := range v.Points {
			switch {
			case p.Mode == result.Simulated:
				if len(p.Repeats) > 0 || p.Station.LateShare > 0 {
					t.Errorf("%s: a simulated point was measured: %+v", v.Name, p)
				}
				continue
			case p.Mode != result.Emulated || p.Offered <= 0 || p.Clients != 0 || p.Requests == 0:
				t.Errorf("%s: point %+v, want an emulated one in open loop", v.Name, p)
			case p.Tried:
				tried++
				continue
			case found[p.Nodes]:
				t.Errorf("%s: two rates were found on %d nodes", v.Name, p.Nodes)
			}
			found[p.Nodes] = true
			if p.Requests != 60 || len(p.Repeats) != 2 || p.Offered > 200.01*float64(p.Nodes) {
				t.Errorf("%s on %d nodes: %d requests in %d repeats at %.1f/s; want 60 in 2, and 200/s a node at most", v.Name, p.Nodes, p.Requests, len(p.Repeats), p.Offered)
			}
			if p.LatencyMS.P50 < 4.8 { // 5 ms in the file's time, to two digits
				t.Errorf("%s: half of the answers within %.1f ms, and one takes 5", v.Name, p.LatencyMS.P50)
			}
		}
		if !found[1] || !found[2] || tried == 0 || v.Answers.Verdict != "right" {
			t.Errorf("%s: found on %v nodes, %d tried, answers %s", v.Name, found, tried, v.Answers.Verdict)
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	w := example(t, "counter")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--nodes", "0"}, "want numbers from 1 to 64"},
		{[]string{"--vary", "architecture"}, "want PATH=A,B"},
		{[]string{"--service", "nobody"}, `no service "nobody"`},
		{[]string{"--vary", "architecture=superpeer"}, "not built yet"},
		{[]string{"--repeats", "0"}, "want 1 or more"},
		{[]string{"--slow", "0.5"}, "want 1 to 256"},
		{[]string{"--slow", "NaN"}, "want 1 to 256"},
		{[]string{"--samples", "0"}, "want 1 or more"},
		{[]string{"--vary", "architectur=single"}, `(did you mean "architecture"?)`},
		{[]string{"--vary", "switch.polcy=p2c"}, `services.counter.x-servent.switch has no "polcy" (did you mean "policy"?)`},
		{[]string{"--vary", "services.countr.deploy.replicas=2"}, `services has no "countr" (did you mean "counter"?)`},
		{[]string{"--vary", "architecture=single", "--vary", "x-servent.architecture=replicated"}, "stands twice"},
		{[]string{"--vary", "architecture=single,single"}, "a value of architecture stands twice"},
		{[]string{"--vary", "scale.max=1,2,3", "--vary", "copies=1,2,3"}, "9 variants; at most 8"},
		{[]string{"--vary", "scale.max=1,2,3,4,5", "--scale", "both"}, "10 variants, out and up; at most 8"},
		{[]string{"--vary", "x-servent.compare.check=kv"}, "is the comparison's own"},
		{[]string{"--scale", "sideways"}, "want out, up or both"},
		{[]string{"--vary", "architecture=superpeer", "--scale", "up"}, "not built yet"},
	} {
		if out, err := w.run(append([]string{"compare"}, tt.args...)...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("compare %v: %v, want %q in\n%s", tt.args, err, tt.want, out)
		}
	}
	if out, err := w.run("apply", "single"); err == nil || !strings.Contains(out, "nothing was compared") {
		t.Errorf("apply: %v\n%s", err, out)
	}
}

// One node with as many workers as the others have nodes: the same capacity, no request is sent onward, and nobody
// is killed, for it is all there is.
func TestCompareScaleBoth(t *testing.T) {
	t.Parallel()
	w := example(t, "counter")
	r := compared(t, w, "--vary", "architecture=single,replicated", "--scale", "both", "--nodes", "2", "--repeats", "2")
	var names []string
	for _, v := range r.Variants {
		names = append(names, v.Name)
		switch v.Name {
		case "replicated up":
			if !strings.Contains(v.Refused, "on one node it has one instance, as single up has") {
				t.Errorf("%s: refused %q, want that it is single up again", v.Name, v.Refused)
			}
		case "single up":
			if !v.Up || len(v.Points) == 0 || len(v.Points[0].NodeLoad) != 1 || v.Points[0].Hops != 0 || v.Survival != nil || v.Cost != nil {
				t.Errorf("%s: %+v, want points of one node, and nobody killed", v.Name, v)
			}
			if v.Theory == nil || !strings.Contains(v.Theory.Formula, "N·c·μ; one queue, M/M/2: ") || !strings.Contains(v.Theory.Formula, "against 2 queues, 2·M/M/1 at random") {
				t.Errorf("%s: theory %+v, want M/M/2 against 2·M/M/1", v.Name, v.Theory)
			}
		default:
			if v.Up || v.Survival == nil {
				t.Errorf("%s: up %v, survival %+v; want a variant that is scaled out", v.Name, v.Up, v.Survival)
			}
		}
	}
	if want := []string{"single", "single up", "replicated", "replicated up"}; !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(want))) {
		t.Errorf("variants %v, want %v", names, want)
	}
	if out, err := w.run("apply", "--yes", "single up"); err == nil || !strings.Contains(out, "a machine, not a word in the file") {
		t.Errorf("apply of a variant that is scaled up: %v\n%s", err, out)
	}
}

// Two files are two variants under the load of the first one; unlike nodes are refused with the difference.
func TestCompareWholeFiles(t *testing.T) {
	t.Parallel()
	const file = `name: counter
services:
  counter:
    x-servent: {process: [servent, example, counter], architecture: %s, key: "/c/{key}"}
x-servent:
  nodes: {node: {count: 2, capacity: {rate: %s}}}
`
	w := &world{t: t, dir: t.TempDir()}
	w.write("one.yaml", fmt.Sprintf(file, "single", "50/s")+`  compare: {load: {mix: {"POST /c/{key}": 1}, keys: uniform of 40}}`+"\n")
	w.write("many.yaml", fmt.Sprintf(file, "partitioned", "50/s")+`  compare: {load: {mix: {"GET /nothing": 1}}}`+"\n")
	w.write("fast.yaml", fmt.Sprintf(file, "partitioned", "80/s"))
	w.write("other.yaml", "services: {other: {x-servent: {process: [servent, example, counter]}}}\n")
	in := func(name string) string { return filepath.Join(w.dir, name) }
	r := compared(t, w, in("one.yaml"), in("many.yaml"), in("fast.yaml"), "--nodes", "1", "--repeats", "1", "--no-fault")
	if len(r.Variants) != 3 || r.Variants[0].Name != "one" || r.Variants[1].Name != "many" || r.Variants[1].File == "" || r.Variants[1].Architecture != system.Partitioned {
		t.Fatalf("variants %+v, want one, many and fast", r.Variants)
	}
	for _, v := range r.Variants[:2] {
		if v.Answers.Checker != "counter" || v.Answers.Verdict != "right" {
			t.Errorf("%s: answers %+v, want right, under the load of the first file", v.Name, v.Answers)
		}
	}
	if want := "its nodes are not those of one: node serves 80/s with 1 worker, 800/s onward, not 50/s with 1 worker, 500/s onward"; r.Variants[2].Refused != want {
		t.Errorf("fast is refused because %q, want %q", r.Variants[2].Refused, want)
	}
	if out, err := w.run("apply", "many"); err == nil || !strings.Contains(out, "many is a whole file") || !strings.Contains(out, "next: servent up ") {
		t.Errorf("apply of a whole file: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{in("one.yaml"), in("other.yaml")}, "variant other has no service counter"},
		{[]string{in("one.yaml"), w.dir}, "want files to compare, have the folder"},
		{[]string{in("one.yaml"), in("one.yaml")}, "stands twice"},
		{[]string{in("one.yaml"), in("none.yaml")}, "none.yaml"},
		{[]string{in("one.yaml"), in("many.yaml"), "--vary", "architecture=single,ring"}, "have both"},
	} {
		if out, err := w.run(append([]string{"compare"}, tt.args...)...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("compare %v: %v, want %q in\n%s", tt.args, err, tt.want, out)
		}
	}
}
