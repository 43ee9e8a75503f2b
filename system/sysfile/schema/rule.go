package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Rule is a node of the schema, in the part of JSON Schema that Compose's and ours use. References are
// followed and allOf is folded into the node when the schema is linked.
type Rule struct {
	Ref      string           `json:"$ref"`
	All      []*Rule          `json:"allOf"`
	One      []*Rule          `json:"oneOf"`
	Any      []*Rule          `json:"anyOf"`
	Type     any              `json:"type"`
	Props    map[string]*Rule `json:"properties"`
	Forms    map[string]*Rule `json:"patternProperties"`
	More     any              `json:"additionalProperties"`
	Other    any              `json:"unevaluatedProperties"`
	Items    *Rule            `json:"items"`
	Unique   bool             `json:"uniqueItems"`
	Least    int              `json:"minItems"`
	Required []string         `json:"required"`
	Enum     []any            `json:"enum"`
	Pattern  string           `json:"pattern"`
	Format   string           `json:"format"`
	Min      *float64         `json:"minimum"`
	Max      *float64         `json:"maximum"`

	Types    []string  `json:"-"` // of JSON; empty: any
	Patterns []Pattern `json:"-"` // of Forms
	Words    []string  `json:"-"` // of Enum
	Choices  []*Rule   `json:"-"` // One and Any
	linked   bool
}

// Pattern is the rule of all keys of a form.
type Pattern struct {
	Form *regexp.Regexp
	Rule *Rule
}

// Rules is the schema, linked; it is shared and must not be changed.
func Rules() *Rule { return rules() }

var rules = sync.OnceValue(func() *Rule {
	var root struct {
		Rule
		Defs map[string]*Rule `json:"$defs"`
	}
	if err := json.Unmarshal(JSON(), &root); err != nil {
		panic("schema: the schema cannot be read: " + err.Error())
	}
	return root.link(root.Defs)
})

// link follows references and folds what a node says in several ways into one.
func (r *Rule) link(defs map[string]*Rule) *Rule {
	if r == nil {
		return nil
	}
	if r.Ref != "" {
		return defs[strings.TrimPrefix(r.Ref, "#/$defs/")].link(defs)
	}
	if r.linked {
		return r
	}
	r.linked = true
	if r.Props == nil {
		r.Props = map[string]*Rule{}
	}
	for name, sub := range r.Props {
		r.Props[name] = sub.link(defs)
	}
	for _, form := range slices.Sorted(maps.Keys(r.Forms)) {
		r.Patterns = append(r.Patterns, Pattern{regexp.MustCompile(form), r.Forms[form].link(defs)})
	}
	for _, t := range append(list(r.Type), r.Type) {
		if t, ok := t.(string); ok {
			r.Types = append(r.Types, t)
		}
	}
	for _, word := range r.Enum {
		r.Words = append(r.Words, fmt.Sprint(word))
	}
	for _, part := range r.All {
		from := part.link(defs)
		maps.Copy(r.Props, from.Props)
		r.Types, r.Patterns = from.Types, from.Patterns
	}
	for _, choice := range append(r.One, r.Any...) {
		if choice.Type != nil || choice.Required == nil { // Compose's only other use names keys alone
			r.Choices = append(r.Choices, choice.link(defs))
		}
	}
	r.Items = r.Items.link(defs)
	return r
}

// closed says that no other keys may stand in the mapping.
func (r *Rule) closed() bool { return r.More == false || r.Other == false }

// At follows keys into a mapping's rule; nil when the schema has no such key.
func (r *Rule) At(keys ...string) *Rule {
	for _, key := range keys {
		if r = r.child(key); r == nil {
			return nil
		}
	}
	return r
}

// child is the rule of a key: one of its name before one of its form.
func (r *Rule) child(key string) *Rule {
	branches := append([]*Rule{r}, r.Leaves()...)
	for _, b := range branches {
		if sub := b.Props[key]; sub != nil {
			return sub
		}
	}
	for _, b := range branches {
		for _, p := range b.Patterns {
			if p.Form.MatchString(key) && len(p.Rule.Types)+len(p.Rule.Choices) > 0 {
				return p.Rule
			}
		}
	}
	return nil
}

// Leaves are the branches below all nested choices.
func (r *Rule) Leaves() []*Rule {
	if len(r.Choices) == 0 {
		return []*Rule{r}
	}
	var all []*Rule
	for _, c := range r.Choices {
		all = append(all, c.Leaves()...)
	}
	return all
}

// Of returns the rule of a key; a rule without a word on keys allows all.
func (r *Rule) Of(name string) (*Rule, bool) {
	if sub := r.Props[name]; sub != nil {
		return sub, true
	}
	for _, p := range r.Patterns {
		if p.Form.MatchString(name) {
			return p.Rule, true
		}
	}
	return &Rule{}, !r.closed()
}
