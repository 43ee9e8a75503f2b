package sysfile

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// rule is a node of the schema, in the part of JSON Schema that Compose's and ours use. References are
// followed and allOf is folded into the node when the schema is linked.
type rule struct {
	Ref      string           `json:"$ref"`
	All      []*rule          `json:"allOf"`
	One      []*rule          `json:"oneOf"`
	Any      []*rule          `json:"anyOf"`
	Type     any              `json:"type"`
	Props    map[string]*rule `json:"properties"`
	Forms    map[string]*rule `json:"patternProperties"`
	More     any              `json:"additionalProperties"`
	Other    any              `json:"unevaluatedProperties"`
	Items    *rule            `json:"items"`
	Unique   bool             `json:"uniqueItems"`
	Least    int              `json:"minItems"`
	Required []string         `json:"required"`
	Enum     []any            `json:"enum"`
	Pattern  string           `json:"pattern"`
	Format   string           `json:"format"`
	Min      *float64         `json:"minimum"`
	Max      *float64         `json:"maximum"`

	types    []string // empty: any
	patterns []patternRule
	words    []string // of Enum
	choices  []*rule  // One and Any
	linked   bool
}

type patternRule struct {
	form *regexp.Regexp
	rule *rule
}

// rules is the schema, linked once.
var rules = sync.OnceValue(func() *rule {
	var root struct {
		rule
		Defs map[string]*rule `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &root); err != nil {
		panic("sysfile: the schema cannot be read: " + err.Error())
	}
	return root.link(root.Defs)
})

// link follows references and folds what a node says in several ways into one.
func (r *rule) link(defs map[string]*rule) *rule {
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
		r.Props = map[string]*rule{}
	}
	for name, sub := range r.Props {
		r.Props[name] = sub.link(defs)
	}
	for _, form := range slices.Sorted(maps.Keys(r.Forms)) {
		r.patterns = append(r.patterns, patternRule{regexp.MustCompile(form), r.Forms[form].link(defs)})
	}
	for _, t := range append(list(r.Type), r.Type) {
		if t, ok := t.(string); ok {
			r.types = append(r.types, t)
		}
	}
	for _, word := range r.Enum {
		r.words = append(r.words, text(word))
	}
	for _, part := range r.All {
		from := part.link(defs)
		maps.Copy(r.Props, from.Props)
		r.types, r.patterns = from.types, from.patterns
	}
	for _, choice := range append(r.One, r.Any...) {
		if choice.Type != nil || choice.Required == nil { // Compose's only other use names keys alone
			r.choices = append(r.choices, choice.link(defs))
		}
	}
	r.Items = r.Items.link(defs)
	return r
}

// closed says that no other keys may stand in the mapping.
func (r *rule) closed() bool { return r.More == false || r.Other == false }

// at follows keys into a mapping's rule; nil when the schema has no such key.
func (r *rule) at(keys ...string) *rule {
	for _, key := range keys {
		next := r.Props[key]
		for i := 0; next == nil && i < len(r.choices); i++ {
			next = r.choices[i].Props[key]
		}
		for _, one := range append([]*rule{r}, r.choices...) {
			for i := 0; next == nil && i < len(one.patterns); i++ {
				if one.patterns[i].form.MatchString(key) && len(one.patterns[i].rule.types) > 0 {
					next = one.patterns[i].rule
				}
			}
		}
		if next == nil {
			return nil
		}
		r = next
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

// of returns the rule of a key; a rule without a word on keys allows all.
func (r *rule) of(name string) (*rule, bool) {
	if sub := r.Props[name]; sub != nil {
		return sub, true
	}
	for _, p := range r.patterns {
		if p.form.MatchString(name) {
			return p.rule, true
		}
	}
	return &rule{}, !r.closed()
}
