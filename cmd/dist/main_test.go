package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	for _, tt := range []struct {
		tag     string
		changed bool
		want    string
	}{
		{"v1.2.3", false, "1.2.3"},
		{"v1.2.3", true, "1.2.3+changed"},
		{"", false, next + "-dev.7.gabc"},
		{"", true, next + "-dev.7.gabc+changed"},
	} {
		if got := named(tt.tag, "7", "abc", tt.changed); got != tt.want {
			t.Errorf("named(%q, changed %t) = %q, want %q", tt.tag, tt.changed, got, tt.want)
		}
	}
}

func TestChooseRefusesWhatIsNotMade(t *testing.T) {
	if _, err := choose("linux/amd64,plan9/386"); err == nil || !strings.Contains(err.Error(), "plan9/386") {
		t.Errorf("choose: %v, want an error that names plan9/386", err)
	}
}

// What is made for this machine twice has the same bytes; dpkg installs the package, and the program in it runs and tells its version.
func TestRelease(t *testing.T) {
	if os.Getenv("SERVENT_LONG") == "" {
		t.Skip("builds the program and packages it, twice: SERVENT_LONG=1")
	}
	if runtime.GOOS != "linux" {
		t.Skip("dpkg is Debian's")
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs dpkg")
	}
	t.Chdir("../..")
	var sums [2][]byte
	var dir string
	for i := range sums {
		dir = t.TempDir()
		if err := run(t.Context(), dir, runtime.GOOS+"/"+runtime.GOARCH, nil); err != nil {
			t.Fatal(err)
		}
		var err error
		if sums[i], err = os.ReadFile(filepath.Join(dir, "SHA256SUMS")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(sums[0], sums[1]) {
		t.Errorf("made twice, it differs:\n%s\n%s", sums[0], sums[1])
	}
	version, _, err := describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told(t, dir, "sha256sum", "-c", "SHA256SUMS")

	names := tarNames(t, one(t, dir, "*.tar.gz"))
	for _, want := range []string{"servent", "LICENSE", "README.md", "docs/fleet.md", "man/servent-up.1", "completion/servent.bash"} {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "/"+want) }) {
			t.Errorf("the archive has no %s: %q", want, names)
		}
	}

	deb := one(t, dir, "*.deb")
	root := filepath.Join(dir, "root")
	for _, d := range []string{"updates", "info", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	told(t, dir, "dpkg", "--root="+root, "--force-not-root", "--force-architecture", "--log="+filepath.Join(dir, "log"), "-i", deb)
	listed := strings.Fields(told(t, dir, "dpkg", "--root="+root, "-L", "servent"))
	for _, want := range []string{"/usr/bin/servent", "/usr/share/man/man1/servent-up.1.gz", "/usr/share/doc/servent/copyright",
		"/usr/share/bash-completion/completions/servent", "/usr/share/zsh/vendor-completions/_servent"} {
		if !slices.Contains(listed, want) {
			t.Errorf("the package has no %s: %q", want, listed)
		}
	}
	if got := told(t, dir, filepath.Join(root, "usr/bin/servent"), "version"); !strings.HasPrefix(got, "servent "+version+" ") {
		t.Errorf("servent version prints %q, want %s", got, version)
	}
	told(t, dir, "dpkg", "--root="+root, "--force-not-root", "--log="+filepath.Join(dir, "log"), "--purge", "servent")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/servent")); !os.IsNotExist(err) {
		t.Errorf("after dpkg --purge the program is there: %v", err)
	}
}

// one is the single file of a pattern.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %q; want one", pattern, err, found)
	}
	return found[0]
}

func told(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, said)
	}
	return string(said)
}

func tarNames(t *testing.T, file string) (names []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
