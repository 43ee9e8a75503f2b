package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors of a request, each with a status of its own.
var (
	errPrecondition = errors.New("the key is not what the request expects it to be")
	errNoCAS        = errors.New("no compare-and-set")
	errNotMine      = errors.New("this store does not order the key now")
	errLeaseOver    = errors.New("the lease ended meanwhile; whether it took place is not known")
)

// outcome of a write.
type outcome struct {
	existed bool // there was a value before
	version Version
}

// put writes a record, or a tombstone, and returns when the rule is met.
func (s *Store) put(ctx context.Context, key string, r record, cond condition) (outcome, error) {
	switch {
	case cond.given() && s.o.NoCAS != "":
		return outcome{}, fmt.Errorf("%w: %s", errNoCAS, s.o.NoCAS)
	case s.o.Cluster == nil:
		return s.putAlone(key, r, cond)
	case s.o.Lease != nil:
		return s.putOrdered(ctx, key, r, cond)
	case cond.given():
		return outcome{}, fmt.Errorf("%w: nobody orders the writes of this key; the newest version wins", errNoCAS)
	}
	owners := s.o.Cluster.Owners(s.o.Cluster.Partition(key))
	var first outcome
	for n := range 5 {
		r.version = s.clock.next()
		out, newer, err := s.spread(ctx, key, r, 0, s.o.Write, owners)
		if n == 0 {
			first.existed = out.existed // later the answers speak of our own first try
		}
		first.version = r.version
		if newer.Clock == 0 || err != nil {
			return first, err
		}
		// An owner has a newer version, of a store whose clock is ahead. This write came after it: it gets a
		// version after it, so that whoever reads after its acknowledgement reads it.
		if err := s.clock.see(newer); err != nil {
			return first, err
		}
	}
	return first, &unmet{true, s.o.Write, 0, s.o.Write.of(len(owners)), len(owners), errors.New("other writes overtook it five times")}
}

// putAlone writes where this store is all there is: the commit orders.
func (s *Store) putAlone(key string, r record, cond condition) (out outcome, err error) {
	failed := false
	err = s.disk.write(len(key)+len(r.value), func(t *txn) error {
		old, err := recordOf(t.Tx, key)
		if err != nil {
			return err
		}
		out.existed = old.live(s.clock.now())
		if failed = !cond.holds(&old, out.existed); failed {
			return nil
		}
		if r.dead {
			if old.version.Clock == 0 {
				return nil
			}
			return t.remove(key, old)
		}
		r.version = s.clock.next()
		out.version = r.version
		return t.put(key, old, r)
	})
	if err == nil && failed {
		err = errPrecondition
	}
	return out, err
}

// putOrdered writes as the holder of the partition's lease: read at a quorum under its fence, judge, write at a
// quorum under its fence. The read makes a quorum refuse earlier holders; the term in the version makes the write
// win over what they left behind. Requests on one key take turns, reads too: see the package's tests.
//
// It is Paxos on each key's next write (Lamport, Paxos Made Simple, 2001), with the fence as the ballot: what a holder reads
// it takes over into its own term before anybody hears of it, see gather; and a holder that does not know whether its
// write took place goes on under a new fence.
func (s *Store) putOrdered(ctx context.Context, key string, r record, cond condition) (out outcome, err error) {
	err = s.ordered(ctx, key, func(term uint64, owners []string) error {
		old, err := s.gather(ctx, key, term, Quorum, owners)
		if err != nil {
			return err
		}
		out.existed = old.live(s.clock.now())
		if !cond.holds(&old, out.existed) {
			return errPrecondition
		}
		r.version = s.clock.under(term)
		out.version = r.version
		_, newer, err := s.spread(ctx, key, r, term, atLeastQuorum(s.o.Write), owners)
		switch {
		case err != nil:
			return left{err}
		case newer.Clock != 0:
			return fmt.Errorf("an owner has version %s: %w", newer.ETag(), errFenced)
		}
		return nil
	})
	return out, err
}

func atLeastQuorum(r Rule) Rule {
	if r == One {
		return Quorum
	}
	return r
}

// left is an error that leaves a write of this term at some owners, which may win later.
type left struct{ error }

func (l left) Unwrap() error { return l.error }

// ordered does f in the key's turn while this store holds the partition's lease, before and after.
func (s *Store) ordered(ctx context.Context, key string, f func(term uint64, owners []string) error) error {
	p := s.o.Cluster.Partition(key)
	if _, err := s.held(ctx, p); err != nil { // whoever waits for the lease does not wait in turn
		return err
	}
	end, err := s.turns.take(ctx, key)
	if err != nil {
		return err
	}
	defer end()
	term, err := s.held(ctx, p)
	if err != nil {
		return err
	}
	err = f(term.Fence, term.Owners)
	var loose left
	if errors.Is(err, errFenced) || errors.As(err, &loose) {
		s.o.Lease.Spent(p, term.Fence)
	}
	if (err == nil || errors.Is(err, errPrecondition)) && !s.o.Now().Before(term.Until) {
		return errLeaseOver
	}
	return err
}

func (s *Store) held(ctx context.Context, p int) (Term, error) {
	term, err := s.o.Lease.Held(ctx, p)
	switch {
	case err != nil:
		return term, fmt.Errorf("%w: %w", errNotMine, err)
	case !s.o.Now().Before(term.Until):
		return term, fmt.Errorf("%w: the lease has to be renewed", errNotMine)
	}
	return term, nil
}

// look reads a key by the read rule. A Clock of 0 means that there is nothing.
func (s *Store) look(ctx context.Context, key string) (r record, err error) {
	if s.o.Cluster == nil {
		return s.disk.get(key)
	}
	if s.o.Lease != nil {
		err = s.ordered(ctx, key, func(term uint64, owners []string) error {
			r, err = s.gather(ctx, key, term, atLeastQuorum(s.o.Read), owners)
			return err
		})
		return r, err
	}
	owners := s.o.Cluster.Owners(s.o.Cluster.Partition(key))
	if s.o.Read == One {
		return s.any(ctx, key, owners)
	}
	return s.gather(ctx, key, 0, s.o.Read, owners)
}

// any asks one owner after the other, this store first.
func (s *Store) any(ctx context.Context, key string, owners []string) (record, error) {
	var last error
	for own := range 2 {
		for _, o := range owners {
			if (o == s.o.Name) != (own == 0) {
				continue
			}
			r, err := s.ask(ctx, o, key, 0)
			if err == nil {
				return r, nil
			}
			last = fmt.Errorf("%s: %w", o, err)
		}
	}
	return record{}, &unmet{false, One, 0, 1, len(owners), last}
}

type answer struct {
	peer string
	record
	err error
}

// gather reads at so many owners as the rule says and returns the newest record, which a majority of the
// owners then keep: without that a later reader might miss what this one saw (the second phase of Attiya, Bar-Noy and
// Dolev). Owners that answer late and are behind are brought up to date, too: read repair.
//
// In a term, a record of an earlier one becomes one of this term, with the same ETag. Otherwise a write that an earlier
// holder left at one owner could win over it later, although its condition does not hold of it.
func (s *Store) gather(ctx context.Context, key string, term uint64, rule Rule, owners []string) (record, error) {
	need := rule.of(len(owners))
	answers := make(chan answer, len(owners))
	for _, o := range owners {
		s.pending.Go(func() {
			ctx, cancel := s.callContext(context.WithoutCancel(ctx)) // who answers late is repaired when the client has gone
			defer cancel()
			r, err := s.ask(ctx, o, key, term)
			answers <- answer{o, r, err}
		})
	}
	var have []answer
	var why []error
	fenced := false
	for len(have) < need && len(owners)-len(why) >= need {
		select {
		case a := <-answers:
			if a.err != nil {
				why = append(why, fmt.Errorf("%s: %w", a.peer, a.err))
				fenced = fenced || errors.Is(a.err, errFenced)
				continue
			}
			have = append(have, a)
		case <-ctx.Done():
			return record{}, &unmet{false, rule, len(have), need, len(owners), ctx.Err()}
		}
	}
	if fenced {
		return record{}, errFenced
	}
	if len(have) < need {
		return record{}, &unmet{false, rule, len(have), need, len(owners), errors.Join(why...)}
	}
	best := have[0].record
	for _, a := range have {
		if a.version.Compare(best.version) > 0 {
			best = a.record
		}
	}
	if best.version.Clock != 0 {
		if err := s.clock.see(best.version); err != nil {
			return record{}, err
		}
	}
	adopts := term != 0 && best.version.Clock != 0 && best.version.Term != term
	if adopts {
		best.version.Term = term
	}
	missing := len(owners) - len(have) - len(why)
	s.pending.Go(func() { s.repairLate(key, best, answers, missing) })
	err := s.writeBack(ctx, key, best, term, have, owners)
	if err != nil && adopts {
		err = left{err}
	}
	return best, err
}

// writeBack brings answerers that are behind up to date, and waits until a majority of the owners keep best.
func (s *Store) writeBack(ctx context.Context, key string, best record, term uint64, have []answer, owners []string) error {
	holders := 0
	var behind []string
	for _, a := range have {
		if a.version == best.version {
			holders++
		} else {
			behind = append(behind, a.peer)
		}
	}
	if best.version.Clock == 0 || len(behind) == 0 {
		return nil
	}
	results := make(chan error, len(behind))
	for _, o := range behind {
		s.pending.Go(func() {
			ctx, cancel := s.callContext(context.WithoutCancel(ctx))
			defer cancel()
			_, _, err := s.tell(ctx, o, key, best, term)
			if err == nil {
				s.counts.readRepairs.Add(1)
			}
			results <- err
		})
	}
	need := majority(len(owners))
	for n := range behind {
		if holders >= need {
			return nil
		}
		select {
		case err := <-results:
			switch {
			case errors.Is(err, errFenced):
				return err
			case err == nil:
				holders++
			case holders+len(behind)-n-1 < need:
				return &unmet{false, Quorum, holders, need, len(owners), err}
			}
		case <-ctx.Done():
			return &unmet{false, Quorum, holders, need, len(owners), ctx.Err()}
		}
	}
	return nil
}

// repairLate waits for the answers that came after the rule was met.
func (s *Store) repairLate(key string, best record, answers <-chan answer, missing int) {
	for range missing {
		a := <-answers // every asker answers within the time of a call
		if a.err != nil || best.version.Clock == 0 || a.version.Compare(best.version) >= 0 {
			continue
		}
		ctx, cancel := s.callContext(s.life)
		if _, _, err := s.tell(ctx, a.peer, key, best, 0); err == nil {
			s.counts.readRepairs.Add(1)
		}
		cancel()
	}
}

type ack struct {
	peer    string
	existed bool
	newer   Version // a Clock of 0: the owner has taken the record
	err     error
}

// spread writes a record to all owners and returns when so many have it on their disks as the rule says. What
// an owner missed becomes a hint, which counts for nothing but to be handed over later. newer is the version
// of an owner that has a newer record.
func (s *Store) spread(ctx context.Context, key string, r record, term uint64, rule Rule, owners []string) (out outcome, newer Version, err error) {
	need := rule.of(len(owners))
	acks := make(chan ack, len(owners))
	for _, o := range owners {
		s.pending.Go(func() {
			ctx, cancel := s.callContext(context.WithoutCancel(ctx)) // the others get it even if the client is gone
			defer cancel()
			existed, newer, err := s.tell(ctx, o, key, r, term)
			acks <- ack{o, existed, newer, err}
			if err != nil && o != s.o.Name && !errors.Is(err, errFenced) {
				s.hint(o, key, r)
			}
		})
	}
	have, over := 0, 0
	var why []error
	for have < need && len(owners)-len(why)-over >= need {
		select {
		case a := <-acks:
			switch {
			case a.err != nil:
				why = append(why, fmt.Errorf("%s: %w", a.peer, a.err))
			case a.newer.Clock != 0:
				over++
				if a.newer.Compare(newer) > 0 {
					newer = a.newer
				}
			default:
				have++
			}
			out.existed = out.existed || a.existed
		case <-ctx.Done():
			return out, newer, &unmet{true, rule, have, need, len(owners), ctx.Err()}
		}
	}
	for _, e := range why {
		if errors.Is(e, errFenced) {
			return out, newer, e
		}
	}
	if have < need && over == 0 {
		return out, newer, &unmet{true, rule, have, need, len(owners), errors.Join(why...)}
	}
	if have >= need { // a newer one at the others is of a write that no quorum has acknowledged: it was not before this one
		newer = Version{}
	}
	return out, newer, nil
}

// callContext bounds a call to a peer: by its own time, and by the life of the store.
func (s *Store) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// ask reads a key at one owner.
func (s *Store) ask(ctx context.Context, owner, key string, term uint64) (record, error) {
	if owner != s.o.Name {
		return s.callRead(ctx, owner, key, term)
	}
	p := s.o.Cluster.Partition(key)
	if err := s.raise(p, term); err != nil {
		return record{}, err
	}
	if !s.complete(p) {
		return record{}, errCatching
	}
	return s.disk.get(key)
}

// tell gives a record to one owner. newer is set when it has a newer one and keeps that.
func (s *Store) tell(ctx context.Context, owner, key string, r record, term uint64) (existed bool, newer Version, err error) {
	if owner != s.o.Name {
		return s.callWrite(ctx, owner, key, r, term)
	}
	return s.take(key, r, term)
}

// take takes a record in as an owner.
func (s *Store) take(key string, r record, term uint64) (existed bool, newer Version, err error) {
	if err := s.clock.see(r.version); err != nil {
		return false, newer, err
	}
	var refused error
	p := s.o.Cluster.Partition(key)
	err = s.disk.write(len(key)+len(r.value), func(t *txn) error {
		if refused = s.fence(t, p, term); refused != nil {
			if errors.Is(refused, errFenced) {
				return nil
			}
			return refused
		}
		old, applied, err := t.apply(key, r)
		existed = old.live(s.clock.now())
		if !applied && old.version != r.version {
			newer = old.version
		}
		return err
	})
	return existed, newer, errors.Join(err, refused)
}

// expiry is when a value that lives for ttl ends; 0 for one that stays.
func expiry(now time.Time, ttl time.Duration) int64 {
	if ttl <= 0 {
		return 0
	}
	return now.Add(ttl).UnixMilli()
}

// owns says that this store is an owner of a partition.
func (s *Store) owns(p int) bool { return slices.Contains(s.o.Cluster.Owners(p), s.o.Name) }
