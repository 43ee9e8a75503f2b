package admin

import (
	"fmt"
	"slices"
	"strings"

	"servent/system"
)

// Voter is a server's part in agreeing on what is planned.
type Voter struct {
	Node    system.NodeID `json:"node"`
	Learner bool          `json:"learner,omitempty"` // it hears of all, and has no vote
	Leads   bool          `json:"leads,omitempty"`
}

// Survives says in words which losses control survives, and what is not safe now. up says which nodes are there. Empty: there is nothing to say, as of
// a laptop.
func Survives(voters []Voter, up func(system.NodeID) bool) string {
	var voting, learning, gone []string
	for _, v := range voters {
		switch name := string(v.Node); {
		case v.Learner:
			learning = append(learning, name)
		default:
			voting = append(voting, name)
			if !up(v.Node) {
				gone = append(gone, name)
			}
		}
	}
	if len(voting) == 0 {
		return ""
	}
	slices.Sort(voting)
	slices.Sort(learning)
	text := "control: " + noun(len(voting), "voter") + " (" + strings.Join(voting, ", ") + ")"
	if len(learning) > 0 {
		text += ", " + noun(len(learning), "learner") + " (" + strings.Join(learning, ", ") + ")"
	}
	spare := (len(voting)-1)/2 - len(gone)
	switch {
	case spare < 0:
		return text + "; without " + strings.Join(gone, " and ") + " there is no majority: nothing can be changed, and requests go on"
	case len(voting) == 1:
		text += "; while " + voting[0] + " is away nothing can be changed, and requests go on"
	case spare == 0:
		text += "; of those that are there none may be lost, or nothing can be changed"
	default:
		text += "; " + noun(spare, "of them") + " may be lost"
	}
	if len(gone) > 0 {
		text += "; away: " + strings.Join(gone, ", ")
	}
	return text
}

// noun counts: 1 voter, 2 voters; what has no plural stays.
func noun(n int, what string) string {
	if n == 1 || strings.HasPrefix(what, "of ") {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
