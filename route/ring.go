package route

import (
	"context"
	"errors"
	"fmt"

	"servent/system"
)

// Ring is the [Locator] of keys that stand on a circle of nodes: it asks the overlay, whose members
// pass the question on: to the next, by fingers as in Chord, digit by digit as in Pastry.
type Ring struct {
	Overlay Overlay                             // nil: this node takes no part yet
	Ranges  system.Places                       // who owns what, by the plan
	Nodes   map[system.InstanceID]system.NodeID // where the members are planned
	Tied    bool                                // keys stand for data on disk: nobody answers for a member that is away
	Epoch   uint64
}

// Overlay is a peer-to-peer network that finds out which node owns a place on a circle of 2^64.
type Overlay interface {
	// Locate returns the owner's node, and over how many others the question went until it was known. The
	// node is empty when whoever holds what is there is away.
	Locate(ctx context.Context, place uint64) (node system.NodeID, hops int, err error)
	// Owns says whether, by this node's own view of its neighbours, the place is this node's.
	Owns(place uint64) bool
}

var (
	errAlone     = errors.New("this node takes no part in the ring yet")
	errNotItsOwn = errors.New("by its own view of its neighbours the key is not its own")
)

// Locate asks the overlay. Of tied data the plan has the last word: where the overlay names the neighbour
// of a member that is away, the owner is the one that is away.
func (r *Ring) Locate(ctx context.Context, key Key) (Location, error) {
	if len(r.Ranges) == 0 {
		return Location{}, ErrNoInstance
	}
	if r.Overlay == nil {
		return Location{}, errAlone
	}
	place := Place(key)
	node, hops, err := r.Overlay.Locate(ctx, place)
	if err != nil {
		return Location{}, err
	}
	at := Location{Node: node, Hops: hops, Epoch: r.Epoch}
	if r.Tied {
		at.Instance = r.Ranges.Of(place)
		at.Node = r.Nodes[at.Instance]
	}
	return at, nil
}

// Owns implements [Locator].
func (r *Ring) Owns(key Key, id system.InstanceID, epoch uint64) error {
	place := Place(key)
	owner := r.Ranges.Of(place)
	switch {
	case r.Tied && owner == id, !r.Tied && r.Overlay != nil && r.Overlay.Owns(place):
		return nil
	case r.Epoch < epoch:
		return ErrBehind
	case owner == "":
		return ErrNoInstance
	case owner == id:
		return errNotItsOwn
	default:
		return fmt.Errorf("%s owns the key", owner)
	}
}

// Place is where a key stands on a circle of 2^64.
func Place(key Key) uint64 { return mix(string(key)) }
