package blob

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tree is a folder as a test writes it: name → content; a name ending in / is a folder, content that begins
// with -> is a link, and with #! a program.
type tree map[string]string

func (t tree) make(tb testing.TB, dir string) string {
	tb.Helper()
	for n, text := range t {
		p := filepath.Join(dir, filepath.FromSlash(n))
		to, isLink := strings.CutPrefix(text, "->")
		mode := fs.FileMode(0o640)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch {
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(p, 0o755)
		case isLink:
			err = errors.Join(err, os.Symlink(filepath.FromSlash(to), p))
		default:
			err = errors.Join(err, os.WriteFile(p, []byte(text), mode))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// read is the opposite of make: it names all folders, and fails when a mode is neither 0644 nor 0755.
func read(tb testing.TB, dir string) tree {
	tb.Helper()
	got := tree{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		n := filepath.ToSlash(rel)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			got[n+"/"] = ""
			return nil
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			got[n] = "->" + filepath.ToSlash(to)
			return err
		}
		b, err := os.ReadFile(p)
		got[n] = string(b)
		if info, err := e.Info(); err == nil && runtime.GOOS != "windows" {
			runs := info.Mode()&0o111 != 0
			if want := strings.HasPrefix(got[n], "#!"); runs != want {
				tb.Errorf("%s has mode %v, want executable = %v", n, info.Mode(), want)
			}
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func packed(tb testing.TB, root string, paths ...string) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := Pack(&b, root, paths); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestPackUnpack(t *testing.T) {
	full := tree{"bin/api": "#!/bin/sh", "bin/now": "->api", "deep/a/b/up": "->../../../bin/api", "deep/here": "->.",
		"empty/": "", "page.html": "hello", "naïve name": "x", "top": "->deep/a", "dangling": "->not/there", "none": ""}
	folders := tree{"bin/": "", "deep/": "", "deep/a/": "", "deep/a/b/": ""}
	for _, tt := range []struct {
		name  string
		paths []string
		want  tree
	}{
		{"everything", []string{"."}, nil},
		{"overlapping", []string{".", "bin", "./page.html", "bin/api"}, nil},
		{"one file", []string{"bin/api"}, tree{"bin/": "", "bin/api": "#!/bin/sh"}},
		{"a link is not followed", []string{"top", "page.html"}, tree{"top": "->deep/a", "page.html": "hello"}},
		{"nothing", nil, tree{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := full.make(t, t.TempDir())
			dir := filepath.Join(t.TempDir(), "new")
			if err := Unpack(bytes.NewReader(packed(t, root, tt.paths...)), dir); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == nil {
				want = tree{}
				for _, part := range []tree{full, folders} {
					for n, text := range part {
						want[n] = text
					}
				}
			}
			if diff := cmp.Diff(want, read(t, dir)); diff != "" {
				t.Errorf("unpacked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPackRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tree  tree
		paths []string
		want  string
	}{
		{"a missing file", nil, []string{"bin/api"}, "bin/api"},
		{"a path above", nil, []string{"../x"}, "want a path below the folder"},
		{"an absolute path", nil, []string{"/etc/passwd"}, "want a path below the folder"},
		{"an escaping link", tree{"a/l": "->../../x"}, []string{"."}, "outside of the bundle"},
		{"an absolute link", tree{"l": "->/etc/passwd"}, []string{"."}, "outside of the bundle"},
		{"dots after a name", tree{"d/e/": "", "d/e/s": "->../..", "d/e/x": "->s/../y"}, []string{"."}, "outside of the bundle"},
		{"a way through a link", tree{"d/f": "x", "l": "->d"}, []string{"l/f", "."}, "l/f goes through the link l"},
		{"too many bytes", tree{"a": "0123456789", "b": "0123456789"}, []string{"."}, "b: the bundle is larger than 16 bytes"},
		{"too many files", tree{"1": "", "2": "", "3": "", "4": "", "5": ""}, []string{"."}, "more than 4 files"},
		{"a backslash", tree{`a\b`: ""}, []string{"."}, "backslash"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(tt.name, "backslash") {
				t.Skip("Windows has no such names")
			}
			err := pack(io.Discard, tt.tree.make(t, t.TempDir()), tt.paths, bounds{16, 4})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("pack() = %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("a socket", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "b") // short: the path of a socket is bounded
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		ln, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Skip("no unix sockets here: ", err)
		}
		defer ln.Close()
		if err := Pack(io.Discard, dir, []string{"."}); err == nil || runtime.GOOS != "windows" && !strings.Contains(err.Error(), "s is a socket") {
			t.Errorf("Pack() = %v, want a word about the socket", err)
		}
	})
}

func TestPackIsDeterministic(t *testing.T) {
	some := tree{"z": "1", "a/b": "#!2", "a.b": "3", "a/": "", "l": "->a/b"}
	one, two := some.make(t, t.TempDir()), some.make(t, t.TempDir())
	old := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := errors.Join(os.Chtimes(filepath.Join(two, "z"), old, old), os.Chmod(filepath.Join(two, "z"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, want := sha256.Sum256(packed(t, one, ".")), sha256.Sum256(packed(t, two, "z", "l", "a.b", "a"))
	if got != want {
		t.Errorf("the same files have digests %x and %x", got, want)
	}
	// The digest of this tree is part of the format: a change of it is a new bundle for every user.
	if got, want := fmt.Sprintf("%x", got), "f130d0dfde6c556b2f3e96f8f6e6715c98941fadbcbfcb96dbd163fb54676f9a"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if err := os.WriteFile(filepath.Join(two, "z"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if want == sha256.Sum256(packed(t, two, ".")) {
		t.Error("another content has the same digest")
	}
}

// entries writes an archive by hand, as an enemy would.
func entries(tb testing.TB, heads ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range heads {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		text := []byte{}
		if h.Typeflag == tar.TypeReg {
			text = bytes.Repeat([]byte("x"), int(h.Size))
		}
		if err := tw.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := tw.Write(text); err != nil {
			tb.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func file(n string) tar.Header { return tar.Header{Name: n, Size: 3, Mode: 0o644} }
func symlink(n, to string) tar.Header {
	return tar.Header{Name: n, Typeflag: tar.TypeSymlink, Linkname: to}
}

// attacks are archives that must be refused, each for its own reason.
var attacks = []struct {
	name  string
	heads []tar.Header
}{
	{"parent", []tar.Header{file("../out")}},
	{"parent inside", []tar.Header{file("a/../../out")}},
	{"unclean", []tar.Header{file("a/./b")}},
	{"absolute", []tar.Header{file("/out")}},
	{"backslash", []tar.Header{file(`..\out`)}},
	{"the folder itself", []tar.Header{{Name: "./", Typeflag: tar.TypeDir}}},
	{"link to a parent", []tar.Header{symlink("l", "..")}},
	{"link to the root", []tar.Header{symlink("l", "/")}},
	{"link by a link", []tar.Header{symlink("d/e/s", "../.."), symlink("d/e/x", "s/../y")}},
	{"link in a link", []tar.Header{symlink("s", "."), symlink("s/l", "..")}},
	{"link in a deep link", []tar.Header{file("d/f"), symlink("d/e/f", "../.."), symlink("d/e/f/g/h", "../../..")}},
	{"file under a link", []tar.Header{symlink("s", "d"), file("s/f")}},
	{"file as a link", []tar.Header{symlink("s", "f"), file("s")}},
	{"link as a file", []tar.Header{file("s"), symlink("s", "f")}},
	{"link twice", []tar.Header{symlink("s", "a"), symlink("s", "b")}},
	{"file twice", []tar.Header{file("f"), file("f")}},
	{"file as a folder", []tar.Header{file("f"), file("f/g")}},
	{"hard link", []tar.Header{file("f"), {Name: "g", Typeflag: tar.TypeLink, Linkname: "f"}}},
	{"device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}},
	{"pipe", []tar.Header{{Name: "p", Typeflag: tar.TypeFifo}}},
	{"too large", []tar.Header{{Name: "f", Size: 65}}},
	{"too large together", []tar.Header{{Name: "f", Size: 40}, {Name: "g", Size: 40}}},
	{"too many", []tar.Header{file("1"), file("2"), file("3"), file("4"), file("5"), file("6"), file("7"), file("8"), file("9")}},
}

func TestUnpackRefuses(t *testing.T) {
	for _, tt := range attacks {
		t.Run(tt.name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in")
			if err := unpack(bytes.NewReader(entries(t, tt.heads...)), dir, bounds{64, 8}); err == nil {
				t.Errorf("unpack() = nil, want an error; made %v", read(t, dir))
			}
			inside(t, outer, dir)
		})
	}
	t.Run("not an archive", func(t *testing.T) {
		if err := Unpack(strings.NewReader(strings.Repeat("no tar ", 100)), t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a bundle") {
			t.Errorf("Unpack() = %v, want a word", err)
		}
	})
	t.Run("a folder in use", func(t *testing.T) {
		dir := tree{"mine": "x"}.make(t, t.TempDir())
		if err := Unpack(bytes.NewReader(entries(t)), dir); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("Unpack() = %v, want a refusal", err)
		}
	})
}

// inside checks that all that was unpacked lies in dir and leads to places in dir.
func inside(tb testing.TB, outer, dir string) {
	tb.Helper()
	if around, err := os.ReadDir(outer); err != nil || len(around) > 1 {
		tb.Errorf("beside the folder: %v, %v, want the folder alone", around, err)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return // refused before it was made
	}
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink == 0 {
			return err
		}
		at, err := filepath.EvalSymlinks(p)
		if err != nil {
			return nil // leads nowhere, or in a circle
		}
		if rel, err := filepath.Rel(root, at); err != nil || !filepath.IsLocal(rel) {
			tb.Errorf("%s leads to %s, outside", p, at)
		}
		return nil
	})
	if err != nil {
		tb.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	for _, a := range attacks {
		f.Add(entries(f, a.heads...))
	}
	f.Add(packed(f, tree{"bin/api": "#!/bin/sh", "bin/now": "->api", "a/b/up": "->../../bin", "e/": ""}.make(f, f.TempDir()), "."))
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		err := unpack(bytes.NewReader(b), dir, bounds{1 << 16, 32})
		inside(t, outer, dir)
		if err != nil {
			return
		}
		// What was taken can be packed and taken again, and is the same.
		var again bytes.Buffer
		if err := Pack(&again, dir, []string{"."}); err != nil {
			t.Fatalf("what Unpack took, Pack refuses: %v", err)
		}
		twin := filepath.Join(t.TempDir(), "twin")
		if err := Unpack(&again, twin); err != nil {
			t.Fatal(err)
		}
		one, two := packed(t, dir, "."), packed(t, twin, ".")
		if !bytes.Equal(one, two) {
			t.Error("unpacking what was packed changes it")
		}
	})
}

// TestLinksStayInside builds random trees of folders and links and asks the operating system where each leads.
func TestLinksStayInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/b/a", "b/b/b"})
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"..", ".", "a", "b"}), 1, 4)
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for range rapid.IntRange(1, 8).Draw(t, "links") {
			h := symlink(names.Draw(t, "name"), strings.Join(steps.Draw(t, "target"), "/"))
			if err := tw.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		tw.Close()
		outer, err := os.MkdirTemp("", "links")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(outer)
		dir := filepath.Join(outer, "in")
		unpack(&b, dir, standard) // whether it is refused or not, nothing leads out
		root, err := filepath.EvalSymlinks(dir)
		if err != nil {
			t.Fatal(err)
		}
		filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if at, err := filepath.EvalSymlinks(p); err == nil && at != root && !strings.HasPrefix(at, root+string(filepath.Separator)) {
				t.Fatalf("%s leads to %s", p, at)
			}
			return nil
		})
	})
}

func TestRunnable(t *testing.T) {
	for _, tt := range []struct {
		name, first string
		want        bool
	}{
		{"api", "\x7fELF", true}, {"api.exe", "MZ\x90\x00", true}, {"run", "#!/b", true}, {"go.cmd", "@ech", true},
		{"page.html", "<!do", false}, {"empty", "", false}, {"data.sh.txt", "echo", false},
	} {
		if got := runnable(tt.name, []byte(tt.first)); got != tt.want {
			t.Errorf("runnable(%q, %q) = %v, want %v", tt.name, tt.first, got, tt.want)
		}
	}
}
