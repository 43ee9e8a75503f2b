package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/driver/process"
	"servent/overlay"
	"servent/overlay/study"
	"servent/overlay/unstructured"
	"servent/system"
)

// simulateOptions are the words of servent simulate, as they were typed.
type simulateOptions struct {
	nodes, lookups, sweep, most string
	kill, loss                  string
	delay, churn                string
	search, holders             string
	given                       func(flag string) bool
	study                       study.Options
}

func (e *env) simulateCmd() *cobra.Command {
	var o simulateOptions
	var names, lines []string
	for _, p := range overlay.Protocols() {
		names, lines = append(names, p.Name), append(lines, fmt.Sprintf("  %-10s %s\n", p.Name, p.Means))
	}
	for _, g := range overlay.Graphs() {
		names, lines = append(names, g.Name), append(lines, fmt.Sprintf("  %-10s %s\n", g.Name, g.Means))
	}
	cmd := &cobra.Command{
		Use:   "simulate OVERLAY",
		Short: "Run an overlay of many nodes on virtual time and put it beside theory",
		Long: "Simulate runs the very code that nodes run, on virtual time: lookups from random nodes for random keys, messages that are\n" +
			"lost, nodes that die. One seed is one run, event for event, on any machine and over any number of shards. What it\n" +
			"prints is simulated, never measured.\n\n" + strings.Join(lines, ""),
		Example: "  servent simulate ring -n 1e3\n" +
			"  servent simulate ring -n 100 --kill 25% --lookups 1e4\n" +
			"  servent simulate chord -n 1e6 --for 10s --upkeep 30s\n" +
			"  servent simulate ring --sweep 2..1e3\n" +
			"  servent simulate cyclon -n 1e4 --kill 50%\n" +
			"  servent simulate scale-free -n 1e4 --search walk --holders 100",
		Args:      cobra.ExactArgs(1),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.given = cmd.Flags().Changed
			return e.simulate(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.nodes, "nodes", "n", "1e3", "`N` nodes")
	f.StringVar(&o.sweep, "sweep", "", "several numbers of nodes, `A..B`, instead of -n")
	f.Uint64Var(&o.study.Seed, "seed", 1, "`N` of every draw; one seed is one run")
	f.StringVar(&o.lookups, "lookups", "1e4", "`N` lookups, spread over --for; of overlays without keys default 100")
	f.DurationVar(&o.study.For, "for", time.Minute, "how long lookups begin, virtual; of cyclon default 10m, sixty cycles")
	f.StringVar(&o.delay, "delay", "10ms..100ms", "`A..B`, of a message from node to node")
	f.BoolVar(&o.study.Plane, "plane", false, "nodes lie on a square, and delays are distances; else each message draws its own")
	f.StringVar(&o.loss, "loss", "0", "`PERCENT` of the messages that are lost")
	f.StringVar(&o.kill, "kill", "0", "`PERCENT` of the nodes that die together")
	f.DurationVar(&o.study.KillAt, "kill-at", 0, "when, after the first lookup; default just before it")
	f.StringVar(&o.churn, "churn", "", "nodes die after `UP` in the mean and come again after as long, or UP/DOWN")
	f.BoolVar(&o.study.Join, "join", false, "nodes join one after the other; else they have been members for long")
	f.DurationVar(&o.study.Period, "upkeep", 0, "how often a node looks at its neighbours, or refreshes a bucket; default as nodes do, twice a second, or every 30s; of cyclon every 10s, of random and scale-free every second")
	f.StringVar(&o.search, "search", "flood", "`WAY` of random and scale-free: "+strings.Join(unstructured.Words(), ", "))
	f.StringVar(&o.holders, "holders", "10", "`N` nodes that hold what is searched for")
	f.IntVar(&o.study.Far, "far", 0, "`N` links that a flood goes; default all")
	f.BoolVar(&o.study.Attack, "attack", false, "--kill takes the nodes with most neighbours")
	f.BoolVar(&o.study.Lattice, "lattice", false, "cyclon begins with neighbours on a circle; else with any")
	f.IntVar(&o.study.Shards, "shards", 0, "`N` goroutines that share the nodes; default 1, and from 1e5 nodes on one a processor")
	f.StringVar(&o.most, "events", "1e8", "refuse what would take more than `N` events")
	return cmd
}

// told is how many events are said beforehand: they take more than some seconds.
const told = 1e7

// simulated is a run with what it cost.
type simulated struct {
	study.Result
	cost
}

// cost is what a run took of this machine.
type cost struct {
	CPU  float64 `json:"cpu_seconds"`
	Wall float64 `json:"wall_seconds"`
	RSS  int64   `json:"max_rss_bytes"` // of the process, until the end of the run
}

// experiment makes runs one after the other, under one line of progress, and tells each one's cost. It ends early with ctx, whose error it returns then.
func (e *env) experiment(ctx context.Context, runs []study.Options, run func(study.Options) error, took func(cost)) error {
	p := progress{e: e, began: time.Now(), of: len(runs)}
	for _, r := range runs {
		p.total += study.Foretell(r)
	}
	defer func() {
		if p.shown {
			e.clearLine()
		}
	}()
	for i, r := range runs {
		r.Tell = func(now study.Progress) { p.show(i, r, now) }
		cpu, began := process.OwnCPU().Seconds(), time.Now()
		err := run(r)
		if err != nil && ctx.Err() == nil {
			return misuse{err} // Check has been asked before
		}
		took(cost{process.OwnCPU().Seconds() - cpu, time.Since(began).Seconds(), maxRSS()})
		p.before += study.Foretell(r)
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) simulate(ctx context.Context, name string, o simulateOptions) error {
	runs, err := o.runs(name)
	if err != nil {
		return misuse{err}
	}
	if runs[0].Graph.New != nil {
		return e.simulateGraphs(ctx, runs)
	}
	total := 0.0
	for _, r := range runs {
		total += study.Foretell(r)
	}
	if total > told {
		fmt.Fprintf(e.err, "about %s events\n", large(total))
	}
	var all []simulated
	err = e.experiment(ctx, runs, func(r study.Options) error {
		res, err := study.Run(ctx, r)
		all = append(all, simulated{Result: res})
		return err
	}, func(c cost) { all[len(all)-1].cost = c })
	if err != nil && ctx.Err() == nil {
		return err
	}
	switch {
	case e.json && o.sweep != "":
		err = e.print(struct {
			Simulated bool        `json:"simulated"`
			Points    []simulated `json:"points"`
		}{true, all})
	case e.json:
		err = e.print(all[0])
	case o.sweep != "":
		writeSweep(e.out, runs[0], all)
	default:
		writeSimulated(e.out, runs[0], all[0])
	}
	if ctx.Err() != nil {
		return ctx.Err() // it was interrupted, but what there is has been printed
	}
	return err
}

// runs reads the words.
func (o simulateOptions) runs(name string) ([]study.Options, error) {
	s := o.study
	if err := o.choose(name, &s); err != nil {
		return nil, err
	}
	var err error
	read := func(flag, word string, into func(string) error) {
		if err == nil {
			if e := into(word); e != nil {
				err = &system.Hint{Err: fmt.Errorf("--%s: %w", flag, e), Next: "servent simulate --help"}
			}
		}
	}
	var most int
	read("search", o.search, func(w string) error {
		i := slices.Index(unstructured.Words(), w)
		if s.Search = unstructured.Search(max(i, 0)); i < 0 {
			return fmt.Errorf("want %s, have %q", strings.Join(unstructured.Words(), ", "), w)
		}
		return nil
	})
	read("holders", o.holders, func(w string) (e error) {
		if s.Holders, e = whole(w); e == nil && s.Holders < 1 {
			e = fmt.Errorf("want 1 or more, have %d", s.Holders)
		}
		return e
	})
	read("nodes", o.nodes, func(w string) (e error) { s.Nodes, e = whole(w); return e })
	read("lookups", o.lookups, func(w string) (e error) { s.Lookups, e = whole(w); return e })
	read("events", o.most, func(w string) (e error) { most, e = whole(w); return e })
	read("loss", o.loss, func(w string) (e error) { s.Loss, e = percent(w); return e })
	read("kill", o.kill, func(w string) (e error) { s.Kill, e = percent(w); return e })
	read("delay", o.delay, func(w string) (e error) { s.From, s.To, e = durations(w, ".."); return e })
	if o.churn != "" {
		read("churn", o.churn, func(w string) (e error) { s.Up, s.Down, e = durations(w, "/"); return e })
	}
	sizes := []int{s.Nodes}
	if o.sweep != "" {
		read("sweep", o.sweep, func(w string) (e error) { sizes, e = sweep(w); return e })
	}
	if err != nil {
		return nil, err
	}
	var runs []study.Options
	events := 0.0
	for _, n := range sizes {
		s.Nodes = n
		if err := study.Check(s); err != nil {
			return nil, &system.Hint{Err: err, Next: "servent simulate --help"}
		}
		runs = append(runs, s)
		events += study.Foretell(s)
	}
	if events > float64(most) {
		return nil, &system.Hint{Err: fmt.Errorf("%s among %s nodes would take about %s events, and at most %s are wanted",
			large(float64(s.Lookups))+" lookups", large(float64(sizes[len(sizes)-1])), large(events), large(float64(most))),
			Next: fmt.Sprintf("fewer nodes (-n), fewer --lookups, a shorter --for, shorter --delay, or --events %s", enough(events))}
	}
	return runs, nil
}

// choose finds the overlay, and refuses words that say nothing of it.
func (o *simulateOptions) choose(name string, s *study.Options) error {
	of := func(words ...string) error {
		for _, w := range words {
			if o.given != nil && o.given(w) {
				return &system.Hint{Err: fmt.Errorf("--%s says nothing of %s", w, name), Next: "servent simulate --help"}
			}
		}
		return nil
	}
	var names []string
	for _, p := range overlay.Protocols() {
		if p.Name == name {
			s.Overlay = p
			return of("search", "holders", "far", "attack", "lattice")
		}
		names = append(names, p.Name)
	}
	for _, g := range overlay.Graphs() {
		if g.Name != name {
			names = append(names, g.Name)
			continue
		}
		s.Graph = g
		if o.given != nil && !o.given("for") {
			s.For = time.Duration(g.For * float64(time.Second))
		}
		if !g.Searches {
			o.lookups = "0"
			return of("lookups", "search", "holders", "far")
		}
		if o.given != nil && !o.given("lookups") {
			o.lookups = "100"
		}
		return nil
	}
	return &system.Hint{Err: fmt.Errorf("want an overlay, %s; have %q", strings.Join(names, ", "), name), Next: "servent simulate " + names[0] + " -n 1e3"}
}

// enough is a round number that is no less.
func enough(x float64) string {
	ten := math.Floor(math.Log10(max(x, 1)))
	return fmt.Sprintf("%.0fe%.0f", math.Ceil(x/math.Pow(10, ten)), ten)
}

// whole reads 1000 and 1e3.
func whole(s string) (int, error) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
		return 0, fmt.Errorf("want a whole number like 1000 or 1e3, have %q", s)
	}
	return int(x), nil
}

// percent reads 25% and 0.25.
func percent(s string) (float64, error) {
	number, isPercent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if isPercent {
		x /= 100
	}
	if err != nil || !(x >= 0 && x <= 1) {
		return 0, fmt.Errorf("want 0%% to 100%%, have %q", s)
	}
	return x, nil
}

// durations reads one, or two with something between.
func durations(s, between string) (a, b time.Duration, err error) {
	first, second, two := strings.Cut(s, between)
	if a, err = time.ParseDuration(first); err == nil {
		if b = a; two {
			b, err = time.ParseDuration(second)
		}
	}
	if err != nil || a <= 0 || b <= 0 || between == ".." && b < a {
		return 0, 0, fmt.Errorf("want durations like 10ms%s100ms, have %q", between, s)
	}
	return a, b, nil
}

// sweep reads 2..1e4: 2, 5, 10, 20, 50 … 10000.
func sweep(s string) ([]int, error) {
	first, last, _ := strings.Cut(s, "..")
	a, err := whole(first)
	b, err2 := whole(last)
	if err != nil || err2 != nil || a < 1 || b < a || b > 1<<27 {
		return nil, fmt.Errorf("want numbers of nodes like 2..1e4, have %q", s)
	}
	sizes := []int{a}
	for ten := 1; ten <= b; ten *= 10 {
		for _, n := range []int{ten, 2 * ten, 5 * ten} {
			if n > a && n < b {
				sizes = append(sizes, n)
			}
		}
	}
	if b > a {
		sizes = append(sizes, b)
	}
	return sizes, nil
}

// large is a number that is read by its size: 999, 12,300, 4.6e+08 as 460 million.
func large(x float64) string {
	switch {
	case x >= 1e9:
		return fmt.Sprintf("%.3g billion", x/1e9)
	case x >= 1e6:
		return fmt.Sprintf("%.3g million", x/1e6)
	}
	return strconv.FormatFloat(math.Round(x), 'f', -1, 64)
}

// progress shows how far runs have come, when they take longer than a second.
type progress struct {
	e             *env
	began, last   time.Time
	of            int
	before, total float64 // events
	shown         bool
}

func (p *progress) show(i int, o study.Options, now study.Progress) {
	wait := 10 * time.Second
	redraw := terminal(p.e.err)
	if redraw {
		wait = 200 * time.Millisecond
	}
	took := time.Since(p.began)
	if took < time.Second || p.shown && time.Since(p.last) < wait {
		return
	}
	p.shown, p.last = true, time.Now()
	done := (p.before + now.Done*study.Foretell(o)) / p.total
	line := fmt.Sprintf("%s of %d, %s: %.0f %%, %s events, about %s left", o.Overlay.Name+o.Graph.Name, o.Nodes, now.Doing, 100*done, large(float64(now.Events)),
		time.Duration(took.Seconds()*(1-done)/max(done, 1e-3)*1e9).Round(time.Second))
	if p.of > 1 {
		line = fmt.Sprintf("%d/%d  ", i+1, p.of) + line
	}
	if redraw {
		fmt.Fprintf(p.e.err, "\r\x1b[2K%s", line)
	} else {
		fmt.Fprintln(p.e.err, line)
	}
}

// linkWords says how messages travel, in words.
func linkWords(o study.Options) string {
	how := "each drawn anew"
	if o.Plane {
		how = "by distance on a square"
	}
	words := fmt.Sprintf("delays %v–%v one way, %s", o.From, o.To, how)
	if o.Loss > 0 {
		words += fmt.Sprintf("; %.3g %% lost", 100*o.Loss)
	}
	if o.Up > 0 {
		words += fmt.Sprintf("; nodes live %v and are away %v in the mean", o.Up, o.Down)
	}
	return words
}

func writeSimulated(w io.Writer, o study.Options, r simulated) {
	fmt.Fprintf(w, "simulated: %s of %d nodes, seed %d, %.1f s of virtual time\n%s\n", r.Overlay, r.Nodes, r.Seed, r.Seconds, linkWords(o))
	if r.Partial {
		fmt.Fprintln(w, "partial: it was stopped before its end")
	}
	fmt.Fprintln(w)
	theory := func(get func(*study.Theory) string) string {
		if r.Theory == nil {
			return "–"
		}
		return get(r.Theory)
	}
	rows := [][]string{{"", "simulated", "theory"}}
	add := func(what, got, want string) { rows = append(rows, []string{what, got, want}) }
	if r.Joined != nil {
		add("one overlay, since the last came", fmt.Sprintf("%.1f s", *r.Joined), "")
	}
	if r.Killed > 0 {
		add("nodes that died together", strconv.Itoa(r.Killed), "")
		after := "not while lookups ran"
		if r.Whole != nil {
			after = fmt.Sprintf("%.1f s", *r.Whole)
		}
		add("whole again after", after, "")
	}
	if r.Deaths > 0 {
		add("nodes that died by and by", strconv.Itoa(r.Deaths), "")
	}
	if r.Lookups > 0 {
		add("lookups", strconv.Itoa(r.Lookups), "")
		add("success", fmt.Sprintf("%.4g %%", 100*r.Success), theory(func(t *study.Theory) string { return fmt.Sprintf("%.4g %%", 100*t.Success) }))
		for _, bad := range []struct {
			what string
			n    int
		}{{"  another than the owner answered", r.Wrong}, {"  the asker gave up", r.Failed}, {"  the asker had too many open", r.Crowded}, {"  not answered yet", r.Open}} {
			if bad.n > 0 {
				add(bad.what, strconv.Itoa(bad.n), "")
			}
		}
		add("hops, mean", fmt.Sprintf("%.4g", r.Hops.Mean), theory(func(t *study.Theory) string { return fmt.Sprintf("%.4g", t.Hops.Mean) }))
		add("hops, standard deviation", fmt.Sprintf("%.4g", r.Hops.SD), theory(func(t *study.Theory) string { return fmt.Sprintf("%.4g", t.Hops.SD) }))
		add("hops, 99th percentile", fmt.Sprintf("%.4g", r.Hops.P99), theory(func(t *study.Theory) string { return fmt.Sprintf("%.4g", t.Hops.P99) }))
		add("seconds a lookup, mean", fmt.Sprintf("%.3g", r.LookupSeconds), "")
		add("messages a lookup", fmt.Sprintf("%.4g", r.MessagesPerLookup), theory(func(t *study.Theory) string { return theoryOf(t.MessagesPerLookup) }))
	}
	if k := r.Keys; k != nil {
		share := func(b study.Balance) string { return fmt.Sprintf("%.2g–%.3g ×", b.P1, b.P99) }
		add("keys of a node, 1st–99th percentile", share(k.One), share(k.OneLaw))
		if k.Many != nil {
			add(fmt.Sprintf("  with %d virtual nodes each", k.Virtual), share(*k.Many), share(k.ManyLaw))
		}
	}
	add("messages/s a node, upkeep", fmt.Sprintf("%.3g", r.UpkeepMessages), "")
	add("bytes/s a node, upkeep", fmt.Sprintf("%.3g", r.UpkeepBytes), "")
	add("messages/s a node, all", fmt.Sprintf("%.3g", r.Messages), "")
	add("bytes/s a node, all", fmt.Sprintf("%.3g", r.Bytes), "")
	add("messages/s of the busiest, in and out", fmt.Sprintf("%.3g", r.Busiest), "")
	add("events", strconv.FormatUint(r.Events, 10), "")
	add("event hash", r.Hash, "")
	add("processor time", fmt.Sprintf("%.2fs", r.CPU), "")
	add("memory at most", fmt.Sprintf("%.0fMiB", float64(r.RSS)/(1<<20)), "")
	table(w, rows)
	if r.Theory != nil && r.Lookups > 0 {
		fmt.Fprintf(w, "\ntheory: %s\n", r.Theory.Source)
	}
}

// theoryOf is a number of theory, or a dash where none is known.
func theoryOf(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.4g", x)
}

func writeSweep(w io.Writer, o study.Options, all []simulated) {
	fmt.Fprintf(w, "simulated: %s, seed %d, %s lookups each\n%s\n\n", o.Overlay.Name, o.Seed, large(float64(o.Lookups)), linkWords(o))
	rows := [][]string{{"nodes", "success", "hops", "theory", "sd", "p99", "messages/lookup", "theory", "messages/s a node", "bytes/s a node", "events", "CPU"}}
	for _, r := range all {
		mean, messages := "–", "–"
		if r.Theory != nil {
			mean, messages = fmt.Sprintf("%.4g", r.Theory.Hops.Mean), theoryOf(r.Theory.MessagesPerLookup)
		}
		row := []string{strconv.Itoa(r.Nodes), fmt.Sprintf("%.4g %%", 100*r.Success), fmt.Sprintf("%.4g", r.Hops.Mean), mean, fmt.Sprintf("%.4g", r.Hops.SD),
			fmt.Sprintf("%.4g", r.Hops.P99), fmt.Sprintf("%.4g", r.MessagesPerLookup), messages, fmt.Sprintf("%.3g", r.Messages), fmt.Sprintf("%.3g", r.Bytes),
			strconv.FormatUint(r.Events, 10), fmt.Sprintf("%.2fs", r.CPU)}
		if r.Partial {
			row = append(row, "partial")
		}
		rows = append(rows, row)
	}
	table(w, rows)
}
