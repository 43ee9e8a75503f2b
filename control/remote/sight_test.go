package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

// planned writes a plan of the services, each with instances on these nodes.
func planned(t *testing.T, c control.Cluster, fence control.Fence, generation int64, on map[system.ServiceName][]system.NodeID) {
	t.Helper()
	v, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan := &system.Plan{System: "shop", Generation: generation}
	for _, name := range []system.ServiceName{"api", "kiosk", "vault"} {
		d := system.Deployment{Service: system.Service{Name: name, Environment: map[string]string{"PASSWORD": "of-" + string(name)}}}
		for _, n := range on[name] {
			d.Assignments = append(d.Assignments, system.Assignment{Instance: system.InstanceID(string(name) + "/" + string(n)), Node: n})
		}
		if len(d.Assignments) == 0 {
			continue
		}
		plan.Services = append(plan.Services, d)
		plan.Doors = append(plan.Doors, system.Door{Service: name, Offset: 2 + len(plan.Doors)})
	}
	plan.Refused = []system.Refusal{{Service: "vault", Reason: "no room"}}
	if ok, err := c.WritePlan(t.Context(), fence, v, plan, nil, nil); err != nil || !ok {
		t.Fatalf("WritePlan = %v, %v", ok, err)
	}
}

// An edge reads its own part of the plan and follows it as it comes and goes; of other services and other nodes no byte reaches it.
func TestEdgeSeesItsOwnPartAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store := memory.New()
	f.serve("s1", store, remote.Bounds{})
	c := control.Cluster{Store: store}
	lease, err := store.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	fence, err := control.Campaign(t.Context(), store, control.Seat, "s1", lease)
	if err != nil {
		t.Fatal(err)
	}
	planned(t, c, fence, 1, map[system.ServiceName][]system.NodeID{"api": {"n1", "n2"}, "kiosk": {"e1", "e2"}, "vault": {"n1"}})
	put(t, store, control.SeenKey("n1"), report("n1", identity.Node))

	edge := control.Cluster{Store: tap{f.client(identity.Edge, "e1"), func(text string) {
		for _, word := range []string{"api", "vault", "n1", "n2", "e2"} {
			if strings.Contains(text, word) {
				t.Errorf("an edge learned of %s: %s", word, text)
			}
		}
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	views := make(chan *control.View, 16)
	followed := make(chan error, 1)
	go func() {
		followed <- edge.Follow(ctx, nil, func(v *control.View) error {
			views <- v
			return nil
		})
	}()
	until := func(generation int64, services int) *control.View {
		t.Helper()
		for {
			select {
			case v := <-views:
				if v.Plan != nil && v.Plan.Generation == generation {
					if len(v.Plan.Services) != services || len(v.Plan.Doors) != services || len(v.Plan.Refused) != 0 || len(v.Seen) != 0 {
						t.Errorf("plan %d: %+v, seen %v", generation, v.Plan, v.Seen)
					}
					return v
				}
			case <-ctx.Done():
				t.Fatalf("no plan %d came", generation)
			}
		}
	}
	v := until(1, 1)
	if d := v.Plan.Services[0]; d.Service.Name != "kiosk" || d.Service.Environment["PASSWORD"] != "of-kiosk" || len(d.Assignments) != 1 || d.Assignments[0].Node != "e1" {
		t.Errorf("its own part: %+v", d)
	}
	planned(t, c, fence, 2, map[system.ServiceName][]system.NodeID{"api": {"n1"}, "kiosk": {"e2"}, "vault": {"n2"}})
	until(2, 0)
	planned(t, c, fence, 3, map[system.ServiceName][]system.NodeID{"kiosk": {"e1"}})
	until(3, 1)
	if v, err := edge.Read(ctx); err != nil || len(v.Plan.Services) != 1 {
		t.Errorf("read: %+v, %v", v, err)
	}
	cancel()
	if err := <-followed; err != nil {
		t.Errorf("Follow = %v", err)
	}
}

// tap hears all that a store answers.
type tap struct {
	control.Store
	hear func(string)
}

func (s tap) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	kvs, rev, err := s.Store.Range(ctx, prefix)
	s.tell(kvs)
	return kvs, rev, err
}

func (s tap) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	return s.Store.Watch(ctx, prefix, from, func(b control.Batch) error {
		for _, c := range b.Changes {
			s.tell([]control.KV{c.KV})
		}
		return each(b)
	})
}

func (s tap) tell(kvs []control.KV) {
	for _, kv := range kvs {
		s.hear(kv.Key + " " + string(kv.Value))
	}
}

// An edge's report cannot make others have more instances, or wait.
func TestEdgeReportsItselfAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve("s1", memory.New(), remote.Bounds{})
	c := control.Cluster{Store: f.client(identity.Edge, "e1")}
	lease, err := c.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	seen := system.Seen{Node: "e1", Role: string(identity.Edge), Instances: []system.InstanceSeen{{Instance: "kiosk/1"}}}
	if _, err := c.Report(t.Context(), nil, &seen, lease); err != nil {
		t.Errorf("of itself: %v", err)
	}
	for name, lie := range map[string]func(*system.Seen){
		"demand":   func(s *system.Seen) { s.Demand = []system.Demand{{Service: "api", Inflight: 1e6}} },
		"moving":   func(s *system.Seen) { s.Moving = []system.InstanceID{"api/1"} },
		"prepared": func(s *system.Seen) { s.Prepared = []system.Prepared{{Service: "api", Why: "never"}} },
		"role":     func(s *system.Seen) { s.Role = string(identity.Node) },
		"name":     func(s *system.Seen) { s.Node = "n1" },
	} {
		s := seen
		lie(&s)
		if _, err := c.Report(t.Context(), nil, &s, lease); !errors.Is(err, control.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A call that the rights forbid is heard of, with who made it; one that they allow is not.
func TestDeniedIsHeard(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	heard := make(chan error, 16)
	f.serve("s1", world(t), remote.Bounds{Denied: func(_ *http.Request, err error) { heard <- err }})
	s := f.client(identity.Edge, "n1")
	if _, _, err := s.Range(t.Context(), "plan/"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Range(t.Context(), "join/"); !errors.Is(err, control.ErrDenied) {
		t.Fatalf("Range = %v", err)
	}
	if err := s.Watch(t.Context(), "data/", 1, func(control.Batch) error { return nil }); !errors.Is(err, control.ErrDenied) {
		t.Fatalf("Watch = %v", err)
	}
	if _, _, err := s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: control.PlanKey("web"), Value: json.RawMessage("{}")}}}); !errors.Is(err, control.ErrDenied) {
		t.Fatalf("Commit = %v", err)
	}
	for _, word := range []string{"join/", "data/", "plan/service/web"} {
		if err := <-heard; !errors.Is(err, control.ErrDenied) || !strings.Contains(err.Error(), word) {
			t.Errorf("heard %v, want a word of %s", err, word)
		}
	}
	if len(heard) > 0 {
		t.Errorf("heard also %v", <-heard)
	}
}
