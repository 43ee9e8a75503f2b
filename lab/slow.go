package lab

import (
	"context"
	"slices"
	"time"

	"servent/lab/load"
	"servent/meter"
	"servent/system"
)

// mostSlow is the most that emulated time is stretched by: a capacity of 50/s then is one request in five
// seconds.
const mostSlow = 256

// stretched is a system whose emulated time runs k times slower: its nodes serve and send on a k-th of what
// the file says, its links take k times as long. Programs, sockets and the clocks of control run as ever. So a
// host that wakes up too late for 20 ms a request may be good enough for 80 ms.
func stretched(sys *system.System, k float64) *system.System {
	if k == 1 {
		return sys
	}
	out := *sys
	out.Nodes = slices.Clone(sys.Nodes)
	for i := range out.Nodes {
		g := &out.Nodes[i]
		g.Capacity.Rate /= k
		g.Capacity.Pass /= k // 0 stays: ten times the rate
		g.Links = slices.Clone(g.Links)
		for j := range g.Links {
			l := &g.Links[j]
			l.Latency = time.Duration(float64(l.Latency) * k)
			if l.Rate > 0 {
				l.Rate = max(1, int64(float64(l.Rate)/k))
			}
		}
	}
	return &out
}

// paced runs a load on a stage whose time is stretched. What is asked for and what is answered are in the
// file's time. Timelines are not kept then.
func (r *run) paced(ctx context.Context, o load.Options) (*load.Result, error) {
	if r.pace() == 1 {
		return drive(ctx, o)
	}
	long := func(d time.Duration) time.Duration { return time.Duration(float64(d) * r.pace()) }
	o.Rate.From, o.Rate.To = o.Rate.From/r.pace(), o.Rate.To/r.pace()
	o.Duration = long(o.Duration)
	if o.Timeout == 0 {
		o.Timeout = requestWithin
	}
	o.Timeout = long(o.Timeout)
	res, err := drive(ctx, o)
	if err != nil {
		return nil, err
	}
	short := func(d time.Duration) time.Duration { return time.Duration(float64(d) / r.pace()) }
	for i := range res.Records {
		rec := &res.Records[i]
		rec.Intended, rec.Sent, rec.Done = short(rec.Intended), short(rec.Sent), short(rec.Done)
	}
	out := recount(res.Records)
	out.NotSent, out.Busy, out.Took = res.NotSent, short(res.Busy), short(res.Took)
	return out, nil
}

const requestWithin = 10 * time.Second // what a load gives a request by default

// recount makes a result of some of a run's records alone. Took and Busy are the run's own.
func recount(records []load.Record) *load.Result {
	res := &load.Result{Errors: map[string]int64{}, Statuses: map[int]int64{}, Records: records}
	var latency, late meter.Histogram
	for _, rec := range records {
		res.Sent++
		late.Record(max(0, rec.Sent-rec.Intended))
		switch {
		case rec.Good:
			res.Good++
			latency.Record(rec.Done - rec.Intended)
		case rec.Err != "":
			res.Errors[rec.Err]++
		default:
			res.Errors[load.Status]++
		}
		if rec.Err == "" {
			res.Statuses[rec.Status]++
		}
	}
	res.Latency, res.Late = latency.Latency(), late.Latency()
	return res
}

// pace is by how much emulated time is stretched, 1 or more.
func (p *plan) pace() float64 { return max(1, p.slow) }
