package route

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"servent/system"
)

// Calls is what the doors of one node are asked of services whose instances follow their calls. It is told of
// every request and says how much that is: nothing leaves it by itself. Make it with [NewCalls]; all methods
// may be called from many goroutines.
type Calls struct {
	asked chan struct{} // of capacity 1

	mu     sync.Mutex // guards what follows
	gauges map[gauged]*called
	took   map[system.ServiceName]*answers
}

// gauged is what a gauge is of.
type gauged struct {
	service system.ServiceName
	cpu     bool // thousandths of processors that its instances use, not requests
}

// called is what is asked of one service.
type called struct {
	inflight int
	most     int       // in flight since sampled
	urgent   bool      // somebody found no instance since sampled
	area     float64   // requests × seconds since sampled
	at       time.Time // up to which area counts
	sampled  time.Time
	peaks    []peak  // falling, the oldest first: each is the most since the one before it
	told     float64 // at the last sample
	toldAt   time.Time
}

type peak struct {
	at       time.Time
	inflight float64
}

// calmly is the least time between two samples that say that less is asked: it is no hurry.
const calmly = time.Second

const (
	shortest = 50 * time.Millisecond // that a mean is taken over
	least    = 1.0 / 8               // requests at a time that are told of
)

// NewCalls returns an empty one.
func NewCalls() *Calls {
	return &Calls{asked: make(chan struct{}, 1), gauges: map[gauged]*called{}, took: map[system.ServiceName]*answers{}}
}

// Asked receives when a service is called of which the last sample said nothing: a sample is due.
func (c *Calls) Asked() <-chan struct{} { return c.asked }

// Begin counts a request that enters, from now on until [Calls.End], whether it waits or is under way. waits
// says that no instance is there for it.
func (c *Calls) Begin(name system.ServiceName, now time.Time, waits bool) {
	if c.add(name, now, +1, waits) {
		select {
		case c.asked <- struct{}{}:
		default: // one is as good as many
		}
	}
}

// End counts it out.
func (c *Calls) End(name system.ServiceName, now time.Time) { c.add(name, now, -1, false) }

// Took takes how long an answer took to begin, of a service of which that is told.
func (c *Calls) Took(name system.ServiceName, now time.Time, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.took[name]
	if a == nil {
		a = &answers{}
		c.took[name] = a
	}
	a.add(now, took)
}

// Uses says how many processors a service's instances here use from now on.
func (c *Calls) Uses(name system.ServiceName, now time.Time, processors float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.of(gauged{name, true}, now)
	g.pass(now)
	g.inflight = int(1000 * processors)
	g.most = max(g.most, g.inflight)
}

// of returns a gauge. mu is held.
func (c *Calls) of(what gauged, now time.Time) *called {
	g := c.gauges[what]
	if g == nil {
		g = &called{at: now, sampled: now}
		c.gauges[what] = g
	}
	return g
}

func (c *Calls) add(name system.ServiceName, now time.Time, n int, waits bool) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.of(gauged{service: name}, now)
	g.pass(now)
	g.inflight += n
	g.most = max(g.most, g.inflight)
	g.urgent = g.urgent || waits
	return n > 0 && g.told == 0
}

// pass brings area up to now.
func (g *called) pass(now time.Time) {
	if d := now.Sub(g.at); d > 0 {
		g.area += float64(g.inflight) * d.Seconds()
		g.at = now
	}
}

// Sample says what was asked at a time, the most of the last span of each service, and forgets what is older.
// A service whose span is 0 is left out. More is said at once, less at most once a second. busy says that
// there is more to tell by and by, whether anybody calls or not: sample again soon.
func (c *Calls) Sample(now time.Time, span func(system.ServiceName) time.Duration) (demand []system.Demand, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[system.ServiceName]system.Demand{}
	for what, g := range c.gauges {
		s := span(what.service)
		if most := g.sample(now, s); most > 0 {
			d := all[what.service]
			d.Service = what.service
			if what.cpu {
				d.CPU = most / 1000
			} else {
				d.Inflight = most
			}
			all[what.service] = d
		} else if g.most == 0 || s <= 0 && g.inflight == 0 {
			delete(c.gauges, what)
			continue
		}
		busy = true
	}
	for name, a := range c.took {
		if d, ok := all[name]; ok {
			d.Latency = a.sample(now)
			all[name] = d
		} else {
			delete(c.took, name)
		}
	}
	demand = slices.Collect(maps.Values(all))
	slices.SortFunc(demand, func(a, b system.Demand) int { return cmp.Compare(a.Service, b.Service) })
	return demand, busy
}

func (g *called) sample(now time.Time, span time.Duration) float64 {
	g.pass(now)
	level := 0.0
	switch d := now.Sub(g.sampled); {
	case g.urgent && g.told == 0:
		level = float64(g.most)
	case d < shortest:
		return g.told // too short for a mean
	default: // many short requests are no crowd
		level = max(g.area/d.Seconds(), min(float64(g.most), least))
	}
	g.most, g.urgent, g.area, g.sampled = g.inflight, false, 0, now
	g.peaks = slices.DeleteFunc(g.peaks, func(p peak) bool { return now.Sub(p.at) >= span || p.inflight <= level })
	if level > 0 && span > 0 {
		g.peaks = append(g.peaks, peak{now, level})
	}
	most := 0.0
	if len(g.peaks) > 0 {
		most = roundUp(g.peaks[0].inflight)
	}
	if most < g.told && now.Sub(g.toldAt) < calmly && span > 0 {
		return g.told
	}
	if most != g.told {
		g.told, g.toldAt = most, now
	}
	return most
}

// roundUp keeps three binary digits after the first, so that a small change is none: 1/8 … 15, 16, 18, 20 …
func roundUp(x float64) float64 {
	if x <= 0 {
		return 0
	}
	_, exp := math.Frexp(max(x, least))
	step := math.Ldexp(1, exp-4)
	return math.Ceil(max(x, least)/step) * step
}
