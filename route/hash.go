package route

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"servent/system"
)

// boundedBy is c of "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam, SODA 2018): no
// instance holds more than c times the average, rounded up.
const boundedBy = 1.25

// Stick returns the instance that a key stays with: rendezvous hashing (Thaler and Ravishankar, IEEE/ACM ToN
// 1998), so that an instance that goes moves its own keys alone, and one that comes takes 1/n of each other's. It
// does not take those that avoid names (nil: none).
func Stick(among []Instance, key Key, avoid func(Instance) bool) (Instance, bool) {
	i := highest(among, key, func(in Instance) bool { return avoid == nil || !avoid(in) })
	if i < 0 {
		return Instance{}, false
	}
	return among[i], true
}

// highest is the index of the instance with the highest hash of key and name among those that ok names (nil:
// all), or -1. The order of among does not matter.
func highest(among []Instance, key Key, ok func(Instance) bool) int {
	best, top, k := -1, uint64(0), mix(string(key))
	for i, in := range among {
		if ok != nil && !ok(in) {
			continue
		}
		if h := stir(k ^ mix(string(in.ID))); best < 0 || h > top || h == top && in.ID < among[best].ID {
			best, top = i, h
		}
	}
	return best
}

// bounded gives a key to the instance with the highest hash that is not full: rendezvous hashing with
// bounded loads. The loads are those through this node.
type bounded struct{}

func (bounded) byKey() {}

func (bounded) Pick(a Ask) int {
	key := a.Key
	if key == "" {
		return int(a.Rnd % uint64(len(a.Among)))
	}
	held := make([]int, len(a.Among))
	all := 1 // with this one
	for i, in := range a.Among {
		held[i] = a.Load(in.ID).Inflight
		all += held[i]
	}
	most := int(math.Ceil(boundedBy * float64(all) / float64(len(a.Among))))
	i := 0
	best := highest(a.Among, key, func(Instance) bool { i++; return held[i-1] < most })
	return max(best, 0) // one has room: together they hold less than n times most
}

// tableSize is the number of entries of a Maglev table, a prime: 65537 as in §5.3 of the paper.
const tableSize = 65537

// maglev gives a key to the instance in the key's entry of a table that all nodes compute alike: "Maglev: A
// Fast and Reliable Software Network Load Balancer" (Eisenbud et al., NSDI 2016), §3.4. Every instance has nearly
// the same number of entries, and a change of the instances changes few others' entries.
// Differs from the paper: who is suspect, or was tried already, stays in the table; the entries that follow say
// who takes its keys meanwhile.
type maglev struct {
	mu  sync.Mutex // held while a table is made
	now atomic.Pointer[maglevTable]
}

type maglevTable struct {
	of    []Instance // whose entries these are
	entry []uint16   // index into of
}

func (*maglev) byKey() {}

func (m *maglev) Pick(a Ask) int {
	if a.Key == "" || len(a.All) >= math.MaxUint16 {
		return int(a.Rnd % uint64(len(a.Among)))
	}
	t := m.table(a.All)
	at := mix(string(a.Key)) % tableSize
	for range tableSize {
		id := a.All[t.entry[at]].ID
		if i := slices.IndexFunc(a.Among, func(in Instance) bool { return in.ID == id }); i >= 0 {
			return i
		}
		at = (at + 1) % tableSize
	}
	return 0 // cannot be: every one of All has entries
}

// table is made when the instances are others than before.
func (m *maglev) table(all []Instance) *maglevTable {
	if t := m.now.Load(); t != nil && same(t.of, all) {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.now.Load(); t != nil && same(t.of, all) {
		return t
	}
	t := &maglevTable{all, fill(all)}
	m.now.Store(t)
	return t
}

func same(a, b []Instance) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] ||
		slices.EqualFunc(a, b, func(x, y Instance) bool { return x.ID == y.ID }))
}

// fill is the paper's pseudocode 1: by turns each instance takes the next free entry of its own permutation.
func fill(all []Instance) []uint16 {
	const free = math.MaxUint16
	entry := make([]uint16, tableSize)
	for i := range entry {
		entry[i] = free
	}
	turn := make([]uint16, len(all)) // the order of names, whatever that of all
	for i := range turn {
		turn[i] = uint16(i)
	}
	slices.SortFunc(turn, func(x, y uint16) int { return strings.Compare(string(all[x].ID), string(all[y].ID)) })
	next, skip := make([]uint64, len(all)), make([]uint64, len(all))
	for i, in := range all {
		next[i], skip[i] = permutation(in.ID)
	}
	for left := tableSize; left > 0; {
		for _, i := range turn {
			for entry[next[i]] != free {
				next[i] = (next[i] + skip[i]) % tableSize
			}
			entry[next[i]] = i
			if left--; left == 0 {
				break
			}
		}
	}
	return entry
}

// permutation returns where an instance's permutation begins and how it goes on: two hashes of its name.
func permutation(id system.InstanceID) (offset, skip uint64) {
	return mix(string(id)+"\x00offset") % tableSize, mix(string(id)+"\x00skip")%(tableSize-1) + 1
}
