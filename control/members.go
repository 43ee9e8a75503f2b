package control

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"servent/system"
)

// Keys of a fleet's machines begin with these.
const (
	PrefixJoin     = "join/"     // invitations, each under the lease that is its life
	PrefixMember   = "member/"   // who joined
	PrefixExpelled = "expelled/" // whose certificates count no more
	PrefixDrain    = "drain/"    // nodes that are to be emptied
)

var (
	// ErrNoInvitation: the token was never given, is used up, or its time is over.
	ErrNoInvitation = errors.New("the token does not count: it is used up, its time is over, or it was never given")
	// ErrNameTaken: a member has the name.
	ErrNameTaken = errors.New("the name is taken")
	// ErrNoMember: nobody of that name has joined.
	ErrNoMember = errors.New("no machine of that name has joined")
)

// Invite stores an invitation for ttl.
func (c Cluster) Invite(ctx context.Context, id string, inv system.Invitation, ttl time.Duration) error {
	lease, err := c.Grant(ctx, ttl)
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	_, ok, err := c.Commit(ctx, Txn{Conds: []Cond{{Key: PrefixJoin + id}}, Ops: []Op{{Key: PrefixJoin + id, Value: encode(inv), Lease: lease}}})
	if err == nil && !ok {
		err = errors.New("there is one of the same name")
	}
	if err != nil {
		return fmt.Errorf("invite: %w", errors.Join(err, c.Revoke(context.WithoutCancel(ctx), lease)))
	}
	return nil
}

// Admit makes a machine a member and uses the invitation up, in one transaction: of two who show the same token one gets in. The role is
// the invitation's. An error that is none of [ErrNoInvitation] and [ErrNameTaken] leaves open whether it was done.
func (c Cluster) Admit(ctx context.Context, id, digest string, m system.Member) (system.Member, error) {
	kvs, _, err := c.Range(ctx, PrefixJoin+id)
	if err != nil {
		return m, fmt.Errorf("admit %s: %w", m.Node, err)
	}
	var inv system.Invitation
	var stood Rev
	for _, kv := range kvs {
		if kv.Key == PrefixJoin+id && json.Unmarshal(kv.Value, &inv) == nil {
			stood = kv.Modified
		}
	}
	if stood == 0 || subtle.ConstantTimeCompare([]byte(inv.Digest), []byte(digest)) != 1 {
		return m, ErrNoInvitation
	}
	m.Role, m.By = inv.Role, id
	_, ok, err := c.Commit(ctx, Txn{
		Conds: []Cond{{Key: PrefixJoin + id, Modified: stood}, {Key: PrefixMember + string(m.Node)}, {Key: SeenKey(m.Node)}},
		Ops:   []Op{{Key: PrefixJoin + id, Delete: true}, {Key: PrefixMember + string(m.Node), Value: encode(m)}},
	})
	if err != nil {
		return m, fmt.Errorf("admit %s: %w", m.Node, err)
	}
	if ok {
		return m, nil
	}
	if kvs, _, err = c.Range(ctx, PrefixJoin+id); err == nil && len(kvs) == 0 {
		return m, ErrNoInvitation
	}
	return m, errors.Join(ErrNameTaken, err)
}

// Member returns a machine that joined.
func (c Cluster) Member(ctx context.Context, node system.NodeID) (m system.Member, err error) {
	m, _, err = c.member(ctx, node)
	return m, err
}

func (c Cluster) member(ctx context.Context, node system.NodeID) (m system.Member, stood Rev, err error) {
	kvs, _, err := c.Range(ctx, PrefixMember+string(node))
	if err != nil {
		return m, 0, err
	}
	for _, kv := range kvs {
		if kv.Key == PrefixMember+string(node) {
			return m, kv.Modified, json.Unmarshal(kv.Value, &m)
		}
	}
	return m, 0, fmt.Errorf("%s: %w", node, ErrNoMember)
}

// Expel puts a machine out: it is no member, what it reported is gone, and its key is refused until then.
func (c Cluster) Expel(ctx context.Context, node system.NodeID, until time.Time) error {
	for {
		m, stood, err := c.member(ctx, node)
		if err != nil {
			return err
		}
		out := system.Expelled{Node: node, Key: m.Key, Until: until}
		_, ok, err := c.Commit(ctx, Txn{Conds: []Cond{{Key: PrefixMember + string(node), Modified: stood}},
			Ops: []Op{{Key: PrefixMember + string(node), Delete: true}, {Key: PrefixExpelled + m.Key, Value: encode(out)}}})
		if err != nil {
			return fmt.Errorf("put out %s: %w", node, err)
		}
		if ok {
			return nil
		}
	}
}

// Label changes a member's labels; an empty value removes one.
func (c Cluster) Label(ctx context.Context, node system.NodeID, labels map[string]string) error {
	for {
		m, stood, err := c.member(ctx, node)
		if err != nil {
			return err
		}
		next := map[string]string{}
		for _, from := range []map[string]string{m.Labels, labels} {
			for k, v := range from {
				next[k] = v
				if v == "" {
					delete(next, k)
				}
			}
		}
		m.Labels = next
		_, ok, err := c.Commit(ctx, Txn{Conds: []Cond{{Key: PrefixMember + string(node), Modified: stood}}, Ops: []Op{{Key: PrefixMember + string(node), Value: encode(m)}}})
		if err != nil {
			return fmt.Errorf("label %s: %w", node, err)
		}
		if ok {
			return nil
		}
	}
}

// Pardon forgets those who were put out and whose certificates have ended.
func (c Cluster) Pardon(ctx context.Context, now time.Time) error {
	kvs, _, err := c.Range(ctx, PrefixExpelled)
	if err != nil {
		return err
	}
	var txn Txn
	for _, kv := range kvs {
		var out system.Expelled
		if json.Unmarshal(kv.Value, &out) == nil && out.Until.Before(now) && len(txn.Ops) < MaxOps {
			txn.Ops = append(txn.Ops, Op{Key: kv.Key, Delete: true})
		}
	}
	if len(txn.Ops) == 0 {
		return nil
	}
	_, _, err = c.Commit(ctx, txn)
	return err
}

// Drain has a node emptied, until [Cluster.Uncordon].
func (c Cluster) Drain(ctx context.Context, node system.NodeID, now time.Time) error {
	_, _, err := c.Commit(ctx, Txn{Ops: []Op{{Key: PrefixDrain + string(node), Value: encode(system.Drain{Node: node, Since: now})}}})
	if err != nil {
		return fmt.Errorf("drain %s: %w", node, err)
	}
	return nil
}

// Uncordon lets a node get instances again.
func (c Cluster) Uncordon(ctx context.Context, node system.NodeID) error {
	_, _, err := c.Commit(ctx, Txn{Ops: []Op{{Key: PrefixDrain + string(node), Delete: true}}})
	if err != nil {
		return fmt.Errorf("uncordon %s: %w", node, err)
	}
	return nil
}
