// Command papers runs the overlays on virtual time as their papers did, prints tables of what was simulated beside theory,
// and fails where they do not agree. Start at [tables].
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"servent/overlay"
	"servent/overlay/study"
	"servent/overlay/unstructured"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("# Overlays beside theory and papers\n\n`make check-papers` · %s · %d CPUs · %s. All of it is simulated, by the code that nodes run: delays 10 to 100 ms one way.\n",
		time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
	wrong, err := tables(ctx, os.Stdout, 1_000_000)
	if err != nil {
		fmt.Fprintln(os.Stderr, "papers:", err)
		os.Exit(1)
	}
	for _, w := range wrong {
		fmt.Fprintln(os.Stderr, "papers: does not agree:", w)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
}

// papers is one run of all tables.
type papers struct {
	ctx   context.Context
	w     io.Writer
	most  int // nodes
	wrong []string
}

// tables prints all, with at most so many nodes, and returns what does not agree.
func tables(ctx context.Context, w io.Writer, most int) ([]string, error) {
	p := &papers{ctx: ctx, w: w, most: most}
	for _, table := range []func() error{p.hops, p.keys, p.deaths, p.views, p.searches, p.survival, p.shards} {
		if err := table(); err != nil {
			return p.wrong, err
		}
	}
	return p.wrong, nil
}

func (p *papers) run(name string, o study.Options) (study.Result, error) {
	all := overlay.Protocols()
	i := slices.IndexFunc(all, func(row overlay.Protocol) bool { return row.Name == name })
	o.Overlay, o.Seed = all[i], 1
	return study.Run(p.ctx, o)
}

// check notes what is farther from a number than a part of it.
func (p *papers) check(what string, got, want, part float64) {
	if math.Abs(got-want) > part*want {
		p.wrong = append(p.wrong, fmt.Sprintf("%s: %.4g, want %.4g within %.0f %%", what, got, want, 100*part))
	}
}

func (p *papers) hops() error {
	fmt.Fprint(p.w, "\n## Hops\n\nChord: ½·log2 N − ½·log2 r + 1, sd ½·√(log2 N − log2 r), r = 16 (Stoica et al., ToN 11(1), 2003, §V.C); within 1 % from 10^3 nodes on, sd within 2 %.\n"+
		"Kademlia (k = 20, α = 3) beside the law of one question at a time (docs/kademlia.md): at most 1 % above it, at most 10 % below.\n"+
		"Pastry (b = 4, 16 leaves) beside the law of docs/pastry.md: within 3 %. Its messages are acknowledgements, too.\n\n"+
		"| overlay | nodes | lookups | success | hops | theory | off | sd | theory | p99 | theory | messages | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range []string{"chord", "kademlia", "pastry"} {
		for n := 1000; n <= p.most; n *= 10 {
			o := study.Options{Nodes: n, Lookups: 100_000, For: 20 * time.Second, Period: 10 * time.Minute}
			if n == 1000 || p.most < 10_000 {
				o.Lookups = 20_000
			}
			r, err := p.run(name, o)
			if err != nil {
				return err
			}
			off := r.Hops.Mean/r.Theory.Hops.Mean - 1
			fmt.Fprintf(p.w, "| %s | %d | %d | %.4g %% | %.3f | %.3f | %+.1f %% | %.3f | %.3f | %.0f | %.0f | %.1f | %.2f |\n", name, n, r.Lookups, 100*r.Success, r.Hops.Mean,
				r.Theory.Hops.Mean, 100*off, r.Hops.SD, r.Theory.Hops.SD, r.Hops.P99, r.Theory.Hops.P99, r.MessagesPerLookup, r.LookupSeconds)
			what := fmt.Sprintf("%s of %d", name, n)
			p.check(what+", success", r.Success, 1, 0.0001)
			switch {
			case name == "chord":
				p.check(what+", hops", r.Hops.Mean, r.Theory.Hops.Mean, 0.01)
				p.check(what+", sd", r.Hops.SD, r.Theory.Hops.SD, 0.02)
			case name == "pastry":
				p.check(what+", hops", r.Hops.Mean, r.Theory.Hops.Mean, 0.03)
			case off > 0.01 || off < -0.1:
				p.wrong = append(p.wrong, fmt.Sprintf("%s, hops: %+.1f %% off", what, 100*off))
			}
		}
	}
	return nil
}

func (p *papers) keys() error {
	n := min(p.most, 10_000)
	r, err := p.run("chord", study.Options{Nodes: n, Period: 10 * time.Minute})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.w, "\n## Keys of a node\n\n%d nodes at random places, in parts of the mean. Theory: Exp(1), and Gamma(20)/20 (Stoica et al., §VI.B).\n\n"+
		"| places a node | 1st percentile | theory | 99th | theory |\n|---|---|---|---|---|\n", n)
	row := func(places int, got, want study.Balance) {
		fmt.Fprintf(p.w, "| %d | %.3f | %.3f | %.2f | %.2f |\n", places, got.P1, want.P1, got.P99, want.P99)
		p.check(fmt.Sprintf("%d places, 99th percentile of keys", places), got.P99, want.P99, 0.1)
	}
	row(1, r.Keys.One, r.Keys.OneLaw)
	row(r.Keys.Virtual, *r.Keys.Many, r.Keys.ManyLaw)
	return nil
}

func (p *papers) deaths() error {
	n := min(p.most, 10_000)
	fmt.Fprintf(p.w, "\n## Many die at once\n\n%d nodes, 10,000 lookups. Right after: within 10 s, and nobody repairs anything. With upkeep: over the minute after, as nodes do.\n"+
		"Success: the answer names the owner among those that live. A lookup of Chord goes from node to node and nobody on the way notices a dead\n"+
		"one, so before repair many are lost, where the paper's asker goes step by step. Kademlia's asker does, and loses none (checked: ≥ 99.9 %%, and at most 3 times as long).\n\n"+
		"| dead | chord, right after | hops | chord, with upkeep | whole after | kademlia, right after | hops | messages | seconds | as none were dead × |\n|---|---|---|---|---|---|---|---|---|---|\n", n)
	none, parts, lookups := 0.0, []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}, 10_000
	if p.most < 10_000 {
		parts, lookups = []float64{0, 0.5}, 2000
	}
	for _, dead := range parts {
		o := study.Options{Nodes: n, Lookups: lookups, For: 10 * time.Second, Period: 10 * time.Minute, Kill: dead}
		chord, err := p.run("chord", o)
		if err != nil {
			return err
		}
		kad, err := p.run("kademlia", o)
		if err != nil {
			return err
		}
		o.Period, o.For = 0, time.Minute
		kept, err := p.run("chord", o)
		if err != nil {
			return err
		}
		whole := "–"
		if kept.Whole != nil {
			whole = fmt.Sprintf("%.1f s", *kept.Whole)
		}
		if dead == 0 {
			none = kad.LookupSeconds
		}
		fmt.Fprintf(p.w, "| %.0f %% | %.2f %% | %.2f | %.2f %% | %s | %.2f %% | %.2f | %.1f | %.2f | %.1f |\n", 100*dead, 100*chord.Success, chord.Hops.Mean, 100*kept.Success, whole,
			100*kad.Success, kad.Hops.Mean, kad.MessagesPerLookup, kad.LookupSeconds, kad.LookupSeconds/none)
		p.check(fmt.Sprintf("kademlia, %.0f %% dead, success", 100*dead), kad.Success, 1, 0.001)
		if kad.LookupSeconds > 3*none {
			p.wrong = append(p.wrong, fmt.Sprintf("kademlia, %.0f %% dead: lookups take %.1f times as long, want at most 3", 100*dead, kad.LookupSeconds/none))
		}
	}
	return nil
}

func (p *papers) shards() error {
	n := min(p.most/5, 500)
	fmt.Fprintf(p.w, "\n## One seed is one run\n\n%d nodes, a fifth of which dies, 0.2 %% of the messages lost. The hash of all events over 1, 2, 3, 7 and 16 shards:\n\n| overlay | event hash | shards |\n|---|---|---|\n", n)
	same := func(name string, hash func(study.Options) (string, error)) error {
		var first string
		for _, shards := range []int{1, 2, 3, 7, 16} {
			got, err := hash(study.Options{Nodes: n, Lookups: 500, For: 10 * time.Second, Loss: 0.002, Kill: 0.2, KillAt: 3 * time.Second, Shards: shards})
			if err != nil {
				return err
			}
			if first == "" {
				first = got
			}
			if got != first {
				p.wrong = append(p.wrong, fmt.Sprintf("%s over %d shards: hash %s, over one %s", name, shards, got, first))
			}
		}
		fmt.Fprintf(p.w, "| %s | %s | the same |\n", name, first)
		return nil
	}
	for _, row := range overlay.Protocols() {
		if err := same(row.Name, func(o study.Options) (string, error) {
			r, err := p.run(row.Name, o)
			return r.Hash, err
		}); err != nil {
			return err
		}
	}
	for _, row := range overlay.Graphs() {
		if err := same(row.Name, func(o study.Options) (string, error) {
			o.Search, o.Lookups, o.Period = unstructured.Walk, 50, time.Second
			r, err := p.graph(row.Name, o)
			return r.Hash, err
		}); err != nil {
			return err
		}
	}
	return nil
}
