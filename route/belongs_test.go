package route

import (
	"slices"
	"testing"

	"servent/system"
)

func TestBelongs(t *testing.T) {
	nodes := map[system.InstanceID]system.NodeID{"db/1": "a", "db/2": "b", "db/3": "c"}
	parts := &system.Parts{Instances: []system.InstanceID{"db/1", "db/2", "db/3"}, Owner: make([]int, system.Partitions)}
	for i := range parts.Owner {
		parts.Owner[i] = i % 3
	}
	divided := &Partitioned{Parts: parts, Nodes: nodes, Copies: 2, own: parts.Instances}
	b := (&Service{Locator: divided}).Belongs("ada")
	if b == nil || b.Partition == nil || *b.Partition != Partition("ada") || b.Place != "" || len(b.Owners) != 2 ||
		b.Owners[0] != (Owner{parts.Of(Partition("ada")), nodes[parts.Of(Partition("ada"))]}) || b.Owners[1].Node == b.Owners[0].Node {
		t.Errorf("partitioned: %+v", b)
	}
	circle := &Ring{Ranges: system.Places{{Instance: "db/1", At: 1 << 62}, {Instance: "db/2", At: 1 << 63}}, Nodes: nodes}
	b = (&Service{Locator: circle}).Belongs("ada")
	owner := circle.Ranges.Of(Place("ada"))
	if b == nil || b.Partition != nil || len(b.Place) != 16 || !slices.Equal(b.Owners, []Owner{{owner, nodes[owner]}}) {
		t.Errorf("ring: %+v", b)
	}
	if b := (&Service{Locator: &Ring{}}).Belongs("ada"); b == nil || len(b.Owners) != 0 {
		t.Errorf("a ring without members: %+v", b)
	}
	if b := (&Service{}).Belongs("ada"); b != nil {
		t.Error("a service without keys has an owner of one")
	}
}
