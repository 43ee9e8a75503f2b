package launch

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"servent/system"
)

// program writes a shell script that stands for a builder, alone on the path.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// What docker and podman are told; the first that answers is taken.
func TestBuildImage(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
	bin, said := t.TempDir(), filepath.Join(t.TempDir(), "said")
	t.Setenv("PATH", bin)
	service := func(r system.Recipe) *system.Service {
		return &system.Service{Name: "Web", Software: system.Software{Kind: system.Image, From: "docker-archive:./Web.tar", Dir: "/shop", Recipe: &r}}
	}
	build := func(r system.Recipe) error {
		return buildImage(t.Context(), service(r), filepath.Join(t.TempDir(), "Web.tar"), func(Step) {})
	}
	var hint *system.Hint
	if err := build(system.Recipe{Context: "/shop/web"}); err == nil || !errors.As(err, &hint) ||
		!strings.Contains(err.Error(), "podman is not installed; docker is not installed") || !strings.Contains(hint.Next, "apt-get install podman") {
		t.Errorf("without a builder: %v", err)
	}
	program(t, bin, "podman", "echo; echo no storage here; exit 125\n")
	if err := build(system.Recipe{Context: "/shop/web"}); err == nil || !strings.Contains(err.Error(), "podman: exit status 125: no storage here; docker is not installed") {
		t.Errorf("without a builder that answers: %v", err)
	}
	program(t, bin, "docker", `test "$1" = version && exit 0
for a in "$@"; do echo "$a" >>`+said+`; done
test "$1" = build && while read -r line; do echo "stdin $line" >>`+said+`; done
test "$1" = save && echo bytes >"$3"
exit 0
`)
	const tag = "localhost/servent/web:build"
	for _, tt := range []struct {
		r    system.Recipe
		want []string
	}{
		{system.Recipe{Context: "/shop/web", Dockerfile: "Dockerfile"}, []string{"--file", "/shop/web/Dockerfile", "/shop/web"}},
		{system.Recipe{Context: "web", Dockerfile: "/else/File", Target: "run", Args: map[string]string{"B": "2 3", "A": "1"}},
			[]string{"--file", "/else/File", "--target", "run", "--build-arg", "A=1", "--build-arg", "B=2 3", "/shop/web"}},
		{system.Recipe{Context: "/shop/web", Inline: "FROM scratch\n"}, []string{"--file", "-", "/shop/web", "stdin FROM scratch"}},
		{system.Recipe{Context: "https://git.example/a.git#main", Dockerfile: "Dockerfile"}, []string{"https://git.example/a.git#main"}},
	} {
		os.Remove(said)
		if err := build(tt.r); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(said)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(string(b)), "\n")
		want := append([]string{"build", "--quiet", "--tag", tag}, tt.want...)
		if n := len(want); len(got) != n+4 || !slices.Equal(got[:n], want) || got[n] != "save" || got[n+1] != "--output" || got[n+3] != tag {
			t.Errorf("%+v: told %q, want %q and save", tt.r, got, want)
		}
	}
	program(t, bin, "docker", `test "$1" = version && exit 0
echo "Dockerfile:3: no such instruction: RUM" >&2
exit 1
`)
	if err := build(system.Recipe{Context: "/shop/web"}); err == nil || !strings.Contains(err.Error(), "docker build: exit status 1\nDockerfile:3: no such instruction") {
		t.Errorf("a wrong Dockerfile: %v", err)
	}
}
