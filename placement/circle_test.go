package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"servent/system"
)

func ring(s *system.Service) {
	s.Architecture, s.Key, s.Replicas, s.Data.Kind = system.Ring, "/c/{key}", 0, system.DataNone
}

// Whoever joins takes from one member only, and no range is more than about twice another.
func TestCircleJoinsTakeHalfOfTheLongestRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(1, 12).Draw(t, "first")
		var numbers []int
		for n := range first {
			numbers = append(numbers, n+1)
		}
		is := Circle(nil, ids(numbers...))
		for step := range rapid.IntRange(0, 20).Draw(t, "joins") {
			was := is
			id := system.Instance("cart", first+step+1)
			is = Circle(was, []system.InstanceID{id})
			sum, most := 0.0, 0.0
			changed := 0
			for _, m := range is {
				share := is.Share(m.Instance)
				sum, most = sum+share, max(most, share)
				if m.Instance != id && math.Abs(share-was.Share(m.Instance)) > 1e-12 {
					changed++
				}
			}
			if !slices.IsSortedFunc(is, func(a, b system.Place) int { return truth(a.At > b.At) - truth(a.At < b.At) }) {
				t.Fatalf("the places are not sorted: %v", is)
			}
			if math.Abs(sum-1) > 1e-9 || changed != 1 || is.Share(id)*2 < most-1e-9 && is.Share(id) < most {
				t.Fatalf("shares sum to %v, %d lost some, the new one has %v of at most %v", sum, changed, is.Share(id), most)
			}
		}
	})
}

// However members come and go, their places stay so far apart that by XOR they own few ranges: at most four for each of the most
// that there were.
func TestCircleHasFewRangesByXOR(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := rapid.IntRange(1, 20).Draw(t, "first")
		var numbers []int
		for n := range next {
			numbers = append(numbers, n+1)
		}
		is, most := Circle(nil, ids(numbers...)), next
		for range rapid.IntRange(0, 60).Draw(t, "changes") {
			if len(is) > 1 && rapid.Bool().Draw(t, "one goes") {
				i := rapid.IntRange(0, len(is)-1).Draw(t, "who")
				is = slices.Delete(is, i, i+1)
			} else {
				next++
				is = Circle(is, []system.InstanceID{system.Instance("cart", next)})
			}
			most = max(most, len(is))
			if n := len(system.XOR.Ranges(is)); n > 4*most {
				t.Fatalf("%d ranges of %d members, who were %d at most", n, len(is), most)
			}
		}
	})
}

// The overlays that divide keys on a circle have one; 2^k members stand at exactly equal distances, so that Chord's
// fingers meet members and not the places just beyond them.
func TestCircleOfOverlays(t *testing.T) {
	for _, a := range []system.Architecture{system.Ring, system.Chord, system.Pastry, system.Kademlia, system.Partitioned} {
		w := newWorld(t, sys(service("cart", 0, func(s *system.Service) { ring(s); s.Architecture = a })), fleetOf(8)...)
		w.settle()
		places := w.in.Plan.Deployment("cart").Ring
		if want := a != system.Partitioned; (len(places) == 8) != want || len(places) > 0 != want {
			t.Errorf("%s: %d places", a, len(places))
		}
		for i := range places {
			if d := places[(i+1)%8].At - places[i].At; d != 1<<61 {
				t.Errorf("%s: %d is %d before the next, want 2^61", a, i, d)
			}
		}
	}
}

func TestRingFollowsItsNodes(t *testing.T) {
	w := newWorld(t, sys(service("cart", 0, ring)), fleetOf(4)...)
	w.settle()
	places := func() system.Places { return w.in.Plan.Deployment("cart").Ring }
	first := places()
	for n := 1; n <= 4; n++ {
		if got := first.Share(system.Instance("cart", n)); math.Abs(got-0.25) > 1e-9 {
			t.Fatalf("cart/%d owns %v, want a quarter", n, got)
		}
	}
	var gone system.InstanceID
	for _, a := range w.in.Plan.Deployment("cart").Assignments {
		if a.Node == "node-3" {
			gone = a.Instance
		}
	}
	at := first[slices.IndexFunc(first, func(m system.Place) bool { return m.Instance == gone })].At
	w.dead["node-3"] = true
	w.settle()
	left := places()
	if len(left) != 3 || left.Of(at) == gone || math.Abs(left.Share(left.Of(at))-0.5) > 1e-9 {
		t.Errorf("after a node's death the ring is %v; want its range with the next member", left)
	}
	for _, m := range left {
		if was := first[slices.IndexFunc(first, func(o system.Place) bool { return o.Instance == m.Instance })]; was.At != m.At {
			t.Errorf("%s moved from %d to %d", m.Instance, was.At, m.At)
		}
	}
	delete(w.dead, "node-3")
	w.settle()
	if back := places(); len(back) != 4 || math.Abs(back.Share(back.Of(at))-0.25) > 1e-9 {
		t.Errorf("the node is back and the ring is %v", back)
	}
}

// An update makes each instance anew in its place, one after the other, and no place is left to another.
func TestRingDuringAnUpdate(t *testing.T) {
	w := newWorld(t, sys(service("cart", 0, ring, version1("1"))), fleetOf(3)...)
	w.settle()
	w.in.System = sys(service("cart", 0, ring, version1("2")))
	w.settle()
	d := w.in.Plan.Deployment("cart")
	if len(d.Assignments) != 3 || len(d.Ring) != 3 || len(w.in.Plan.Refused) > 0 {
		t.Fatalf("after the update:\n%s%v", show(w.in.Plan), d.Ring)
	}
	for _, a := range d.Assignments {
		if a.Made != nil {
			t.Errorf("%s is of the version before", a.Instance)
		}
	}
}

func TestKeysOnDiskStayOnTheirRing(t *testing.T) {
	w := newWorld(t, sys(service("cart", 0, ring, tied)), fleetOf(2)...)
	w.settle()
	was := w.in.Plan.Deployment("cart").Ring
	w.nodes["node-3"] = &fleetOf(3)[2]
	w.settle()
	if is := w.in.Plan.Deployment("cart").Ring; !slices.Equal(was, is) || len(was) != 2 {
		t.Errorf("a third node joined and the ring went from %v to %v", was, is)
	}
	w.dead["node-1"] = true
	w.settle()
	if is := w.in.Plan.Deployment("cart").Ring; !slices.Equal(was, is) {
		t.Errorf("a node that holds data died and the ring went from %v to %v", was, is)
	}
}

func TestDiffAndExplainOfARing(t *testing.T) {
	w := newWorld(t, sys(service("cart", 0, ring)), fleetOf(2)...)
	old := w.settle()
	w.nodes["node-3"] = &fleetOf(3)[2]
	is := w.settle()
	var text []string
	for _, l := range Diff(old, is) {
		text = append(text, l.Text)
	}
	if want := "25 % of its keys get another owner"; !slices.Contains(text, want) {
		t.Errorf("plan says\n%s\nwant the line %q", strings.Join(text, "\n"), want)
	}
	got := fmt.Sprint(Explain(w.input(), "cart"))
	for _, want := range []string{"owns 50 % of the ring", "owns 25 % of the ring"} {
		if !strings.Contains(got, want) {
			t.Errorf("explain does not say %q: %s", want, got)
		}
	}
}
