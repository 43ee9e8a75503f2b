package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"servent/overlay/study"
)

// simulatedGraph is a run of an overlay without keys with what it cost.
type simulatedGraph struct {
	study.GraphResult
	cost
}

func (e *env) simulateGraphs(ctx context.Context, runs []study.Options) error {
	var all []simulatedGraph
	err := e.experiment(ctx, runs, func(r study.Options) error {
		res, err := study.RunGraph(ctx, r)
		all = append(all, simulatedGraph{GraphResult: res})
		return err
	}, func(c cost) { all[len(all)-1].cost = c })
	if err != nil && ctx.Err() == nil {
		return err
	}
	switch {
	case e.json && len(runs) > 1:
		err = e.print(struct {
			Simulated bool             `json:"simulated"`
			Points    []simulatedGraph `json:"points"`
		}{true, all})
	case e.json:
		err = e.print(all[0])
	default:
		for i, r := range all {
			if i > 0 {
				fmt.Fprintln(e.out)
			}
			writeGraph(e.out, runs[i], r)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // it was interrupted, but what there is has been printed
	}
	return err
}

func writeGraph(w io.Writer, o study.Options, r simulatedGraph) {
	fmt.Fprintf(w, "simulated: %s of %d nodes, seed %d, %.1f s of virtual time\n%s\n", r.Overlay, r.Nodes, r.Seed, r.Seconds, linkWords(o))
	if r.Partial {
		fmt.Fprintln(w, "partial: it was stopped before its end")
	}
	fmt.Fprintln(w)
	writeShapes(w, r)
	if len(r.Survival) > 0 {
		fmt.Fprintln(w)
		rows := [][]string{{"nodes gone at once", "largest of the rest", "theory", "hubs gone", "theory"}}
		for _, s := range r.Survival {
			rows = append(rows, []string{share(s.Gone), share(s.Failure), share(s.FailureTheory), share(s.Attack), share(s.AttackTheory)})
		}
		table(w, rows)
	}
	fmt.Fprintln(w)
	rows := [][]string{{"", "simulated", "theory"}}
	add := func(what, got, want string) { rows = append(rows, []string{what, got, want}) }
	after := func(what string, s *float64, never string) {
		if s != nil {
			never = fmt.Sprintf("%.1f s", *s)
		}
		add(what, never, "")
	}
	if o.Join {
		after("one overlay, since the last came", r.Joined, "never")
	}
	if r.Killed > 0 {
		add("nodes that died together", strconv.Itoa(r.Killed), "")
		after("mended: one component, nobody knows the dead", r.Mended, "not by the end")
	}
	if r.Deaths > 0 {
		add("nodes that died by and by", strconv.Itoa(r.Deaths), "")
	}
	if r.Search != nil {
		addSearch(add, r.Search)
	}
	period := fmt.Sprintf(" a node and %v, upkeep", time.Duration(r.PeriodSeconds*float64(time.Second)))
	add("messages"+period, fmt.Sprintf("%.4g", r.Upkeep), theoryOf(r.UpkeepTheory))
	add("bytes"+period, fmt.Sprintf("%.4g", r.UpkeepBytes), theoryOf(r.BytesTheory))
	add("messages received by a node, mean, 99 %, most", fmt.Sprintf("%.0f, %.0f, %.0f", r.Load.Mean, r.Load.P99, r.Load.Most), "")
	add("events", strconv.FormatUint(r.Events, 10), "")
	add("event hash", r.Hash, "")
	add("processor time", fmt.Sprintf("%.2fs", r.CPU), "")
	add("memory at most", fmt.Sprintf("%.0fMiB", float64(r.RSS)/(1<<20)), "")
	table(w, rows)
	fmt.Fprintf(w, "\ntheory of the graph, with all %d nodes: %s\n", r.Nodes, r.Source)
	if r.Search != nil && r.Search.Theory != nil {
		fmt.Fprintf(w, "theory of the search: %s\n", r.Search.Theory.Source)
	}
}

// writeShapes puts the graph's shapes side by side.
func writeShapes(w io.Writer, r simulatedGraph) {
	head, all := []string{"graph", "at first"}, []*study.Shape{r.Begin}
	if r.After != nil {
		head, all = append(head, "after the deaths"), append(all, r.After)
	}
	head, all = append(head, "at the end", "theory"), append(all, r.End, r.Random)
	rows := [][]string{head}
	add := func(what, format string, number func(*study.Shape) float64) {
		row := []string{what}
		for _, s := range all {
			row = append(row, fmt.Sprintf(format, number(s)))
		}
		rows = append(rows, row)
	}
	add("nodes", "%.0f", func(s *study.Shape) float64 { return float64(s.Nodes) })
	add("known by, mean", "%.2f", func(s *study.Shape) float64 { return s.Known.Mean })
	add("known by, standard deviation", "%.2f", func(s *study.Shape) float64 { return s.Known.SD })
	add("clustering", "%.5f", func(s *study.Shape) float64 { return s.Clustering })
	add("path length", "%.3f", func(s *study.Shape) float64 { return s.PathLength })
	add("largest component, %", "%.4g", func(s *study.Shape) float64 { return 100 * s.Largest })
	add("links to the dead, %", "%.3g", func(s *study.Shape) float64 { return 100 * s.Dead })
	table(w, rows)
}

// addSearch adds what searches came to.
func addSearch(add func(what, got, want string), q *study.Searched) {
	law := func(get func(*study.SearchLaw) float64) string {
		if q.Theory == nil {
			return "–"
		}
		if x := get(q.Theory); x < 1000 {
			return fmt.Sprintf("%.4g", x)
		}
		return fmt.Sprintf("%.0f", get(q.Theory))
	}
	add(fmt.Sprintf("searches by %s, %d nodes hold it", q.By, q.Holders), strconv.Itoa(q.Lookups), "")
	add("success, %", fmt.Sprintf("%.4g", 100*q.Success), law(func(l *study.SearchLaw) float64 { return 100 * l.Success }))
	for _, bad := range []struct {
		what string
		n    int
	}{{"  one that does not hold it answered", q.Wrong}, {"  nothing found", q.Failed}, {"  the asker had too many open", q.Crowded}, {"  not answered yet", q.Open}} {
		if bad.n > 0 {
			add(bad.what, strconv.Itoa(bad.n), "")
		}
	}
	add("hops, mean", fmt.Sprintf("%.4g", q.Hops.Mean), law(func(l *study.SearchLaw) float64 { return l.Hops }))
	add("  links to the nearest holder", fmt.Sprintf("%.4g", q.Nearest), "")
	add("hops, 99th percentile", fmt.Sprintf("%.4g", q.Hops.P99), "")
	add("seconds a search, mean", fmt.Sprintf("%.3g", q.Seconds), "")
	add("messages a search, between neighbours", fmt.Sprintf("%.6g", q.Asks), law(func(l *study.SearchLaw) float64 { return l.Asks }))
	if q.Exact > 0 {
		add("  2E − N + 1", "", fmt.Sprintf("%.6g", q.Exact))
	}
	add("messages a search, to and from the asker", fmt.Sprintf("%.4g", q.Direct), law(func(l *study.SearchLaw) float64 { return l.Direct }))
}

// share is a part in percent.
func share(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }
