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
	// EjectedFor is how long an instance that answers badly is left out; the second time in a row twice as long,
	// and so on up to ejectedMost.
	EjectedFor  = 10 * time.Second
	ejectedMost = time.Minute

	badInARow = 5   // failures without a good answer in between, each within forget of the one before
	badShare  = 0.5 // of the answers of about the last forget …
	badEnough = 20  // … when they are at least so many
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
	record  record
}

// record is how an instance has answered.
type record struct {
	life    time.Time // of the instance: a new one begins anew
	at      time.Time // of the last answer
	row     int       // failures in a row
	all     float64   // answers, the older the less they count
	bad     float64   // failures among them
	until   time.Time // it is ejected
	ejected int       // times in a row
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

// Enter is Begin for an instance that is given at most so many requests at a time, 0 without bound: it returns false, and counts nothing, when
// it has them.
func (l *Loads) Enter(id system.InstanceID, most int) bool {
	if most <= 0 {
		l.Begin(id)
		return true
	}
	for g := l.gauge(id); ; {
		n := g.inflight.Load()
		if n >= int64(most) {
			return false
		}
		if g.inflight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// End counts it out.
func (l *Loads) End(id system.InstanceID) { l.gauge(id).inflight.Add(-1) }

// Inflight is how many requests to an instance have not ended.
func (l *Loads) Inflight(id system.InstanceID) int {
	if g, ok := l.gauges.Load(id); ok {
		return int(g.(*gauge).inflight.Load())
	}
	return 0
}

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

// Judge counts an answer of an instance: a failure is one that broke, or that says that the instance is at fault.
// It reports for how long the instance is ejected by this very answer, or 0.
func (l *Loads) Judge(in Instance, now time.Time, failed bool) time.Duration {
	g := l.gauge(in.ID)
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &g.record
	if !r.life.Equal(in.Ready) {
		*r = record{life: in.Ready}
	}
	fade := math.Exp(-since(now, r.at).Seconds() / forget.Seconds())
	if since(now, r.at) > forget || !failed {
		r.row = 0
	}
	r.at, r.all, r.bad = now, r.all*fade+1, r.bad*fade
	if !failed {
		return 0
	}
	r.row++
	r.bad++
	if now.Before(r.until) || r.row < badInARow && (r.all < badEnough || r.bad < badShare*r.all) {
		return 0
	}
	if since(now, r.until) > ejectedMost {
		r.ejected = 0
	}
	r.ejected++
	lasts := min(time.Duration(r.ejected)*EjectedFor, ejectedMost)
	r.until, r.row, r.all, r.bad = now.Add(lasts), 0, 0, 0
	return lasts
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
	load.Ejected, load.Life = now.Before(g.record.until), g.record.life
	load.Latency = time.Duration(g.latency * math.Exp(-since(now, g.at).Seconds()/forget.Seconds()) * float64(time.Second))
	return load
}

func since(now, then time.Time) time.Duration { return max(0, now.Sub(then)) }
