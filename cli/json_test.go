package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"servent/launch"
)

// docs/admin-api.md says which JSON every command prints and the admin door answers. Here all of it is
// asked for, of the document's own system, and compared with its examples, field by field.
func TestDocumentedJSON(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/admin-api.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := documented(t, string(text))
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(string(text))[1])
	w.write("broken.yaml", "services:\n  a:\n    x-servent: {proces: 3}\n")
	t.Cleanup(w.down)
	for _, p := range parts {
		if len(p.example) == 0 {
			t.Fatalf("%s: no example, and none named that it is as", p.what)
		}
		t.Run(p.what, func(t *testing.T) {
			w.t = t
			if err := p.compare(w.answer(p.what)); err != nil {
				t.Error(err)
			}
		})
		w.t = t
	}
	for _, verb := range []string{"version", "validate", "doctor", "plan", "up", "ps", "explain", "events", "logs", "console", "scale", "restart", "fault", "node", "history", "backup", "restore"} {
		if !slices.ContainsFunc(parts, func(p part) bool { return slices.Contains(strings.Fields(p.what), verb) }) {
			t.Errorf("%s --json is not documented", verb)
		}
	}
}

// answer is what a documented command prints, or the admin door says: one JSON document or several.
func (w *world) answer(what string) []byte {
	w.t.Helper()
	if path, ok := strings.CutPrefix(what, "GET "); ok {
		info, err := launch.FolderOf(w.dir).Info()
		if err != nil {
			w.t.Fatal(err)
		}
		if path == "/v1/meter" { // there is something to count
			fetch(w.t, "http://"+w.door("eu-1", "hits")+"/c/a")
		}
		req, err := http.NewRequest(http.MethodGet, info.URL+path, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+info.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			w.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		return b
	}
	cmd := exec.Command(program, append([]string{"--json"}, strings.Fields(what)[1:]...)...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed || len(out) == 0 {
		w.t.Fatalf("%s: %v\n%s", what, err, stderr.String())
	}
	return out
}

// part is a heading of the document that names a command or a request.
type part struct {
	what    string
	example []any
	leftOut []string // fields that may be missing
}

var (
	heading  = regexp.MustCompile("(?m)^### `(.*)`\n")
	sample   = regexp.MustCompile("(?s)```json\n(.*?)```")
	asOther  = regexp.MustCompile("As `(\\w+)`")
	leftOut  = regexp.MustCompile(`(?s)\nLeft out(.*?)\.\n`)
	inQuotes = regexp.MustCompile("`(\\w+)`")
)

func documented(t *testing.T, text string) []part {
	var parts []part
	at := heading.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		p, body := part{what: text[m[2]:m[3]]}, text[m[1]:end]
		if s := sample.FindStringSubmatch(body); s != nil {
			var err error
			if p.example, err = documents([]byte(s[1])); err != nil {
				t.Fatalf("%s: %v", p.what, err)
			}
			if l := leftOut.FindStringSubmatch(body); l != nil {
				for _, q := range inQuotes.FindAllStringSubmatch(l[1], -1) {
					p.leftOut = append(p.leftOut, q[1])
				}
			}
		} else if as := asOther.FindStringSubmatch(body); as != nil {
			for _, q := range parts {
				if words := strings.Fields(q.what); len(words) > 1 && words[1] == as[1] {
					p.example, p.leftOut = q.example, q.leftOut
				}
			}
		}
		parts = append(parts, p)
	}
	return parts
}

// documents reads one JSON document or several.
func documents(b []byte) (out []any, err error) {
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var v any
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("no JSON: %w\n%s", err, b)
		}
		out = append(out, v)
	}
}

// shape is every field of some documents with its type: nodes[].pid → number. An empty list or object
// of an example is open: what is in it is not documented here.
type shape map[string]string

func (s shape) add(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		s[path] = "object"
		if len(v) == 0 {
			s[path+" open"] = ""
		}
		for k, x := range v {
			s.add(path+"."+k, x)
		}
	case []any:
		s[path] = "list"
		if len(v) == 0 {
			s[path+" open"] = ""
		}
		for _, x := range v {
			s.add(path+"[]", x)
		}
	case nil:
		s[path] = "null"
	default:
		s[path] = fmt.Sprintf("%T", v)
	}
}

func shapeOf(documents []any) shape {
	s := shape{}
	for _, d := range documents {
		s.add("", d)
	}
	return s
}

// above are the paths of all that a field stands in, the nearest first.
func above(path string) (out []string) {
	for i := strings.LastIndexAny(path, ".["); i >= 0; i = strings.LastIndexAny(path[:i], ".[") {
		out = append(out, path[:i])
	}
	return out
}

// compare says where an answer and the example differ: a field that is not documented, one of another type,
// one that is documented and missing without being named as left out.
func (p part) compare(answer []byte) error {
	docs, err := documents(answer)
	if err != nil {
		return err
	}
	got, want := shapeOf(docs), shapeOf(p.example)
	var wrong []error
	for _, path := range slices.Sorted(maps.Keys(got)) {
		open := slices.ContainsFunc(above(path), func(a string) bool { _, ok := want[a+" open"]; return ok })
		if strings.HasSuffix(path, " open") || open || got[path] == want[path] {
			continue
		}
		if want[path] == "" {
			wrong = append(wrong, fmt.Errorf("%s (%s) is not documented", path, got[path]))
		} else {
			wrong = append(wrong, fmt.Errorf("%s is a %s, documented as a %s", path, got[path], want[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		missing := slices.ContainsFunc(above(path), func(a string) bool { return got[a] == "" }) // and told, or in an empty list
		if _, ok := got[path]; ok || missing || strings.HasSuffix(path, " open") || strings.HasSuffix(path, "[]") {
			continue
		}
		if name := path[strings.LastIndexByte(path, '.')+1:]; !slices.Contains(p.leftOut, name) {
			wrong = append(wrong, fmt.Errorf("%s is documented and not there", path))
		}
	}
	return errors.Join(wrong...)
}

// The comparison itself finds what it should.
func TestDocumentedJSONFindsDifferences(t *testing.T) {
	p := part{example: []any{map[string]any{"a": 1.0, "b": []any{map[string]any{"c": "x", "d": true}}, "free": map[string]any{}}}, leftOut: []string{"d"}}
	for answer, want := range map[string]string{
		`{"a": 2, "b": [{"c": "y"}], "free": {"z": 1}}`:             "",
		`{"a": 2, "b": [], "free": {}}`:                             "",
		`{"a": "2", "b": [{"c": "y"}], "free": {}}`:                 ".a is a string, documented as a float64",
		`{"a": 2, "b": [{"c": "y", "e": 1}], "free": {}}`:           ".b[].e (float64) is not documented",
		`{"a": 2, "b": [{"d": false}], "free": {}}`:                 ".b[].c is documented and not there",
		`{"b": [{"c": "y"}], "free": {}}`:                           ".a is documented and not there",
		`{"a": 2, "b": null, "free": {}}`:                           ".b is a null, documented as a list",
		`{"a": 2, "b": [{"c": "y"}, {"c": 3, "d": 1}], "free": []}`: ".b[].c is a float64, documented as a string\n.b[].d is a float64, documented as a bool\n.free is a list, documented as a object",
		`not JSON`: "no JSON: invalid character 'o' in literal null (expecting 'u')\nnot JSON",
	} {
		got := ""
		if err := p.compare([]byte(answer)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", answer, got, want)
		}
	}
}
