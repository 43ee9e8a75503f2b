package sysfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

const small = "services: {web: {x-servent: {process: ./web}}}\n"

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadFindsItsFiles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		o     Options
		want  []string // file names, or the error's words
		sys   string
	}{
		{name: "the best name wins", files: map[string]string{"compose.yml": small, "docker-compose.yml": "bad"}, want: []string{"compose.yml"}},
		{name: "with its override", files: map[string]string{"docker-compose.yaml": small, "compose.override.yml": "services: {web: {restart: always}}"}, want: []string{"docker-compose.yaml", "compose.override.yml"}},
		{name: "named files have no override", files: map[string]string{"a.yaml": small, "compose.override.yml": "bad"}, o: Options{Files: []string{"a.yaml"}}, want: []string{"a.yaml"}},
		{name: "COMPOSE_FILE", files: map[string]string{"a.yaml": small, "b.yaml": "name: both", "compose.yaml": "bad"}, o: Options{Env: map[string]string{"COMPOSE_FILE": "a.yaml,b.yaml", "COMPOSE_PATH_SEPARATOR": ","}}, want: []string{"a.yaml", "b.yaml"}, sys: "both"},
		{name: "name from the caller", files: map[string]string{"compose.yaml": "name: file\n" + small}, o: Options{Name: "caller", Env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}}, want: []string{"compose.yaml"}, sys: "caller"},
		{name: "name from the environment", files: map[string]string{"compose.yaml": "name: file\n" + small}, o: Options{Env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}}, want: []string{"compose.yaml"}, sys: "env"},
		{name: "name from the file", files: map[string]string{"compose.yaml": "name: file\n" + small}, want: []string{"compose.yaml"}, sys: "file"},
		{name: "no file", want: []string{"no compose.yaml"}},
		{name: "a named file that is not there", o: Options{Files: []string{"x.yaml"}}, want: []string{"x.yaml"}},
		{name: "a folder for a file", files: map[string]string{"d/x": ""}, o: Options{Files: []string{"d"}}, want: []string{"want a file, have the folder"}},
		{name: "a file that is far too big", files: map[string]string{"compose.yaml": small + strings.Repeat("# ten bytes\n", 1<<20)}, want: []string{"want at most 8 MiB, have 12 in"}},
		{name: "a big file in a few seconds", files: map[string]string{"compose.yaml": small + strings.Repeat("# ten bytes\n", 1<<18)}, want: []string{"compose.yaml"}},
		{name: "a bad name", files: map[string]string{"compose.yaml": small}, o: Options{Name: "My Shop"}, want: []string{"lower-case"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			tt.o.Dir = dir
			res, err := Load(t.Context(), tt.o)
			if err != nil {
				if len(tt.want) != 1 || !strings.Contains(err.Error(), tt.want[0]) {
					t.Errorf("Load() = %v, want %v", err, tt.want)
				}
				return
			}
			var got []string
			for _, f := range res.Files {
				got = append(got, filepath.Base(f))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("files = %v, want %v", got, tt.want)
			}
			if tt.sys != "" && res.System.Name != tt.sys {
				t.Errorf("name = %q, want %q", res.System.Name, tt.sys)
			}
		})
	}
}

func TestLoadSaysWhatToTryWithoutAFile(t *testing.T) {
	_, err := Load(t.Context(), Options{Dir: t.TempDir()})
	if got, want := system.Next(err), "servent init shop"; got != want {
		t.Errorf("Next(%v) = %q, want %q", err, got, want)
	}
	if errors.As(err, new(system.Problems)) {
		t.Errorf("%v is a fault of the user's file, want none", err)
	}
}

// A file of another folder brings its folder with it, as docker compose -f does.
func TestLoadFromAnotherFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"sub/compose.yaml": "services: {web: {x-servent: {process: ./web, near: \"${NEAR}\"}, env_file: web.env, volumes: [./data:/data]}}",
		"sub/.env":         "NEAR=clients",
		"sub/web.env":      "A=1",
		".env":             "NEAR=nobody",
	})
	t.Chdir(dir)
	res, err := Load(t.Context(), Options{Files: []string{"sub/compose.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	s, sub := res.System.Services[0], filepath.Join(here, "sub")
	if s.Near != "clients" || s.Environment["A"] != "1" || s.Software.Dir != sub || s.Volumes[0].Source != filepath.Join(sub, "data") {
		t.Errorf("read from the wrong folder: %+v", s)
	}
	if res.System.Name != "sub" || !slices.Equal(res.Files, []string{"sub/compose.yaml"}) {
		t.Errorf("name %q, files %v, want sub, [sub/compose.yaml]", res.System.Name, res.Files)
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"compose.yaml": small})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, Options{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("Load() = %v, want context.Canceled", err)
	}
}

// Included, extended and overriding files are named as a user in the calling folder would.
func TestPlacesNameTheFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"sys/compose.yaml":         "include: [../part/p.yaml]\nservices:\n  web:\n    extends: {file: base.yaml, service: web}\n    scale: 3\n",
		"sys/base.yaml":            "services:\n  web:\n    x-servent:\n      process: ./web\n      architecture: single\n      near: wbe\n",
		"part/p.yaml":              "services:\n  part:\n    x-servent:\n      process: ./part\n      near: wbe\n",
		"sys/compose.override.yml": "services:\n  web:\n    x-servent:\n      topology: random\n",
	})
	t.Chdir(dir)
	_, err := Load(t.Context(), Options{Dir: "sys"})
	want := `part/p.yaml:5:13: services.part.x-servent.near: want clients or another service, have "wbe" (did you mean "web"?)
sys/base.yaml:6:13: services.web.x-servent.near: want clients or another service, have "wbe"
sys/compose.override.yml:4:17: services.web.x-servent.topology: topology is of an unstructured overlay; the architecture is single
sys/compose.yaml:5:12: services.web.scale: single has one instance, have 3 replicas; for more say architecture: replicated`
	if err == nil || cmp.Diff(want, err.Error()) != "" {
		t.Errorf("(-want +got):\n%s\n%v", cmp.Diff(want, err.Error()), err)
	}
}

func TestManyAliasesEnd(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]")
	for i := range 12 {
		fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
	}
	merges := strings.ReplaceAll(strings.ReplaceAll(b.String(), ": &", ": &m"), "*a", "*ma")
	merges = strings.ReplaceAll(strings.ReplaceAll(merges, "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "{}"), "[", "{<<: [")
	merges = strings.ReplaceAll(merges, "]", "]}")
	for _, text := range []string{b.String(), merges} {
		_, err := load(t, text+small, Options{})
		if err == nil || !strings.Contains(err.Error(), "too big") {
			t.Errorf("Load() = %v, want a refusal of a billion aliases", err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, folder := range []string{"valid", "broken"} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds: %v", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text), folder == "valid")
		}
	}
	f.Fuzz(func(t *testing.T, text string, unbuilt bool) {
		o := Options{AllowUnbuilt: unbuilt, Env: env, Profiles: []string{"*"}, Dir: t.TempDir()}
		write(t, o.Dir, map[string]string{"compose.yaml": text})
		res, err := Load(t.Context(), o)
		again, err2 := Load(t.Context(), o)
		if !cmp.Equal(res, again) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("two readings differ:\n%v\n%v\n%s", err, err2, cmp.Diff(res, again))
		}
		if err != nil {
			var ps system.Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("not a fault of the file: %v", err)
			}
			for _, p := range ps {
				if p.Pos.File == "" || p.Pos.Line < 1 || p.Pos.Col < 1 || p.Msg == "" {
					t.Errorf("a problem without a place: %+v", p)
				}
				if strings.HasSuffix(p.Pos.File, "/compose.yaml") && p.Pos.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+2 {
					t.Errorf("a place behind the file's end: %v", p)
				}
			}
			return
		}
		if len(res.System.Services) == 0 || len(res.System.Nodes) == 0 || res.System.Name == "" {
			t.Errorf("a system without services, nodes or name: %+v", res.System)
		}
		for _, s := range res.System.Services {
			if s.Switch.By == "" || s.Software.Kind == "" || s.Data.Kind == "" || s.Architecture == "" || !filepath.IsAbs(s.Software.Dir) || s.Pos.Line < 1 {
				t.Errorf("a service with a hole: %+v", s)
			}
		}
		for _, n := range res.Notes {
			if n.Pos.Line < 1 {
				t.Errorf("a note without a place: %v", n)
			}
		}
	})
}
