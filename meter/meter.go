// Package meter counts requests: totals and mergeable latency histograms by service and instance. It
// counts up and never down but for what is in flight; it computes no rates, keeps no history and reads
// no clock: consumers take the difference of two snapshots. A request is counted once, on the node that
// it entered by, so that snapshots of all nodes add up. Start at [Book].
package meter

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/system"
)

// Book is one node's counters. The zero value is ready, and so is nil, which counts nothing. All methods
// may be called from many goroutines.
type Book struct{ lines sync.Map } // name → *Line

type name struct {
	service  system.ServiceName
	instance system.InstanceID
}

// Line is the counters of one instance of a service; of the service itself where no instance was
// reached. All methods may be called from many goroutines and on nil.
type Line struct {
	requests, errors, retries, held, cold, refused, inflight, in, out atomic.Int64

	latency recorder
}

// Line returns the counters of an instance, or of the service alone where instance is empty. It is
// cheap, and may be kept.
func (b *Book) Line(service system.ServiceName, instance system.InstanceID) *Line {
	if b == nil {
		return nil
	}
	n := name{service, instance}
	if l, ok := b.lines.Load(n); ok {
		return l.(*Line)
	}
	l, _ := b.lines.LoadOrStore(n, &Line{})
	return l.(*Line)
}

// Begin counts a request in flight; every Begin has one [Line.End].
func (l *Line) Begin() { l.add(1) }

// End counts it out of flight.
func (l *Line) End() { l.add(-1) }

func (l *Line) add(n int64) {
	if l != nil {
		l.inflight.Add(n)
	}
}

// Done counts a request that was answered after took, or not at all. failed says that the answer was
// an error of the service: a status of 500 or more, or broken.
func (l *Line) Done(took time.Duration, failed bool) {
	if l == nil {
		return
	}
	l.requests.Add(1)
	if failed {
		l.errors.Add(1)
	}
	l.latency.record(took)
}

// Retried counts an attempt at this instance that failed and was made good elsewhere.
func (l *Line) Retried() {
	if l != nil {
		l.retries.Add(1)
	}
}

// Held counts a request that waited for an instance.
func (l *Line) Held() {
	if l != nil {
		l.held.Add(1)
	}
}

// Cold counts a request that found a service without an instance, and waited until one was made for it.
func (l *Line) Cold() {
	if l != nil {
		l.cold.Add(1)
	}
}

// Refused counts a request that no instance could take.
func (l *Line) Refused() {
	if l != nil {
		l.refused.Add(1)
	}
}

// Moved counts bytes of bodies: in towards the instance, out towards the client.
func (l *Line) Moved(in, out int64) {
	if l != nil {
		l.in.Add(in)
		l.out.Add(out)
	}
}

// Row is a [Line] at one moment: totals since the node started.
type Row struct {
	Service  system.ServiceName `json:"service"`
	Instance system.InstanceID  `json:"instance,omitempty"` // empty: no instance was reached
	Requests int64              `json:"requests"`
	Errors   int64              `json:"errors"`   // of Requests: answered with 500 or more, or broken
	Retries  int64              `json:"retries"`  // attempts made good elsewhere; not in Requests
	Held     int64              `json:"held"`     // waited for an instance; also counted where they ended
	Cold     int64              `json:"cold"`     // of Held: no instance was there at all, one was made
	Refused  int64              `json:"refused"`  // no instance could take them; not in Requests
	Inflight int64              `json:"inflight"` // now, not in all
	In       int64              `json:"in"`       // bytes of bodies towards the instance
	Out      int64              `json:"out"`      // bytes of bodies towards clients
	Latency  Latency            `json:"latency,omitempty"`
}

// Snapshot returns all rows, sorted by service and instance. Counters are read one by one: a request
// that ends meanwhile may show in some of them.
func (b *Book) Snapshot() []Row {
	if b == nil {
		return nil
	}
	var rows []Row
	b.lines.Range(func(k, v any) bool {
		n, l := k.(name), v.(*Line)
		rows = append(rows, Row{
			Service: n.service, Instance: n.instance,
			Requests: l.requests.Load(), Errors: l.errors.Load(), Retries: l.retries.Load(), Held: l.held.Load(), Cold: l.cold.Load(),
			Refused: l.refused.Load(), Inflight: l.inflight.Load(), In: l.in.Load(), Out: l.out.Load(),
			Latency: l.latency.latency(),
		})
		return true
	})
	return sorted(rows)
}

// Merge adds up rows of the same service and instance, of several nodes for example.
func Merge(snapshots ...[]Row) []Row {
	sums := map[name]Row{}
	for _, rows := range snapshots {
		for _, r := range rows {
			n := name{r.Service, r.Instance}
			sum := sums[n]
			sum.Service, sum.Instance = r.Service, r.Instance
			sums[n] = sum.plus(r, 1)
		}
	}
	var rows []Row
	for _, r := range sums {
		rows = append(rows, r)
	}
	return sorted(rows)
}

// Total adds up all rows into one without a name.
func Total(rows []Row) Row {
	var sum Row
	for _, r := range rows {
		sum = sum.plus(r, 1)
	}
	return sum
}

// Since returns what was counted after an earlier snapshot of the same row: the difference, but for
// Inflight, which is the present one. A row that counts less than before was begun anew by a restarted
// node: all of it is new.
func (r Row) Since(before Row) Row {
	if r.Requests < before.Requests || r.Refused < before.Refused {
		return r
	}
	d := r.plus(before, -1)
	d.Inflight = r.Inflight
	return d
}

func (r Row) plus(o Row, sign int64) Row {
	r.Requests += sign * o.Requests
	r.Errors += sign * o.Errors
	r.Retries += sign * o.Retries
	r.Held += sign * o.Held
	r.Cold += sign * o.Cold
	r.Refused += sign * o.Refused
	r.Inflight += sign * o.Inflight
	r.In += sign * o.In
	r.Out += sign * o.Out
	r.Latency = r.Latency.plus(o.Latency, sign)
	return r
}

func sorted(rows []Row) []Row {
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance, b.Instance))
	})
	return rows
}
