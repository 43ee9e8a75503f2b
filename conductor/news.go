package conductor

import (
	"cmp"
	"fmt"
	"time"

	"servent/control"
	"servent/system"
)

// news is what happened between two views, apart from the plan: nodes that came and went, instances whose
// state changed. A new leader, who has no old view, tells nothing of what it finds, unless there has been
// no plan before: then everything is new.
func news(old, next *control.View) []system.Event {
	if old == nil {
		if next.Plan != nil {
			return nil
		}
		old = &control.View{}
	}
	var out []system.Event
	for i := range old.Seen {
		if n := &old.Seen[i]; next.Node(n.Node) == nil {
			out = append(out, system.Event{Kind: "node", Node: n.Node, Text: "gone"})
		}
	}
	for i := range next.Seen {
		n := &next.Seen[i]
		was := old.Node(n.Node)
		switch {
		case was == nil:
			out = append(out, system.Event{Kind: "node", Node: n.Node, Text: "joined at site " + cmp.Or(string(n.Site), "none")})
		case !was.Started.Equal(n.Started):
			out = append(out, system.Event{Kind: "node", Node: n.Node, Text: "started again"})
		}
		before := map[system.InstanceID]*system.InstanceSeen{}
		if was != nil {
			for j := range was.Instances {
				before[was.Instances[j].Instance] = &was.Instances[j]
			}
		}
		for j := range n.Instances {
			s := &n.Instances[j]
			if text := becomes(before[s.Instance], s); text != "" {
				service, _, _ := s.Instance.Split() // an ID that is none is told all the same
				out = append(out, system.Event{Kind: "instance", Node: n.Node, Service: service, Instance: s.Instance, Text: text})
			}
		}
	}
	return out
}

// becomes says what is worth telling of an instance's change. Empty: nothing.
func becomes(was, is *system.InstanceSeen) string {
	why := ""
	if reason := cmp.Or(is.Why, is.Exit); reason != "" {
		why = ": " + reason
	}
	if was == nil {
		was = &system.InstanceSeen{}
	}
	changed := was.State != is.State || was.Spec != is.Spec
	switch {
	case is.State == system.StateBackoff && (changed || is.Restarts > was.Restarts):
		return "ended" + why + "; starts again soon"
	case is.State == system.StateFailed && changed:
		return "failed" + why
	case is.State == system.StateDone && changed:
		return "finished"
	case is.State == system.StateUnhealthy && changed:
		return "unhealthy" + why
	case is.State == system.StateReady && changed:
		if took := is.Since.Sub(is.Started); !is.Started.IsZero() && took > 0 {
			return fmt.Sprintf("ready after %v", took.Round(10*time.Millisecond))
		}
		return "ready"
	case is.Restarts > was.Restarts && was.State != "" && was.State != system.StateBackoff && was.Spec == is.Spec:
		return "ended and was started again" + why
	}
	return ""
}
