package route

import (
	"context"
	"hash/fnv"
	"io"

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
	best, top := 0, uint64(0)
	for i, in := range v.Instances {
		if h := weight(in.ID, key); i == 0 || h > top || h == top && in.ID < v.Instances[best].ID {
			best, top = i, h
		}
	}
	owner := v.Instances[best]
	return Location{Node: owner.Node, Instance: owner.ID, Epoch: v.Epoch}, nil
}

func weight(id system.InstanceID, key Key) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(id)+"\x00"+string(key)) // a hash takes every write
	x := h.Sum64()
	// FNV's high bits hardly change with the last bytes: finish as SplitMix64 does.
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
