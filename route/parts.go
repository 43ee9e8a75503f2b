package route

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"

	"servent/system"
)

// Partitioned is the [Locator] of keys that are divided into partitions: it answers from the plan, without
// asking anyone.
type Partitioned struct {
	Parts *system.Parts
	Nodes map[system.InstanceID]system.NodeID // where the owners are planned
	Epoch uint64
}

// Locate returns the owner of the key's partition, whether it is ready or not; Hops is 0. Without owners
// it returns [ErrNoInstance].
func (p *Partitioned) Locate(ctx context.Context, key Key) (Location, error) {
	if err := ctx.Err(); err != nil {
		return Location{}, err
	}
	owner := p.Parts.Of(Partition(key))
	if owner == "" {
		return Location{}, ErrNoInstance
	}
	return Location{Node: p.Nodes[owner], Instance: owner, Epoch: p.Epoch}, nil
}

// Owns implements [Locator].
func (p *Partitioned) Owns(key Key, id system.InstanceID, epoch uint64) error {
	switch owner := p.Parts.Of(Partition(key)); {
	case owner == id:
		return nil
	case p.Epoch < epoch:
		return ErrBehind
	case owner == "":
		return ErrNoInstance
	default:
		return fmt.Errorf("%s owns the key", owner)
	}
}

// Partition is the one of [system.Partitions] that a key belongs to.
func Partition(key Key) int {
	return int(mix(string(key)) % system.Partitions)
}

// mix hashes a text evenly, the low bits too.
func mix(text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text) // a hash takes every write
	x := h.Sum64()
	// FNV's high bits hardly change with the last bytes: finish as SplitMix64 does.
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
