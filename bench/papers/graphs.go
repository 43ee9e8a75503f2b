package main

import (
	"fmt"
	"slices"
	"time"

	"servent/overlay"
	"servent/overlay/study"
	"servent/overlay/unstructured"
)

func (p *papers) graph(name string, o study.Options) (study.GraphResult, error) {
	all := overlay.Graphs()
	i := slices.IndexFunc(all, func(row overlay.Graph) bool { return row.Name == name })
	o.Graph, o.Seed = all[i], 1
	return study.RunGraph(p.ctx, o)
}

// underWay is the clustering that comes of exchanges under way: while an answer travels, 55 ms of a cycle of 10 s in the mean, both
// ends know the 7 nodes that were sent, and one knows the other: 7 triangles, with 3 corners each, of the 40·39/2 pairs of a node.
const underWay = 0.055 / 10 * 7 * 3 / (40 * 39 / 2)

func (p *papers) views() error {
	fmt.Fprint(p.w, "\n## Partial views\n\nCyclon (20 neighbours, 8 of them exchanged) begins on a circle and runs 100 cycles (Voulgaris, Gavidia and van Steen, JNSM 13(2), 2005); then half of the nodes\n"+
		"die. Beside the random graph in which each node names 20 others: clustering within 8 %, path length within 1 %, known by numbers\n"+
		"that spread less than half as much; the rest stays one component; the last link to the dead is gone after 20 to 60 cycles.\n"+
		"To the clustering of the random graph comes that of exchanges under way (docs/cyclon.md).\n\n"+
		"| nodes | clustering at first | at the end | theory | path length at first | at the end | theory | known by, sd | theory | messages a node and cycle | largest of the rest | cycles until healed |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for n := 1000; n <= min(p.most, 100_000); n *= 10 {
		o := study.Options{Nodes: n, Lattice: true, For: 1000 * time.Second}
		r, err := p.graph("cyclon", o)
		if err != nil {
			return err
		}
		o.Lattice, o.Kill, o.KillAt = false, 0.5, 300*time.Second
		dead, err := p.graph("cyclon", o)
		if err != nil {
			return err
		}
		what, cycles := fmt.Sprintf("cyclon of %d", n), 0.0
		if dead.Mended != nil {
			cycles = *dead.Mended / dead.PeriodSeconds
		}
		fmt.Fprintf(p.w, "| %d | %.3f | %.5f | %.5f | %.1f | %.3f | %.3f | %.2f | %.2f | %.3f | %.4g %% | %.0f |\n", n, r.Begin.Clustering, r.End.Clustering, r.Random.Clustering+underWay,
			r.Begin.PathLength, r.End.PathLength, r.Random.PathLength, r.End.Known.SD, r.Random.Known.SD, r.Upkeep, 100*dead.After.Largest, cycles)
		p.check(what+", clustering", r.End.Clustering, r.Random.Clustering+underWay, 0.08)
		p.check(what+", path length", r.End.PathLength, r.Random.PathLength, 0.01)
		p.check(what+", messages", r.Upkeep, 2, 0.01)
		p.check(what+", largest component of half", dead.After.Largest, 1, 0)
		if n > 1000 && r.End.Known.SD > r.Random.Known.SD/2 || cycles < 20 || cycles > 60 {
			p.wrong = append(p.wrong, fmt.Sprintf("%s: known by ± %.2f, healed after %.0f cycles", what, r.End.Known.SD, cycles))
		}
	}
	return nil
}

func (p *papers) searches() error {
	n := min(p.most, 10_000)
	fmt.Fprintf(p.w, "\n## Searches without structure\n\n%d nodes with 2 links of their own each, 10 or 100 of which hold what is searched for; every message takes 50 ms. A flood costs 2E − N + 1 exactly. One that widens\n"+
		"(an expanding ring) and 16 random walkers that ask every fourth step are those of Lv et al., ICS 2002. Theory: docs/unstructured.md; checked: the flood, and on the random graph with 10 holders the rest, within 15 %%.\n\n"+
		"| graph | search | holders | success | hops | theory | messages between neighbours | theory | to and from the asker | seconds | busiest node, × mean |\n|---|---|---|---|---|---|---|---|---|---|---|\n", n)
	for _, name := range []string{"random", "scale-free"} {
		for by, word := range unstructured.Words() {
			for _, holders := range []int{10, 100} {
				o := study.Options{Nodes: n, Lookups: 300, For: time.Minute, Period: 10 * time.Minute, From: 50 * time.Millisecond, To: 50 * time.Millisecond,
					Search: unstructured.Search(by), Holders: holders}
				r, err := p.graph(name, o)
				if err != nil {
					return err
				}
				q := r.Search
				fmt.Fprintf(p.w, "| %s | %s | %d | %.4g %% | %.2f | %.2f | %.1f | %.1f | %.1f | %.2f | %.1f |\n", name, word, holders, 100*q.Success, q.Hops.Mean, q.Theory.Hops, q.Asks, q.Theory.Asks,
					q.Direct, q.Seconds, r.Load.Most/r.Load.Mean)
				what := fmt.Sprintf("%s, %s, %d holders", name, word, holders)
				p.check(what+", success", q.Success, 1, 0)
				switch {
				case unstructured.Search(by) == unstructured.Flood:
					p.check(what+", messages", q.Asks, q.Exact, 0)
				case name == "random" && 16*holders < n/8: // where walkers that set out together find nothing yet
					p.check(what+", messages", q.Asks, q.Theory.Asks, 0.15)
				}
			}
		}
	}
	return nil
}

func (p *papers) survival() error {
	n := min(p.most, 10_000)
	fmt.Fprintf(p.w, "\n## Failure and attack\n\nWhat is left in one component when nodes of %d are gone, before anything is mended: any, or those with most links (Albert, Jeong and Barabási, Nature 406, 2000).\n"+
		"Theory: generating functions of the degrees (Callaway et al., PRL 85, 2000); checked for failures, to 50 %% of the random graph and 30 %% of the scale-free, within 8 %%. Hubs of a grown graph are linked with each other\n"+
		"less and with the young more than at random, so it breaks sooner: at 15 %% gone less than a tenth may be left, at 10 %% more than half must.\n\n| graph | gone | any: largest | theory | hubs: largest | theory |\n|---|---|---|---|---|---|\n", n)
	for _, name := range []string{"random", "scale-free"} {
		r, err := p.graph(name, study.Options{Nodes: n, For: time.Second})
		if err != nil {
			return err
		}
		for _, s := range r.Survival {
			fmt.Fprintf(p.w, "| %s | %.0f %% | %.1f %% | %.1f %% | %.1f %% | %.1f %% |\n", name, 100*s.Gone, 100*s.Failure, 100*s.FailureTheory, 100*s.Attack, 100*s.AttackTheory)
			if s.Gone <= 0.3 || s.Gone <= 0.5 && name == "random" {
				p.check(fmt.Sprintf("%s, %.0f %% failed", name, 100*s.Gone), s.Failure, s.FailureTheory, 0.08)
			}
			if n >= 10_000 && name == "scale-free" && (s.Gone == 0.1 && s.Attack < 0.5 || s.Gone == 0.15 && s.Attack > 0.1) {
				p.wrong = append(p.wrong, fmt.Sprintf("scale-free, %.0f %% attacked: %.3f are left in one component", 100*s.Gone, s.Attack))
			}
		}
	}
	return nil
}
