// Package lab runs one application under several variants on the same emulated nodes, under the same load,
// and says which one scales, what it costs, what it survives and whether its answers were right. Programs,
// sockets, protocols, routing and answers are real; the capacity of nodes and the delay of links are
// emulated. It never guesses: a variant whose answers are wrong is not ranked, and a run that the machine
// or the generator bounded refuses the ranking.
//
// Variants are measured side by side in short turns, A B C A B C, so that the drift of a machine hits all
// of them. Every repeat of a point sends the same requests to every variant.
//
// Start at [Run]. plan.go says what is run, stage.go starts it, point.go measures one point, fault.go kills,
// judge.go concludes. full.go searches for the greatest rate that keeps the goal, slow.go stretches emulated
// time, foretell.go simulates what was not measured. Figures are made in lab/law, answers judged in lab/check, requests sent by lab/load.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"servent/lab/result"
	"servent/system"
)

// Variant is one way of running the application.
type Variant struct {
	Name    string
	Set     map[string]string // path → value over the file
	System  *system.System    // as loaded and bundled; nil when it is refused
	File    string            // that it is, whole; "": the user's file with Set
	Refused string            // why it cannot be run
	Up      bool              // scaled up: one node with n times the workers, instead of n nodes
}

// Options of [Run].
type Options struct {
	Variants []Variant
	Service  system.ServiceName // the one that is compared
	Files    []string           // that were read
	Depth    result.Depth       // quick by default
	Nodes    []int              // numbers of nodes; nil: 1, 2, 4; full: to 32
	Repeats  int                // of every point; 0 means 6, the fewest that give an interval of 95 %
	Samples  int                // full: requests that a rate is judged by; 0 means 10,000, fewer make p99 unsure
	Slow     float64            // by which emulated time is stretched, 1 to 256; 0 means 1
	NoFault  bool               // no node is killed at the end
	Seed     uint64             // of every draw; 0 means 1
	Dir      string             // stages run in folders below it
	Blobs    string             // bytes of the variants' bundles
	Command  []string           // program and arguments that become a node
	Version  string             // of this program
	Tell     func(Progress)     // nil: nobody listens
	Log      *slog.Logger       // nil discards
}

// Progress is how far a comparison is.
type Progress struct {
	Text  string
	Share float64       // done, 0…1
	Left  time.Duration // about
	Stays bool          // it is worth a line of its own
}

const fewest = 6 // repeats that give a median an interval of 95 %

// Run compares. When ctx ends it returns what was measured until then, marked partial, and no error if
// anything was. Nothing that it started is left behind.
func Run(ctx context.Context, o Options) (*result.Result, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(Progress) {}
	}
	if o.Repeats == 0 {
		o.Repeats = fewest
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Slow == 0 {
		o.Slow = 1
	}
	if o.Samples == 0 {
		o.Samples = enough
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the stages: %w", err)
	}
	defer os.RemoveAll(o.Dir) // what runs there has ended
	p, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	r := &run{plan: p, o: o, began: time.Now(), points: map[at]*point{}, tried: map[at][]*point{}, tops: map[at]float64{}, survival: map[string]*result.Survival{}, ran: map[string]*result.Runs{}}
	r.stagings = stagings{dir: o.Dir, blobs: o.Blobs, command: o.Command, log: o.Log}
	if err := r.capacity(ctx); err != nil {
		return nil, err
	}
	if err := r.runs(ctx); err != nil {
		return nil, err
	}
	err = r.measure(ctx)
	if err != nil && (ctx.Err() == nil || len(r.points)+len(r.tried) == 0) {
		return nil, err
	}
	res := r.conclude()
	r.foretell(ctx, res)
	if err != nil {
		res.Partial = fmt.Sprintf("interrupted after %s", time.Since(r.began).Round(time.Second))
	}
	return res, nil
}

// Folder of the next result below a project's state folder: results/0007. It is made.
func Folder(state string) (string, error) {
	all := filepath.Join(state, "results")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return "", fmt.Errorf("make the folder of the results: %w", err)
	}
	for n := len(numbered(all)) + 1; ; n++ {
		dir := filepath.Join(all, fmt.Sprintf("%04d", n))
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("make the folder of the result: %w", err)
		}
	}
}

// Latest is the folder of the newest result below a project's state folder, or "".
func Latest(state string) string {
	all := numbered(filepath.Join(state, "results"))
	for i := len(all) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(all[i], result.FileName)); err == nil {
			return all[i]
		}
	}
	return ""
}

// numbered are the folders of results, oldest first.
func numbered(dir string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, "[0-9][0-9][0-9][0-9]*")) // the pattern is good
	return all
}
