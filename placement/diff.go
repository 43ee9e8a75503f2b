package placement

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"servent/system"
)

// Line is one line of the difference between two plans. Without an instance it speaks of the service.
type Line struct {
	Op       string             `json:"op"` // + starts, - stops, ~ changes or moves, * is made anew, = stays
	Service  system.ServiceName `json:"service"`
	Instance system.InstanceID  `json:"instance,omitempty"`
	Node     system.NodeID      `json:"node,omitempty"`
	Text     string             `json:"text"` // why, in words
}

// Diff says what becomes of each service and instance when next follows old, which may be nil. Of an
// update it tells the whole course, not only the first step, which is all that next holds of it.
func Diff(old, next *system.Plan) []Line {
	var lines []Line
	for _, name := range serviceNames(old, next) {
		was, is := deployment(old, name), deployment(next, name)
		line := Line{Op: "=", Service: name, Text: "no change"}
		switch {
		case was == nil:
			line.Op, line.Text = "+", fmt.Sprintf("new: %s, %s", is.Service.Architecture, instances(len(is.Assignments)))
		case is == nil || stops(is):
			line.Op, line.Text = "-", "no longer wanted: stops "+instances(len(was.Assignments))
			if was.Service.Tied() {
				line.Text += "; its data stays where it is"
			}
		case was.Spec != is.Spec:
			line.Op, line.Text = "*", strings.Join(changes(&was.Service, &is.Service), ", ")+"; "+course(is)
		default:
			if c := changes(&was.Service, &is.Service); len(c) > 0 {
				line.Op, line.Text = "~", strings.Join(c, ", ")
			}
		}
		lines = append(lines, line)
		if was != nil && is != nil && !stops(is) {
			if text := moved(was, is); text != "" {
				lines = append(lines, Line{Op: "~", Service: name, Text: text})
			}
		}
		lines = append(lines, instanceLines(was, is)...)
		if next != nil {
			for _, r := range next.Refused {
				if r.Service == name {
					lines = append(lines, Line{Op: "~", Service: name, Text: refusalText(r)})
				}
			}
		}
	}
	return lines
}

// stops says that the service is no longer wanted, and what is left of it is on its way out.
func stops(d *system.Deployment) bool {
	return slices.ContainsFunc(d.Assignments, func(a system.Assignment) bool { return a.Reason == "stops: "+unwanted })
}

// course says how an update goes on from here.
func course(d *system.Deployment) string {
	left := 0
	for _, a := range d.Assignments {
		if a.Made != nil {
			left++
		}
	}
	switch {
	case left == 0:
		return "nothing runs that must be made anew"
	case d.Service.Tied():
		return instances(left) + " made anew in place, the old one stopped first, as its data stays"
	case d.Service.Update.Order == "stop-first":
		return instances(left) + " made anew in place, the old one stopped first"
	}
	return fmt.Sprintf("%d new %s first, then the old stop", left, plural(left, "instance"))
}

func instanceLines(was, is *system.Deployment) []Line {
	var lines []Line
	before, after := assignments(was), assignments(is)
	ids := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.SortFunc(ids, func(a, b system.InstanceID) int { return cmp.Compare(ordinal(a), ordinal(b)) })
	ids = slices.Compact(ids)
	for _, id := range ids {
		a, b := before[id], after[id]
		line := Line{Op: "=", Instance: id}
		switch {
		case b == nil:
			line.Op, line.Node, line.Text = "-", a.Node, "stops"
		case a == nil:
			line.Op, line.Node, line.Text = "+", b.Node, words(b)
		case b.Goal == system.GoalDrain && a.Goal != system.GoalDrain:
			line.Op, line.Node, line.Text = "-", b.Node, b.Reason
			if b.Made != nil && !stops(is) {
				line.Op = "*"
			}
		case a.Node != b.Node:
			line.Op, line.Node, line.Text = "~", b.Node, words(b)
		case a.Spec != b.Spec:
			line.Op, line.Node, line.Text = "*", b.Node, words(b)
		case b.Made != nil && b.Goal != system.GoalDrain:
			line.Op, line.Node, line.Text = "*", b.Node, "the new version takes its place"
		case a.Goal != b.Goal || a.Waits != b.Waits:
			line.Op, line.Node, line.Text = "~", b.Node, words(b)
		default:
			line.Node, line.Text = b.Node, "stays"
		}
		if is != nil {
			line.Service = is.Service.Name
		} else {
			line.Service = was.Service.Name
		}
		lines = append(lines, line)
	}
	return lines
}

// words are an assignment's reason and what it waits for.
func words(a *system.Assignment) string {
	if a.Goal == system.GoalWait {
		return a.Reason + "; waits: " + a.Waits
	}
	return a.Reason
}

func refusalText(r system.Refusal) string {
	if r.Missing == 0 {
		return r.Reason
	}
	return "no place for " + instances(r.Missing) + ": " + r.Reason
}

func instances(n int) string { return fmt.Sprintf("%d %s", n, plural(n, "instance")) }

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func deployment(p *system.Plan, name system.ServiceName) *system.Deployment {
	if p == nil {
		return nil
	}
	return p.Deployment(name)
}

func serviceNames(plans ...*system.Plan) []system.ServiceName {
	var names []system.ServiceName
	for _, p := range plans {
		if p != nil {
			for _, d := range p.Services {
				names = append(names, d.Service.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func assignments(d *system.Deployment) map[system.InstanceID]*system.Assignment {
	m := map[system.InstanceID]*system.Assignment{}
	if d != nil {
		for i := range d.Assignments {
			m[d.Assignments[i].Instance] = &d.Assignments[i]
		}
	}
	return m
}

// changes names the fields in which two versions of a service differ: environment LOG_LEVEL: info → debug.
func changes(old, next *system.Service) []string {
	var out []string
	compareFields(reflect.ValueOf(*old), reflect.ValueOf(*next), "", &out)
	return out
}

func compareFields(a, b reflect.Value, path string, out *[]string) {
	switch {
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		compareFields(a.Elem(), b.Elem(), path, out)
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			f := a.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Type == reflect.TypeFor[system.Pos]() {
				continue // where it stands in the file is no change
			}
			compareFields(a.Field(i), b.Field(i), strings.TrimSpace(path+" "+name), out)
		}
	case a.Kind() == reflect.Map:
		keys := append(a.MapKeys(), b.MapKeys()...)
		slices.SortFunc(keys, func(x, y reflect.Value) int { return cmp.Compare(x.String(), y.String()) })
		keys = slices.CompactFunc(keys, func(x, y reflect.Value) bool { return x.String() == y.String() })
		for _, k := range keys {
			x, y := a.MapIndex(k), b.MapIndex(k)
			if !secret(k.String()) {
				note(x, y, path+" "+k.String(), out)
			} else if !x.IsValid() || !y.IsValid() || x.String() != y.String() {
				*out = append(*out, path+" "+k.String()+": changed")
			}
		}
	default:
		note(a, b, path, out)
	}
}

func note(a, b reflect.Value, path string, out *[]string) {
	if x, y := shown(a), shown(b); x != y {
		*out = append(*out, path+": "+short(x)+" → "+short(y))
	}
}

// secret says that a variable's value should not be shown, to go by its name.
func secret(name string) bool {
	name = strings.ToUpper(name)
	return slices.ContainsFunc([]string{"PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"}, func(word string) bool {
		return strings.Contains(name, word)
	})
}

// short cuts what is too long for a line.
func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "…"
	}
	return s
}

// shown writes a value as a user would: none for what is not set, digests short.
func shown(v reflect.Value) string {
	if !v.IsValid() || v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return "none"
	}
	switch x := v.Interface().(type) {
	case system.Digest:
		_, hex, _ := strings.Cut(string(x), ":")
		return hex[:min(len(hex), 12)]
	case time.Duration:
		return x.String()
	case string:
		return x
	}
	switch v.Kind() {
	case reflect.Pointer:
		return shown(v.Elem())
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = shown(v.Index(i))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			if f := v.Field(i); f.Type() != reflect.TypeFor[system.Pos]() && !f.IsZero() {
				parts = append(parts, shown(f))
			}
		}
		return strings.Join(parts, " ")
	}
	return fmt.Sprint(v.Interface())
}
