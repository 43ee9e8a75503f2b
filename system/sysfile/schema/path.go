package schema

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"servent/system"
	"servent/system/notation"
)

// Resolve is a path read from the top of the file, and the rule of what stands there. It is
// a key of the service's x-servent, else of the service, else of the file. A service without a name may be any.
func Resolve(sys *system.System, service system.ServiceName, text string) ([]string, *Rule, error) {
	keys, err := split(text)
	if err != nil {
		return nil, nil, err
	}
	of := []string{"services", cmp.Or(string(service), "a")}
	x, svc, top := Rules().At(append(slices.Clip(of), "x-servent")...), Rules().At(of...), Rules()
	at := []string(nil)
	switch first := keys[0]; {
	case x.Props[first] != nil:
		at = append(of, "x-servent")
	case top.Props[first] != nil && (first == "services" || first == "x-servent" && len(keys) > 1 && x.Props[keys[1]] == nil):
	case svc.Props[first] != nil:
		at = of
	case top.Props[first] == nil:
		known := slices.Concat(slices.Sorted(maps.Keys(x.Props)), slices.Sorted(maps.Keys(svc.Props)), slices.Sorted(maps.Keys(top.Props)))
		return nil, nil, fmt.Errorf("want a key of a service's x-servent, have %q%s", text, notation.Suggest(first, known))
	}
	r := Rules().At(at...)
	for _, key := range keys {
		next, known := below(r, sys, at, key)
		if next == nil {
			hint := notation.Suggest(key, known)
			if hint == "" && len(known) > 0 && len(known) <= 16 {
				hint = "; known there: " + strings.Join(known, ", ")
			}
			return nil, nil, fmt.Errorf("%s has no %q%s", name(at), key, hint)
		}
		r, at = next, append(slices.Clip(at), key)
	}
	switch {
	case len(at) > 1 && at[0] == "x-servent" && at[1] == "compare":
		return nil, nil, fmt.Errorf("%s is the comparison's own: it is the same for every variant", name(at))
	case !slices.ContainsFunc(r.Leaves(), single):
		return nil, nil, fmt.Errorf("%s takes %s; name one of its keys: %s", name(at), r.Want(), strings.Join(slices.Sorted(maps.Keys(keysOf(r))), ", "))
	}
	return at, r, nil
}

// single says that a rule allows one word.
func single(r *Rule) bool {
	return len(r.Types) == 0 || slices.ContainsFunc(r.Types, func(t string) bool { return t != "object" && t != "array" && t != "null" })
}

// below is the rule of a key below a path of a system, or nil and the keys that are there. Services and groups of
// nodes must be there already: a slip would make a new one.
func below(r *Rule, sys *system.System, at []string, key string) (*Rule, []string) {
	if item.MatchString(key) {
		for _, c := range r.Leaves() {
			if c.Items != nil {
				return c.Items, nil
			}
		}
		return nil, nil
	}
	var known []string
	switch name(at) {
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
func keysOf(r *Rule) map[string]*Rule {
	all := maps.Clone(r.Props)
	for _, c := range r.Leaves() {
		maps.Copy(all, c.Props)
	}
	return all
}

// split takes a dotted path apart: services."a.b".ports[0] has four keys.
func split(text string) ([]string, error) {
	var keys []string
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
			if !item.MatchString(rest[:end+1]) {
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

// item is a step to an item of a list.
var item = regexp.MustCompile(`^\[(0|[1-9][0-9]{0,5})\]$`)

// name is a path in words: services.web.ports[0].
func name(keys []string) string {
	return strings.ReplaceAll(strings.Join(keys, "."), ".[", "[")
}
