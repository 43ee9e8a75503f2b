package admin

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"servent/control"
	"servent/placement"
	"servent/route"
	"servent/system"
)

// Explanation says why something is where it is.
type Explanation struct {
	What     string             `json:"what"`               // as asked: a service, an instance or a node
	Number   string             `json:"number,omitempty"`   // of a service whose instances follow its calls: how many and why
	Choices  []placement.Choice `json:"choices"`            // one an instance
	Switched string             `json:"switched,omitempty"` // of a service: how the next instance is chosen, in words
	Key      *route.Belonging   `json:"key,omitempty"`      // of a service: whose the key is that was asked for
}

// input is what the conductor decides from, as this door sees it.
func input(v *control.View) placement.Input {
	return placement.Input{System: v.Wanted, Plan: v.Plan, Nodes: v.Seen, Holders: v.Holders, Now: time.Now()}
}

func (d *Door) explain(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	what, keys := q.Get("what"), q["key"]
	v, _ := d.View() // the last one explains as well
	e := explanation(v, what, keys)
	if what == "" || len(e.Choices) == 0 && e.Number == "" && !slices.ContainsFunc(v.Seen, func(s system.Seen) bool { return string(s.Node) == what }) {
		return unknown(v.Wanted, what)
	}
	if len(keys) > 0 && e.Key == nil {
		return &coded{http.StatusConflict, &system.Hint{Err: fmt.Errorf("%s has no keys that belong to one of its instances, as a service has that is partitioned, ring, chord, pastry or kademlia", what),
			Next: "servent explain " + what}}
	}
	return answer(w, e)
}

// explanation is that of a service, an instance or a node; of a service also of a key, when keys has one.
func explanation(v *control.View, what string, keys []string) Explanation {
	e := Explanation{What: what, Choices: []placement.Choice{}}
	if v.Wanted == nil {
		return e
	}
	if svc := route.Build(v.Plan, v.Seen, "").Services[system.ServiceName(what)]; svc != nil {
		e.Switched = svc.Words()
		if len(keys) > 0 {
			e.Key = svc.Belongs(route.Key(keys[0]))
		}
	}
	for _, s := range v.Wanted.Services {
		if what == string(s.Name) {
			e.Number = placement.Why(input(v), s.Name)
		}
		for _, c := range placement.Explain(input(v), s.Name) {
			if what == string(s.Name) || what == string(c.Instance) || what == string(c.Node) {
				e.Choices = append(e.Choices, c)
			}
		}
	}
	return e
}

// plan says what would change if the system in the request were wanted.
func (d *Door) plan(w http.ResponseWriter, r *http.Request) error {
	sys, err := readSystem(http.MaxBytesReader(w, r.Body, maxSystem))
	if err != nil {
		return err
	}
	v, err := d.View()
	if err != nil {
		return err
	}
	in := input(v)
	in.System = sys
	lines := placement.Diff(v.Plan, placement.Next(in).Plan)
	if lines == nil {
		lines = []placement.Line{}
	}
	return answer(w, lines)
}
