package route

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"servent/system"
)

// neighbours is an overlay that says what a test wants.
type neighbours struct {
	owner system.NodeID
	hops  int
	err   error
	mine  func(uint64) bool
}

func (n neighbours) Locate(context.Context, uint64) (system.NodeID, int, error) {
	return n.owner, n.hops, n.err
}
func (n neighbours) Owns(place uint64) bool { return n.mine(place) }

// keyOf finds a key in the first or the second half of the circle.
func keyOf(second bool) Key {
	for i := 'a'; ; i++ {
		if key := Key(i); (Place(key) > math.MaxUint64/2) == second {
			return key
		}
	}
}

func TestRing(t *testing.T) {
	places := system.Places{{Instance: "cart/1", At: math.MaxUint64 / 2}, {Instance: "cart/2", At: math.MaxUint64}}
	build := func(data system.DataKind) *Table {
		svc := system.Service{Name: "cart", Architecture: system.Ring, Key: "/c/{key}", Data: system.Data{Kind: data}}
		plan := &system.Plan{Generation: 7, Services: []system.Deployment{{Service: svc, Ring: places, Assignments: []system.Assignment{
			{Instance: "cart/1", Node: "node-1", Goal: system.GoalRun},
			{Instance: "cart/2", Node: "node-2", Goal: system.GoalWait, Waits: "waiting for node-2, which holds its data"},
		}}}}
		return Build(plan, []system.Seen{{Node: "node-1", Instances: []system.InstanceSeen{{Instance: "cart/1", State: system.StateReady}}}}, "node-1")
	}
	table := build(system.DataNone)
	to := table.Door("cart")
	at := to.Locator.(*Ring)
	if _, err := at.Locate(t.Context(), "a"); !errors.Is(err, errAlone) {
		t.Errorf("without an overlay: %v, want %v", err, errAlone)
	}

	// Who has died has a neighbour who answers for it, sooner than the plan knows.
	at.Overlay = neighbours{owner: "node-1", hops: 3, mine: func(uint64) bool { return true }}
	loc, err := at.Locate(t.Context(), keyOf(true))
	got := table.Owner(to, loc)
	if err != nil || loc.Hops != 3 || len(got.Among) != 1 || got.Among[0].ID != "cart/1" || !got.Seeks {
		t.Errorf("owner = %+v at %+v, %v; want cart/1 after 3 hops, and to be asked for again", got, loc, err)
	}
	if err := at.Owns(keyOf(true), "cart/1", 7); err != nil {
		t.Errorf("what the overlay gives to this node it refuses: %v", err)
	}
	at.Overlay = neighbours{err: errors.New("no answer in time"), mine: func(uint64) bool { return false }}
	if _, err := at.Locate(t.Context(), "a"); err == nil || errors.Is(err, ErrNoInstance) {
		t.Errorf("Locate = %v, want the overlay's error, which may pass", err)
	}
	for _, tt := range []struct {
		key   Key
		id    system.InstanceID
		epoch uint64
		want  string
	}{
		{keyOf(false), "cart/1", 7, errNotItsOwn.Error()},
		{keyOf(true), "cart/1", 7, "cart/2 owns the key"},
		{keyOf(true), "cart/1", 8, ErrBehind.Error()},
	} {
		if err := at.Owns(tt.key, tt.id, tt.epoch); err == nil || err.Error() != tt.want {
			t.Errorf("Owns(%q, %s, %d) = %v, want %s", tt.key, tt.id, tt.epoch, err, tt.want)
		}
	}

	// Data on disk has one owner, whatever the neighbours think.
	table = build(system.DataHard)
	to = table.Door("cart")
	at = to.Locator.(*Ring)
	at.Overlay = neighbours{owner: "node-1", hops: 3, mine: func(uint64) bool { return true }}
	loc, err = at.Locate(t.Context(), keyOf(true))
	got = table.Owner(to, loc)
	if err != nil || len(got.Among) != 0 || got.Coming || !strings.Contains(got.Why, "waiting for node-2") {
		t.Errorf("owner of data that is away = %+v, %v; want nobody, and why", got, err)
	}
	if err := at.Owns(keyOf(true), "cart/1", 7); err == nil {
		t.Error("the neighbour answers for data that it does not hold")
	}
}
