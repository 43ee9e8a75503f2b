package sysfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system/notation"
	"servent/system/sysfile/schema"
)

// ofService says that a key is one of a service.
func ofService(name string) bool { return schema.Rules().At("services", "a", name) != nil }

// unknown reports a key that the schema does not have, and where it may belong.
func (w *walk) unknown(r *schema.Rule, k, v *yaml.Node, at path) {
	name, known := k.Value, slices.Sorted(maps.Keys(r.Props))
	if len(known) == 0 && len(r.Patterns) > 0 {
		w.problem(k, at.key(name), "want %s, have %q", schema.Form(r.Patterns[len(r.Patterns)-1].Form.String(), "a name"), name)
		return
	}
	if len(at) == 0 && serviceLike(v) {
		w.problem(k, at.key(name), "this key belongs under services; indent it by one step more")
		return
	}
	hint := notation.Suggest(name, known)
	switch home := schema.Home(name, at, hint == ""); {
	case home != "":
		w.problem(k, at.key(name), "this key belongs under %s", home)
		return
	case hint == "" && len(known) <= 16:
		hint = "; known here: " + strings.Join(known, ", ")
	case hint == "":
		hint = "; servent schema has all that are known"
	}
	w.problem(k, at.key(name), "unknown key%s", hint)
}

// serviceLike says that a value has a key that only a service has.
func serviceLike(n *yaml.Node) bool {
	if n = follow(n); n.Kind != yaml.MappingNode {
		return false
	}
	for _, key := range []string{"x-servent", "image", "build"} {
		if _, v := lookup(n, key, 0); v != nil {
			return true
		}
	}
	return false
}

// advice is what to do about a value of another type than the rule allows, or "".
func advice(r *schema.Rule, n *yaml.Node, at path) string {
	mapping := slices.ContainsFunc(r.Leaves(), func(c *schema.Rule) bool { return slices.Contains(c.Types, "object") })
	list := slices.ContainsFunc(r.Leaves(), func(c *schema.Rule) bool { return slices.Contains(c.Types, "array") })
	_, item := index(at[len(at)-1])
	switch n.Kind {
	case yaml.SequenceNode:
		if mapping {
			return "; write NAME: where - is"
		}
	case yaml.MappingNode:
		switch {
		case n.Style&yaml.FlowStyle != 0 && len(n.Content) == 2 && n.Content[1].ShortTag() == "!!null":
			return "; put it in quotes"
		case item:
			return "; leave out the -, or write it as one text"
		case list:
			return "; begin each line with -"
		}
	default:
		switch text := clip(n.Value); {
		case n.ShortTag() == "!!null" && item:
			return "; leave out the - or write something behind it"
		case n.ShortTag() == "!!null" && r.Want() == "a mapping":
			return "; indent by one step more what belongs to it, or leave it out"
		case n.ShortTag() == "!!null":
			return "; write something behind it, or leave it out"
		case list && strings.HasPrefix(text, "-"):
			return "; a space is missing behind -"
		case list:
			return fmt.Sprintf("; write [%q]", text)
		case mapping && r.Props["x-servent"] != nil:
			return "; its keys stand below it, one of them x-servent"
		case mapping:
			return "; its keys stand below it, each with its value"
		case n.ShortTag() != "!!str":
			return "; put it in quotes"
		}
	}
	return ""
}

// have is what stands there, in words.
func have(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "*" + n.Value
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return n.Value
	}
	return strconv.Quote(clip(n.Value))
}

// clip keeps a message short of a file that is no system file at all.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
