package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"servent/control"
	"servent/identity"
	"servent/system"
)

// scope is the keys with a prefix, or one key.
type scope struct {
	key   string
	exact bool
}

func (s scope) holds(key string) bool {
	return key == s.key || !s.exact && strings.HasPrefix(key, s.key)
}

// meets says whether some key with the prefix is in the scope.
func (s scope) meets(prefix string) bool {
	return strings.HasPrefix(s.key, prefix) || s.holds(prefix)
}

// rights are what one caller may do.
type rights struct {
	read   []scope
	put    []scope
	remove []scope
	report bool // what it puts is its own report and dies with it
	every  bool // it may use every lease
}

// rightsOf is the table of rights. A role that it does not name has none.
func rightsOf(id identity.ID) rights {
	all := []scope{{}}
	own := []scope{{control.SeenKey(id.Node), true}, {control.FollowKey(id.Node), true}}
	plan, seen := scope{control.PrefixPlan, false}, scope{control.PrefixSeen, false}
	wanted, data := scope{control.PrefixWanted, false}, scope{control.PrefixData, false}
	join, member, expelled, drain := scope{control.PrefixJoin, false}, scope{control.PrefixMember, false}, scope{control.PrefixExpelled, false}, scope{control.PrefixDrain, false}
	cert, proof := scope{control.PrefixCertificate, false}, scope{control.PrefixChallenge, false}
	switch id.Role {
	case identity.Server:
		return rights{read: all, put: all, remove: all, every: true}
	case identity.Operator: // never the seat, the plan or what is seen
		return rights{read: all, put: []scope{wanted, join, member, expelled, drain, cert, proof}, remove: []scope{wanted, join, member, expelled, drain, cert, proof, data}}
	case identity.Node:
		return rights{read: []scope{plan, seen, expelled, cert, proof}, put: own, remove: own, report: true}
	case identity.Edge:
		return rights{read: append([]scope{plan, expelled}, own...), put: own, remove: own, report: true}
	}
	return rights{}
}

func within(scopes []scope, key string) bool {
	return slices.ContainsFunc(scopes, func(s scope) bool { return s.holds(key) })
}

// ask says whether the caller may read anything below a prefix.
func (r rights) ask(id identity.ID, prefix string) error {
	if slices.ContainsFunc(r.read, func(s scope) bool { return s.meets(prefix) }) {
		return nil
	}
	return fmt.Errorf("%w: %v may not read %s", control.ErrDenied, id, prefix)
}

// commit says whether the caller may make a transaction, but for its leases.
func (r rights) commit(id identity.ID, txn control.Txn) error {
	for _, c := range txn.Conds {
		if !within(r.read, c.Key) { // its outcome would tell
			return fmt.Errorf("%w: %v may not read %s", control.ErrDenied, id, c.Key)
		}
	}
	for _, op := range txn.Ops {
		switch {
		case op.Delete && !within(r.remove, op.Key):
			return fmt.Errorf("%w: %v may not delete %s", control.ErrDenied, id, op.Key)
		case !op.Delete && !within(r.put, op.Key):
			return fmt.Errorf("%w: %v may not write %s", control.ErrDenied, id, op.Key)
		case !op.Delete && r.report:
			if err := ownReport(id, op); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownReport lets a node say nothing of another and nothing that outlives it. All who follow the cluster
// read what it wrote, so it must also be readable.
func ownReport(id identity.ID, op control.Op) error {
	var seen system.Seen
	switch err := json.Unmarshal(op.Value, &seen); {
	case err != nil:
		return fmt.Errorf("%s: %w", op.Key, err)
	case seen.Node != id.Node || seen.Role != string(id.Role):
		return fmt.Errorf("%w: %v reports as %s %s", control.ErrDenied, id, seen.Role, seen.Node)
	case id.Role == identity.Edge && len(seen.Demand)+len(seen.Moving)+len(seen.Prepared) > 0: // it would move what it does not run
		return fmt.Errorf("%w: %v speaks of services that it cannot run", control.ErrDenied, id)
	case op.Lease == 0:
		return fmt.Errorf("%w: %v reports without a lease", control.ErrDenied, id)
	}
	return nil
}

// prefixLease is where the server notes whose a lease is. The note stands under the lease, so it is known
// at every server, outlives them all and ends with the lease.
const prefixLease = "lease/"

func leaseKey(id control.LeaseID) string { return fmt.Sprintf("%s%016x", prefixLease, uint64(id)) }

// leases says whose they are.
type leases struct {
	store control.Store

	mu    sync.Mutex
	known map[control.LeaseID]string // owners never change; emptied when it is full
}

const mostKnown = 10_000

func (l *leases) note(lease control.LeaseID, owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= mostKnown {
		l.known = map[control.LeaseID]string{}
	}
	l.known[lease] = owner
}

// check gives [control.ErrDenied] unless the lease is the caller's. A lease that nobody owns has ended,
// or is a server's own: to others it is lost.
func (l *leases) check(ctx context.Context, id identity.ID, lease control.LeaseID) error {
	l.mu.Lock()
	owner, ok := l.known[lease]
	l.mu.Unlock()
	if !ok {
		kvs, _, err := l.store.Range(ctx, leaseKey(lease))
		if err != nil {
			return err
		}
		if len(kvs) == 0 {
			return fmt.Errorf("lease %x: %w", int64(lease), control.ErrLeaseLost)
		}
		owner = string(kvs[0].Value)
		l.note(lease, owner)
	}
	if owner != id.String() {
		return fmt.Errorf("%w: lease %x is not %v's", control.ErrDenied, int64(lease), id)
	}
	return nil
}
