package system

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// nearest is the dumb twin of [Owner.Ranges]: it measures every member.
func nearest(o Owner, members Places, at uint64) InstanceID {
	far := func(m Place) uint64 {
		switch o {
		case Closest:
			return min(m.At-at, at-m.At)
		case XOR:
			return m.At ^ at
		default:
			return m.At - at
		}
	}
	best := members[0]
	for _, m := range members {
		switch d := cmp.Compare(far(m), far(best)); {
		case d < 0, d == 0 && at-m.At == far(m): // as near on both sides: the lower one
			best = m
		}
	}
	return best.Instance
}

// On ranges the first owner at or after a place is the one that every rule means, whatever the rule.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Owner(rapid.IntRange(int(Successor), int(XOR)).Draw(t, "rule"))
		const grid = 52 // two members are never nearer than 2^52, so that XOR has few ranges
		steps := rapid.SliceOfNDistinct(rapid.Uint64Range(0, 1<<(64-grid)-1), 1, 40, rapid.ID[uint64]).Draw(t, "members")
		slices.Sort(steps)
		var members Places
		for i, s := range steps {
			members = append(members, Place{Instance("a", i+1), s<<grid + s%3})
		}
		ranges := o.Ranges(members)
		if !slices.IsSortedFunc(ranges, func(a, b Place) int { return cmp.Compare(a.At, b.At) }) {
			t.Fatalf("ranges of rule %d are not sorted: %v", o, ranges)
		}
		places := []uint64{0, math.MaxUint64}
		for _, m := range slices.Concat(members, ranges) {
			places = append(places, m.At-1, m.At, m.At+1)
		}
		places = append(places, rapid.SliceOfN(rapid.Uint64(), 20, 20).Draw(t, "places")...)
		for _, at := range places {
			if got, want := ranges.Of(at), nearest(o, members, at); got != want {
				t.Fatalf("rule %d of %d members: %x is owned by %s, want %s", o, len(members), at, got, want)
			}
		}
		sum := 0.0
		for _, m := range members {
			sum += ranges.Share(m.Instance)
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("rule %d: shares add up to %v", o, sum)
		}
	})
}

// Three members at equal distances: by number they own a third each, by XOR one owns the whole upper half.
func TestShares(t *testing.T) {
	third := uint64(math.MaxUint64 / 3)
	members := Places{{"a/1", 0}, {"a/2", third}, {"a/3", 2 * third}}
	for o, want := range map[Owner]string{Successor: "0.33 0.33 0.33", Closest: "0.33 0.33 0.33", XOR: "0.25 0.25 0.50"} {
		r := o.Ranges(members)
		if got := fmt.Sprintf("%.2f %.2f %.2f", r.Share("a/1"), r.Share("a/2"), r.Share("a/3")); got != want {
			t.Errorf("rule %d: shares %s, want %s", o, got, want)
		}
	}
}
