package edit

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"servent/system"
)

// awkward is a file as people write them.
const awkward = `# a comment
name: counter
services:
    counter:   # the only one
        x-servent:
            process: [servent, example, counter]    # spaces stay
            architecture: single                    # and this
            key: '/c/{key}'
            "near": "clients"	# behind a tab
    wéb: {x-servent: {files: ./x, architecture: "single"}, labels: {}}
    bare:
        x-servent:
            # what is served
            files: ./x
            # nothing follows

    empty:     # nothing yet
    tilde: ~
    # between two
    shared: &shared
        image: x
    heir:
        <<: *shared
        image2: y
    copy: *shared
    odd:
      environment:
            A: 1
            B: |-   # a text
              several lines
              # of text

            C: "it's"
      ports:
      - 80
      - "443:443"
      routes: [
        /a/*,
        /b/*
      ]
      deep: {
        a: 1,
        b: [x, "]", '}'],
      }
      last: >
        folded

        text
x-servent: {nodes: {node: {count: 3}}}
`

// Each edit changes what it says and not one byte more, whatever the ends of lines, with and without a byte
// order mark, and without an end of the last line.
func TestSet(t *testing.T) {
	for _, tt := range []struct {
		path, value, before, after string
		change                     Change
	}{
		{"services.counter.x-servent.architecture", "partitioned", "architecture: single  ", "architecture: partitioned  ", Change{Pos: system.Pos{Line: 7, Col: 27}, Old: "single"}},
		{"services.counter.x-servent.key", "/d/{key}", "'/c/{key}'", "'/d/{key}'", Change{Pos: system.Pos{Line: 8, Col: 18}, Old: "/c/{key}"}},
		{"services.counter.x-servent.key", "it's", "'/c/{key}'", "'it''s'", Change{Pos: system.Pos{Line: 8, Col: 18}, Old: "/c/{key}"}},
		{"services.counter.x-servent.near", "say \"<x>\"", "\"near\": \"clients\"\t", "\"near\": \"say \\\"<x>\\\"\"\t", Change{Pos: system.Pos{Line: 9, Col: 21}, Old: "clients"}},
		{"services.counter.x-servent.process", "./a", "[servent, example, counter]  ", "./a  ", Change{Pos: system.Pos{Line: 6, Col: 22}, Old: "[servent, example, counter]"}},
		{"services.wéb.x-servent.architecture", "replicated", `"single"`, `"replicated"`, Change{Pos: system.Pos{Line: 10, Col: 49}, Old: "single"}},
		{"services.wéb.x-servent.near", "clients", "{files: ./x, ", "{near: clients, files: ./x, ", Change{Pos: system.Pos{Line: 10, Col: 29}, Added: true}},
		{"services.wéb.labels.a b", "x, y", "labels: {}", `labels: {"a b": "x, y"}`, Change{Pos: system.Pos{Line: 10, Col: 76}, Added: true}},
		{"services.wéb.x-servent.scale.max", "8", "{files: ./x, ", "{scale: {max: 8}, files: ./x, ", Change{Pos: system.Pos{Line: 10, Col: 36}, Added: true}},
		{"services.bare.x-servent.architecture", "replicated", "            files: ./x\n", "            files: ./x\n            architecture: replicated\n", Change{Pos: system.Pos{Line: 15, Col: 27}, Added: true}},
		{"services.bare.x-servent.scale.max", "8", "            files: ./x\n", "            files: ./x\n            scale:\n                max: 8\n", Change{Pos: system.Pos{Line: 16, Col: 22}, Added: true}},
		{"services.empty.x-servent.near", "clients", "    empty:     # nothing yet\n", "    empty:     # nothing yet\n        x-servent:\n            near: clients\n", Change{Pos: system.Pos{Line: 19, Col: 19}, Added: true}},
		{"services.empty", "x", "empty:     # nothing", "empty: x     # nothing", Change{Pos: system.Pos{Line: 17, Col: 12}}},
		{"services.tilde.x-servent.near", "clients", "tilde: ~", "tilde: {x-servent: {near: clients}}", Change{Pos: system.Pos{Line: 18, Col: 31}, Added: true}},
		{"services.tilde", "x", "tilde: ~", "tilde: x", Change{Pos: system.Pos{Line: 18, Col: 12}, Old: "~"}},
		{"services.heir.image", "z", "        image2: y\n", "        image2: y\n        image: z\n", Change{Pos: system.Pos{Line: 25, Col: 16}, Added: true}},
		{"services.copy", "z", "copy: *shared", "copy: z", Change{Pos: system.Pos{Line: 25, Col: 11}, Old: "*shared"}},
		{"services.odd.environment.A", "2", "A: 1", "A: 2", Change{Pos: system.Pos{Line: 28, Col: 16}, Old: "1"}},
		{"services.odd.environment.A", "", "A: 1", `A: ""`, Change{Pos: system.Pos{Line: 28, Col: 16}, Old: "1"}},
		{"services.odd.environment.A", "null", "A: 1", `A: "null"`, Change{Pos: system.Pos{Line: 28, Col: 16}, Old: "1"}},
		{"services.odd.environment.A", "a: b # c", "A: 1", `A: "a: b # c"`, Change{Pos: system.Pos{Line: 28, Col: 16}, Old: "1"}},
		{"services.odd.environment.B", "x", "B: |-   # a text\n              several lines\n              # of text\n", "B: x   # a text\n", Change{Pos: system.Pos{Line: 29, Col: 16}, Old: "several lines\n# of text"}},
		{"services.odd.environment.D", "x", "            C: \"it's\"\n", "            C: \"it's\"\n            D: x\n", Change{Pos: system.Pos{Line: 34, Col: 16}, Added: true}},
		{"services.odd.ports.[1]", "8443:443", `"443:443"`, `"8443:443"`, Change{Pos: system.Pos{Line: 36, Col: 9}, Old: "443:443"}},
		{"services.odd.ports.[0]", "81", "- 80", "- 81", Change{Pos: system.Pos{Line: 35, Col: 9}, Old: "80"}},
		{"services.odd.ports", "81", "ports:\n      - 80\n      - \"443:443\"\n", "ports: 81\n", Change{Pos: system.Pos{Line: 34, Col: 14}, Old: `- 80 - "443:443"`}},
		{"services.odd.routes", "/c/*", "[\n        /a/*,\n        /b/*\n      ]", "/c/*", Change{Pos: system.Pos{Line: 37, Col: 15}, Old: "[ /a/*, /b/* ]"}},
		{"services.odd.deep.c", "1", "        a: 1,\n", "        c: 1,\n        a: 1,\n", Change{Pos: system.Pos{Line: 42, Col: 12}, Added: true}},
		{"services.odd.deep", "1", "{\n        a: 1,\n        b: [x, \"]\", '}'],\n      }", "1", Change{Pos: system.Pos{Line: 41, Col: 13}, Old: `{ a: 1, b: [x, "]", '}'], }`}},
		{"services.odd.more", "1", "        text\n", "        text\n      more: 1\n", Change{Pos: system.Pos{Line: 49, Col: 13}, Added: true}},
		{"x-servent.nodes.node.count", "5", "count: 3", "count: 5", Change{Pos: system.Pos{Line: 49, Col: 35}, Old: "3"}},
		{"volumes.data", "x", "count: 3}}}\n", "count: 3}}}\nvolumes:\n    data: x\n", Change{Pos: system.Pos{Line: 51, Col: 11}, Added: true}},
	} {
		if strings.Count(awkward, tt.before) != 1 {
			t.Fatalf("%q is not in the file once", tt.before)
		}
		for how, as := range map[string]func(string) string{
			"as it is":        func(s string) string { return s },
			"CR LF":           func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
			"byte order mark": func(s string) string { return "\ufeff" + s },
			"both":            func(s string) string { return "\ufeff" + strings.ReplaceAll(s, "\n", "\r\n") },
			"no last end":     func(s string) string { return strings.TrimSuffix(s, "\n") },
		} {
			want := as(strings.Replace(awkward, tt.before, tt.after, 1))
			got, change, err := Set([]byte(as(awkward)), strings.Split(tt.path, "."), tt.value)
			if err != nil {
				t.Errorf("%s, %s: %v", tt.path, how, err)
				continue
			}
			if string(got) != want {
				t.Errorf("%s = %s, %s:\n%q\nwant\n%q", tt.path, tt.value, how, got, want)
			}
			if change != tt.change {
				t.Errorf("%s = %s, %s: %+v, want %+v", tt.path, tt.value, how, change, tt.change)
			}
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ file, path, want string }{
		"alias":           {"a: &x {b: 1}\nc: *x\n", "c.b", "c is *x, which stands for other places"},
		"anchor":          {"a: &x {b: 1}\nc: *x\n", "a.b", "a is used in other places, too, as *x"},
		"merged anchor":   {"a: &x {b: 1}\nc: {<<: *x}\n", "a.b", "a is used in other places"},
		"own anchor":      {"a: &x 1\nb: *x\n", "a", "carries the anchor &x"},
		"merged mapping":  {"a: &x {b: {c: 1}}\nd: {<<: *x, e: 2}\n", "d.b.c", "has its b from another mapping by <<"},
		"merged list":     {"a: &x {b: {c: 1}}\nf: {<<: [*x]}\n", "f.b.c", "has its b from another mapping by <<"},
		"documents":       {"a: 1\n---\na: 2\n", "a", "several documents"},
		"through a word":  {"a: b\n", "a.c", "a is no mapping there"},
		"several lines":   {"a: b\n  c\n", "a", "not written on one line"},
		"comment inside":  {"a: [1, # one\n  2]\n", "a", "comment inside"},
		"comment in list": {"a:\n- 1\n# one\n- 2\n", "a", "comment inside"},
		"item":            {"a: [1]\n", "a.[1]", "is a list of 1"},
		"no item":         {"a: [1]\n", "a.b", "is a list of 1"},
		"not YAML":        {"a: [\n", "a", "read YAML"},
		"empty":           {"# nothing\n", "a", "no mapping of keys"},
		"list":            {"- a\n", "a", "no mapping of keys"},
		"tag":             {"a: !x y\n", "a", "not written on one line"},
	} {
		out, change, err := Set([]byte(tt.file), strings.Split(tt.path, "."), "v")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q\n%s", name, err, tt.want, out)
		}
		if strings.HasPrefix(tt.file, "a: &") && change.Pos.Line == 0 {
			t.Errorf("%s: no place", name)
		}
	}
}

// An anchor that nobody uses hides nothing.
func TestSetBelowAnAnchor(t *testing.T) {
	got, _, err := Set([]byte("a: &x\n  b: 1\n"), []string{"a", "b"}, "2")
	if want := "a: &x\n  b: 2\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// Whatever the file, an edit either is refused or makes a file that means the same but for the value at the
// path: the dumb twin is the YAML library's own reading, from both of which the path is taken out.
//
// go test -fuzz makes each input that it finds smaller for up to a minute, and shows 0 inputs a second for so
// long: -fuzzminimizetime bounds that, as make long does. No input is slow by itself.
func FuzzSet(f *testing.F) {
	f.Add("a: {b: 1}\n", "a.b", "x y")
	f.Add("a:\n  b: 'it''s' # c\n", "a.b", "- :")
	f.Add("é: {ü: \"\\\"\"}\n", "é.ü", "ring")
	f.Add("a:\n- b: |\n   x\n  c: [1,\n 2]\n", "a.[0].d.e", "8")
	f.Add("a: &x {b: 1}\nc: {<<: *x}\nd:\n", "c.b", "")
	f.Add("\ufeffa:\r\n    b:\r\n\r\n# c\r\n", "a.b.c", "1")
	f.Fuzz(func(t *testing.T, file, path, value string) {
		if len(file) > 4<<10 || len(path) > 100 || len(value) > 100 {
			return
		}
		keys := strings.Split(path, ".")
		out, change, err := Set([]byte(file), keys, value)
		if err != nil {
			return
		}
		var before, after any
		if err := yaml.Unmarshal(out, &after); err != nil {
			if yaml.Unmarshal([]byte(file), &before) != nil {
				return // it was not readable before, either: a key twice, a number too big
			}
			t.Fatalf("Set(%q, %q, %q) = %q, which cannot be read: %v", file, path, value, out, err)
		}
		if err := yaml.Unmarshal([]byte(file), &before); err != nil {
			return // what could not be read stood at the path
		}
		if !texts(before) || !texts(after) {
			return
		}
		was, had := without(&before, keys)
		is, has := without(&after, keys)
		if !has || !had && was != nil {
			t.Fatalf("Set(%q, %q, %q) = %q, which has no such path", file, path, value, out)
		}
		if text, ok := is.(string); ok && text != value {
			t.Errorf("Set(%q, %q, %q) = %q, which has %q there", file, path, value, out, text)
		}
		if !change.Added && !reflect.DeepEqual(before, after) {
			t.Errorf("Set(%q, %q, %q) = %q, which changes more: %#v, %#v", file, path, value, out, before, after)
		}
		if change.Pos.Line < 1 || change.Pos.Col < 1 {
			t.Errorf("Set(%q, %q, %q) is at %v", file, path, value, change.Pos)
		}
	})
}

// texts says that all keys are texts: others are no path's.
func texts(tree any) bool {
	switch n := tree.(type) {
	case map[any]any:
		return false
	case map[string]any:
		for _, v := range n {
			if !texts(v) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(n, func(v any) bool { return !texts(v) })
	}
	return true
}

// without takes the value at a path out of a tree and returns it.
func without(tree *any, keys []string) (any, bool) {
	switch n := (*tree).(type) {
	case map[string]any:
		v, ok := n[keys[0]]
		if !ok {
			return nil, false
		}
		if len(keys) == 1 {
			delete(n, keys[0])
			return v, true
		}
		out, ok := without(&v, keys[1:])
		n[keys[0]] = v
		return out, ok
	case []any:
		for i := range n {
			if fmt.Sprintf("[%d]", i) != keys[0] {
				continue
			}
			if len(keys) == 1 {
				v := n[i]
				n[i] = nil
				return v, true
			}
			return without(&n[i], keys[1:])
		}
	}
	return nil, false
}
