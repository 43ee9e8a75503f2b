package sysfile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system"
	"servent/system/notation"
	"servent/system/sysfile/edit"
	"servent/system/sysfile/schema"
)

// Assignment is a value for a place in the file.
type Assignment struct {
	Path  []string // from the top, key by key; [2] is the third item of a list
	Value string
}

// String is the path: services.web.x-servent.architecture.
func (a Assignment) String() string { return path(a.Path).String() }

// Assign reads a path as variants have it. It is a key of the service's x-servent, as switch.policy is, else one
// of the service, as deploy.replicas, else one from the top of the file. A key with a dot stands in double
// quotes. What no system file has is an error that says what may be meant.
func Assign(sys *system.System, service system.ServiceName, text, value string) (Assignment, error) {
	keys, _, err := resolve(sys, service, text)
	return Assignment{Path: keys, Value: value}, err
}

// resolve is a path from the top of the file, and the rule of what stands there. A service without a name may
// be any.
func resolve(sys *system.System, service system.ServiceName, text string) (path, *schema.Rule, error) {
	keys, err := split(text)
	if err != nil {
		return nil, nil, err
	}
	name := string(service)
	if name == "" {
		name = "a"
	}
	of := path{"services", name}
	x, svc, top := schema.Rules().At(of.key("x-servent")...), schema.Rules().At(of...), schema.Rules()
	at := path(nil)
	switch first := keys[0]; {
	case x.Props[first] != nil:
		at = of.key("x-servent")
	case top.Props[first] != nil && (first == "services" || first == "x-servent" && len(keys) > 1 && x.Props[keys[1]] == nil):
	case svc.Props[first] != nil:
		at = of
	case top.Props[first] == nil:
		known := slices.Concat(slices.Sorted(maps.Keys(x.Props)), slices.Sorted(maps.Keys(svc.Props)), slices.Sorted(maps.Keys(top.Props)))
		return nil, nil, fmt.Errorf("want a key of a service's x-servent, have %q%s", text, notation.Suggest(first, known))
	}
	r := schema.Rules().At(at...)
	for _, key := range keys {
		next, known := below(r, sys, at, key)
		if next == nil {
			hint := notation.Suggest(key, known)
			if hint == "" && len(known) > 0 && len(known) <= 16 {
				hint = "; known there: " + strings.Join(known, ", ")
			}
			return nil, nil, fmt.Errorf("%s has no %q%s", at, key, hint)
		}
		r, at = next, at.key(key)
	}
	switch {
	case len(at) > 1 && at[0] == "x-servent" && at[1] == "compare":
		return nil, nil, fmt.Errorf("%s is the comparison's own: it is the same for every variant", at)
	case !slices.ContainsFunc(r.Leaves(), single):
		return nil, nil, fmt.Errorf("%s takes %s; name one of its keys: %s", at, r.Want(), strings.Join(slices.Sorted(maps.Keys(keysOf(r))), ", "))
	}
	return at, r, nil
}

// single says that a rule allows one word.
func single(r *schema.Rule) bool {
	return len(r.Types) == 0 || slices.ContainsFunc(r.Types, func(t string) bool { return t != "object" && t != "array" && t != "null" })
}

// below is the rule of a key below a path of a system, or nil and the keys that are there. Services and groups of
// nodes must be there already: a slip would make a new one.
func below(r *schema.Rule, sys *system.System, at path, key string) (*schema.Rule, []string) {
	if _, item := index(key); item {
		for _, c := range r.Leaves() {
			if c.Items != nil {
				return c.Items, nil
			}
		}
		return nil, nil
	}
	var known []string
	switch at.String() {
	case "services":
		for _, s := range sys.Services {
			known = append(known, string(s.Name))
		}
	case "x-servent.nodes":
		for _, g := range sys.Nodes {
			known = append(known, g.Name)
		}
	default:
		known = slices.Sorted(maps.Keys(keysOf(r)))
		return r.At(key), known
	}
	if !slices.Contains(known, key) && key != "a" {
		return nil, known
	}
	return r.At(key), known
}

// keysOf are the keys that a mapping may have, in its long form, too.
func keysOf(r *schema.Rule) map[string]*schema.Rule {
	all := maps.Clone(r.Props)
	for _, c := range r.Leaves() {
		maps.Copy(all, c.Props)
	}
	return all
}

// split takes a dotted path apart: services."a.b".ports[0] has four keys.
func split(text string) (path, error) {
	var keys path
	bad := fmt.Errorf("want keys with a dot between, like switch.policy, have %q", text)
	for rest := text; ; {
		word, quoted := "", strings.HasPrefix(rest, `"`)
		if quoted {
			var ok bool
			if word, rest, ok = strings.Cut(rest[1:], `"`); !ok {
				return nil, bad
			}
		} else if end := strings.IndexAny(rest, ".["); end >= 0 {
			word, rest = rest[:end], rest[end:]
		} else {
			word, rest = rest, ""
		}
		if word == "" {
			return nil, bad
		}
		keys = append(keys, word)
		for strings.HasPrefix(rest, "[") {
			end := strings.Index(rest, "]")
			if end < 0 {
				return nil, bad
			}
			if _, ok := index(rest[:end+1]); !ok {
				return nil, bad
			}
			keys, rest = append(keys, rest[:end+1]), rest[end+1:]
		}
		if rest == "" {
			return keys, nil
		}
		if rest[0] != '.' {
			return nil, bad
		}
		rest = rest[1:]
	}
}

// Change is a value that was set.
type Change struct {
	Pos   system.Pos // of the value, in the new text
	Path  string     // from the top of the file
	Old   string     // as it was, without quotes; "" when there was none
	New   string
	Added bool // the key is new
}

// Edition is the files of a system with values set in place, in memory.
type Edition struct {
	Changes []Change          // in the order of the assignments
	Texts   map[string][]byte // whole files that change, by absolute name; see [Options]
}

// Locked says that a value stands in a way that only its author should change.
type Locked struct {
	Pos system.Pos
	Err error
}

func (l *Locked) Error() string { return l.Pos.String() + ": " + l.Err.Error() }
func (l *Locked) Unwrap() error { return l.Err }

// Edit sets values in the files of a system, each where it stands: of several files in the last one that has
// it, since that one wins; one that no file has, in the first one that has the mapping it belongs to. Nothing is written. What
// Load reads with the texts is what it reads when they are written. The error is a [Locked] when a value cannot
// be set without harm.
func Edit(ctx context.Context, o Options, set []Assignment) (*Edition, error) {
	e := &Edition{Texts: maps.Clone(o.Texts)}
	if e.Texts == nil {
		e.Texts = map[string][]byte{}
	}
	o.Texts = e.Texts
	for _, a := range set {
		f, files, err := begin(o)
		if err != nil {
			return nil, err
		}
		if err := f.open(ctx, files, f.env); err != nil {
			return nil, err
		}
		src, err := f.stands(a.Path)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(f.main, src) { // Compose reads it by itself
			return nil, &Locked{Pos: src.pos(nil), Err: fmt.Errorf("%s stands in this file, which is included; change it there by hand", path(a.Path))}
		}
		text, c, err := edit.Set(src.text, a.Path, a.Value)
		c.Pos.File = src.shown
		if err != nil {
			return nil, &Locked{Pos: c.Pos, Err: err}
		}
		e.Texts[src.file] = text
		e.Changes = append(e.Changes, Change{Pos: c.Pos, Path: path(a.Path).String(), Old: c.Old, New: a.Value, Added: c.Added})
	}
	return e, nil
}

// stands is the file in which the value at a path is to be set. What a service extends is not the service's own.
func (r *reader) stands(p path) (*source, error) {
	var found []spot
	for _, src := range r.main {
		found = append(found, src.roots()...)
	}
	depth := 0
	for ; depth < len(p); depth++ {
		next := step(found, p[depth])
		if len(next) == 0 {
			break
		}
		found = next
	}
	if len(found) == 0 {
		return nil, errors.New("the file is empty")
	}
	last := found[len(found)-1]
	if depth == len(p) {
		for _, at := range found {
			if kind := follow(at.val).Kind; len(found) > 1 && kind != yaml.ScalarNode && at.src != last.src {
				return nil, &Locked{Pos: last.pos(), Err: fmt.Errorf("%s is put together from what stands here and at %s; change it by hand", p, at.pos())}
			}
		}
		return last.src, nil
	}
	for _, at := range found {
		if slices.Contains(r.main, at.src) {
			return at.src, nil
		}
	}
	return last.src, nil
}
