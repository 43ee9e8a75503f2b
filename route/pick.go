package route

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"servent/system"
)

// Policies are the words of switch.policy that have a picker; the first is the default.
var Policies = []string{"p2c", "roundrobin", "random", "leastconn", "weighted", "nearest", "hash", "maglev"}

// Picker chooses among equals. What it keeps it keeps by instance, so that no new table makes it wrong. It may be
// called from many goroutines.
type Picker interface {
	// Pick returns an index into a.Among, which is never empty.
	Pick(a Ask) int
}

// byKey is a picker that goes by the key alone: it knows no slow start, which would move keys twice.
type byKey interface{ byKey() }

// Ask is all that a picker knows of one request.
type Ask struct {
	Now   time.Time
	Rnd   uint64     // uniform
	Key   Key        // what hash and maglev go by; empty: by chance
	Among []Instance // to choose from; [Choose] leaves out who should not be asked
	All   []Instance // set by Choose: Among as it was, the same for all who have the table
	Load  func(system.InstanceID) Load
}

// Load is what a switch knows of an instance.
type Load struct {
	Inflight int           // requests it holds now, through this node
	Latency  time.Duration // peak-EWMA; 0: not known
	Suspect  bool          // refused or broke lately: only when no other is left
	Ejected  bool          // answered badly again and again, in the life that began at Life
	Life     time.Time
}

// ejected says that the instance that answered badly is still the same.
func (l Load) ejected(in Instance) bool { return l.Ejected && l.Life.Equal(in.Ready) }

const (
	// SlowStart is how long an instance that has just become ready gets less than its share, from a tenth up. It
	// is only felt when another one has been ready for as long.
	SlowStart  = 10 * time.Second
	firstShare = 0.1
)

// NewPicker makes the picker of a policy; it is kept as long as the service's policy stands. An empty
// or unknown policy gives the default, p2c.
func NewPicker(policy string) Picker {
	switch policy {
	case "roundrobin":
		return &roundRobin{}
	case "random":
		return random{}
	case "leastconn":
		return leastConn{}
	case "weighted":
		return &weighted{}
	case "nearest":
		return nearest{}
	case "hash":
		return bounded{}
	case "maglev":
		return &maglev{}
	default:
		return p2c{}
	}
}

// Choose picks one of a.Among, which may be empty. It leaves out those that avoid names (nil: none), and
// suspects as long as there is anyone else: when all are suspect, all are asked. Those that are ejected are left
// out unless they are more than half: then the fault is hardly theirs. New ones come in slowly.
func Choose(p Picker, a Ask, avoid func(Instance) bool) (Instance, bool) {
	a.All = a.Among
	var suspect, ejected, young int
	for _, in := range a.All {
		l := a.Load(in.ID)
		if l.Suspect {
			suspect++
		}
		if l.ejected(in) {
			ejected++
		}
		if isYoung(in, a.Now) {
			young++
		}
	}
	if avoid != nil && slices.ContainsFunc(a.Among, avoid) {
		a.Among = slices.DeleteFunc(slices.Clone(a.Among), avoid)
	}
	if suspect > 0 {
		a.Among = unless(a.Among, func(in Instance) bool { return a.Load(in.ID).Suspect })
	}
	if ejected > 0 && 2*ejected <= len(a.All) {
		a.Among = unless(a.Among, func(in Instance) bool { return a.Load(in.ID).ejected(in) })
	}
	if _, keyed := p.(byKey); young > 0 && !keyed {
		a.Among = ramp(a)
	}
	switch len(a.Among) {
	case 0:
		return Instance{}, false
	case 1:
		return a.Among[0], true
	}
	return a.Among[p.Pick(a)], true
}

// unless leaves out the bad as long as there is anyone else.
func unless(among []Instance, bad func(Instance) bool) []Instance {
	if !slices.ContainsFunc(among, bad) {
		return among
	}
	if good := slices.DeleteFunc(slices.Clone(among), bad); len(good) > 0 {
		return good
	}
	return among
}

// isYoung: clocks of nodes differ, so that a little in the future counts as now.
func isYoung(in Instance, now time.Time) bool {
	return !in.Ready.IsZero() && now.Sub(in.Ready).Abs() < SlowStart
}

// ramp leaves young instances out by chance, the less often the older they are. Among young ones alone all
// are equal.
func ramp(a Ask) []Instance {
	if !slices.ContainsFunc(a.Among, func(in Instance) bool { return !isYoung(in, a.Now) }) {
		return a.Among
	}
	return slices.DeleteFunc(slices.Clone(a.Among), func(in Instance) bool {
		share := max(firstShare, float64(a.Now.Sub(in.Ready))/float64(SlowStart))
		return isYoung(in, a.Now) && unit(stir(a.Rnd^mix(string(in.ID)))) >= share
	})
}

// unit makes 0 ≤ u < 1 of 64 random bits.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }

// p2c takes the better of two chosen at random: the power of two choices (Mitzenmacher, IEEE TPDS
// 2001). Better is fewer requests in flight; where the peak-EWMA latencies are far apart, the lower product
// of both. Latencies within a factor of two tell nothing: an idle system would give all to the one that
// happened to be quicker. A draw goes to the first, which is random.
type p2c struct{}

func (p2c) Pick(a Ask) int {
	n := uint64(len(a.Among))
	i := (a.Rnd >> 32) % n
	if n == 1 {
		return int(i)
	}
	j := (i + 1 + (a.Rnd&(1<<32-1))%(n-1)) % n
	x, y := a.Load(a.Among[i].ID), a.Load(a.Among[j].ID)
	cost, other := float64(x.Inflight+1), float64(y.Inflight+1)
	if x.Latency > 0 && y.Latency > 0 && (x.Latency > 2*y.Latency || y.Latency > 2*x.Latency) {
		cost *= float64(x.Latency)
		other *= float64(y.Latency)
	}
	if other < cost {
		return int(j)
	}
	return int(i)
}

// roundRobin takes one after the other.
type roundRobin struct{ turn atomic.Uint64 }

func (r *roundRobin) Pick(a Ask) int { return int((r.turn.Add(1) - 1) % uint64(len(a.Among))) }

type random struct{}

func (random) Pick(a Ask) int { return int(a.Rnd % uint64(len(a.Among))) }

// leastConn takes the one with the fewest requests in flight, any of them at a draw.
type leastConn struct{}

func (leastConn) Pick(a Ask) int { return fewest(a, func(Instance) bool { return true }) }

// fewest is the least busy of those that ok names, which is at least one.
func fewest(a Ask, ok func(Instance) bool) int {
	start := int(a.Rnd % uint64(len(a.Among)))
	best, least := -1, math.MaxInt
	for i := range a.Among {
		at := (start + i) % len(a.Among)
		if !ok(a.Among[at]) {
			continue
		}
		if n := a.Load(a.Among[at].ID).Inflight; n < least {
			best, least = at, n
		}
	}
	return best
}

// nearest takes the least busy on this node, else on this site, else anywhere.
type nearest struct{}

func (nearest) Pick(a Ask) int {
	if here := func(in Instance) bool { return in.Local }; slices.ContainsFunc(a.Among, here) {
		return fewest(a, here)
	}
	if site := func(in Instance) bool { return in.SameSite }; slices.ContainsFunc(a.Among, site) {
		return fewest(a, site)
	}
	return fewest(a, func(Instance) bool { return true })
}
