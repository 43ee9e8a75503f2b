// Package trial loads one target, and says how far what it measured can be believed: whether the machine, the
// generator or the target was the bottleneck. It starts nothing and judges no answers; package lab does, of whole
// systems. Start at [Run] and [Write].
package trial

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"servent/lab/host"
	"servent/lab/load"
	"servent/lab/result"
	"servent/meter"
)

// Options of [Run].
type Options struct {
	Load    load.Options
	Target  string         // for the result
	Words   string         // the load in words
	Replay  *result.Replay // what Load.Replay was read from
	Version string         // of the program
}

// Bounds above which a figure is as much the machine's as the target's.
const (
	busyMost = 0.90                  // of all processors, in all
	lateMost = 0.10                  // of the median latency, by which requests were sent late (p99)
	wakeMost = 25 * time.Millisecond // by which the host woke up too late (p99), and above the median latency
)

// Run loads a target until its load ends or ctx does, and says what came of it. After the end of ctx the result
// is partial.
func Run(ctx context.Context, o Options) (*result.Load, error) {
	out := &result.Load{Version: result.LoadVersion, Servent: o.Version, Target: o.Target, Load: o.Words, Seed: o.Load.Seed,
		Started: time.Now().UTC(), Host: host.Describe(), Clients: o.Load.Clients, ThinkMS: ms(o.Load.Think), Replay: o.Replay}
	watch := host.Watch(ctx)
	res, err := load.Run(ctx, o.Load)
	seen := watch.End()
	if err != nil {
		return nil, err
	}
	out.Host.Busy, out.WakeMS = seen.Busy, ms(seen.Late)
	if ctx.Err() != nil {
		out.Partial = "interrupted after " + span(time.Since(out.Started))
		if d := o.Load.Duration; d > 0 {
			out.Partial += " of " + span(d)
		}
	}
	fill(out, o.Load, res)
	out.Validity = validity(out, o.Load)
	return out, nil
}

// fill takes over what the clients got.
func fill(out *result.Load, o load.Options, res *load.Result) {
	out.Took, out.Seconds = res.Took.Seconds(), res.Window.Seconds()
	out.Asked, out.Requests, out.NotSent, out.Errors = res.Asked, res.Sent, res.NotSent, res.Failed()
	if out.Seconds > 0 {
		out.SentRate = float64(res.Sent) / out.Seconds
		if o.Clients == 0 {
			out.Offered = float64(res.Asked) / out.Seconds
		}
	}
	if d := max(out.Took, out.Seconds); d > 0 {
		out.Rate = float64(res.Good) / d
	}
	out.Kinds, out.Statuses, out.Bins = []result.Errors{}, []result.Status{}, []result.Bin{}
	for kind, n := range res.Errors {
		out.Kinds = append(out.Kinds, result.Errors{Kind: kind, Count: n, Example: res.Examples[kind]})
	}
	slices.SortFunc(out.Kinds, func(a, b result.Errors) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind))
	})
	if o.TCP == nil {
		for _, code := range slices.Sorted(maps.Keys(res.Statuses)) {
			out.Statuses = append(out.Statuses, result.Status{Code: code, Count: res.Statuses[code]})
		}
	}
	out.LatencyMS = tail(res.Latency)
	for _, b := range res.Latency {
		out.Bins = append(out.Bins, result.Bin{Micros: b.Micros, Count: b.Count})
	}
	out.LateMS, out.LateMaxMS = ms(res.Late.Quantile(0.99)), ms(res.Late.Max())
	out.Sent, out.Received = res.Wrote, res.Got
}

func tail(l meter.Latency) result.Tail {
	return result.Tail{P50: ms(l.Quantile(0.5)), P90: ms(l.Quantile(0.9)), P99: ms(l.Quantile(0.99)), P999: ms(l.Quantile(0.999)), Max: ms(l.Max())}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// validity says who was the bottleneck: what the target got is only its own when it was neither the machine nor
// the generator.
func validity(r *result.Load, o load.Options) result.Validity {
	v := result.Validity{OK: true, Checks: []result.Check{}}
	check := func(name string, ok bool, good, bad string) {
		text := good
		if !ok {
			text = bad
		}
		v.Checks = append(v.Checks, result.Check{Name: name, OK: ok, Text: text})
		v.OK = v.OK && ok
	}
	if b := r.Host.Busy; b >= 0 {
		busy := fmt.Sprintf("this machine was %.0f %% busy", 100*b)
		check("machine", b <= busyMost, busy, busy+": what was measured is bounded by it as much as by the target")
	} else {
		check("machine", true, "how busy the machine was is not known on "+r.Host.OS, "")
	}
	median := r.LatencyMS.P50
	wake := "this machine wakes up " + figure(r.WakeMS) + " late (p99)"
	check("clock", r.WakeMS <= max(ms(wakeMost), median), wake, wake+": latencies are as much its own as the target's")
	if o.Clients == 0 {
		late := "requests were sent " + figure(r.LateMS) + " late (p99)"
		check("generator", r.LateMS <= lateMost*median || r.Requests == r.Errors, late,
			late+", more than a tenth of the median latency: latencies are as much the generator's as the target's")
		check("not sent", r.NotSent == 0, "every request that was due was sent",
			fmt.Sprintf("%s of %s requests that were due were not sent, because %s were open: the target answered more slowly than it was asked, and would have been still slower",
				grouped(r.NotSent), grouped(r.Asked), grouped(int64(open(o)))))
	}
	return v
}

// open is how many requests may be open at once.
func open(o load.Options) int { return cmp.Or(o.Inflight, load.Inflight) }
