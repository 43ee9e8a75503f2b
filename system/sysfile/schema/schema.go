// Package schema is what may stand in a system file, without a file: the keys of Compose and of x-servent,
// what values they take, and what becomes of each. It reads two files of data: x-servent.json is the schema
// of our keys, compose.json what becomes of each of Compose's; docs/file.md is written from both. It never
// sees YAML. Start at [Rules].
package schema

import (
	_ "embed"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	compose "github.com/compose-spec/compose-go/v2/schema"

	"servent/architecture"
)

//go:embed x-servent.json
var ours []byte

// JSON is the schema (JSON Schema, draft 2020-12) of a system file: Compose's own, with x-servent at the top
// and in every service. Editors complete and check with it and show what Servent does not act on; the
// walk reads the same bytes, as [Rules]. Its formats are those of [Format].
func JSON() []byte {
	b, err := json.MarshalIndent(spec(), "", "  ")
	if err != nil {
		panic("schema: the schema cannot be written: " + err.Error())
	}
	return append(b, '\n')
}

// spec builds the schema as a tree of JSON values.
func spec() map[string]any {
	var root, defs map[string]any
	if err := json.Unmarshal([]byte(compose.Schema), &root); err != nil {
		panic("schema: Compose's schema: " + err.Error())
	}
	if err := json.Unmarshal(ours, &defs); err != nil {
		panic("schema: x-servent.json: " + err.Error())
	}
	for path, t := range treatments() {
		at := find(root, root, strings.Split(path, "."))
		if at == nil {
			continue
		}
		if why := t.Note + t.Refused; why != "" {
			said, _ := at["description"].(string)
			at["description"] = strings.TrimSpace(said + " Servent does not act on it: " + why + ".")
		}
		if t.Format != "" {
			branch(at, "string")["format"] = t.Format
		}
		for _, key := range t.Required {
			long := branch(at, "object")
			long["required"] = append(list(long["required"]), key)
		}
	}
	all := root["$defs"].(map[string]any)
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

// find goes down keys, through references and choices; * is any name or item. It returns nil where the
// schema has no such key.
func find(root, node map[string]any, keys []string) map[string]any {
	if len(keys) == 0 {
		return node
	}
	node = resolve(root, node)
	var next []any
	if props, _ := node["properties"].(map[string]any); keys[0] != "*" {
		next = []any{props[keys[0]]}
	} else {
		forms, _ := node["patternProperties"].(map[string]any)
		for _, form := range slices.Sorted(maps.Keys(forms)) {
			if form != "^x-" {
				next = append(next, forms[form])
			}
		}
		next = append(next, node["items"])
	}
	for _, one := range next {
		if sub, ok := one.(map[string]any); ok {
			if found := find(root, sub, keys[1:]); found != nil {
				return found
			}
		}
	}
	for _, kind := range []string{"allOf", "oneOf", "anyOf"} {
		for _, choice := range list(node[kind]) {
			if found := find(root, choice.(map[string]any), keys); found != nil {
				return found
			}
		}
	}
	return nil
}

// resolve returns what a node refers to, or the node itself.
func resolve(root, node map[string]any) map[string]any {
	if ref, ok := node["$ref"].(string); ok {
		return root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	return node
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

func list(v any) []any {
	l, _ := v.([]any)
	return l
}
