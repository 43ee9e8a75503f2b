package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func any1(string) bool { return true }

func made(t testing.TB, parts map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, time.Unix(1e9, 0))
	for name, text := range parts {
		if err := w.AddText(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhole(t *testing.T) {
	parts := map[string]string{"a.json": "{}", "blobs/x": strings.Repeat("y", 100_000), "empty": ""}
	dir := t.TempDir()
	names, err := Read(bytes.NewReader(made(t, parts)), dir, any1)
	if err != nil || !slices.Equal(names, []string{"a.json", "blobs/x", "empty"}) {
		t.Fatalf("Read = %q, %v", names, err)
	}
	for name, want := range parts {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s = %.20q, %v, want %.20q", name, got, err, want)
		}
	}
}

// TestTorn: whatever is missing or changed of a backup, it is none.
func TestTorn(t *testing.T) {
	text := made(t, map[string]string{"a.json": "{}", "b": strings.Repeat("z", 3000)})
	for n := range len(text) {
		if _, err := Read(bytes.NewReader(text[:n]), t.TempDir(), any1); !errors.Is(err, ErrTorn) {
			t.Fatalf("%d of %d bytes: %v, want ErrTorn", n, len(text), err)
		}
	}
	for n := range len(text) {
		bad := bytes.Clone(text)
		bad[n] ^= 0x10
		dir := t.TempDir()
		if names, err := Read(bytes.NewReader(bad), dir, any1); err == nil { // a bit of gzip's own head may differ
			if got, err := os.ReadFile(filepath.Join(dir, "b")); len(names) != 2 || err != nil || string(got) != strings.Repeat("z", 3000) {
				t.Fatalf("byte %d changed: %q are taken", n, names)
			}
		}
	}
}

// forged is a tar with these names, all of which have the same bytes, and no sums.
func forged(t testing.TB, kind byte, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for _, name := range names {
		h := &tar.Header{Name: name, Typeflag: kind, Size: 2, Mode: 0o600, Linkname: "/etc/passwd"}
		if kind != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if kind == tar.TypeReg {
			io.WriteString(w, "{}")
		}
	}
	w.Close()
	gz.Close()
	return out.Bytes()
}

func TestForged(t *testing.T) {
	for _, tt := range [][]byte{
		forged(t, tar.TypeReg, "../x", sumsName), forged(t, tar.TypeReg, "/x", sumsName), forged(t, tar.TypeReg, "a/b/c", sumsName),
		forged(t, tar.TypeSymlink, "x", sumsName), forged(t, tar.TypeReg, "x", "x", sumsName), forged(t, tar.TypeReg, "x", sumsName), nil, []byte("no gzip"),
	} {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in", "side")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if names, err := Read(bytes.NewReader(tt), dir, any1); !errors.Is(err, ErrTorn) {
			t.Errorf("Read = %q, %v, want ErrTorn", names, err)
		}
		if left, _ := os.ReadDir(outer); len(left) != 1 {
			t.Errorf("it wrote outside: %v", left)
		}
	}
	if _, err := Read(bytes.NewReader(made(t, map[string]string{"evil": ""})), t.TempDir(), func(n string) bool { return n != "evil" }); !errors.Is(err, ErrTorn) {
		t.Errorf("a part that may not be = %v", err)
	}
	w := NewWriter(io.Discard, time.Now())
	if w.AddText("../x", nil) == nil || w.AddText(sumsName, nil) == nil || w.Add("a", 2, strings.NewReader("x")) == nil {
		t.Error("bad parts are written")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(made(f, map[string]string{"a.json": "{}", "blobs/x": "y"}))
	f.Add(forged(f, tar.TypeReg, "../x", sumsName))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			t.Skip()
		}
		dir := t.TempDir()
		names, err := Read(io.LimitReader(bytes.NewReader(text), 1<<16), dir, any1)
		if err == nil {
			for _, n := range names {
				if _, err := os.Stat(filepath.Join(dir, n)); err != nil {
					t.Errorf("%q is not there: %v", n, err)
				}
			}
		}
	})
}
