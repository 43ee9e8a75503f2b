package route

import (
	"fmt"

	"servent/system"
)

// Belonging says whose a key is by the plan: for a moment, while members come and go, an overlay may say another.
type Belonging struct {
	Key       string  `json:"key"`
	Partition *int    `json:"partition,omitempty"` // 0 to [system.Partitions] - 1
	Place     string  `json:"place,omitempty"`     // on an overlay's circle of 2^64: 16 hexadecimal digits
	Owners    []Owner `json:"owners"`              // the one of the plan; after it those that keep copies
}

// Owner is an instance that has a key, and where it is planned.
type Owner struct {
	Instance system.InstanceID `json:"instance"`
	Node     system.NodeID     `json:"node"`
}

// Belongs says whose a key is; nil: no key decides who answers for this service.
func (s *Service) Belongs(key Key) *Belonging {
	b := &Belonging{Key: string(key), Owners: []Owner{}}
	var owners []system.InstanceID
	var nodes map[system.InstanceID]system.NodeID
	switch at := s.Locator.(type) {
	case *Partitioned:
		partition := Partition(key)
		b.Partition, owners, nodes = &partition, at.Owners(partition), at.Nodes
	case *Ring:
		place := Place(key)
		b.Place, nodes = fmt.Sprintf("%016x", place), at.Nodes
		if owner := at.Ranges.Of(place); owner != "" {
			owners = append(owners, owner)
		}
	default:
		return nil
	}
	for _, id := range owners {
		b.Owners = append(b.Owners, Owner{Instance: id, Node: nodes[id]})
	}
	return b
}
