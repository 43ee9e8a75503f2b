package route

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"servent/system"
)

const (
	// forget is the time constant of latency's decay: what was slow long ago is asked again.
	forget = 10 * time.Second
	// SuspectFor is how long an instance that refused or broke is avoided at the most.
	SuspectFor = 2 * time.Second
)

// Loads is what one node's switch knows of the instances it sends to. It survives table swaps; the zero
// value is ready. All methods may be called from many goroutines.
type Loads struct{ gauges sync.Map } // system.InstanceID → *gauge

type gauge struct {
	inflight atomic.Int64
	suspect  atomic.Pointer[suspicion]

	mu      sync.Mutex
	latency float64   // seconds, peak-EWMA at the time below
	at      time.Time // of the last answer
}

// suspicion holds until a time, and only as long as the table that it was made under stands.
type suspicion struct {
	until time.Time
	under *Table
}

func (l *Loads) gauge(id system.InstanceID) *gauge {
	if g, ok := l.gauges.Load(id); ok {
		return g.(*gauge)
	}
	g, _ := l.gauges.LoadOrStore(id, &gauge{})
	return g.(*gauge)
}

// Begin counts a request to an instance; every Begin has one [Loads.End].
func (l *Loads) Begin(id system.InstanceID) { l.gauge(id).inflight.Add(1) }

// End counts it out.
func (l *Loads) End(id system.InstanceID) { l.gauge(id).inflight.Add(-1) }

// Answered says that an instance answered after took: it is no suspect any more.
func (l *Loads) Answered(id system.InstanceID, now time.Time, took time.Duration) {
	g := l.gauge(id)
	if g.suspect.Load() != nil {
		g.suspect.Store(nil)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// Peak-EWMA as in Twitter's Finagle: a slower answer counts at once, faster ones by and by.
	sample, w := took.Seconds(), math.Exp(-since(now, g.at).Seconds()/forget.Seconds())
	g.latency, g.at = max(sample, g.latency*w+sample*(1-w)), now
}

// Suspect says that an instance refused or broke. It reports whether that is news.
func (l *Loads) Suspect(id system.InstanceID, now time.Time, under *Table) bool {
	old := l.gauge(id).suspect.Swap(&suspicion{now.Add(SuspectFor), under})
	return old == nil || !now.Before(old.until)
}

// Of returns what is known, as seen under a table.
func (l *Loads) Of(id system.InstanceID, now time.Time, under *Table) Load {
	v, ok := l.gauges.Load(id)
	if !ok {
		return Load{}
	}
	g := v.(*gauge)
	load := Load{Inflight: int(g.inflight.Load())}
	if s := g.suspect.Load(); s != nil {
		load.Suspect = s.under == under && now.Before(s.until)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	load.Latency = time.Duration(g.latency * math.Exp(-since(now, g.at).Seconds()/forget.Seconds()) * float64(time.Second))
	return load
}

func since(now, then time.Time) time.Duration { return max(0, now.Sub(then)) }
