package meter

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// The buckets are those of an HdrHistogram (http://hdrhistogram.org, Gil Tene) from 1 µs to 60 s with
// two significant digits; the tests hold ours against its Go library. That one may not be written from
// several goroutines, ours may: a counter a bucket, in groups that are made when first used. The usual
// instance takes five groups of 1 KiB.
const (
	Lowest  = time.Microsecond // shorter counts as this
	Highest = 60 * time.Second // longer counts as this

	half   = 128 // buckets a group; 2·half > 2·10², so that two digits always tell
	groups = 20  // the first holds 0…127 µs, each further one twice the width of the one before
)

// bucket returns where a latency is counted.
func bucket(d time.Duration) int {
	us := uint64(min(max(d, Lowest), Highest) / time.Microsecond)
	shift := max(0, bits.Len64(us)-8)
	return shift*half + int(us>>shift)
}

// upper is the highest latency in µs that a bucket counts.
func upper(bucket int) int64 {
	shift := max(0, bucket/half-1)
	return int64(bucket-shift*half+1)<<shift - 1
}

// recorder counts latencies.
type recorder [groups]atomic.Pointer[[half]atomic.Int64]

func (r *recorder) record(d time.Duration) {
	b := bucket(d)
	group := r[b/half].Load()
	for group == nil {
		r[b/half].CompareAndSwap(nil, new([half]atomic.Int64))
		group = r[b/half].Load()
	}
	group[b%half].Add(1)
}

func (r *recorder) latency() Latency {
	var l Latency
	for g := range r {
		group := r[g].Load()
		if group == nil {
			continue
		}
		for i := range group {
			if n := group[i].Load(); n > 0 {
				l = append(l, Bin{upper(g*half + i), n})
			}
		}
	}
	return l
}

// Histogram counts latencies outside a [Book]. The zero value is ready; all methods may be called from many
// goroutines.
type Histogram struct{ counts recorder }

// Record counts one latency.
func (h *Histogram) Record(d time.Duration) { h.counts.record(d) }

// Latency is what was counted so far. Counters are read one by one.
func (h *Histogram) Latency() Latency { return h.counts.latency() }

// Latency is a distribution: how often which latency was seen, sorted. Two add up exactly.
type Latency []Bin

// Bin counts the latencies that are nearest to Micros without being above. In JSON it is [micros, count].
type Bin struct {
	Micros int64 // µs; the highest latency that is counted here
	Count  int64
}

// MarshalJSON writes [micros, count].
func (b Bin) MarshalJSON() ([]byte, error) { return json.Marshal([2]int64{b.Micros, b.Count}) }

// UnmarshalJSON reads what MarshalJSON writes.
func (b *Bin) UnmarshalJSON(text []byte) error {
	var pair []int64
	if err := json.Unmarshal(text, &pair); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	if len(pair) != 2 || pair[0] < 0 || pair[0] > 2*int64(Highest/time.Microsecond) || pair[1] < 0 {
		return fmt.Errorf("latency: want [micros, count], have %s", text)
	}
	b.Micros, b.Count = pair[0], pair[1]
	return nil
}

// Count is how many latencies were counted.
func (l Latency) Count() int64 {
	var n int64
	for _, b := range l {
		n += b.Count
	}
	return n
}

// Quantile returns the latency that a share q, 0…1, of all do not exceed, to two digits; 0 when there
// are none.
func (l Latency) Quantile(q float64) time.Duration {
	rank := max(1, int64(math.Ceil(q*float64(l.Count())-1e-6))) // nearest rank; 0.07 of 100 is the 7th
	for _, b := range l {
		if rank -= b.Count; rank <= 0 {
			return time.Duration(b.Micros) * time.Microsecond
		}
	}
	return 0
}

// Mean is the arithmetic mean, to two digits; 0 when there are none.
func (l Latency) Mean() time.Duration {
	var sum float64
	for _, b := range l {
		sum += float64(b.Micros) * float64(b.Count)
	}
	if n := l.Count(); n > 0 {
		return time.Duration(sum / float64(n) * float64(time.Microsecond))
	}
	return 0
}

// Add counts one more latency. It looks for its place in a sorted list: right for the few latencies of a
// tenth of a second; a [Histogram] is for many, and for more than one goroutine.
func (l *Latency) Add(d time.Duration) {
	micros := upper(bucket(d))
	i, found := slices.BinarySearchFunc(*l, micros, func(b Bin, micros int64) int { return cmp.Compare(b.Micros, micros) })
	if !found {
		*l = slices.Insert(*l, i, Bin{Micros: micros})
	}
	(*l)[i].Count++
}

// Plus adds up two distributions.
func (l Latency) Plus(o Latency) Latency { return l.plus(o, 1) }

// Max is the highest latency, to two digits; 0 when there are none.
func (l Latency) Max() time.Duration { return l.Quantile(1) }

func (l Latency) plus(o Latency, sign int64) Latency {
	if len(o) == 0 {
		return l
	}
	sum := make(Latency, 0, max(len(l), len(o)))
	for len(l) > 0 || len(o) > 0 {
		var b Bin
		switch {
		case len(o) == 0 || len(l) > 0 && l[0].Micros < o[0].Micros:
			b, l = l[0], l[1:]
		case len(l) == 0 || o[0].Micros < l[0].Micros:
			b, o = Bin{o[0].Micros, sign * o[0].Count}, o[1:]
		default:
			b, l, o = Bin{l[0].Micros, l[0].Count + sign*o[0].Count}, l[1:], o[1:]
		}
		if b.Count != 0 {
			sum = append(sum, b)
		}
	}
	return slices.Clip(sum)
}
