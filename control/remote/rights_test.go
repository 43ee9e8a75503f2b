package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

func report(node system.NodeID, role identity.Role) string {
	b, err := json.Marshal(system.Seen{Node: node, Role: string(role)})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// world is a store with one key of every kind.
func world(t *testing.T) *memory.Store {
	s := memory.New()
	for _, key := range []string{control.PrefixWanted + "system", control.PrefixPlan + "meta", control.PrefixPlan + "service/web",
		control.PrefixSeen + "n1", control.PrefixSeen + "n10", control.PrefixData + "web/1", control.PrefixEvent + "1", control.Seat, "join/secret"} {
		value := "x"
		switch key {
		case control.PrefixPlan + "meta":
			value = `{"plan":{"generation":1},"services":["web"]}`
		case control.PrefixPlan + "service/web":
			value = `{"service":{"name":"web"},"assignments":[{"instance":"web/1","node":"n1"}]}`
		}
		put(t, s, key, value)
	}
	return s
}

func TestReads(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve("s1", world(t), remote.Bounds{})
	const all = "conductor data/web/1 event/1 join/secret plan/meta plan/service/web seen/n1 seen/n10 wanted/system"
	for _, tt := range []struct {
		role         identity.Role
		prefix, want string // want is what may be read, "denied" when nothing ever could
	}{
		{identity.Server, "", all},
		{identity.Operator, "", all},
		{identity.Operator, "join/", "join/secret"},
		{identity.Node, "", "plan/meta plan/service/web seen/n1 seen/n10"},
		{identity.Node, "seen/n1", "seen/n1 seen/n10"},
		{identity.Node, "plan/service/", "plan/service/web"},
		{identity.Node, "pl", "plan/meta plan/service/web"},
		{identity.Node, "plan/absent", ""},
		{identity.Node, "wanted/", "denied"},
		{identity.Node, "join/", "denied"},
		{identity.Node, "conductor", "denied"},
		{identity.Node, "lease/", "denied"},
		{identity.Edge, "", "plan/meta plan/service/web seen/n1"},
		{identity.Edge, "seen/", "seen/n1"},
		{identity.Edge, "seen/n1", "seen/n1"},
		{identity.Edge, "seen/n10", "denied"},
		{identity.Edge, "seen/n1/", "denied"},
		{identity.Edge, "data/", "denied"},
	} {
		t.Run(string(tt.role)+" "+tt.prefix, func(t *testing.T) {
			t.Parallel()
			s := f.client(tt.role, "n1")
			kvs, _, err := s.Range(t.Context(), tt.prefix)
			var keys []string
			for _, kv := range kvs {
				keys = append(keys, kv.Key)
			}
			got := strings.Join(keys, " ")
			if errors.Is(err, control.ErrDenied) {
				got = "denied"
			} else if err != nil {
				t.Errorf("Range = %v", err)
			}
			if got != tt.want {
				t.Errorf("Range = %s, want %s", got, tt.want)
			}
			// A watch is refused, or gives, just the same. What must not come has a moment to come.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			const moment = 200 * time.Millisecond
			if len(keys) == 0 && tt.want != "denied" {
				time.AfterFunc(moment, cancel)
			}
			var seen []string
			err = s.Watch(ctx, tt.prefix, 2, func(b control.Batch) error {
				for _, c := range b.Changes {
					seen = append(seen, c.KV.Key)
				}
				if len(seen) == len(keys) {
					time.AfterFunc(moment, cancel)
				}
				return nil
			})
			if denied := errors.Is(err, control.ErrDenied); denied != (tt.want == "denied") || !denied && err != nil {
				t.Errorf("Watch = %v", err)
			}
			slices.Sort(seen)
			if got := strings.Join(seen, " "); tt.want != "denied" && got != tt.want {
				t.Errorf("Watch gave %s, want %s", got, tt.want)
			}
		})
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		role identity.Role
		txn  control.Txn
		want error
	}{
		{identity.Server, txn(control.Op{Key: "anything", Value: []byte("x")}), nil},
		{identity.Server, txn(control.Op{Key: control.Seat, Delete: true}), nil},

		{identity.Operator, txn(control.Op{Key: "wanted/service/web", Value: []byte("{}")}), nil},
		{identity.Operator, txn(control.Op{Key: "wanted/system", Delete: true}), nil},
		{identity.Operator, txn(control.Op{Key: "data/web/1", Delete: true}), nil},
		{identity.Operator, txn(control.Op{Key: "data/web/1", Value: []byte("{}")}), control.ErrDenied},
		{identity.Operator, txn(control.Op{Key: "plan/meta", Value: []byte("{}")}), control.ErrDenied},
		{identity.Operator, txn(control.Op{Key: control.Seat, Value: []byte("me")}), control.ErrDenied},
		{identity.Operator, txn(control.Op{Key: control.Seat, Delete: true}), control.ErrDenied},
		{identity.Operator, txn(control.Op{Key: "seen/n1", Delete: true}), control.ErrDenied},
		{identity.Operator, txn(control.Op{Key: "wanted/system", Value: []byte("{}")}, control.Op{Key: "plan/meta", Delete: true}), control.ErrDenied},

		{identity.Node, txn(control.Op{Key: "seen/n1", Value: []byte(report("n1", identity.Node)), Lease: own}), nil},
		{identity.Node, txn(control.Op{Key: "seen/n1", Delete: true}), nil},
		{identity.Node, control.Txn{Conds: []control.Cond{{Key: "plan/meta"}}}, nil},
		{identity.Node, control.Txn{Conds: []control.Cond{{Key: "wanted/system"}}}, control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "seen/n1", Value: []byte(report("n1", identity.Node))}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "seen/n1", Value: []byte(report("n2", identity.Node)), Lease: own}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "seen/n1", Value: []byte(report("n1", identity.Server)), Lease: own}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "seen/n1", Value: []byte("no JSON"), Lease: own}), errAny},
		{identity.Node, txn(control.Op{Key: "seen/n10", Value: []byte(report("n10", identity.Node)), Lease: own}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "seen/n10", Delete: true}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "plan/meta", Delete: true}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "wanted/system", Delete: true}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: "data/web/1", Delete: true}), control.ErrDenied},
		{identity.Node, txn(control.Op{Key: control.Seat, Value: []byte("me"), Lease: own}), control.ErrDenied},

		{identity.Edge, txn(control.Op{Key: "seen/n1", Value: []byte(report("n1", identity.Edge)), Lease: own}), nil},
		{identity.Edge, txn(control.Op{Key: "seen/n10", Delete: true}), control.ErrDenied},
		{identity.Edge, control.Txn{Conds: []control.Cond{{Key: "seen/n10"}}}, control.ErrDenied},
	} {
		f, store := newFleet(t), world(t)
		f.serve("s1", store, remote.Bounds{})
		s := f.client(tt.role, "n1")
		lease, err := s.Grant(t.Context(), control.MinTTL)
		if err != nil {
			t.Fatal(err)
		}
		for i := range tt.txn.Ops {
			if tt.txn.Ops[i].Lease == own {
				tt.txn.Ops[i].Lease = lease
			}
		}
		_, before, _ := store.Range(t.Context(), "")
		_, _, err = s.Commit(t.Context(), tt.txn)
		if !errors.Is(err, tt.want) && (tt.want != errAny || err == nil) {
			t.Errorf("%s: Commit(%+v) = %v, want %v", tt.role, tt.txn, err, tt.want)
		}
		if _, after, _ := store.Range(t.Context(), ""); err != nil && after != before {
			t.Errorf("%s: Commit(%+v) was refused and changed something", tt.role, tt.txn)
		}
	}
}

// own stands for the caller's lease.
const own control.LeaseID = -1

var errAny = errors.New("any error")

func txn(ops ...control.Op) control.Txn { return control.Txn{Ops: ops} }

// TestLeasesBelong: a lease is its holder's at every server and after a restart, and nobody else's.
func TestLeasesBelong(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	f := newFleet(t)
	first := f.serve("s1", store, remote.Bounds{})
	f.serve("s2", store, remote.Bounds{})
	mine, other, edge := f.client(identity.Node, "n1"), f.client(identity.Node, "n2"), f.client(identity.Edge, "n1")
	lease, err := mine.Grant(ctx, 10*control.MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []control.Store{other, edge} {
		if err := s.Renew(ctx, lease); !errors.Is(err, control.ErrDenied) {
			t.Errorf("Renew of another's lease = %v, want ErrDenied", err)
		}
		if err := s.Revoke(ctx, lease); !errors.Is(err, control.ErrDenied) {
			t.Errorf("Revoke of another's lease = %v, want ErrDenied", err)
		}
	}
	_, _, err = other.Commit(ctx, txn(control.Op{Key: "seen/n2", Value: []byte(report("n2", identity.Node)), Lease: lease}))
	if !errors.Is(err, control.ErrDenied) {
		t.Errorf("Commit under another's lease = %v, want ErrDenied", err)
	}
	if err := mine.Renew(ctx, lease); err != nil {
		t.Errorf("Renew = %v", err)
	}
	first.Close() // the other server never saw the grant
	if err := mine.Renew(ctx, lease); err != nil {
		t.Errorf("Renew at another server = %v", err)
	}
	if err := f.client(identity.Server, "s9").Renew(ctx, lease); err != nil {
		t.Errorf("Renew by a server = %v", err)
	}
	servers, err := store.Grant(ctx, control.MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Renew(ctx, servers); !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Renew of a server's lease = %v, want ErrLeaseLost", err)
	}
	if err := mine.Revoke(ctx, servers); err != nil || store.Renew(ctx, servers) != nil {
		t.Errorf("Revoke of a server's lease = %v, want nothing done", err)
	}
	if err := mine.Revoke(ctx, lease); err != nil {
		t.Errorf("Revoke = %v", err)
	}
	if err := mine.Renew(ctx, lease); !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Renew of an ended lease = %v, want ErrLeaseLost", err)
	}
	if kvs, _, _ := store.Range(ctx, "lease/"); len(kvs) != 0 {
		t.Errorf("an ended lease leaves %v", kvs)
	}
}

// TestNodeFollows: with the rights of a node, a cluster's words work.
func TestNodeFollows(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	f := newFleet(t)
	f.serve("s1", store, remote.Bounds{})
	node, server := control.Cluster{Store: f.client(identity.Node, "n1")}, control.Cluster{Store: store}
	lease, err := node.Grant(ctx, 10*control.MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	lead, err := control.Campaign(ctx, server, control.Seat, "s1", mustGrant(t, server))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Want(ctx, &system.System{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	reported := false
	err = node.Follow(ctx, nil, func(v *control.View) error {
		switch {
		case v.Wanted != nil:
			t.Error("a node sees what is wanted")
		case !reported:
			reported = true
			if _, err := node.Report(ctx, nil, &system.Seen{Node: "n1", Role: "node"}, lease); err != nil {
				return err
			}
			if ok, err := server.WritePlan(ctx, lead, &control.View{}, &system.Plan{System: "shop", Generation: 1}, nil, nil); err != nil || !ok {
				t.Errorf("WritePlan = %v, %v", ok, err)
			}
		case v.Node("n1") != nil && v.Plan != nil && v.Plan.Generation == 1:
			return enough
		}
		return nil
	})
	if err != enough {
		t.Errorf("Follow = %v", err)
	}
}

func mustGrant(t *testing.T, s control.Store) control.LeaseID {
	t.Helper()
	lease, err := s.Grant(t.Context(), 10*control.MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}
