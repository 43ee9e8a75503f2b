package examples

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"servent/system"
)

var update = flag.Bool("update", false, "rewrite shop.txtar from folder shop")

// The archive that init writes is the folder shop as it stands.
func TestArchive(t *testing.T) {
	ar := &txtar.Archive{Comment: []byte("The files of folder shop, for init. Made by: go test ./examples -run TestArchive -update\n")}
	err := filepath.WalkDir("shop", func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "bin" || d.Name() == ".servent") { // of a run
			return fs.SkipDir
		}
		if d.IsDir() || strings.HasSuffix(at, "_test.go") {
			return nil
		}
		data, err := os.ReadFile(at)
		ar.Files = append(ar.Files, txtar.File{Name: strings.TrimPrefix(filepath.ToSlash(at), "shop/"), Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := txtar.Format(ar)
	if again := txtar.Parse(want); !slices.EqualFunc(again.Files, ar.Files, func(a, b txtar.File) bool { return a.Name == b.Name && string(a.Data) == string(b.Data) }) {
		t.Fatal("a file of shop has a line that the archive takes for its own, or no end of line at its end")
	}
	if *update {
		if err := os.WriteFile("shop.txtar", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(shop) != string(want) {
		t.Error("shop.txtar is not folder shop any more; run: go test ./examples -run TestArchive -update")
	}
}

func TestWrite(t *testing.T) {
	for _, e := range List() {
		t.Run(e.Name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "folder")
			if err := Write(e.Name, dir); err != nil {
				t.Fatal(err)
			}
			files := []string{"compose.yaml", "README.md", "go.mod"}
			if e.Name == "store" { // no program of its own
				files = files[:2]
			}
			for _, must := range files {
				if _, err := os.Stat(filepath.Join(dir, must)); err != nil {
					t.Error(err)
				}
			}
			var tests int
			filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
				if strings.HasSuffix(at, "_test.go") || d.Name() == "bin" {
					tests++
				}
				return err
			})
			if tests > 0 {
				t.Errorf("%d tests or built programs were written too", tests)
			}
			err := Write(e.Name, dir)
			if err == nil || system.Next(err) == "" {
				t.Errorf("second Write() = %v, want a refusal with a next step", err)
			}
		})
	}
}

func TestWriteOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write("counter", dir); err == nil || !strings.Contains(err.Error(), "compose.yaml") {
		t.Errorf("Write() = %v, want a refusal that names what is there", err)
	}
	if got, err := os.ReadFile(mine); string(got) != "mine" {
		t.Errorf("my file is now %q, %v", got, err)
	}
	if err := Write("counter", mine); err == nil {
		t.Error("Write() to a file = nil, want an error")
	}
	if err := Write("conuter", filepath.Join(dir, "x")); err == nil || !strings.Contains(err.Error(), "counter") {
		t.Errorf("Write() of no example = %v, want a list of them", err)
	}
}

// What init writes can be built where it was written, outside of this module.
func TestWrittenProgramsBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the compiler")
	}
	for name, pkg := range map[string]string{"increment": "./cmd/increment", "counter": "./cmd/counter", "address": "./cmd/address", "shortener": "./cmd/shortener", "tokens": "./cmd/tokens", "split": "./cmd/split", "order": "./cmd/order", "shop": "./..."} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := Write(name, dir); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", "build", "-o", t.TempDir(), pkg)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", cmd.Args, err, out)
			}
		})
	}
}

// Every file of every example, alone or, a compose.NAME.yaml, over compose.yaml, is one that Compose's own reader takes, and
// what an override says of the process stands in place of what was there.
func TestComposeFiles(t *testing.T) {
	seen := 0
	for _, e := range List() {
		files, err := filepath.Glob(filepath.Join(e.Name, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			seen++
			t.Run(file, func(t *testing.T) {
				base := filepath.Join(e.Name, "compose.yaml")
				chain := []types.ConfigFile{{Filename: file}}
				if file != base && strings.HasPrefix(filepath.Base(file), "compose.") {
					chain = []types.ConfigFile{{Filename: base}, {Filename: file}}
				}
				project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{WorkingDir: e.Name, ConfigFiles: chain},
					func(o *loader.Options) { o.SkipConsistencyCheck = true })
				if err != nil {
					t.Fatal(err)
				}
				if project.Name != e.Name {
					t.Errorf("name: %s, want %s", project.Name, e.Name)
				}
				for name, service := range project.Services {
					x, ok := service.Extensions["x-servent"].(map[string]any)
					if !ok {
						t.Errorf("service %s has no x-servent", name)
						continue
					}
					if run, ok := processRun[file+" "+name]; ok {
						if diff := cmp.Diff(x["process"], run); diff != "" {
							t.Errorf("process of %s (- got, + want):\n%s", name, diff)
						}
					}
				}
			})
		}
	}
	if want := 28; seen != want {
		t.Errorf("%d Compose files, want %d: change the number when you add one", seen, want)
	}
}

var processRun = map[string]any{
	"increment/compose.yaml increment":        []any{"servent", "example", "increment"},
	"increment/compose.python.yaml increment": map[string]any{"run": []any{"python3", "./python/increment.py"}, "include": []any{"./python/increment.py"}},
	"increment/compose.one.yaml increment":    map[string]any{"run": []any{"python3", "./python/increment.py", "one"}, "include": []any{"./python/increment.py"}},
	"increment/compose.fsm.yaml increment":    map[string]any{"run": []any{"python3", "./python/increment.py", "fsm"}, "include": []any{"./python/increment.py"}},
	"address/compose.slow.yaml address":       []any{"servent", "example", "address", "--delay", "1500ms", "--every", "2"},
	"shop/compose.postgres.yaml data":         map[string]any{"build": []any{"go", "build", "-o", "bin/", "./postgres"}, "run": []any{"./bin/postgres"}},
	"shop/compose.postgres.yaml api":          map[string]any{"build": []any{"go", "build", "-o", "bin/", "./api"}, "run": []any{"./bin/api"}},
}

func TestCounterIsShort(t *testing.T) {
	file, err := os.ReadFile("counter/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(file), "\n"); lines > 12 {
		t.Errorf("counter/compose.yaml has %d lines; the README promises 12", lines)
	}
}
