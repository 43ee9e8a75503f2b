package route

import (
	"context"
	"fmt"

	"servent/system"
)

// FullView is a [Locator] that knows every instance: the dumb twin that locators are tested against. A
// key belongs to the instance with the highest hash of key and name (rendezvous hashing, Thaler and
// Ravishankar, IEEE/ACM ToN 1998), so that a lost instance moves its own keys alone.
type FullView struct {
	Instances []Instance
	Epoch     uint64
}

// Locate answers without asking anyone: Hops is 0. With no instances it returns [ErrNoInstance].
func (v FullView) Locate(ctx context.Context, key Key) (Location, error) {
	if err := ctx.Err(); err != nil {
		return Location{}, err
	}
	if len(v.Instances) == 0 {
		return Location{}, ErrNoInstance
	}
	best := highest(v.Instances, key, nil)
	owner := v.Instances[best]
	return Location{Node: owner.Node, Instance: owner.ID, Epoch: v.Epoch}, nil
}

// Owns implements [Locator]: all views are the same.
func (v FullView) Owns(key Key, id system.InstanceID, _ uint64) error {
	l, err := v.Locate(context.Background(), key)
	if err == nil && l.Instance != id {
		err = fmt.Errorf("%s owns the key", l.Instance)
	}
	return err
}
