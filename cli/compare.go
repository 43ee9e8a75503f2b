package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"servent/blob"
	"servent/lab"
	"servent/lab/report"
	"servent/lab/result"
	"servent/launch"
	"servent/system"
)

type compareOptions struct {
	vary    []string
	service string
	nodes   string
	repeats int
	noFault bool
	seed    uint64
	against string
	full    bool
	slow    float64
	samples int
	scale   string
}

func (e *env) compareCmd() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare [FOLDER|FILE…]",
		Short: "Run one application under several variants and say which one scales",
		Long: "Compare runs the file's application, unchanged, under several variants on emulated nodes of this machine, all under\n" +
			"the same load: by default as single, replicated, partitioned and ring, where keys and software allow, on 1, 2 and 4\n" +
			"nodes; with --full also under the overlays, and on more. It says\n" +
			"which variant scales, whether the answers were right, and what the death of a node costs.\n" +
			"The file's x-servent.compare sets service, variants, load, check and goal; flags win over it.\n" +
			"Two or more files are variants of one another: load and goal are those of the first, and their nodes must be alike.",
		Example: "  servent compare\n  servent compare --vary architecture=single,partitioned --vary switch.policy=p2c,random\n" +
			"  servent compare monolith.yaml services.yaml\n  servent compare --scale both --vary architecture=replicated",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.whole(args, o); err != nil {
				return err
			}
			return e.compare(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.vary, "vary", nil, "`PATH=A,B` a key of the service's x-servent, of the service or of the file, and the values it takes; more than once for every combination")
	f.StringVar(&o.service, "service", "", "the `SERVICE` that is varied; the file's, or the only one with a key, by default")
	f.StringVar(&o.nodes, "nodes", "", "numbers of nodes, like 1,2,4")
	f.IntVar(&o.repeats, "repeats", 6, "turns of every variant on every number of nodes; fewer than 6 give no interval of 95 %")
	f.BoolVar(&o.noFault, "no-fault", false, "kill no node at the end")
	f.BoolVar(&o.full, "full", false, "up to 32 nodes, and for each the greatest rate that keeps the goal; says first how long it takes")
	f.Float64Var(&o.slow, "slow", 1, "stretch emulated time `K`-fold, for a host that wakes up too late; figures are in the file's time")
	f.IntVar(&o.samples, "samples", 10000, "of --full alone: requests that a rate is judged by; fewer take less time and make p99 unsure")
	f.StringVar(&o.scale, "scale", "out", "`out` to more nodes, up to more workers on one node, or both side by side")
	f.StringVar(&o.against, "against", "", "an earlier result.json, or its folder: exit 1 when something became worse")
	f.Uint64Var(&o.seed, "seed", 1, "of every draw; one seed sends the same requests again")
	return cmd
}

func (o compareOptions) depth() result.Depth {
	if o.full {
		return result.Full
	}
	return result.Quick
}

func (e *env) compare(ctx context.Context, o compareOptions, files []string) error {
	base, err := e.load(ctx)
	if err != nil {
		return err
	}
	lo := lab.Options{Files: base.Files, Depth: o.depth(), Samples: o.samples, Slow: o.slow, Repeats: o.repeats, NoFault: o.noFault, Seed: o.seed, Version: Version, Service: system.ServiceName(o.service)}
	if lo.Service == "" {
		if lo.Service, err = lab.Subject(base.System); err != nil {
			return err
		}
	}
	if base.System.Service(lo.Service) == nil {
		return misuse{fmt.Errorf("no service %q in the file", lo.Service)}
	}
	if lo.Nodes, err = numbers(o.nodes); err != nil {
		return err
	}
	var earlier *result.Result
	if o.against != "" {
		if earlier, err = result.Read(o.against); err != nil {
			return err
		}
	}
	switch {
	case o.repeats < 1:
		return misuse{errors.New("repeats: want 1 or more")}
	case !slices.Contains([]string{"out", "up", "both"}, o.scale):
		return misuse{fmt.Errorf("scale: want out, up or both, have %q", o.scale)}
	case o.scale == "both":
		if err := few(len(files), o.scale); err != nil {
			return err
		}
	}
	if !(o.slow >= 1 && o.slow <= 256) {
		return misuse{fmt.Errorf("slow: want 1 to 256, have %v", o.slow)}
	}
	if o.samples < 1 {
		return misuse{errors.New("samples: want 1 or more")}
	}
	state := e.folder()
	if err := state.Make(); err != nil {
		return err
	}
	lo.Dir, lo.Blobs = filepath.Join(string(state), "lab"), state.Blobs()
	if len(files) > 1 {
		lo.Files = files
		lo.Variants, err = e.wholeFiles(ctx, base, files)
	} else {
		lo.Variants, err = e.variants(ctx, base, lo.Service, o)
	}
	if err == nil {
		lo.Variants, err = lab.Scale(lo.Variants, lo.Service, o.scale)
	}
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	lo.Command = []string{exe, nodeVerb}
	logFile, err := launch.OpenLog(state.Log("lab"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	lo.Log = slog.New(slog.NewTextHandler(logFile, nil))
	lo.Tell = e.progress()
	res, err := lab.Run(ctx, lo)
	e.clearLine()
	if err != nil {
		return err
	}
	res.Given = e.files
	if err := e.compared(ctx, res, string(state)); err != nil || earlier == nil {
		return err
	}
	worse, err := report.Against(e.err, earlier, res, report.Options{})
	if err == nil && worse > 0 {
		err = fmt.Errorf("worse than %s in %s", o.against, count(worse, "point"))
	}
	return err
}

// compared writes a result down and shows it.
func (e *env) compared(ctx context.Context, res *result.Result, state string) error {
	dir, err := lab.Folder(state)
	if err == nil {
		err = res.Write(dir)
	}
	page := filepath.Join(dir, "report.html")
	if err == nil {
		err = writePage(page, res)
	}
	if err != nil {
		return err
	}
	if e.json {
		return errors.Join(e.print(res), ctx.Err())
	}
	o := report.Options{Report: near(page)}
	again := "servent" + e.where() + " compare"
	if res.Depth == result.Full {
		again += " --full"
	} else {
		o.Longer = again + " --full"
	}
	if late(res) {
		o.Next = append(o.Next, report.Next{Command: fmt.Sprintf("%s --slow %v", again, 4*max(1, res.Slow)), Why: "gives a host that wakes up late four times as long"})
	}
	if f, ok := e.out.(*os.File); ok && terminal(e.out) {
		o.Color = os.Getenv("NO_COLOR") == ""
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			o.Width = w
		}
	}
	if next := e.winner(res); next.Command != "" {
		o.Next = append(o.Next, next)
	}
	if err := report.Terminal(e.out, res, o); err != nil {
		return err
	}
	return ctx.Err() // a comparison that was interrupted has failed, but what it measured is there
}

// late says that the host woke up too late for the capacity of the nodes.
func late(res *result.Result) bool {
	return slices.ContainsFunc(res.Validity.Checks, func(c result.Check) bool { return c.Name == lab.Clock && !c.OK })
}

// winner is what to do with the best variant, if there is one.
func (e *env) winner(res *result.Result) report.Next {
	i := slices.IndexFunc(res.Variants, func(v result.Variant) bool { return v.Name == res.Verdict.Best })
	switch {
	case res.Verdict.Kind != "winner" || i < 0:
	case res.Variants[i].File != "":
		return report.Next{Command: "servent up " + shellWord(res.Variants[i].File), Why: "runs it"}
	case res.Variants[i].Up:
	default:
		return report.Next{Command: "servent" + e.where() + " apply " + shellWord(res.Variants[i].Name), Why: "writes it into " + near(res.Files[0])}
	}
	return report.Next{}
}

// writePage writes the report as one HTML file.
func writePage(file string, res *result.Result) error {
	var page bytes.Buffer
	err := report.HTML(&page, res)
	if err == nil {
		err = blob.Replace(file, page.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func shellWord(s string) string {
	if strings.ContainsAny(s, " ") {
		return strconv.Quote(s)
	}
	return s
}

// progress shows how far a comparison is: one line that changes on a terminal, else a line every few seconds.
func (e *env) progress() func(lab.Progress) {
	var last time.Time
	return func(p lab.Progress) {
		line := fmt.Sprintf("%3.0f %%  %s", 100*p.Share, p.Text)
		if p.Left > 0 {
			line += fmt.Sprintf("  (%s left)", p.Left)
		}
		switch {
		case p.Stays:
			e.clearLine()
			fmt.Fprintln(e.err, p.Text)
		case terminal(e.err):
			fmt.Fprintf(e.err, "\r\x1b[2K%s", line)
		case time.Since(last) > 10*time.Second:
			last = time.Now()
			fmt.Fprintln(e.err, line)
		}
	}
}

func (e *env) clearLine() {
	if terminal(e.err) {
		fmt.Fprint(e.err, "\r\x1b[2K")
	}
}

// numbers reads 1,2,4.
func numbers(text string) ([]int, error) {
	var out []int
	for word := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > 64 {
			return nil, misuse{fmt.Errorf("nodes: want numbers from 1 to 64 like 1,2,4, have %q", text)}
		}
		out = append(out, n)
	}
	return out, nil
}
