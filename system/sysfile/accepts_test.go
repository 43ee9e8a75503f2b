package sysfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"servent/system/sysfile/schema"
)

// formats are the parsers of all formats that a schema names.
func formats(v any, all map[string]func(string) error) map[string]func(string) error {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["format"].(string); ok && schema.Format(name) != nil {
			all[name] = schema.Format(name)
		}
		for _, sub := range v {
			formats(sub, all)
		}
	case []any:
		for _, sub := range v {
			formats(sub, all)
		}
	}
	return all
}

// compiled is the schema as an editor would use it, with our formats.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.JSON()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, parse := range formats(doc, map[string]func(string) error{}) {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error {
			s := fmt.Sprint(v)
			if _, ok := v.(string); ok && strings.Contains(s, "$") {
				return nil // a variable: known only when the file is read
			}
			return parse(s)
		}})
	}
	if err := c.AddResource("servent.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("servent.json") // checks it against the draft's own schema
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// documents of a YAML file as JSON values.
func documents(t *testing.T, file string) []any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithV3Defaults())
	if err != nil {
		t.Fatal(err)
	}
	var docs []any
	for {
		var v any
		if err := dec.Load(&v); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		docs = append(docs, v)
	}
}

func TestSchemaAcceptsEveryValidFile(t *testing.T) {
	s := compiled(t)
	n := 0
	err := filepath.WalkDir(filepath.Join("testdata", "valid"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".yaml" || d.Name() == "compose.override.yaml" { // !reset is YAML's, not JSON's
			return err
		}
		if file == filepath.Join("testdata", "valid", "extends-null", "base.yaml") { // fine only where others extend it
			return nil
		}
		for _, doc := range documents(t, file) {
			n++
			if err := s.Validate(doc); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		return nil
	})
	if err != nil || n < 40 {
		t.Errorf("%d documents, %v", n, err)
	}
}

func TestSchemaRefusesWhatTheWalkRefuses(t *testing.T) {
	s := compiled(t)
	for _, name := range []string{
		"architecture-typo", "belongs-at-top", "belongs-under-x-servent", "compare", "constraints", "copies", "data",
		"durations", "files-origin", "key", "limits", "nodes", "ports-wrong", "process", "routes-wrong",
		"scalar-for-map", "switch", "types", "unknown-keys", "uses-null",
	} {
		for _, doc := range documents(t, filepath.Join("testdata", "broken", name+".yaml")) {
			if s.Validate(doc) == nil {
				t.Errorf("%s: the schema accepts it, want a refusal", name)
			}
		}
	}
}
