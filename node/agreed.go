package node

import (
	"context"
	"fmt"
	"time"

	"servent/control"
)

// errAbsent: no voter answers here.
var errAbsent = fmt.Errorf("%w: this server has no vote now", control.ErrUnavailable)

// agreed is control wherever at finds it at each call.
type agreed struct {
	at func() (control.Store, error)
}

// nearest is control where it is nearest to this server: its own engine while that agrees with the others or is alone, else another server's.
func (v *voter) nearest() (control.Store, error) {
	if engine := v.local(); engine != nil && (v.agrees.Load() || len(v.node.servers.others()) == 0) {
		return engine, nil
	}
	return v.away, nil
}

// own is control in this server's own engine alone: what other servers ask for, who have asked theirs.
func (v *voter) own() (control.Store, error) {
	if engine := v.local(); engine != nil && v.agrees.Load() {
		return engine, nil
	}
	return nil, errAbsent
}

// Range implements [control.Store].
func (a agreed) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	s, err := a.at()
	if err != nil {
		return nil, 0, err
	}
	return s.Range(ctx, prefix)
}

// Commit implements [control.Store].
func (a agreed) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	s, err := a.at()
	if err != nil {
		return 0, false, err
	}
	return s.Commit(ctx, txn)
}

// Watch implements [control.Store].
func (a agreed) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	s, err := a.at()
	if err != nil {
		return err
	}
	return s.Watch(ctx, prefix, from, each)
}

// Grant implements [control.Store].
func (a agreed) Grant(ctx context.Context, ttl time.Duration) (control.LeaseID, error) {
	s, err := a.at()
	if err != nil {
		return 0, err
	}
	return s.Grant(ctx, ttl)
}

// Renew implements [control.Store].
func (a agreed) Renew(ctx context.Context, id control.LeaseID) error {
	s, err := a.at()
	if err != nil {
		return err
	}
	return s.Renew(ctx, id)
}

// Revoke implements [control.Store].
func (a agreed) Revoke(ctx context.Context, id control.LeaseID) error {
	s, err := a.at()
	if err != nil {
		return err
	}
	return s.Revoke(ctx, id)
}
