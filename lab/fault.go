package lab

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/admin"
	"servent/lab/check"
	"servent/lab/load"
	"servent/lab/result"
	"servent/system"
)

const (
	faultAt      = time.Second             // into the run, the node dies
	faultFor     = 5 * time.Second         // that it stays dead
	faultRun     = 4500 * time.Millisecond // the run's length, shorter: what a node does that comes back is another story
	faultSeconds = 6                       // that all of it takes, the final reads too, about
	faultLoad    = 0.5                     // of the rate at saturation: what is left of the system can carry it,
	faultLeft    = 0.8                     // and of the share of nodes that is left, where that is less: on 2 nodes 0.4
	backAt       = 0.95                    // of the rate before: recovered
	finalMost    = 8 * time.Second         // that the final reads may take; keys beyond are said to be unread
	backTicks    = 5                       // tenths of a second that it must hold
)

// kill kills the process of a node that has an instance, as kill -9 does, under a steady load.
func (r *run) kill(ctx context.Context, v Variant, s *stage, nodes int, before []load.Record) (*result.Survival, error) {
	p := r.points[at{v.Name, nodes}]
	share := min(faultLoad, faultLeft*float64(nodes-1)/float64(nodes))
	rate := p.result(r).Rate.Median * share
	if v.Up || rate <= 0 {
		return nil, nil
	}
	st, _ := s.look()
	victim := r.victim(st)
	if victim == "" {
		return nil, nil
	}
	if err := s.client.Want(ctx, v.scaled(r.service, nodes)); err != nil { // see apart
		return nil, err
	}
	o := r.options(s, faultFirst)
	o.Rate, o.Duration, o.Timeout = load.Rate{From: rate}, faultRun, faultRun
	fault, err := s.client.Trouble(ctx, admin.Trouble{Kind: admin.FaultKill, Node: victim, After: faultAt, For: faultFor})
	if err != nil {
		return nil, err
	}
	died := time.Until(fault.Begins)
	res, err := drive(ctx, o)
	if err != nil {
		return nil, err
	}
	out := survived(res, died.Seconds(), rate)
	out.What, out.Nodes, out.KeysLost = fmt.Sprintf("kill 1 node (%s)", victim), nodes, -1
	if r.keyed() && (r.checks == check.Counter || r.checks == check.KV) {
		if err := r.lost(ctx, s, before, res.Records, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// victim is a node with an instance of the service, not the one that answers for control if there is
// another.
func (r *run) victim(st admin.State) (id system.NodeID) {
	for _, n := range st.Nodes {
		has := slices.ContainsFunc(st.Instances, func(in admin.InstanceState) bool { return in.Node == n.Node && in.Service == r.service })
		if n.Pid > 0 && has && (id == "" || n.Role != "server") {
			id = n.Node
		}
	}
	return id
}

// survived reads the figures off a run in which something died at a time.
func survived(res *load.Result, died, rate float64) *result.Survival {
	out := &result.Survival{Offered: rate, FaultAt: died, Errors: res.Failed(), Recovery: -1, Timeline: []result.Tick{}}
	tick := load.TickLength.Seconds()
	for i, t := range res.Ticks {
		at := float64(i) * tick
		out.Timeline = append(out.Timeline, result.Tick{At: at, Good: t.Good, Errors: t.Errors, P90: float64(t.Latency.Quantile(0.9)) / 1e6})
		if t.Errors > 0 && at+tick > died {
			out.ErrorsFor = at + tick - died
		}
	}
	enough := backAt * rate * tick * backTicks
	first := int(died/tick) + 1
	for i := first; i+backTicks <= len(res.Ticks); i++ {
		good, bad := 0, 0
		for _, t := range res.Ticks[i : i+backTicks] {
			good, bad = good+t.Good, bad+t.Errors
		}
		if bad == 0 && float64(good) >= enough {
			out.Recovery = max(0, float64(i)*tick-died)
			if i == first {
				out.Recovery = 0 // nobody noticed
			}
			break
		}
	}
	if out.Recovery >= 0 { // as long as something fails, it has not recovered
		out.Recovery = max(out.Recovery, out.ErrorsFor)
	}
	// A key is out of reach from when it was last wanted in vain, or waited for, until its next answer.
	since := map[string]float64{}
	for _, rec := range res.Records {
		waited := (rec.Done - rec.Sent).Seconds()
		if rec.Done.Seconds() < died {
			continue
		}
		if !rec.Good {
			if _, ok := since[rec.Key]; !ok {
				since[rec.Key] = rec.Sent.Seconds()
			}
			continue
		}
		if at, ok := since[rec.Key]; ok {
			waited = rec.Done.Seconds() - at
			delete(since, rec.Key)
		}
		out.Unreachable = max(out.Unreachable, waited)
	}
	for _, at := range since {
		out.Unreachable = max(out.Unreachable, faultRun.Seconds()-at)
	}
	return out
}

// lost reads every key that something was written to, once, when all is quiet again.
func (r *run) lost(ctx context.Context, s *stage, before, during []load.Record, out *result.Survival) error {
	i := slices.IndexFunc(r.mix, func(e load.Entry) bool { return strings.Contains(e.Path, "{key}") })
	if i < 0 {
		return nil
	}
	after := &load.Result{}
	if keys := written(before, during); len(keys) > 0 {
		first := finalFirst - finalFirst%len(keys) // so that the keys' order is that of the reads
		o := r.options(s, first)
		o.Mix = []load.Entry{{Method: http.MethodGet, Path: r.mix[i].Path, Weight: 1, Accept: []int{http.StatusNotFound}}}
		o.Keys = load.Keys{Kind: "sequential", Only: keys}
		o.Clients, o.Count = 8, len(keys)
		o.Duration = finalMost
		var err error
		if after, err = drive(ctx, o); err != nil {
			return err
		}
	}
	loss := check.Lost(r.checks, check.Fault{Before: shifted(before, -ended(before)), During: during, At: time.Duration(out.FaultAt * float64(time.Second)), After: after.Records})
	out.KeysLost, out.LostText = loss.Share, loss.Text
	return nil
}

// written are the keys that something was sent to, other than questions: the most asked for first.
func written(runs ...[]load.Record) []int64 {
	seen := map[int64]bool{}
	for _, records := range runs {
		for _, rec := range records {
			i, err := strconv.ParseInt(strings.TrimPrefix(rec.Key, "k"), 10, 64) // as load.Key names them
			if err == nil && rec.Method != http.MethodGet {
				seen[i] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// joined puts a run behind those before it, on one clock: it begins when the last of their answers has come.
func joined(all, run []load.Record) []load.Record {
	return append(all, shifted(run, ended(all))...)
}

// ended is when the last answer came.
func ended(records []load.Record) (last time.Duration) {
	for i := range records {
		last = max(last, records[i].Done)
	}
	return last
}

// shifted are the records on a clock that is by so much ahead.
func shifted(records []load.Record, by time.Duration) []load.Record {
	out := slices.Clone(records)
	for i := range out {
		out[i].Intended += by
		out[i].Sent += by
		out[i].Done += by
	}
	return out
}
