package report

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"servent/lab/report/figure"
	"servent/lab/result"
)

var update = flag.Bool("update", false, "rewrite the golden files; read their diff")

// cases are the handmade results of testdata. Their figures show the form only.
var cases = []string{"quick", "full", "busy", "partial", "refused", "one", "nofault"}

func load(t *testing.T, name string) *result.Result {
	t.Helper()
	r, err := result.Read(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	if !bytes.Equal(got, want) {
		g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range g {
			if i >= len(w) || g[i] != w[i] {
				t.Fatalf("%s, line %d: rewrite it with -update when the change is wanted\n got %.300s\nwant %.300s", file, i+1, g[i], append(w, make([]string, len(g))...)[i])
			}
		}
		t.Fatalf("%s has %d lines more", file, len(w)-len(g))
	}
}

var options = Options{Report: ".servent/results/0007/report.html", Longer: "servent compare --full",
	Next: []Next{{"servent apply partitioned", "changes one word in compose.yaml"}}}

func TestTerminal(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Terminal(&b, load(t, name), options); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", b.Bytes())
		})
	}
}

func TestHTML(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := HTML(&b, load(t, name)); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".html", b.Bytes())
		})
	}
}

// TestTerminalFits: on every usual width no line is too long, and with colours it is the same text.
func TestTerminalFits(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9;]+m")
	for _, name := range cases {
		for _, wide := range []int{60, 80, 100, 160} {
			var a, b bytes.Buffer
			o := options
			o.Width = wide
			if err := Terminal(&a, load(t, name), o); err != nil {
				t.Fatal(err)
			}
			for _, l := range strings.Split(a.String(), "\n") {
				if width(l) > wide {
					t.Errorf("%s: %d columns of %d: %s", name, width(l), wide, l)
				}
				if strings.HasSuffix(l, " ") {
					t.Errorf("%s: a line ends with a space: %q", name, l)
				}
			}
			o.Color = true
			if err := Terminal(&b, load(t, name), o); err != nil {
				t.Fatal(err)
			}
			if got := sgr.ReplaceAllString(b.String(), ""); got != a.String() || got == b.String() {
				t.Errorf("%s at %d: colours change the text, or there are none", name, wide)
			}
		}
	}
}

// Lookups stand beside what theory says of them, at the largest valid point that both have.
func TestLookups(t *testing.T) {
	theory := &result.Theory{Hops: []result.CurvePoint{{Nodes: 2, Rate: 0.5}, {Nodes: 4, Rate: 1.5}}}
	point := func(nodes int, lookup float64, valid bool) *result.Point {
		return &result.Point{Nodes: nodes, Lookup: lookup, Valid: valid}
	}
	for _, tt := range []struct {
		name   string
		theory *result.Theory
		points []*result.Point
		want   string
	}{
		{"no theory", nil, []*result.Point{point(4, 1.4, true)}, ""},
		{"nothing is looked up", theory, []*result.Point{point(4, 0, true)}, ""},
		{"the largest", theory, []*result.Point{point(2, 0.5, true), point(4, 1.4, true)}, "1.40 lookups a request at 4, theory 1.50 (−6.7 %)"},
		{"the largest valid one", theory, []*result.Point{point(2, 0.5, true), point(4, 1.4, false)}, "0.50 lookups a request at 2, theory 0.50 (0 %)"},
		{"one that theory has", theory, []*result.Point{point(2, 0.5, true), point(8, 3.4, true)}, "0.50 lookups a request at 2, theory 0.50 (0 %)"},
	} {
		w := row{Variant: &result.Variant{Theory: tt.theory}, points: tt.points}
		if got := lookups(w); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Reasons that differ in figures alone are one, told of the node that would have to be slowest.
func TestReasons(t *testing.T) {
	point := func(why string, valid float64) *result.Point {
		return &result.Point{Why: why, Station: result.Station{ValidRate: valid}}
	}
	all := []row{{points: []*result.Point{point("slow in 3.3 % of turns; 8.2/s would be valid", 8.2), point("12 of 40 requests failed", 0)}},
		{points: []*result.Point{point("slow in 8.0 % of turns; 6/s would be valid", 6), point("slow in 2 % of turns; 9/s would be valid", 9), {Valid: true, Why: "5 of 6 repeats"}, {}}}}
	want := []string{"slow in 8.0 % of turns; 6/s would be valid (and 2 points alike)", "12 of 40 requests failed", "no reason given"}
	if got := reasons(all); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		words string
		n     int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one two three", 7, []string{"one two", "three"}},
		{"one two three", 6, []string{"one", "two", "three"}},
		{"incomprehensible word", 5, []string{"incomprehensible", "word"}},
		{"a b", 3, []string{"a b"}},
		{"日本 語", 5, []string{"日本", "語"}},
	} {
		if got := fold(tt.words, tt.n); !slices.Equal(got, tt.want) {
			t.Errorf("fold(%q, %d) = %q, want %q", tt.words, tt.n, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{figure.Quantity(0), "0"}, {figure.Quantity(48.4), "48"}, {figure.Quantity(4.84), "4.8"}, {figure.Quantity(5), "5"}, {figure.Quantity(0.10), "0.1"}, {figure.Quantity(0.0123), "0.012"},
		{figure.Quantity(math.NaN()), "?"}, {figure.Quantity(1e-9), "1e-09"}, {figure.Quantity(99.96), "100"},
		{figure.Grouped(1234567), "1,234,567"}, {figure.Grouped(-1234), "-1,234"}, {figure.Grouped(999), "999"}, {figure.Grouped(4.8), "4.8"},
		{figure.Share(0.25), "25 %"}, {figure.Share(0.9997), "99.9 %"}, {figure.Share(1), "100 %"}, {figure.Share(0.031), "3.1 %"},
		{figure.Change(0.131), "+13 %"}, {figure.Change(-0.2), "−20 %"}, {figure.Change(-0.0001), "0 %"}, {figure.Change(math.NaN()), "?"},
		{figure.Seconds(0), "0.0s"}, {figure.Seconds(1.14), "1.1s"}, {span(84.2), "84 s"}, {span(1874), "31 min 14 s"},
		{capacity(result.Capacity{Rate: 50, Source: "typed", Where: "compose.yaml:9:20"}), "capacity 50/s per node: typed in compose.yaml:9, not measured"},
		{capacity(result.Capacity{Group: "eu", Rate: 50, Workers: 2, Source: "measured"}), "capacity of eu 50/s per node and worker, 2 workers: measured"},
		{capacity(result.Capacity{Rate: 50, Source: "typed", Where: `C:\x\compose.yaml:9:20`}), `capacity 50/s per node: typed in C:\x\compose.yaml:9, not measured`},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestShownPoint: of several points on equally many nodes a table shows the greatest rate that keeps the goal.
func TestShownPoint(t *testing.T) {
	point := func(offered, rate, p99 float64, errors int64, valid bool) result.Point {
		return result.Point{Nodes: 4, Mode: result.Emulated, Valid: valid, Offered: offered, Rate: result.Interval{Median: rate, Low: rate, High: rate},
			LatencyMS: result.Latency{P99: p99}, Requests: 10_000, Errors: errors}
	}
	r := &result.Result{Mode: result.Emulated, Goal: result.Goal{Percentile: 99, LatencyMS: 100, Errors: 0.001}, Variants: []result.Variant{{Points: []result.Point{
		point(0, 500, 50, 0, true),     // closed loop
		point(100, 100, 40, 0, true),   //
		point(150, 150, 99, 10, true),  // this one
		point(160, 160, 101, 0, true),  // too slow
		point(170, 170, 50, 11, true),  // too many errors
		point(180, 180, 50, 0, false),  // not valid
		point(190, 190, 900, 0, false), //
	}}}}
	if got := rows(r, result.Emulated)[0].at(4); got.Offered != 150 {
		t.Errorf("shows the point with %v offered, want 150", got.Offered)
	}
	r.Variants[0].Points = r.Variants[0].Points[3:4]
	if got := rows(r, result.Emulated)[0].at(4); !missed(r, got) {
		t.Error("a rate that misses the goal is not marked")
	}
	if got := rows(r, result.Simulated)[0].points; len(got) != 0 {
		t.Errorf("a table of SIMULATED points has %d EMULATED ones", len(got))
	}
}

// TestModes: each mode has its table under its word.
func TestModes(t *testing.T) {
	r := load(t, "full")
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	captions := regexp.MustCompile(`<caption>(REAL|EMULATED|SIMULATED)`).FindAllStringSubmatch(b.String(), -1)
	if len(captions) != 2 || captions[0][1] != "EMULATED" || captions[1][1] != "SIMULATED" {
		t.Errorf("tables: %v", captions)
	}
}

func TestAgainst(t *testing.T) {
	old := load(t, "quick")
	now := load(t, "quick")
	for i := range now.Variants {
		for k := range now.Variants[i].Points {
			p := &now.Variants[i].Points[k]
			switch {
			case i == 2 && k == 2: // partitioned at 4: worse
				p.Rate = result.Interval{Median: 150, Low: 146, High: 155}
			case i == 3 && k == 2: // ring at 4: a little less
				p.Rate = result.Interval{Median: 150, Low: 148, High: 152}
			case i == 3 && k == 1: // ring at 2: overlap
				p.Rate = result.Interval{Median: 84, Low: 70, High: 86}
			case i == 1 && k == 2: // replicated at 4: not valid
				p.Valid, p.Rate.Median = false, 90
			case i == 1 && k == 1: // replicated at 2: better
				p.Rate = result.Interval{Median: 120, Low: 118, High: 121}
			}
		}
	}
	now.Variants[0].Answers.Verdict = "WRONG"
	now.Variants = append(now.Variants[:4:4], result.Variant{Name: "chord"})
	now.Load = "closed loop, 8 clients a worker"
	var b bytes.Buffer
	worse, err := Against(&b, old, now, Options{})
	if err != nil || worse != 2 {
		t.Errorf("%d worse, %v; want the answers of single and partitioned on 4 nodes", worse, err)
	}
	golden(t, "against.txt", b.Bytes())

	b.Reset()
	if worse, err := Against(&b, old, old, Options{Width: 80}); worse != 0 || err != nil || !strings.Contains(b.String(), "nothing is worse in 12 points") {
		t.Errorf("against itself: %d worse, %v\n%s", worse, err, b.String())
	}
	for _, other := range []string{"nofault", "full"} { // REAL; another service in open loop
		if _, err := Against(&b, old, load(t, other), Options{}); err == nil {
			t.Errorf("%s was compared with quick", other)
		}
	}
}

// TestContrast: everything drawn stands out from what it stands on, 4.5 to 1 for text and 3 to 1 for marks (WCAG
// 2.2, 1.4.3 and 1.4.11), in both themes.
func TestContrast(t *testing.T) {
	themes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(css, -1)
	if len(themes) != 2 {
		t.Fatalf("%d themes, want light and dark", len(themes))
	}
	for i, theme := range themes {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllStringSubmatch(theme[1], -1) {
			colours[m[1]] = m[2]
		}
		for name, least := range map[string]float64{"ink": 7, "quiet": 4.5, "good": 4.5, "warn": 4.5, "bad": 4.5, "grey": 3,
			"c0": 3, "c1": 3, "c2": 3, "c3": 3, "c4": 3, "c5": 3, "c6": 3} {
			for _, ground := range []string{"card", "back"} {
				if got := contrast(t, colours[name], colours[ground]); got < least {
					t.Errorf("theme %d: %s on %s has a contrast of %.2f, want %.1f", i, name, ground, got, least)
				}
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(hex string) float64 { // WCAG 2.2, relative luminance
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			t.Fatalf("no colour: %q", hex)
		}
		sum := 0.0
		for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
			c := float64(n>>(8*i)&255) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestQuantiles checks the corners against the definition: a share 1−1/x of all requests took at most y.
func TestQuantiles(t *testing.T) {
	firm, thin := quantiles([]result.Bin{{Micros: 30_000, Count: 90}, {Micros: 10_000, Count: 900}, {Micros: 20_000, Count: 9010}})
	if want := []figure.Spot{figure.At(1, 10), figure.At(10000.0/9100, 10)}; !slices.Equal(firm, want) {
		t.Errorf("firm %v, want %v", firm, want)
	}
	if want := []figure.Spot{figure.At(10000.0/90, 20)}; !slices.Equal(thin, want) { // 90 requests beyond are too few
		t.Errorf("thin %v, want %v", thin, want)
	}
}
