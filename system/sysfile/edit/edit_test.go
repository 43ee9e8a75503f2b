package edit

import (
	"bytes"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func TestSet(t *testing.T) {
	const file = `# a comment
name: counter
services:
  counter:   # the only one
    x-servent:
      process: [servent, example, counter]    # spaces stay
      architecture: single                    # and this
      key: '/c/{key}'
  wéb: {x-servent: {files: ./x, architecture: "single"}}
  bare:
    x-servent:
      files: ./x
x-servent: {nodes: {node: {count: 3}}}
`
	for _, tt := range []struct{ path, value, old, new string }{
		{"services.counter.x-servent.architecture", "partitioned", "architecture: single  ", "architecture: partitioned  "},
		{"services.counter.x-servent.key", "/d/{key}", "key: '/c/{key}'", `key: "/d/{key}"`},
		{"services.wéb.x-servent.architecture", "replicated", `"single"`, `replicated`},
		{"services.bare.x-servent.architecture", "replicated", "      files: ./x\nx-", "      architecture: replicated\n      files: ./x\nx-"},
		{"services.wéb.x-servent.near", "clients", "{files: ./x, ", "{near: clients, files: ./x, "},
		{"x-servent.nodes.node.count", "5", "count: 3", "count: 5"},
	} {
		got, _, err := Set([]byte(file), tt.path, tt.value)
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		if want := strings.Replace(file, tt.old, tt.new, 1); string(got) != want {
			t.Errorf("%s = %s:\n%s\nwant\n%s", tt.path, tt.value, got, want)
		}
	}
	crlf := strings.ReplaceAll(file, "\n", "\r\n")
	got, _, err := Set([]byte(crlf), "services.bare.x-servent.architecture", "ring")
	if err != nil || !strings.Contains(string(got), "      architecture: ring\r\n      files: ./x\r\n") {
		t.Errorf("with CR LF: %v\n%q", err, got)
	}
	for name, tt := range map[string]struct{ file, path string }{
		"alias":     {"a: &x {b: 1}\nc: *x\n", "c.b"},
		"anchor":    {"a: &x {b: 1}\n", "a.b"},
		"merge":     {"a: {b: 1}\nc: {<<: {d: 1}, e: 2}\n", "c.d"},
		"documents": {"a: 1\n---\na: 2\n", "a"},
		"block":     {"a: |\n  text\n  more\n", "a"},
		"list":      {"a: [1]\n", "a"},
		"no parent": {"a: {b: 1}\n", "x.y"},
		"not YAML":  {"a: [\n", "a"},
	} {
		if out, _, err := Set([]byte(tt.file), tt.path, "v"); err == nil {
			t.Errorf("%s: no error:\n%s", name, out)
		}
	}
}

// Whatever the file, an edit either is refused or makes a file in which the path has the value.
func FuzzSet(f *testing.F) {
	f.Add("a: {b: 1}\n", "a.b", "x y")
	f.Add("a:\n  b: 'it''s' # c\n", "a.b", "- :")
	f.Add("é: {ü: \"\\\"\"}\n", "é.ü", "ring")
	f.Fuzz(func(t *testing.T, file, path, value string) {
		out, _, err := Set([]byte(file), path, value)
		if err != nil || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		var n yaml.Node
		if err := yaml.Unmarshal(out, &n); err != nil {
			t.Fatalf("Set(%q, %q, %q) = %q, which is no YAML: %v", file, path, value, out, err)
		}
		at := n.Content[0]
		for key := range strings.SplitSeq(path, ".") {
			var next *yaml.Node
			for i := 0; i+1 < len(at.Content); i += 2 {
				if at.Content[i].Value == key {
					next = at.Content[i+1]
				}
			}
			if at = next; at == nil {
				t.Fatalf("Set(%q, %q, %q) = %q, which has no such path", file, path, value, out)
			}
		}
		if at.Value != value {
			t.Errorf("Set(%q, %q, %q) = %q, which has %q there", file, path, value, out, at.Value)
		}
		if bytes.Count(out, []byte("\n")) < strings.Count(file, "\n") {
			t.Error("a line is gone")
		}
	})
}
