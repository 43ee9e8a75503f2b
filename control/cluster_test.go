package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"servent/control"
	"servent/control/memory"
	"servent/system"
)

func shop(services ...system.ServiceName) *system.System {
	sys := &system.System{Name: "shop"}
	for _, name := range services {
		sys.Services = append(sys.Services, system.Service{Name: name})
	}
	return sys
}

func planOf(generation int64, services ...system.ServiceName) *system.Plan {
	p := &system.Plan{System: "shop", Generation: generation}
	for _, name := range services {
		p.Services = append(p.Services, system.Deployment{Service: system.Service{Name: name}})
	}
	return p
}

func read(t *testing.T, c control.Cluster) *control.View {
	t.Helper()
	v, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// lead wins the seat under a lease of its own.
func lead(t *testing.T, c control.Cluster, who string) (control.Fence, control.LeaseID) {
	t.Helper()
	lease, err := c.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	f, err := control.Campaign(t.Context(), c, control.Seat, who, lease)
	if err != nil {
		t.Fatal(err)
	}
	return f, lease
}

func TestWant(t *testing.T) {
	ctx, c := t.Context(), control.Cluster{Store: memory.New()}
	if v := read(t, c); v.Wanted != nil || v.Plan != nil || v.Seen == nil || len(v.Seen) > 0 {
		t.Errorf("an empty store's view is %+v", v)
	}
	for _, want := range []*system.System{shop("api", "web"), shop("web"), shop(), shop("cart", "web")} {
		rev, err := c.Want(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		v := read(t, c)
		if diff := cmp.Diff(want, v.Wanted); diff != "" || v.Rev != rev {
			t.Errorf("at %d, want %d: %s", v.Rev, rev, diff)
		}
	}
	if err := c.Unwant(ctx); err != nil {
		t.Fatal(err)
	}
	if v := read(t, c); v.Wanted != nil {
		t.Errorf("after Unwant: %+v", v.Wanted)
	}
	if err := c.Unwant(ctx); err != nil {
		t.Errorf("Unwant of nothing = %v", err)
	}
	if kvs, _, _ := c.Range(ctx, ""); len(kvs) > 0 {
		t.Errorf("Unwant leaves %v", kvs)
	}
}

// TestWantIsWhole: of two who ask at once one stands whole; no service of the other remains.
func TestWantIsWhole(t *testing.T) {
	ctx, c := t.Context(), control.Cluster{Store: memory.New()}
	for range 50 {
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				one := system.ServiceName(fmt.Sprintf("only-%d", i))
				both := system.Service{Name: "web", Replicas: i + 1}
				sys := &system.System{Name: fmt.Sprint(i), Services: []system.Service{{Name: one}, both}}
				if _, err := c.Want(ctx, sys); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		got := read(t, c).Wanted
		i := int(got.Name[0] - '0')
		if len(got.Services) != 2 || got.Services[0].Name != system.ServiceName("only-"+got.Name) || got.Services[1].Replicas != i+1 {
			t.Fatalf("what stands is %+v, want all of one", got)
		}
		if kvs, _, _ := c.Range(ctx, control.PrefixWanted); len(kvs) != 3 {
			t.Fatalf("%d keys stand, want 3", len(kvs))
		}
	}
}

func TestWritePlan(t *testing.T) {
	ctx, c := t.Context(), control.Cluster{Store: memory.New()}
	f, lease := lead(t, c, "one")
	for _, next := range []*system.Plan{planOf(1, "api", "web"), planOf(2, "web"), planOf(3), planOf(4, "cart", "web")} {
		ok, err := c.WritePlan(ctx, f, read(t, c), next, nil, nil)
		if err != nil || !ok {
			t.Fatalf("WritePlan = %v, %v, want true", ok, err)
		}
		if diff := cmp.Diff(next, read(t, c).Plan); diff != "" {
			t.Error(diff)
		}
	}
	stale := read(t, c)
	before := stale.Rev
	if ok, err := c.WritePlan(ctx, f, stale, stale.Plan, nil, nil); !ok || err != nil || read(t, c).Rev != before {
		t.Errorf("WritePlan of what stands = %v, %v and a change, want true and none", ok, err)
	}

	at := time.Unix(1000, 0).UTC()
	holders := []system.Holder{{Service: "db", Instance: "db/1", Node: "n1", Since: at}}
	events := []system.Event{{Time: at.Add(time.Second), Text: "later"}, {Time: at, Text: "first"}}
	next := planOf(5, "db")
	if ok, err := c.WritePlan(ctx, f, stale, next, holders, events); !ok || err != nil {
		t.Fatalf("WritePlan = %v, %v", ok, err)
	}
	v := read(t, c)
	if diff := cmp.Diff(holders, v.Holders); diff != "" || v.Rev != before+1 {
		t.Errorf("at %d, want one more than %d: %s", v.Rev, before, diff)
	}
	if len(v.Events) != 2 || v.Events[0].Text != "first" {
		t.Errorf("events %v, want the oldest first", v.Events)
	}
	if err := c.TrimEvents(ctx, f, 1); err != nil {
		t.Fatal(err)
	}
	if v := read(t, c); len(v.Events) != 1 || v.Events[0].Text != "later" {
		t.Errorf("after TrimEvents: %v, want the newest", v.Events)
	}
	if err := c.Forget(ctx, "db/1"); err != nil || len(read(t, c).Holders) > 0 {
		t.Errorf("Forget = %v, holders %v", err, read(t, c).Holders)
	}

	// The plan is no longer the one that the leader knew: a write of its own came late.
	if ok, err := c.WritePlan(ctx, f, stale, planOf(6), nil, nil); ok || err != nil || read(t, c).Plan.Generation != 5 {
		t.Errorf("WritePlan over a plan that it does not know = %v, %v, want false", ok, err)
	}

	// Another leads: the old one can write no more.
	if err := c.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	lead(t, c, "two")
	before = read(t, c).Rev
	if ok, err := c.WritePlan(ctx, f, read(t, c), planOf(6), nil, events); ok || err != nil {
		t.Errorf("WritePlan of a deposed leader = %v, %v, want false", ok, err)
	}
	if err := c.TrimEvents(ctx, f, 0); err != nil {
		t.Errorf("TrimEvents of a deposed leader = %v", err)
	}
	if err := c.Bury(ctx, f, "n1"); err != nil {
		t.Errorf("Bury of a deposed leader = %v", err)
	}
	if v := read(t, c); v.Rev != before {
		t.Errorf("a deposed leader changed something: %+v", v)
	}
}

// TestWriteLargePlan: what does not fit into one transaction is written holders first, and the plan whole.
func TestWriteLargePlan(t *testing.T) {
	ctx, c := t.Context(), control.Cluster{Store: memory.New()}
	f, _ := lead(t, c, "one")
	next := planOf(1)
	var holders []system.Holder
	var events []system.Event
	for i := range 100 {
		d := system.Deployment{Service: system.Service{Name: system.ServiceName(fmt.Sprintf("s%03d", i))}}
		next.Services = append(next.Services, d)
		holders = append(holders, system.Holder{Service: d.Service.Name, Instance: system.Instance(d.Service.Name, 1), Node: "n1"})
		events = append(events, system.Event{Time: time.Unix(int64(i), 0), Text: strings.Repeat("x", 10_000)})
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- c.Follow(watching, nil, func(v *control.View) error {
			if v.Plan != nil && (len(v.Plan.Services) != 100 || len(v.Holders) != 100) {
				return fmt.Errorf("a plan of %d services with %d holders", len(v.Plan.Services), len(v.Holders))
			}
			if len(v.Events) == 100 {
				stop()
			}
			return nil
		})
	}()
	if ok, err := c.WritePlan(ctx, f, read(t, c), next, holders, events); !ok || err != nil {
		t.Fatalf("WritePlan = %v, %v", ok, err)
	}
	if err := <-done; err != nil {
		t.Errorf("a follower saw %v, want all or nothing", err)
	}
	if err := c.TrimEvents(ctx, f, 3); err != nil || len(read(t, c).Events) != 3 {
		t.Errorf("TrimEvents = %v, %d left, want 3", err, len(read(t, c).Events))
	}
	next.Services = append(next.Services, planOf(1, "a", "b").Services...)
	for i := range 40 {
		next.Services = append(next.Services, planOf(1, system.ServiceName(fmt.Sprint("more", i))).Services...)
	}
	if _, err := c.WritePlan(ctx, f, &control.View{Planned: read(t, c).Planned}, next, nil, nil); !errors.Is(err, control.ErrTooLarge) {
		t.Errorf("WritePlan of %d services = %v, want ErrTooLarge", len(next.Services), err)
	}
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, c := t.Context(), control.Cluster{Store: memory.New()}
		f, seat := lead(t, c, "one")
		keep, stop := context.WithCancel(ctx)
		defer stop()
		go control.KeepAlive(keep, c, seat, time.Second)
		lease, err := c.Grant(ctx, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		seen := &system.Seen{Node: "n1", Role: "node", Instances: []system.InstanceSeen{{Instance: "api/1", State: system.StateReady}}}
		if _, err := c.Report(ctx, nil, seen, lease); err != nil {
			t.Fatal(err)
		}
		v := read(t, c)
		if diff := cmp.Diff(seen, v.Node("n1")); diff != "" || v.Node("n2") != nil {
			t.Error(diff)
		}
		if got := v.Instance("n1", "api/1"); got == nil || got.State != system.StateReady {
			t.Errorf("Instance = %+v, want it ready", got)
		}
		if v.Instance("n1", "api/2") != nil || v.Instance("n2", "api/1") != nil {
			t.Error("Instance found what nobody reported")
		}
		time.Sleep(3 * time.Second)
		if v := read(t, c); v.Node("n1") != nil {
			t.Error("a node's report outlives its lease")
		}
		if _, err := c.Report(ctx, nil, seen, lease); !errors.Is(err, control.ErrLeaseLost) {
			t.Errorf("Report = %v, want ErrLeaseLost", err)
		}
		if lease, err = c.Grant(ctx, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Report(ctx, nil, seen, lease); err != nil {
			t.Fatal(err)
		}
		if err := c.Bury(ctx, f, "n1"); err != nil || read(t, c).Node("n1") != nil {
			t.Errorf("Bury = %v, and the report stands", err)
		}
	})
}

// shaky is a store that is away at times and forgets where a watch was.
type shaky struct {
	*memory.Store
	mu   sync.Mutex
	away bool
	cut  []context.CancelFunc
}

var errAway = fmt.Errorf("%w: away", control.ErrUnavailable)

// set makes the store go or return, and breaks its watches.
func (s *shaky) set(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	for _, cut := range s.cut {
		cut()
	}
	s.cut = nil
}

func (s *shaky) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	if away {
		return nil, 0, errAway
	}
	return s.Store.Range(ctx, prefix)
}

func (s *shaky) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	live, cut := context.WithCancel(ctx)
	defer cut()
	s.mu.Lock()
	away := s.away
	s.cut = append(s.cut, cut)
	s.mu.Unlock()
	if away {
		return errAway
	}
	if err := s.Store.Watch(live, prefix, from, each); err != nil || ctx.Err() != nil {
		return err
	}
	return errAway
}

// TestFollow: a follower sees every state it must, over outages and compactions, and never goes back.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shaky{Store: memory.New()}
		c := control.Cluster{Store: store}
		ctx, stop := context.WithCancel(t.Context())
		var last control.View
		var troubles, views int
		done := make(chan error, 1)
		go func() {
			done <- c.Follow(ctx, func(err error) {
				if !errors.Is(err, control.ErrUnavailable) {
					t.Errorf("trouble %v, want ErrUnavailable", err)
				}
				troubles++
			}, func(v *control.View) error {
				if v.Rev < last.Rev {
					t.Errorf("a view of %d after %d", v.Rev, last.Rev)
				}
				last = *v
				views++
				return nil
			})
		}()
		want := func(name string) {
			t.Helper()
			if _, err := c.Want(ctx, &system.System{Name: name}); err != nil && store.away {
				t.Fatal(err)
			}
		}
		expect := func(name string, wantTroubles int) {
			t.Helper()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			got := ""
			if last.Wanted != nil {
				got = last.Wanted.Name
			}
			if got != name || troubles != wantTroubles {
				t.Errorf("the last view wants %q after %d troubles, want %q after %d", got, troubles, name, wantTroubles)
			}
		}
		expect("", 0)
		if views != 1 {
			t.Errorf("an empty store gives %d views, want 1", views)
		}
		want("one")
		expect("one", 0)
		if _, _, err := c.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "not/ours"}}}); err != nil {
			t.Fatal(err)
		}
		expect("one", 0)
		if views != 2 {
			t.Errorf("a key that is not ours makes a view: %d, want 2", views)
		}

		store.set(true)
		expect("one", 1)
		time.Sleep(time.Hour) // one outage, one word
		expect("one", 1)
		store.set(false)
		want("two")
		expect("two", 1)

		store.set(true)
		expect("two", 2)
		store.set(false)
		want("three")
		if err := store.Compact(ctx, last.Rev+1); err != nil {
			t.Fatal(err)
		}
		expect("three", 2)

		stop()
		if err := <-done; err != nil {
			t.Errorf("Follow = %v, want nil when ctx ends", err)
		}
	})
}

// TestFollowBehind: one who falls behind the store's history reads anew, and that is no outage.
func TestFollowBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		store.History = 4
		c := control.Cluster{Store: store}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		go func() {
			slow := true
			done <- c.Follow(ctx, func(err error) { t.Errorf("trouble: %v", err) }, func(v *control.View) error {
				if v.Wanted != nil && v.Wanted.Name == "last" {
					stop()
				}
				for i := 0; slow && v.Wanted != nil && i < 20; i++ {
					if _, err := c.Want(ctx, &system.System{Name: fmt.Sprint(i)}); err != nil {
						return err
					}
				}
				if slow && v.Wanted != nil {
					slow = false
					_, err := c.Want(ctx, &system.System{Name: "last"})
					return err
				}
				return nil
			})
		}()
		synctest.Wait()
		if _, err := c.Want(ctx, &system.System{Name: "first"}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Follow = %v", err)
		}
	})
}

func TestFollowFails(t *testing.T) {
	c := control.Cluster{Store: memory.New()}
	mine := errors.New("mine")
	if err := c.Follow(t.Context(), nil, func(*control.View) error { return mine }); err != mine {
		t.Errorf("Follow = %v, want each's own error", err)
	}
	for key, harm := range map[string]bool{
		control.PrefixWanted + "system": true, control.PrefixWanted + "service/web": true, control.PrefixPlan + "meta": true,
		control.PrefixPlan + "service/web": true, control.PrefixData + "db/1": true, control.SeenKey("n1"): false, control.PrefixEvent + "1": false,
	} {
		c := control.Cluster{Store: memory.New()}
		if _, _, err := c.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: key, Value: []byte("{")}}}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(t.Context())
		if harm != (err != nil) || harm && !strings.Contains(err.Error(), key) {
			t.Errorf("Read of a broken %s = %v, want an error with its name: %v", key, err, harm)
		}
	}
}

// TestFollowIsRead: folding changes one by one shows what reading all at once does.
func TestFollowIsRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		c := control.Cluster{Store: memory.New()}
		views, done := make(chan *control.View, 1000), make(chan error, 1)
		go func() {
			done <- c.Follow(ctx, nil, func(v *control.View) error { views <- v; return nil })
		}()
		<-views
		lease, err := c.Grant(ctx, time.Hour)
		if err != nil {
			rt.Fatal(err)
		}
		f, err := control.Campaign(ctx, c, control.Seat, "x", lease)
		if err != nil {
			rt.Fatal(err)
		}
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]system.ServiceName{"a", "b", "c", "d"}), 0, 4, rapid.ID[system.ServiceName])
		for i := range rapid.IntRange(1, 15).Draw(rt, "steps") {
			var err error
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				_, err = c.Want(ctx, shop(names.Draw(rt, "wanted")...))
			case 2:
				err = c.Unwant(ctx)
			case 3, 4:
				next := planOf(int64(i), names.Draw(rt, "planned")...)
				var stands *control.View
				if stands, err = c.Read(ctx); err != nil {
					rt.Fatal(err)
				}
				_, err = c.WritePlan(ctx, f, stands, next, []system.Holder{{Instance: system.Instance("a", i+1)}}, nil)
			case 5:
				_, err = c.Report(ctx, nil, &system.Seen{Node: system.NodeID(rapid.SampledFrom([]string{"n1", "n2"}).Draw(rt, "node"))}, lease)
			case 6:
				err = c.Forget(ctx, system.Instance("a", rapid.IntRange(1, 15).Draw(rt, "held")))
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		want, err := c.Read(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		rev, err := c.Want(ctx, shop("end"))
		if err != nil {
			rt.Fatal(err)
		}
		var got *control.View
		for v := range views {
			if v.Rev == rev {
				break
			}
			got = v
		}
		stop()
		if err := <-done; err != nil {
			rt.Fatal(err)
		}
		if got != nil {
			got.Rev = want.Rev // a change that no view shows has a revision too
			got.Reads = want.Reads
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Error(diff)
			}
		}
	})
}

func TestTxnCheck(t *testing.T) {
	if err := (control.Txn{}).Check(); err != nil {
		t.Errorf("Check of an empty transaction = %v, want nil: it asks for the revision", err)
	}
	if err := (control.Txn{Ops: []control.Op{{Key: "k", Delete: true, Value: []byte("x")}}}).Check(); err == nil {
		t.Error("Check of a delete with a value = nil")
	}
	if err := (control.Txn{Conds: []control.Cond{{Key: "k", Modified: -1}}}).Check(); err == nil {
		t.Error("Check of a condition on no revision = nil")
	}
}

// A key that cannot be read: a report is left out, a part of the plan keeps the last view standing, and
// Follow goes on either way.
func TestFollowSurvivesWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, c := t.Context(), control.Cluster{Store: memory.New()}
		f, _ := lead(t, c, "one")
		if ok, err := c.WritePlan(ctx, f, read(t, c), planOf(1, "api"), nil, nil); !ok || err != nil {
			t.Fatalf("WritePlan = %v, %v", ok, err)
		}
		views, troubles := make(chan *control.View, 16), make(chan error, 16)
		following, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			ended <- c.Follow(following, func(err error) { troubles <- err }, func(v *control.View) error { views <- v; return nil })
		}()
		put := func(key, value string) {
			t.Helper()
			if _, _, err := c.Commit(ctx, control.Txn{Ops: []control.Op{{Key: key, Value: []byte(value)}}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		synctest.Wait()
		<-views
		put(control.PrefixSeen+"n1", "{")
		if v := <-views; len(v.Seen) != 0 || v.Plan == nil {
			t.Errorf("with a broken report: %+v, want the plan and no report", v)
		}
		put(control.PrefixPlan+"service/api", "{")
		if err := <-troubles; !strings.Contains(err.Error(), "plan/service/api") {
			t.Errorf("trouble = %v, want the key", err)
		}
		if len(views) > 0 {
			t.Errorf("a view without its part of the plan: %+v", <-views)
		}
		put(control.PrefixPlan+"service/api", `{"service":{"name":"api"}}`)
		if v := <-views; v.Plan == nil || len(v.Plan.Services) != 1 {
			t.Errorf("after the mend: %+v, want the plan whole", v)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Follow = %v, want nil", err)
		}
	})
}

// TestReportsWhatDiffers: the plan that a node follows stands beside its report, which only what else changed writes again; who may not read the one sees the other.
func TestReportsWhatDiffers(t *testing.T) {
	ctx, store := t.Context(), memory.New()
	c := control.Cluster{Store: store}
	lease, err := c.Grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	say := func(was, seen *system.Seen, want ...string) {
		t.Helper()
		_, before, err := store.Range(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Report(ctx, was, seen, lease); err != nil {
			t.Fatal(err)
		}
		kvs, _, err := store.Range(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		var wrote []string
		for _, kv := range kvs {
			if kv.Modified > before {
				wrote = append(wrote, kv.Key)
			}
		}
		if !slices.Equal(wrote, want) {
			t.Errorf("wrote %q, want %q", wrote, want)
		}
		v, err := c.Read(ctx)
		if err != nil || v.Node("n").Plan != seen.Plan || len(v.Node("n").Alarms) != len(seen.Alarms) {
			t.Errorf("seen is %+v (%v), want plan %d", v.Node("n"), err, seen.Plan)
		}
	}
	first := &system.Seen{Node: "n", Role: "node", Plan: 3}
	say(nil, first, "follow/n", "seen/n")
	say(first, first)
	next := &system.Seen{Node: "n", Role: "node", Plan: 4}
	say(first, next, "follow/n")
	loud := &system.Seen{Node: "n", Role: "node", Plan: 4, Alarms: []system.Alarm{{Kind: system.AlarmDisk}}}
	say(next, loud, "seen/n")
	if err := c.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	if kvs, _, err := store.Range(ctx, ""); err != nil || len(kvs) > 0 {
		t.Errorf("after its lease: %v %v", kvs, err)
	}
}
