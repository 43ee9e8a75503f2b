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
	for _, tt := range []struct{ voters, gone, want string }{
		{"", "", ""},
		{"a", "", "control: 1 voter (a); while a is away nothing can be changed, and requests go on"},
		{"a b?", "b", "control: 1 voter (a), 1 learner (b); while a is away nothing can be changed, and requests go on"},
		{"c a b", "", "control: 3 voters (a, b, c); 1 of them may be lost"},
		{"a b c", "b", "control: 3 voters (a, b, c); of those that are there none may be lost, or nothing can be changed; away: b"},
		{"a b c", "a c", "control: 3 voters (a, b, c); without a and c there is no majority: nothing can be changed, and requests go on"},
		{"a b c d e f?", "", "control: 5 voters (a, b, c, d, e), 1 learner (f); 2 of them may be lost"},
	} {
		got := Survives(voter(tt.voters), func(id system.NodeID) bool { return !strings.Contains(tt.gone, string(id)) })
		if got != tt.want {
			t.Errorf("%s without %q:\n got %s\nwant %s", tt.voters, tt.gone, got, tt.want)
		}
	}
}
