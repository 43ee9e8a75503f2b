package agent

import (
	"errors"
	"testing"
	"testing/synctest"

	"servent/system"
)

// A function is prepared before anybody calls it, each version once; nothing of it runs. That it cannot be
// is the first instance's to say.
func TestFunctionsArePreparedBeforeTheyAreCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		n.fake.refuse["bad"] = errors.New("no")
		plan := func(generation int64, from string, a system.Architecture) *system.Plan {
			return &system.Plan{Generation: generation, Services: []system.Deployment{{Spec: system.Digest(from),
				Service: system.Service{Name: "fn", Architecture: a, Software: system.Software{Kind: "fake", From: from}}}}}
		}
		for i, tt := range []struct {
			from string
			as   system.Architecture
			want int64
		}{
			{"one", system.Replicated, 0}, {"one", system.Function, 1}, {"one", system.Function, 1}, {"two", system.Function, 2}, {"bad", system.Function, 3},
		} {
			n.follow(plan(int64(i+1), tt.from, tt.as))
			if got := n.fake.prepared.Load(); got != tt.want {
				t.Errorf("plan %d: prepared %d times, want %d", i+1, got, tt.want)
			}
		}
		n.want("running", n.states())
		if err := n.end(); err != nil {
			t.Error(err)
		}
	})
}
