package meter

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"servent/system"
)

func TestBookCounts(t *testing.T) {
	var b Book
	l := b.Line("api", "api/1")
	l.Begin()
	l.Begin()
	l.End()
	l.Done(3*time.Millisecond, false)
	l.Done(3*time.Millisecond, true)
	l.Retried()
	l.Moved(10, 2000)
	b.Line("api", "").Held()
	b.Line("api", "").Refused()
	b.Line("a", "a/1").Done(0, false)
	want := []Row{
		{Service: "a", Instance: "a/1", Requests: 1, Latency: Latency{{1, 1}}},
		{Service: "api", Held: 1, Refused: 1},
		{Service: "api", Instance: "api/1", Requests: 2, Errors: 1, Retries: 1, Inflight: 1, In: 10, Out: 2000, Latency: Latency{{3007, 2}}},
	}
	if diff := cmp.Diff(want, b.Snapshot()); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	sum := Row{Requests: 3, Errors: 1, Retries: 1, Held: 1, Refused: 1, Inflight: 1, In: 10, Out: 2000, Latency: Latency{{1, 1}, {3007, 2}}}
	if diff := cmp.Diff(sum, Total(want)); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	if b.Line("api", "api/1") != l {
		t.Error("the same name gave another line")
	}
}

func TestNilBookCountsNothing(t *testing.T) {
	var b *Book
	l := b.Line("api", "api/1")
	l.Begin()
	l.End()
	l.Done(time.Second, true)
	l.Retried()
	l.Held()
	l.Refused()
	l.Moved(1, 1)
	if got := b.Snapshot(); got != nil {
		t.Errorf("Snapshot() = %v, want none", got)
	}
}

func TestBookIsRaceFree(t *testing.T) {
	var b Book
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for range 2000 {
				l := b.Line("api", system.Instance("api", 1+rnd.IntN(2)))
				l.Begin()
				l.Done(time.Duration(rnd.Int64N(int64(time.Second))), rnd.IntN(10) == 0)
				l.End()
				if rnd.IntN(200) == 0 {
					b.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	got := Total(b.Snapshot())
	if got.Requests != 16000 || got.Latency.Count() != 16000 || got.Inflight != 0 {
		t.Errorf("got %d requests, %d latencies, %d in flight, want 16000, 16000, 0", got.Requests, got.Latency.Count(), got.Inflight)
	}
}

// The buckets and quantiles are those of the HdrHistogram library.
func TestLatencyIsAnHdrHistogram(t *testing.T) {
	var values []int64 // µs, sorted
	judge := hdrhistogram.New(1, int64(Highest/time.Microsecond), 2)
	var r recorder
	rnd := rand.New(rand.NewPCG(5, 6))
	for us := int64(0); us <= int64(Highest/time.Microsecond); us += 1 + rnd.Int64N(1+us/8) {
		if err := judge.RecordValue(max(1, us)); err != nil {
			t.Fatal(err)
		}
		values = append(values, max(1, us))
		r.record(time.Duration(us)*time.Microsecond + time.Duration(rnd.IntN(1000)))
	}
	l := r.latency()
	var want Latency
	for _, bar := range judge.Distribution() {
		if bar.Count > 0 {
			want = append(want, Bin{bar.To, bar.Count})
		}
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Errorf("buckets (-want +got):\n%s", diff)
	}
	if got, want := l.Count(), judge.TotalCount(); got != want {
		t.Errorf("Count() = %d, want %d", got, want)
	}
	for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := time.Duration(values[max(0, int(math.Ceil(q*float64(len(values))))-1)]) * time.Microsecond
		if got := l.Quantile(q); got < exact || got > exact+exact/100 {
			t.Errorf("Quantile(%v) = %v, want %v or up to 1%% more", q, got, exact)
		}
	}
	if got, want := l.Mean().Seconds(), judge.Mean()/1e6; math.Abs(got-want) > want/100 {
		t.Errorf("Mean() = %v, want %v", got, want)
	}
}

func TestLatencyBounds(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want time.Duration // the quantile when it is the only one
	}{
		{-time.Hour, time.Microsecond},
		{0, time.Microsecond},
		{time.Microsecond, time.Microsecond},
		{255 * time.Microsecond, 255 * time.Microsecond},
		{time.Hour, 60030975 * time.Microsecond},
		{math.MaxInt64, 60030975 * time.Microsecond},
	} {
		var r recorder
		r.record(tt.d)
		if got := r.latency().Quantile(0.5); got != tt.want {
			t.Errorf("%v counts as %v, want %v", tt.d, got, tt.want)
		}
	}
	if got := (Latency{}).Quantile(0.5) + (Latency{}).Mean(); got != 0 {
		t.Errorf("quantile and mean of none = %v, want 0", got)
	}
}

func row(t *rapid.T, label string) Row {
	n := rapid.Int64Range(0, 1000)
	r := Row{Service: "api", Instance: "api/1", Requests: n.Draw(t, label), Errors: n.Draw(t, label), Retries: n.Draw(t, label),
		Held: n.Draw(t, label), Refused: n.Draw(t, label), Inflight: n.Draw(t, label), In: n.Draw(t, label), Out: n.Draw(t, label)}
	var rec recorder
	for range rapid.IntRange(0, 20).Draw(t, label) {
		rec.record(time.Duration(rapid.Int64Range(0, 5000).Draw(t, label)) * time.Microsecond)
	}
	r.Latency = rec.latency()
	return r
}

// Snapshots add up in any order, and a difference undoes a sum.
func TestRowsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := row(t, "a"), row(t, "b")
		ab, ba := Merge([]Row{a}, []Row{b}), Merge([]Row{b, a})
		if diff := cmp.Diff(ab, ba); diff != "" {
			t.Fatalf("order matters:\n%s", diff)
		}
		want := a
		want.Inflight = ab[0].Inflight
		empty := cmp.FilterValues(func(x, y Latency) bool { return len(x)+len(y) == 0 }, cmp.Ignore())
		if diff := cmp.Diff(want, ab[0].Since(b), empty); diff != "" {
			t.Fatalf("a + b − b is not a (-want +got):\n%s", diff)
		}
	})
}

func TestSinceARestart(t *testing.T) {
	now := Row{Requests: 5, Out: 9}
	if diff := cmp.Diff(now, now.Since(Row{Requests: 700, Out: 3})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRowJSON(t *testing.T) {
	want := Row{Service: "api", Instance: "api/1", Requests: 3, Latency: Latency{{250, 2}, {3007, 1}}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	const shape = `{"service":"api","instance":"api/1","requests":3,"errors":0,"retries":0,"held":0,"cold":0,"refused":0,"inflight":0,"in":0,"out":0,"latency":[[250,2],[3007,1]]}`
	if string(text) != shape {
		t.Errorf("got  %s\nwant %s", text, shape)
	}
	var got Row
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzRowJSON(f *testing.F) {
	for _, s := range []string{`{"latency":[[250,2]]}`, `{"latency":[[1]]}`, `{"latency":[[-1,2]]}`, `{"latency":[[1,2,3]]}`, `{"latency":[{}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r Row
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		for _, b := range r.Latency {
			if b.Micros < 0 || b.Count < 0 {
				t.Errorf("%s: negative bin %v", text, b)
			}
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var r2 Row
		if err := json.Unmarshal(again, &r2); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func BenchmarkDone(b *testing.B) {
	var book Book
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for d := time.Duration(0); pb.Next(); d += time.Microsecond {
			l := book.Line("api", "api/1")
			l.Begin()
			l.Done(d%time.Second, false)
			l.End()
		}
	})
}
