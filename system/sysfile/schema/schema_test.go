package schema

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"servent/architecture"
)

func TestSchemaListsTheTable(t *testing.T) {
	r := Rules().At("services", "any", "x-servent", "architecture")
	if got, want := r.Words, architecture.Words(false); !slices.Equal(got, want) {
		t.Errorf("architectures in the schema = %v, want %v", got, want)
	}
	if !bytes.Equal(JSON(), JSON()) {
		t.Error("two calls of JSON differ")
	}
}

// Every format of the schema has its parser, or a typing slip would check nothing.
func TestSchemaFormatsHaveParsers(t *testing.T) {
	used := map[string]bool{}
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if f, ok := v["format"].(string); ok {
				used[f] = true
				if Format(f) == nil {
					t.Errorf("format %q has no parser", f)
				}
			}
			for _, sub := range v {
				visit(sub)
			}
		case []any:
			for _, sub := range v {
				visit(sub)
			}
		}
	}
	visit(spec())
	for name := range formats {
		if !used[name] {
			t.Errorf("format %q is in no schema", name)
		}
	}
}

// Every key of Compose's schema has a treatment, and every treatment a key.
func TestEveryComposeKeyIsTreated(t *testing.T) {
	root := spec()
	for key, tr := range treatments() {
		said := 0
		for _, words := range []string{tr.Does, tr.Note, tr.Refused} {
			if words != "" {
				said++
			}
		}
		if said != 1 && (said != 0 || !strings.HasSuffix(key, ".*")) {
			t.Errorf("%s: %d of does, note and refused are said, want 1", key, said)
		}
		if find(root, root, strings.Split(key, ".")) == nil && key != "services.*.ulimits.nofile" { // a name, not a key of the schema
			t.Errorf("%s is no key of the schema", key)
		}
	}
	var visit func(r *Rule, above string, depth int)
	visit = func(r *Rule, above string, depth int) {
		for _, leaf := range r.Leaves() {
			for name, sub := range leaf.Props {
				as, tr, known := Treat(above, name)
				switch {
				case !known:
					t.Errorf("%s.%s has no treatment in compose.json", above, name)
				case tr.Does != "" && !strings.HasSuffix(as, "x-servent"):
					visit(sub, as, depth+1)
				}
			}
			subs := []*Rule{leaf.Items}
			for _, p := range leaf.Patterns {
				subs = append(subs, p.Rule)
			}
			if _, tr, _ := Treat(above, "*"); tr.Note != "" {
				continue
			}
			for _, sub := range subs {
				if sub != nil && depth < 12 && slices.ContainsFunc(sub.Leaves(), func(r *Rule) bool { return len(r.Props) > 0 }) {
					visit(sub, strings.TrimPrefix(above+".*", "."), depth+1)
				}
			}
		}
	}
	visit(rules(), "", 0)
}

// A path that can be read has no empty key, and is itself again when each key is quoted.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a.b", `a."b.c"[0].d`, "a[1][2]", "..", `"`, "[0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := split(text)
		if err != nil {
			return
		}
		again := ""
		for _, key := range keys {
			if key == "" {
				t.Fatalf("split(%q) = %q", text, keys)
			}
			if item.MatchString(key) && again != "" {
				again += key
			} else {
				again += `."` + key + `"`
			}
		}
		back, err := split(strings.TrimPrefix(again, "."))
		if err != nil || !slices.Equal(back, keys) {
			t.Errorf("split(%q) = %q, of which %q is read as %q, %v", text, keys, again, back, err)
		}
	})
}
