package route

import (
	"slices"
	"sync/atomic"
	"time"

	"servent/system"
)

// Policies are the words of switch.policy that have a picker; the first is the default.
var Policies = []string{"p2c", "roundrobin", "random", "leastconn"}

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
	default:
		return p2c{}
	}
}

// Choose picks one of among, which may be empty. It leaves out those that avoid names (nil: none), and
// suspects as long as there is anyone else: when all are suspect, all are asked.
func Choose(p Picker, now time.Time, rnd uint64, among []Instance, load func(system.InstanceID) Load, avoid func(Instance) bool) (Instance, bool) {
	if avoid != nil && slices.ContainsFunc(among, avoid) {
		among = slices.DeleteFunc(slices.Clone(among), avoid)
	}
	suspect := func(in Instance) bool { return load(in.ID).Suspect }
	if slices.ContainsFunc(among, suspect) {
		if trusted := slices.DeleteFunc(slices.Clone(among), suspect); len(trusted) > 0 {
			among = trusted
		}
	}
	switch len(among) {
	case 0:
		return Instance{}, false
	case 1:
		return among[0], true
	}
	return among[p.Pick(now, rnd, among, load)], true
}

// p2c takes the better of two chosen at random: the power of two choices (Mitzenmacher, IEEE TPDS
// 2001). Better is fewer requests in flight; where the peak-EWMA latencies are far apart, the lower product
// of both. Latencies within a factor of two tell nothing: an idle system would give all to the one that
// happened to be quicker. A draw goes to the first, which is random.
type p2c struct{}

func (p2c) Pick(_ time.Time, rnd uint64, among []Instance, load func(system.InstanceID) Load) int {
	n := uint64(len(among))
	a := (rnd >> 32) % n
	if n == 1 {
		return int(a)
	}
	b := (a + 1 + (rnd&(1<<32-1))%(n-1)) % n
	x, y := load(among[a].ID), load(among[b].ID)
	cost, other := float64(x.Inflight+1), float64(y.Inflight+1)
	if x.Latency > 0 && y.Latency > 0 && (x.Latency > 2*y.Latency || y.Latency > 2*x.Latency) {
		cost *= float64(x.Latency)
		other *= float64(y.Latency)
	}
	if other < cost {
		return int(b)
	}
	return int(a)
}

// roundRobin takes one after the other.
type roundRobin struct{ turn atomic.Uint64 }

func (r *roundRobin) Pick(_ time.Time, _ uint64, among []Instance, _ func(system.InstanceID) Load) int {
	return int((r.turn.Add(1) - 1) % uint64(len(among)))
}

type random struct{}

func (random) Pick(_ time.Time, rnd uint64, among []Instance, _ func(system.InstanceID) Load) int {
	return int(rnd % uint64(len(among)))
}

// leastConn takes the one with the fewest requests in flight, any of them at a draw.
type leastConn struct{}

func (leastConn) Pick(_ time.Time, rnd uint64, among []Instance, load func(system.InstanceID) Load) int {
	start := int(rnd % uint64(len(among)))
	best, fewest := start, load(among[start].ID).Inflight
	for i := 1; i < len(among); i++ {
		at := (start + i) % len(among)
		if n := load(among[at].ID).Inflight; n < fewest {
			best, fewest = at, n
		}
	}
	return best
}
