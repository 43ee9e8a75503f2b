package sysfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	"servent/system"
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
		w.value(rules(), nil, doc, nil)
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
func (w *walk) value(r *rule, key, n *yaml.Node, at path) bool {
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
		if parse := formats[r.format]; parse != nil && n.Kind == yaml.ScalarNode && n.Value != "" {
			if err := parse(n.Value); err != nil {
				return w.problem(n, at, "%s", err)
			}
		}
		return w.problem(spot{key: key, val: n}.node(), at, "want %s, have %s", r.want(), have(n))
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
func (w *walk) choose(r *rule, n *yaml.Node) *rule {
	for len(r.choices) > 0 {
		var fit []*rule
		for _, c := range r.leaves() {
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

// leaves are the branches below all nested choices.
func (r *rule) leaves() []*rule {
	if len(r.choices) == 0 {
		return []*rule{r}
	}
	var all []*rule
	for _, c := range r.choices {
		all = append(all, c.leaves()...)
	}
	return all
}

// fits says whether the node is of a type that the rule allows.
func (w *walk) fits(r *rule, n *yaml.Node) bool {
	if len(r.choices) > 0 {
		return slices.ContainsFunc(r.leaves(), func(c *rule) bool { return w.fits(c, n) })
	}
	if len(r.types) == 0 {
		return true
	}
	return slices.ContainsFunc(w.typesOf(n), func(t string) bool { return slices.Contains(r.types, t) })
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

func (w *walk) mapping(r *rule, key, n *yaml.Node, at path) bool {
	first := map[string]*yaml.Node{}
	w.keys(r, n, at, first, map[string]*yaml.Node{})
	for _, name := range r.required {
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
func (w *walk) keys(r *rule, n *yaml.Node, at path, all, own map[string]*yaml.Node) {
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
		sub, known := r.of(k.Value)
		if !known {
			w.unknown(r, k, at)
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

func (w *walk) merge(r *rule, v *yaml.Node, at path, all map[string]*yaml.Node) bool {
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

// of returns the rule of a key; a rule without a word on keys allows all.
func (r *rule) of(name string) (*rule, bool) {
	if sub := r.props[name]; sub != nil {
		return sub, true
	}
	for _, p := range r.patterns {
		if p.form.MatchString(name) {
			return p.rule, true
		}
	}
	return &rule{}, !r.closed
}

// unknown reports a key that the schema does not have, and where it may belong.
func (w *walk) unknown(r *rule, k *yaml.Node, at path) {
	name, whole := k.Value, rules()
	service, mine := whole.at("services", "a"), whole.at("services", "a", "x-servent")
	inService := len(at) >= 2 && at[0] == "services"
	switch {
	case len(at) == 2 && inService && mine.props[name] != nil:
		w.problem(k, at.key(name), "this key belongs under %s", at.key("x-servent"))
	case len(at) == 3 && inService && at[2] == "x-servent" && service.props[name] != nil:
		w.problem(k, at.key(name), "this key belongs under %s", at[:2])
	case len(at) == 0 && whole.props["x-servent"].props[name] != nil:
		w.problem(k, at.key(name), "this key belongs under x-servent")
	case len(at) == 0 && service.props[name] != nil:
		w.problem(k, at.key(name), "this key belongs under services.NAME")
	case len(at) <= 1 && mine.props[name] != nil:
		w.problem(k, at.key(name), "this key belongs under services.NAME.x-servent")
	case len(r.props) == 0 && len(r.patterns) > 0:
		w.problem(k, at.key(name), "want a name of the form %s, have %q", r.patterns[len(r.patterns)-1].form, name)
	default:
		known := slices.Sorted(maps.Keys(r.props))
		hint := suggest(name, known)
		if hint == "" && len(known) <= 16 {
			hint = "; known here: " + strings.Join(known, ", ")
		} else if hint == "" {
			hint = "; servent schema has all that are known"
		}
		w.problem(k, at.key(name), "unknown key%s", hint)
	}
}

func (w *walk) sequence(r *rule, key, n *yaml.Node, at path) bool {
	items := r.items
	if items == nil {
		items = &rule{}
	}
	if len(n.Content) < r.least {
		return w.problem(spot{key: key, val: n}.node(), at, "want at least %d in this list", r.least)
	}
	var kept []*yaml.Node
	for i, one := range n.Content {
		if w.value(items, nil, one, at.item(i)) {
			kept = append(kept, one)
		}
	}
	if !w.silent && len(kept) < len(n.Content) {
		n.Content = kept
	}
	return true
}

func (w *walk) scalar(r *rule, n *yaml.Node, at path) bool {
	s, unset, err := w.src.interpolate(n.Value)
	if err != nil {
		return w.problem(n, at, "%s", err)
	}
	if !w.silent {
		for _, v := range unset {
			w.found.note(w.src.pos(n), at, "variable %s is not set; it stands for nothing", v)
		}
	}
	if n.ShortTag() == "!!null" && slices.Contains(r.types, "null") {
		return true
	}
	if len(r.enum) > 0 && !slices.Contains(r.enum, s) {
		return w.problem(n, at, "want one of %s, have %q%s", strings.Join(r.enum, ", "), s, suggest(s, r.enum))
	}
	if r.pattern != nil && !r.pattern.MatchString(s) {
		return w.problem(n, at, "want text of the form %s, have %q", r.pattern, s)
	}
	if parse := formats[r.format]; parse != nil {
		if err := parse(s); err != nil {
			return w.problem(n, at, "%s", err)
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && (r.min != nil && f < *r.min || r.max != nil && f > *r.max) {
		return w.problem(n, at, "want %s, have %s", r.bounds(), s)
	}
	return true
}

// bounds is "a number from 1 to 64".
func (r *rule) bounds() string {
	switch {
	case r.max == nil:
		return fmt.Sprintf("at least %v", *r.min)
	case r.min == nil:
		return fmt.Sprintf("at most %v", *r.max)
	}
	return fmt.Sprintf("a number from %v to %v", *r.min, *r.max)
}

// want is what the rule allows, in words.
func (r *rule) want() string {
	var words []string
	for _, c := range r.leaves() {
		if len(c.types) > 3 {
			return "a plain value"
		}
		if len(c.enum) > 0 {
			words = append(words, "one of "+strings.Join(c.enum, ", "))
			continue
		}
		for _, t := range c.types {
			if t == "string" && slices.ContainsFunc(c.types, func(t string) bool { return t == "integer" || t == "number" || t == "boolean" }) {
				continue // Compose allows text where a variable may stand
			}
			if t != "null" {
				words = append(words, typeWords[t])
			}
		}
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " or ")
}

var typeWords = map[string]string{
	"object": "a mapping", "array": "a list", "string": "text",
	"integer": "a whole number", "number": "a number", "boolean": "true or false",
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
	if n.ShortTag() == "!!null" {
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

// interpolate puts variables into a value as Compose does and names those that are not set.
func (s *source) interpolate(text string) (out string, unset []string, err error) {
	if !strings.Contains(text, "$") {
		return text, nil, nil
	}
	lookup := func(name string) (string, bool) {
		v, ok := s.env[name]
		return v, ok
	}
	replace := func(sub string, m template.Mapping, c *template.Config) (string, error) {
		v, set, err := template.DefaultReplacementAppliedFunc(sub, m, c)
		if err == nil && !set {
			unset = append(unset, strings.Trim(sub, "${}"))
		}
		return v, err
	}
	out, err = template.SubstituteWithOptions(text, lookup, template.WithoutLogging, template.WithReplacementFunction(replace))
	if missing, ok := errors.AsType[*template.MissingRequiredError](err); ok {
		return "", nil, errors.New("variable " + missing.Variable + " must be set" + because(missing.Reason))
	}
	if err != nil {
		return "", nil, fmt.Errorf("want a variable like ${NAME:-default}, have %q; a plain $ is written $$", text)
	}
	return out, unset, nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// findings collects what is said about a file.
type findings struct {
	problems, notes system.Problems
}

// faulty says that a value is missing or doubtful because something at, above or below it is wrong.
func (f *findings) faulty(p path) bool {
	at := p.String()
	return slices.ContainsFunc(f.problems, func(bad system.Problem) bool {
		return bad.Path == at || strings.HasPrefix(bad.Path, at+".") || strings.HasPrefix(at, bad.Path+".") && strings.Contains(bad.Path, ".")
	})
}

// said says that a message has been reported, wherever.
func (f *findings) said(msg string) bool {
	return slices.ContainsFunc(f.problems, func(p system.Problem) bool { return p.Msg == msg })
}

func (f *findings) problem(pos system.Pos, at path, format string, args ...any) {
	f.problems = append(f.problems, system.Problem{Pos: pos, Path: at.String(), Msg: fmt.Sprintf(format, args...)})
}

func (f *findings) note(pos system.Pos, at path, format string, args ...any) {
	f.notes = append(f.notes, system.Problem{Pos: pos, Path: at.String(), Msg: fmt.Sprintf(format, args...)})
}
