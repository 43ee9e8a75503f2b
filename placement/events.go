package placement

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"servent/system"
)

// events tells what a new plan changes, each thing once.
func events(old, next *system.Plan, now time.Time) []system.Event {
	var out []system.Event
	for _, name := range serviceNames(old, next) {
		was, is := deployment(old, name), deployment(next, name)
		tell := func(kind string, a *system.Assignment, text string) {
			e := system.Event{Time: now, Kind: kind, Service: name, Text: text}
			if a != nil {
				e.Node, e.Instance = a.Node, a.Instance
			}
			out = append(out, e)
		}
		switch {
		case was != nil && is != nil && was.Spec != is.Spec && outdated(is) > 0:
			tell("update", nil, "begins: "+strings.Join(changes(&was.Service, &is.Service), ", ")+"; "+course(is))
		case was != nil && is != nil && outdated(was) > 0 && outdated(is) == 0 && !stops(is):
			tell("update", nil, "done: "+instances(len(is.Assignments))+" of the new version")
		}
		before := assignments(was)
		if is != nil {
			for i := range is.Assignments {
				a := &is.Assignments[i]
				if text := becomes(before[a.Instance], a); text != "" {
					tell("plan", a, text)
				}
				delete(before, a.Instance)
			}
		}
		if was != nil {
			for i := range was.Assignments {
				if a := &was.Assignments[i]; before[a.Instance] != nil {
					tell("plan", a, "stopped")
				}
			}
		}
		if is == nil {
			tell("plan", nil, "all of it has stopped")
		}
		for _, r := range newRefusals(old, next, name) {
			kind := "plan"
			if r.Missing == 0 {
				kind = "update"
			}
			tell(kind, nil, refusalText(r))
		}
	}
	return out
}

// outdated counts the instances that an update has yet to replace.
func outdated(d *system.Deployment) (n int) {
	for _, a := range d.Assignments {
		if a.Made != nil {
			n++
		}
	}
	return n
}

// becomes says what an assignment changes for its instance. Empty: nothing worth telling.
func becomes(was, is *system.Assignment) string {
	switch {
	case was == nil && is.Goal == system.GoalWait:
		return fmt.Sprintf("placed on %s, waits: %s", is.Node, is.Waits)
	case was == nil:
		return fmt.Sprintf("placed on %s: %s", is.Node, is.Reason)
	case was.Node != is.Node:
		return fmt.Sprintf("to %s: %s", is.Node, is.Reason)
	case was.Goal == system.GoalDrain && is.Goal != system.GoalDrain:
		return "starts again: " + is.Reason
	case was.Spec != is.Spec && is.Goal == system.GoalRun:
		return "made anew: " + is.Reason
	case was.Goal != is.Goal && is.Goal == system.GoalDrain:
		return is.Reason
	case is.Goal == system.GoalWait && was.Waits != is.Waits:
		return "waits: " + is.Waits
	case was.Goal == system.GoalWait && is.Goal == system.GoalRun:
		return "waits no more; it was: " + was.Waits
	}
	return ""
}

func newRefusals(old, next *system.Plan, name system.ServiceName) (out []system.Refusal) {
	for _, r := range next.Refused {
		if r.Service == name && (old == nil || !slices.Contains(old.Refused, r)) {
			out = append(out, r)
		}
	}
	return out
}
