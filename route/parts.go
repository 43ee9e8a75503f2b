package route

import (
	"context"
	"fmt"
	"slices"

	"servent/system"
)

// Partitioned is the [Locator] of keys that are divided into partitions: it answers from the plan, without
// asking anyone.
type Partitioned struct {
	Parts *system.Parts
	Nodes map[system.InstanceID]system.NodeID // where the owners are planned
	Epoch uint64
	// Copies of each key that the owners keep among themselves; 0 means 1. With more, any owner may be asked, and
	// the first one that is Ready is.
	Copies int
	Ready  map[system.InstanceID]bool
	// Ordered: the first owner that is Ready orders the requests of a key, so only that one may be asked.
	Ordered bool

	own []system.InstanceID // those of Parts.Instances that own a partition
}

// copied says who has copies of which keys, when the service keeps more than one.
func (p *Partitioned) copied(d *system.Deployment, ready []Instance) {
	p.Ordered = d.Service.CAS
	if p.Copies = d.Service.Copies; p.Copies <= 1 {
		return
	}
	for i, id := range d.Parts.Instances {
		if slices.Contains(d.Parts.Owner, i) {
			p.own = append(p.own, id)
		}
	}
	p.Ready = map[system.InstanceID]bool{}
	for _, in := range ready {
		p.Ready[in.ID] = true
	}
}

// Locate returns the owner of the key's partition, whether it is ready or not; Hops is 0. Without owners
// it returns [ErrNoInstance].
func (p *Partitioned) Locate(ctx context.Context, key Key) (Location, error) {
	if err := ctx.Err(); err != nil {
		return Location{}, err
	}
	owner := p.First(Partition(key))
	if owner == "" {
		return Location{}, ErrNoInstance
	}
	return Location{Node: p.Nodes[owner], Instance: owner, Epoch: p.Epoch}, nil
}

// First is the owner of a partition that is asked: the first one that is Ready, or the first one when none is. With
// one copy it is the owner, ready or not.
func (p *Partitioned) First(partition int) system.InstanceID {
	owner := p.Parts.Of(partition)
	if p.Copies > 1 && !p.Ready[owner] {
		for _, other := range p.Owners(partition) {
			if p.Ready[other] {
				return other
			}
		}
	}
	return owner
}

// Owners are the instances that keep copies of a partition: its owner in the plan, and those that follow it in
// the order of their numbers, on other nodes as long as there are any. An instance that owns no partition keeps no
// copy either, so that one that is added changes nobody's copies.
func (p *Partitioned) Owners(partition int) []system.InstanceID {
	first := p.Parts.Of(partition)
	if first == "" {
		return nil
	}
	owners := []system.InstanceID{first}
	if p.Copies <= 1 {
		return owners
	}
	all, at := p.own, slices.Index(p.own, first)
	nodes := []system.NodeID{p.Nodes[first]}
	for _, apart := range []bool{true, false} {
		for i := 1; i < len(all) && len(owners) < p.Copies; i++ {
			id := all[(at+i)%len(all)]
			if slices.Contains(owners, id) || apart && slices.Contains(nodes, p.Nodes[id]) {
				continue
			}
			owners, nodes = append(owners, id), append(nodes, p.Nodes[id])
		}
	}
	return owners
}

// Owns implements [Locator].
func (p *Partitioned) Owns(key Key, id system.InstanceID, epoch uint64) error {
	switch owner := p.Parts.Of(Partition(key)); {
	case p.Ordered && p.First(Partition(key)) == id, !p.Ordered && owner == id, !p.Ordered && p.Copies > 1 && slices.Contains(p.Owners(Partition(key)), id):
		return nil
	case p.Epoch < epoch:
		return ErrBehind
	case owner == "":
		return ErrNoInstance
	case p.Ordered:
		return fmt.Errorf("%s orders the key", p.First(Partition(key)))
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
	x := uint64(14695981039346656037) // FNV-1a, as hash/fnv has it, without its allocation
	for i := range len(text) {
		x = (x ^ uint64(text[i])) * 1099511628211
	}
	return stir(x) // FNV's high bits hardly change with the last bytes
}

// stir finishes a hash as SplitMix64 does.
func stir(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
