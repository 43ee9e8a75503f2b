package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"servent/system"
)

func ids(numbers ...int) []system.InstanceID {
	var out []system.InstanceID
	for _, n := range numbers {
		out = append(out, system.Instance("cart", n))
	}
	return out
}

func movements(was, is *system.Parts) (n int) {
	for p := range system.Partitions {
		if was.Of(p) != is.Of(p) {
			n++
		}
	}
	return n
}

// Any change of owners leaves shares that differ by one at most, and moves no more than any division of
// these shares must: the partitions of those that are gone, and what is above the share of those that stay.
func TestDivideIsEvenAndMovesLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var was *system.Parts
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			numbers := rapid.SliceOfNDistinct(rapid.IntRange(1, 40), 1, 12, rapid.ID).Draw(t, fmt.Sprint("owners", step))
			slices.Sort(numbers)
			owners := ids(numbers...)
			is := Divide(was, owners, true)
			least, most := system.Partitions/len(owners), (system.Partitions+len(owners)-1)/len(owners)
			must, spare := 0, 0 // lower bound of movement
			for _, id := range owners {
				if n := is.Share(id); n < least || n > most {
					t.Fatalf("%s has %d partitions, want %d to %d", id, n, least, most)
				}
				if n := was.Share(id); n > most {
					must += n - most
				} else if n == most && most > least {
					spare++
				}
			}
			if was != nil {
				for p := range system.Partitions {
					if !slices.Contains(owners, was.Of(p)) {
						must++
					}
				}
				must += max(0, spare+above(was, owners, most)-system.Partitions%len(owners)) * truth(most > least)
				if got := movements(was, is); got != must {
					t.Fatalf("%d partitions moved, want %d", got, must)
				}
			}
			if again := Divide(is, owners, true); movements(is, again) != 0 {
				t.Fatal("the same owners again, and partitions move")
			}
			was = is
		}
	})
}

// above counts the owners that had more than the larger share: each of them keeps one that is larger.
func above(was *system.Parts, owners []system.InstanceID, most int) (n int) {
	for _, id := range owners {
		if was.Share(id) > most {
			n++
		}
	}
	return n
}

func TestDivideWithoutLevelTakesFromNobody(t *testing.T) {
	was := Divide(nil, ids(1, 2, 3), true)
	is := Divide(was, ids(2, 3, 4), false)
	if got, want := movements(was, is), was.Share("cart/1"); got != want {
		t.Errorf("%d partitions moved, want the %d of the one that is gone", got, want)
	}
	if got, want := is.Share("cart/4"), was.Share("cart/1"); got != want {
		t.Errorf("the new one has %d, want all %d that were free", got, want)
	}
}

func partitioned(s *system.Service) { s.Architecture, s.Key = system.Partitioned, "/c/{key}" }

func TestPartitionsFollowTheirInstance(t *testing.T) {
	w := newWorld(t, sys(service("cart", 4, partitioned)), fleetOf(4)...)
	w.settle()
	parts := func() *system.Parts { return w.in.Plan.Deployment("cart").Parts }
	first := parts()
	for n := 1; n <= 4; n++ {
		if got := first.Share(system.Instance("cart", n)); got != 1024 {
			t.Fatalf("cart/%d owns %d, want 1024", n, got)
		}
	}
	w.dead["node-3"] = true
	w.settle()
	if n := movements(first, parts()); n != 0 {
		t.Errorf("a node died and %d partitions got another owner, want its instance to keep them elsewhere", n)
	}
	delete(w.dead, "node-3")
	w.settle()

	w.in.System = sys(service("cart", 5, partitioned))
	d := w.decide()
	if n := movements(first, parts()); n != 0 {
		t.Errorf("%d partitions moved to one that is not ready", n)
	}
	_ = d
	w.settle()
	if got := movements(first, parts()); got != 819 {
		t.Errorf("a fifth instance moved %d partitions, want ⌊4096/5⌋ = 819", got)
	}
}

func TestPartitionsDuringAnUpdate(t *testing.T) {
	w := newWorld(t, sys(service("cart", 3, partitioned, version1("1"))), fleetOf(3)...)
	w.settle()
	was := w.in.Plan.Deployment("cart").Parts
	total := 0
	w.in.System = sys(service("cart", 3, partitioned, version1("2")))
	for range 40 {
		before := w.in.Plan.Deployment("cart").Parts
		w.decide()
		total += movements(before, w.in.Plan.Deployment("cart").Parts)
		w.obey()
	}
	is := w.in.Plan.Deployment("cart").Parts
	if movements(was, is) != system.Partitions || total != system.Partitions {
		t.Errorf("%d partitions moved in all, %d have a new owner; want each to move once", total, movements(was, is))
	}
}

func TestKeysOnDiskStay(t *testing.T) {
	w := newWorld(t, sys(service("cart", 2, partitioned, tied)), fleetOf(3)...)
	w.settle()
	was := w.in.Plan.Deployment("cart").Parts
	w.in.System = sys(service("cart", 3, partitioned, tied))
	w.settle()
	if n := movements(was, w.in.Plan.Deployment("cart").Parts); n != 0 {
		t.Errorf("%d partitions moved away from their data", n)
	}
}

func TestDiffSaysWhatIsLost(t *testing.T) {
	const text = "25 % of its keys get another owner"
	soft := func(s *system.Service) { s.Data.Kind = system.DataSoft }
	moves := func(s *system.Service) { s.Data.Export, s.Data.Import = "GET /_export/{key}", "PUT /_import/{key}" }
	testDiffSays(t, text+"; what the old one holds of them is lost to requests: a program's keys do not move", soft)
	testDiffSays(t, text+", and move there", soft, moves)
	testDiffSays(t, text, func(s *system.Service) { s.Data.Kind = system.DataNone })
}

func testDiffSays(t *testing.T, want string, as ...func(*system.Service)) {
	t.Helper()
	as = append([]func(*system.Service){partitioned}, as...)
	w := newWorld(t, sys(service("cart", 3, as...)), fleetOf(4)...)
	w.settle()
	old := w.in.Plan
	w.in.System = sys(service("cart", 4, as...))
	var text []string
	for _, l := range Diff(old, Next(w.input()).Plan) {
		text = append(text, l.Text)
	}
	if !slices.Contains(text, want) {
		t.Errorf("plan says\n%s\nwant the line\n%s", strings.Join(text, "\n"), want)
	}
}
