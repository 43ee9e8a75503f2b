package admin

import (
	"strings"
	"testing"

	"servent/system"
)

func TestSurvives(t *testing.T) {
	voter := func(names string) (all []Voter) {
		for name := range strings.FieldsSeq(names) {
			node, learner := strings.CutSuffix(name, "?")
			all = append(all, Voter{Node: system.NodeID(node), Learner: learner})
		}
		return all
	}
	site := map[system.NodeID]system.Site{"x": "eu", "y": "eu", "z": "ap", "w": "us"}
	for _, tt := range []struct{ voters, gone, want string }{
		{"x y z", "", "control: 3 voters (x, y, z); 1 of them may be lost; without site eu (2 voters), nothing can be changed: a third site with one voter would survive either's loss"},
		{"x y z", "y", "control: 3 voters (x, y, z); of those that are there none may be lost, or nothing can be changed; away: y; " +
			"without site ap (1 voter), or without eu (1 voter), nothing can be changed: a third site with one voter would survive either's loss"},
		{"x z w", "", "control: 3 voters (w, x, z); 1 of them may be lost; any one site may be cut off"},
		{"x z?", "", "control: 1 voter (x), 1 learner (z); while x is away nothing can be changed, and requests go on"},
		{"", "", ""},
		{"a", "", "control: 1 voter (a); while a is away nothing can be changed, and requests go on"},
		{"a b?", "b", "control: 1 voter (a), 1 learner (b); while a is away nothing can be changed, and requests go on"},
		{"c a b", "", "control: 3 voters (a, b, c); 1 of them may be lost"},
		{"a b c", "b", "control: 3 voters (a, b, c); of those that are there none may be lost, or nothing can be changed; away: b"},
		{"a b c", "a c", "control: 3 voters (a, b, c); without a and c there is no majority: nothing can be changed, and requests go on"},
		{"a b c d e f?", "", "control: 5 voters (a, b, c, d, e), 1 learner (f); 2 of them may be lost"},
	} {
		got := Survives(voter(tt.voters), func(id system.NodeID) *NodeState {
			n := &NodeState{Node: id, Site: site[id], State: nodeUp}
			if strings.Contains(tt.gone, string(id)) {
				n.State = nodeGone
			}
			return n
		})
		if got != tt.want {
			t.Errorf("%s without %q:\n got %s\nwant %s", tt.voters, tt.gone, got, tt.want)
		}
	}
}
