package launch

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/blob"
	"servent/system"
)

// tree writes files, each a second older than the one before it in the list.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(i) * time.Second)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProcessFiles(t *testing.T) {
	dir := tree(t, "bin/api", "app.py", "conf/a.yaml", "conf/b.yaml", "data")
	for _, tt := range []struct {
		name string
		run  []string
		inc  []string
		want []string
		err  string
	}{
		{"a program beside the file", []string{"./bin/api"}, nil, []string{"bin/api"}, ""},
		{"one from PATH and a script", []string{"python3", "app.py"}, nil, []string{"app.py"}, ""},
		{"words are no files", []string{"python3", "data"}, nil, nil, ""},
		{"unless they look like a path", []string{"python3", "./data"}, nil, []string{"data"}, ""},
		{"flags that hold a path", []string{"python3", "--config=conf/a.yaml"}, nil, nil, ""},
		{"what is included", []string{"./bin/api", "./bin/api"}, []string{"conf", "app.py"}, []string{"app.py", "bin/api", "conf"}, ""},
		{"whole paths are the machine's", []string{filepath.Join(dir, "bin/api")}, nil, nil, ""},
		{"a way out of the folder", []string{"../x/y"}, nil, nil, "no program ../x/y"},
		{"no such program", []string{"./bin/web"}, nil, nil, "no program ./bin/web in " + dir},
		{"no such include", []string{"./bin/api"}, []string{"nothing"}, nil, "include: "},
		{"an include outside", []string{"./bin/api"}, []string{"../x"}, nil, "want a path inside"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := processFiles(&system.Software{Dir: dir, Run: tt.run, Include: tt.inc})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("processFiles = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("processFiles = %v %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestUpToDate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		run   string
		files []string // newest first
		want  bool
	}{
		{"newer than its sources", "./bin/api", []string{"bin/api", "main.go"}, true},
		{"a source is newer", "./bin/api", []string{"main.go", "bin/api"}, false},
		{"one far below is newer", "./bin/api", []string{"a/b/c.go", "bin/api", "main.go"}, false},
		{"it does not exist", "./bin/api", []string{"main.go"}, false},
		{"what lies beside it is output, too", "./bin/api", []string{"bin/web", "bin/api", "main.go"}, true},
		{"hidden folders hold no sources", "./bin/api", []string{".servent/blobs/x", ".git/HEAD", "node_modules/x/y.js", "bin/api", "main.go"}, true},
		{"beside its sources", "./api", []string{"main.go", "api"}, false},
		{"a program of the machine", "api", []string{"api", "main.go"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := upToDate(&system.Software{Dir: tree(t, tt.files...), Run: []string{tt.run}})
			if err != nil || got != tt.want {
				t.Errorf("upToDate = %v %v, want %v", got, err, tt.want)
			}
		})
	}
}

func bundled(t *testing.T, s system.Service) (system.Service, []Step, error) {
	t.Helper()
	sys := &system.System{Services: []system.Service{s}}
	var steps []Step
	err := Bundle(t.Context(), sys, &blob.Store{Dir: t.TempDir()}, func(s Step) { steps = append(steps, s) })
	return sys.Services[0], steps, err
}

func TestBundleBuilds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the build is a shell's")
	}
	dir := tree(t, "main.txt")
	s := system.Service{Name: "api", Software: system.Software{Kind: system.Process, Dir: dir, Run: []string{"./bin/api"},
		Build: []string{"sh", "-c", "mkdir -p bin && cp main.txt bin/api"}}}
	first, steps, err := bundled(t, s)
	if err != nil || len(steps) != 2 || !steps[1].Done || steps[1].Service != "api" || first.Software.Digest == "" {
		t.Fatalf("first: steps %v, digest %q, %v; want one build", steps, first.Software.Digest, err)
	}
	second, steps, err := bundled(t, s)
	if err != nil || len(steps) != 0 || second.Software.Digest != first.Software.Digest {
		t.Errorf("second: steps %v, digest %q, %v; want no build and %q", steps, second.Software.Digest, err, first.Software.Digest)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.txt"), []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	third, _, err := bundled(t, s)
	if err != nil || third.Software.Digest == first.Software.Digest {
		t.Errorf("after an edit: the same digest (%v)", err)
	}
}

func TestBundleFails(t *testing.T) {
	dir := tree(t, "a-file", "bin/api")
	text := func(name, env string) []system.MountedFile {
		return []system.MountedFile{{Name: name, Kind: "secret", Env: env}}
	}
	for _, tt := range []struct {
		name string
		s    system.Service
		want string
		next string // how the next step begins
	}{
		{"a compiler is missing", system.Service{Software: system.Software{Kind: system.Process, Dir: dir, Run: []string{"./bin/x"}, Build: []string{"no-such-compiler"}}}, `"no-such-compiler" is not installed`, "install no-such-compiler"},
		{"no program and no build", system.Service{Software: system.Software{Kind: system.Process, Dir: dir, Run: []string{"./bin/x"}}}, "no program ./bin/x", "add build:"},
		{"files that are not there", system.Service{Software: system.Software{Kind: system.Files, Dir: dir, From: "dist"}}, "files: ", "mkdir -p "},
		{"files that are a file", system.Service{Software: system.Software{Kind: system.Files, Dir: dir, From: "a-file"}}, "want a folder", ""},
		{"a secret without its variable", system.Service{Software: system.Software{Kind: system.Origin}, Files: text("key", "SERVENT_TEST_NOT_SET")}, "secret key: environment variable SERVENT_TEST_NOT_SET is not set", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Name = "svc"
			_, _, err := bundled(t, tt.s)
			if err == nil || !strings.Contains(err.Error(), "svc: ") || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(system.Next(err), tt.next) {
				t.Errorf("Bundle = %v (next: %q), want %q (next: %q…)", err, system.Next(err), tt.want, tt.next)
			}
		})
	}
	got, _, err := bundled(t, system.Service{Name: "svc", Software: system.Software{Kind: system.Files, Dir: dir, From: "bin"}, Files: []system.MountedFile{{Name: "conf", Text: "a: 1"}}})
	if err != nil || got.Software.Digest == "" || got.Files[0].Digest == "" || got.Files[0].Text != "" {
		t.Errorf("files and a config: %+v %v, want their digests", got, err)
	}
}
