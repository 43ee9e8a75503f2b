package sysfile

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	"servent/system/sysfile/schema"
)

// walk checks the nodes of one file against the schema. What is wrong is reported and pruned, so that
// the rest can be read on and one mistake does not hide or breed others.
type walk struct {
	src    *source
	found  *findings
	active []*yaml.Node // aliases being followed
	left   int          // nodes that may still be visited
	silent bool         // a trial: nothing is reported or pruned
}

// maxNodes bounds a file's size with its aliases written out. A thousand services have some 50,000.
const maxNodes = 300_000

// file checks all documents of a source.
func (w *walk) file() {
	for _, doc := range w.src.docs {
		w.value(schema.Rules(), nil, doc, nil)
	}
}

func (w *walk) problem(n *yaml.Node, at path, format string, args ...any) bool {
	if !w.silent {
		w.found.problem(w.src.pos(n), at, format, args...)
		w.src.pruned = true
	}
	return false
}

// afford counts a visit and ends the walk of a file whose aliases multiply without end.
func (w *walk) afford(n *yaml.Node, at path) bool {
	if w.left--; w.left == -1 {
		w.problem(n, at, "too big: more than %d values with all aliases written out", maxNodes)
	}
	return w.left >= 0
}

// value checks one node; false means that the caller drops it. key is the node of its key, or nil.
func (w *walk) value(r *schema.Rule, key, n *yaml.Node, at path) bool {
	if !w.afford(n, at) {
		return false
	}
	if n.Kind == yaml.AliasNode {
		if slices.Contains(w.active, n.Alias) {
			return w.problem(n, at, "alias *%s stands inside what it names", n.Value)
		}
		return w.value(r, key, n.Alias, at)
	}
	if n.Tag == "!reset" {
		return true
	}
	if n.Anchor != "" {
		w.active = append(w.active, n)
		defer func() { w.active = w.active[:len(w.active)-1] }()
	}
	if r = w.choose(r, n); !w.fits(r, n) {
		if parse := schema.Format(r.Format); parse != nil && n.Kind == yaml.ScalarNode && n.Value != "" {
			if err := parse(n.Value); err != nil {
				return w.problem(n, at, "%s", err)
			}
		}
		if w.src.lent && len(at) == 2 && at[0] == "services" && n.ShortTag() == "!!null" {
			return true // Compose looks only at what a service becomes by it
		}
		return w.problem(spot{key: key, val: n}.node(), at, "want %s, have %s%s", r.Want(), have(n), advice(r, n, at))
	}
	switch n.Kind {
	case yaml.MappingNode:
		return w.mapping(r, key, n, at)
	case yaml.SequenceNode:
		return w.sequence(r, key, n, at)
	}
	return w.scalar(r, n, at)
}

// choose returns the branch of a oneOf that the node can only mean, or the whole when none fits.
func (w *walk) choose(r *schema.Rule, n *yaml.Node) *schema.Rule {
	for len(r.Choices) > 0 {
		var fit []*schema.Rule
		for _, c := range r.Leaves() {
			if w.fits(c, n) {
				fit = append(fit, c)
			}
		}
		if len(fit) == 0 {
			return r
		}
		for _, c := range fit[:len(fit)-1] {
			trial := walk{src: w.src, found: w.found, active: w.active, left: 1000, silent: true}
			if trial.value(c, nil, n, nil) {
				return c
			}
		}
		r = fit[len(fit)-1]
	}
	return r
}

// fits says whether the node is of a type that the rule allows.
func (w *walk) fits(r *schema.Rule, n *yaml.Node) bool {
	if len(r.Choices) > 0 {
		return slices.ContainsFunc(r.Leaves(), func(c *schema.Rule) bool { return w.fits(c, n) })
	}
	if len(r.Types) == 0 {
		return true
	}
	return slices.ContainsFunc(w.typesOf(n), func(t string) bool { return slices.Contains(r.Types, t) })
}

// typesOf are the JSON types a node can be taken for. A text with a variable counts as what it becomes.
func (w *walk) typesOf(n *yaml.Node) []string {
	switch n.Kind {
	case yaml.MappingNode:
		return []string{"object"}
	case yaml.SequenceNode:
		return []string{"array"}
	}
	types := scalarTypes[n.ShortTag()]
	if strings.Contains(n.Value, "$") && n.ShortTag() == "!!str" {
		if s, _, err := w.src.interpolate(n.Value); err != nil || s == "" {
			return []string{"string", "integer", "number", "boolean"}
		} else if n.Style == 0 {
			plain := yaml.Node{Kind: yaml.ScalarNode, Value: s}
			types = append([]string{"string"}, scalarTypes[plain.ShortTag()]...)
		}
	}
	if types == nil {
		types = []string{"string"} // timestamps, binary, tags of others
	}
	return types
}

var scalarTypes = map[string][]string{
	"!!str":   {"string"},
	"!!int":   {"integer", "number"},
	"!!float": {"number"},
	"!!bool":  {"boolean"},
	"!!null":  {"null"},
}

func (w *walk) mapping(r *schema.Rule, key, n *yaml.Node, at path) bool {
	first := map[string]*yaml.Node{}
	w.keys(r, n, at, first, map[string]*yaml.Node{})
	for _, name := range r.Required {
		if first[name] == nil {
			pos := n
			if key != nil {
				pos = key
			}
			return w.problem(pos, at, "the key %q is missing", name)
		}
	}
	return true
}

// keys checks the keys of one mapping and of those merged into it. all collects every key, own only
// those of this mapping: a key may override a merged one, but not stand twice.
func (w *walk) keys(r *schema.Rule, n *yaml.Node, at path, all, own map[string]*yaml.Node) {
	kept := make([]*yaml.Node, 0, len(n.Content))
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if isMerge(k) {
			if w.merge(r, v, at, all) {
				kept = append(kept, k, v)
			}
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			w.problem(k, at, "want text as a key, have %s; put it in quotes", have(k))
			continue
		}
		if before := own[k.Value]; before != nil {
			w.problem(k, at.key(k.Value), "this key stands twice, first in line %d", before.Line)
			continue
		}
		own[k.Value], all[k.Value] = k, k
		sub, known := r.Of(k.Value)
		if !known {
			w.unknown(r, k, v, at)
			continue
		}
		if len(at) == 1 && at[0] == "services" && ofService(k.Value) && (k.Value == "x-servent" || !w.fits(sub, follow(v))) {
			w.problem(k, at.key(k.Value), "this key belongs under a service; indent it by one step more")
			continue
		}
		if w.value(sub, k, v, at.key(k.Value)) {
			kept = append(kept, k, v)
		}
	}
	if !w.silent && len(kept) < len(n.Content) {
		n.Content = kept
	}
}

func (w *walk) merge(r *schema.Rule, v *yaml.Node, at path, all map[string]*yaml.Node) bool {
	from := mergedFrom(v)
	if len(from) == 0 {
		return w.problem(v, at, "<< wants a mapping or a list of mappings, have %s", have(follow(v)))
	}
	for _, m := range from {
		if !w.afford(m, at) {
			return false
		}
		if slices.Contains(w.active, m) {
			return w.problem(v, at, "<< stands inside what it names")
		}
		w.active = append(w.active, m)
		w.keys(r, m, at, all, map[string]*yaml.Node{})
		w.active = w.active[:len(w.active)-1]
	}
	return true
}

func (w *walk) sequence(r *schema.Rule, key, n *yaml.Node, at path) bool {
	items := cmp.Or(r.Items, &schema.Rule{})
	if len(n.Content) < r.Least {
		return w.problem(spot{key: key, val: n}.node(), at, "want at least %d in this list", r.Least)
	}
	var kept []*yaml.Node
	first := map[string]*yaml.Node{}
	for i, one := range n.Content {
		if before := first[one.Value]; before != nil && r.Unique && one.Kind == yaml.ScalarNode {
			w.problem(one, at.item(i), "this stands twice in the list, first in line %d", before.Line)
			continue
		}
		first[one.Value] = one
		if w.value(items, nil, one, at.item(i)) {
			kept = append(kept, one)
		}
	}
	if !w.silent && len(kept) < len(n.Content) {
		n.Content = kept
	}
	return true
}

func (w *walk) scalar(r *schema.Rule, n *yaml.Node, at path) bool {
	s, unset, err := w.src.interpolate(n.Value)
	if err != nil {
		return w.problem(n, at, "%s", err)
	}
	if !w.silent {
		for _, v := range unset {
			w.found.note(w.src.pos(n), at, "variable %s is not set; it stands for nothing", v)
		}
	}
	if n.ShortTag() == "!!null" && slices.Contains(r.Types, "null") {
		return true
	}
	if n.Style&yaml.DoubleQuotedStyle != 0 && slices.Contains(at, "x-servent") && at[len(at)-1] != "send" && strings.ContainsFunc(s, unicode.IsControl) {
		return w.problem(n, at, `have %q: in double quotes \ begins an escape; use single quotes`, s)
	}
	if err := r.Check(s); err != nil {
		return w.problem(n, at, "%s", err)
	}
	return true
}
