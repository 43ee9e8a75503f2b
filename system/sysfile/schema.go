package sysfile

import (
	_ "embed"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/schema"

	"servent/architecture"
)

//go:embed x-servent.json
var ours []byte

// Schema is the JSON schema (draft 2020-12) of a system file: Compose's own, with x-servent at the top
// and in every service. Editors complete and check with it; the walk reads the same bytes. Its
// servent-… formats are the words that package sysfile parses.
func Schema() []byte {
	b, err := json.MarshalIndent(spec(), "", "  ")
	if err != nil {
		panic("sysfile: the schema cannot be written: " + err.Error())
	}
	return append(b, '\n')
}

// composeFormats are Compose's values whose form its schema leaves open, by definition and path.
var composeFormats = map[string]string{
	"healthcheck interval":                          "compose-duration",
	"healthcheck timeout":                           "compose-duration",
	"healthcheck start_period":                      "compose-duration",
	"healthcheck start_interval":                    "compose-duration",
	"healthcheck retries":                           "compose-count",
	"container_spec stop_grace_period":              "compose-duration",
	"container_spec stop_signal":                    "compose-signal",
	"container_spec mem_limit":                      "compose-size",
	"container_spec mem_reservation":                "compose-size",
	"container_spec cpus":                           "compose-number",
	"container_spec pids_limit":                     "compose-count",
	"container_spec volumes items":                  "compose-volume",
	"workload_spec ports items":                     "compose-port",
	"deployment replicas":                           "compose-count",
	"deployment update_config delay":                "compose-duration",
	"deployment update_config monitor":              "compose-duration",
	"deployment update_config parallelism":          "compose-count",
	"deployment restart_policy delay":               "compose-duration",
	"deployment restart_policy window":              "compose-duration",
	"deployment restart_policy max_attempts":        "compose-count",
	"deployment placement max_replicas_per_node":    "compose-count",
	"deployment placement constraints items":        "servent-constraint",
	"deployment placement preferences items spread": "servent-spread",
	"deployment resources limits cpus":              "compose-number",
	"deployment resources limits memory":            "compose-size",
	"deployment resources limits pids":              "compose-count",
	"deployment resources reservations cpus":        "compose-number",
	"deployment resources reservations memory":      "compose-size",
	"workload_spec ports items target":              "compose-target",
	"workload_spec ports items published":           "compose-published",
	"workload_spec ports items host_ip":             "compose-address",
	"workload_spec ports items protocol":            "compose-protocol",
	"service scale":                                 "compose-count",
	"service restart":                               "compose-restart",
}

// spec builds the schema as a tree of JSON values.
func spec() map[string]any {
	var root, defs map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		panic("sysfile: Compose's schema: " + err.Error())
	}
	if err := json.Unmarshal(ours, &defs); err != nil {
		panic("sysfile: x-servent.json: " + err.Error())
	}
	all := root["$defs"].(map[string]any)
	for path, format := range composeFormats {
		at := all
		names := strings.Fields(path)
		for i, name := range names {
			switch {
			case i == 0:
				at = at[name].(map[string]any)
			case name == "items":
				at = at["items"].(map[string]any)
			default:
				at = branch(at, "object")["properties"].(map[string]any)[name].(map[string]any)
			}
		}
		at = branch(at, "string")
		at["format"] = format
	}
	maps.Copy(all, defs)
	word := defs["servent_service"].(map[string]any)["properties"].(map[string]any)["architecture"].(map[string]any)
	var words, meanings []any
	for _, row := range architecture.Table {
		words, meanings = append(words, row.Word), append(meanings, row.Textbook+": "+row.Theory)
	}
	word["enum"], word["enumDescriptions"] = words, meanings
	root["$id"], root["title"] = "servent.json", "A Servent system: a Compose file with x-servent"
	root["properties"].(map[string]any)["x-servent"] = map[string]any{"$ref": "#/$defs/servent_system"}
	all["service"].(map[string]any)["properties"].(map[string]any)["x-servent"] = map[string]any{"$ref": "#/$defs/servent_service"}
	return root
}

// branch is the one of a oneOf that has the type, or the node itself: a short or a long form.
func branch(node map[string]any, kind string) map[string]any {
	for _, choice := range list(node["oneOf"]) {
		if one := choice.(map[string]any); one["type"] == kind {
			return one
		}
	}
	return node
}

// rule is a node of the schema, in the part of JSON Schema that Compose's and ours use. References are
// followed and allOf is folded into the node when it is compiled.
type rule struct {
	types    []string // empty: any
	props    map[string]*rule
	patterns []patternRule
	closed   bool // no other keys
	items    *rule
	unique   bool
	least    int // items
	required []string
	enum     []string
	pattern  *regexp.Regexp
	format   string
	min, max *float64
	choices  []*rule // oneOf, anyOf
}

type patternRule struct {
	form *regexp.Regexp
	rule *rule
}

// rules is the schema, compiled once.
var rules = sync.OnceValue(func() *rule {
	c := compiler{root: spec(), done: map[string]*rule{}}
	return c.rule(c.root)
})

type compiler struct {
	root map[string]any
	done map[string]*rule
}

func (c *compiler) rule(node map[string]any) *rule {
	if ref, ok := node["$ref"].(string); ok {
		if r := c.done[ref]; r != nil {
			return r
		}
		r := &rule{}
		c.done[ref] = r
		c.fill(r, c.root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any))
		return r
	}
	r := &rule{}
	c.fill(r, node)
	return r
}

func (c *compiler) fill(r *rule, node map[string]any) {
	for _, part := range list(node["allOf"]) {
		from := c.rule(part.(map[string]any))
		if r.props == nil {
			r.props = map[string]*rule{}
		}
		maps.Copy(r.props, from.props)
		r.types, r.patterns = from.types, from.patterns
	}
	switch t := node["type"].(type) {
	case string:
		r.types = []string{t}
	case []any:
		r.types = nil
		for _, one := range t {
			r.types = append(r.types, one.(string))
		}
	}
	if props, ok := node["properties"].(map[string]any); ok {
		if r.props == nil {
			r.props = map[string]*rule{}
		}
		for name, sub := range props {
			r.props[name] = c.rule(sub.(map[string]any))
		}
	}
	if forms, ok := node["patternProperties"].(map[string]any); ok {
		r.patterns = nil
		for _, form := range slices.Sorted(maps.Keys(forms)) {
			r.patterns = append(r.patterns, patternRule{regexp.MustCompile(form), c.rule(forms[form].(map[string]any))})
		}
	}
	for _, key := range []string{"additionalProperties", "unevaluatedProperties"} {
		if open, ok := node[key].(bool); ok {
			r.closed = !open
		}
	}
	if items, ok := node["items"].(map[string]any); ok {
		r.items = c.rule(items)
	}
	for _, key := range []string{"oneOf", "anyOf"} {
		for _, choice := range list(node[key]) {
			if m := choice.(map[string]any); m["required"] == nil || m["type"] != nil { // Compose's only other use names keys alone
				r.choices = append(r.choices, c.rule(m))
			}
		}
	}
	for _, name := range list(node["required"]) {
		r.required = append(r.required, name.(string))
	}
	for _, word := range list(node["enum"]) {
		r.enum = append(r.enum, text(word))
	}
	r.unique, _ = node["uniqueItems"].(bool)
	r.format, _ = node["format"].(string)
	if form, ok := node["pattern"].(string); ok {
		r.pattern = regexp.MustCompile(form)
	}
	if n, ok := node["minItems"].(float64); ok {
		r.least = int(n)
	}
	if n, ok := node["minimum"].(float64); ok {
		r.min = &n
	}
	if n, ok := node["maximum"].(float64); ok {
		r.max = &n
	}
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// at follows keys into a mapping's rule; nil when the schema has no such key.
func (r *rule) at(keys ...string) *rule {
	for _, key := range keys {
		next := r.props[key]
		for i := 0; next == nil && i < len(r.choices); i++ {
			next = r.choices[i].props[key]
		}
		for i := 0; next == nil && i < len(r.patterns); i++ {
			if r.patterns[i].form.MatchString(key) && len(r.patterns[i].rule.types) > 0 {
				next = r.patterns[i].rule
			}
		}
		if next == nil {
			return nil
		}
		r = next
	}
	return r
}
