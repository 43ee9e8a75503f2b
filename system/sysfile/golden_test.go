package sysfile

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

var update = flag.Bool("update", false, "rewrite the golden files; read their diff")

// env is the environment of every golden test.
var env = map[string]string{"WHO": "ada", "N": "3", "PORT_BASE": "81"}

// cases are the files of a folder: NAME.yaml, or NAME/ with a compose.yaml.
func cases(t *testing.T, folder string) map[string]Options {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata", folder))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Options{}
	for _, e := range entries {
		o := Options{Env: env}
		switch {
		case e.IsDir():
			o.Dir = e.Name()
		case strings.HasSuffix(e.Name(), ".yaml"):
			o.Files = []string{e.Name()}
		default:
			continue
		}
		all[strings.TrimSuffix(e.Name(), ".yaml")] = o
	}
	if len(all) < 30 {
		t.Fatalf("only %d cases in %s", len(all), folder)
	}
	return all
}

// directives are words of a first line like "# unbuilt profiles=debug,extra".
func directives(t *testing.T, o *Options) {
	t.Helper()
	name := filepath.Join(o.Dir, "compose.yaml")
	if len(o.Files) > 0 {
		name = o.Files[0]
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	for _, word := range strings.Fields(line) {
		if list, ok := strings.CutPrefix(word, "profiles="); ok {
			o.Profiles = strings.Split(list, ",")
		}
		o.AllowUnbuilt = o.AllowUnbuilt || word == "unbuilt"
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestBroken(t *testing.T) {
	all := cases(t, "broken")
	t.Chdir(filepath.Join("testdata", "broken"))
	if len(all) < 40 {
		t.Fatalf("%d broken files, want at least 40", len(all))
	}
	for name, o := range all {
		t.Run(name, func(t *testing.T) {
			directives(t, &o)
			_, err := Load(t.Context(), o)
			var ps system.Problems
			if !errors.As(err, &ps) {
				t.Fatalf("Load() = %v, want problems", err)
			}
			for _, p := range ps {
				if p.Pos.Line < 1 || p.Pos.Col < 1 || p.Pos.File == "" {
					t.Errorf("a problem without a place: %v", p)
				}
			}
			golden(t, name+".err", err.Error()+"\n")
		})
	}
}

// seen is what a golden file of a valid system holds.
type seen struct {
	System     *system.System
	Notes      []string             `json:",omitempty"`
	Files      []string             `json:",omitempty"`
	NotCompose []system.ServiceName `json:",omitempty"`
}

func TestValid(t *testing.T) {
	all := cases(t, "valid")
	t.Chdir(filepath.Join("testdata", "valid"))
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range all {
		t.Run(name, func(t *testing.T) {
			directives(t, &o)
			res, err := Load(t.Context(), o)
			if err != nil {
				t.Fatalf("Load() =\n%v", err)
			}
			s := seen{System: res.System, Files: res.Files, NotCompose: res.NotCompose}
			for _, n := range res.Notes {
				s.Notes = append(s.Notes, n.Error())
			}
			golden(t, name+".json", strings.ReplaceAll(indented(t, s), here, "$HERE"))
			again, err := Load(t.Context(), o)
			if err != nil || !cmp.Equal(res, again) {
				t.Errorf("a second Load differs: %v\n%s", err, cmp.Diff(res, again))
			}
		})
	}
}

func indented(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// load reads one text as a system file.
func load(t testing.TB, text string, o Options) (*Result, error) {
	t.Helper()
	o.Dir = t.TempDir()
	write(t, o.Dir, map[string]string{"compose.yaml": text})
	return Load(t.Context(), o)
}
