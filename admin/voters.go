package admin

import (
	"cmp"
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

// Survives says in words which losses control survives, and what is not safe now. node tells how a node is; nil: it is not known. Empty: there is nothing to say, as of
// a laptop.
func Survives(voters []Voter, node func(system.NodeID) *NodeState) string {
	up := func(id system.NodeID) bool { n := node(id); return n != nil && n.Runs() }
	var voting, learning, gone []string
	sites := map[system.Site]int{} // voters that are there
	for _, v := range voters {
		if n := node(v.Node); !v.Learner && up(v.Node) {
			sites[n.Site]++
		}
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
	return text + vital(sites, spare)
}

// vital names the sites none of which may be cut off, if control's voters stand in several. Of two sites one always is.
func vital(sites map[system.Site]int, spare int) string {
	if len(sites) < 2 {
		return ""
	}
	var words []string
	for site, voters := range sites {
		if voters > spare {
			words = append(words, fmt.Sprintf("%s (%s)", cmp.Or(string(site), "that has no name"), noun(voters, "voter")))
		}
	}
	if len(words) == 0 {
		return "; any one site may be cut off"
	}
	slices.Sort(words)
	text := "; without site " + strings.Join(words, ", or without ") + ", nothing can be changed"
	if len(sites) == 2 {
		text += ": a third site with one voter would survive either's loss"
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
