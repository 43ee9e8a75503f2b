package agent

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"servent/driver"
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

// What could not be prepared for a reason that may pass is prepared later; bytes that are bad are not tried again.
func TestFunctionIsPreparedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		n.fake.refuse["fn"] = errors.New("the registry does not answer")
		n.fake.refuse["bad"] = fmt.Errorf("no module: %w", driver.ErrArtifact)
		plan := &system.Plan{Generation: 1}
		for _, from := range []string{"bad", "fn"} {
			plan.Services = append(plan.Services, system.Deployment{Spec: system.Digest(from),
				Service: system.Service{Name: system.ServiceName(from), Architecture: system.Function, Software: system.Software{Kind: "fake", From: from}}})
		}
		n.follow(plan)
		why := func() (out []string) {
			for _, p := range n.Prepared() {
				out = append(out, string(p.Service)+": "+p.Why)
			}
			return out
		}
		first := n.fake.prepared.Load()
		if got := why(); len(got) != 2 || first != 2 {
			t.Fatalf("%q after %d tries", got, first)
		}
		time.Sleep(15 * time.Second)
		if tries := n.fake.prepared.Load() - first; tries != 3 {
			t.Errorf("tried %d times more in 15 s, want after 2, 6 and 14 s", tries)
		}
		n.fake.allow("fn")
		time.Sleep(time.Minute)
		if got := why(); len(got) != 2 || got[1] != "fn: " || got[0] == "bad: " {
			t.Errorf("%q; want fn prepared, bad not", got)
		}
		if err := n.end(); err != nil {
			t.Error(err)
		}
	})
}
