package container

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
)

func link(kind byte, name, to string) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}}
}

func folder(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

// unpackTo unpacks an image below a folder beside which nothing may appear.
func unpackTo(t *testing.T, img v1.Image, most bounds) (dir string, err error) {
	t.Helper()
	above := t.TempDir()
	dir = filepath.Join(above, "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	cfg, _, err := configuration(img)
	if err == nil {
		err = unpack(t.Context(), img, cfg, root, most)
	}
	if beside, _ := os.ReadDir(above); len(beside) != 1 {
		t.Errorf("something was written outside: %v", beside)
	}
	return dir, err
}

func TestUnpack(t *testing.T) {
	dir, err := unpackTo(t, imageOf(t, v1.Config{},
		layer(t, folder("./"), folder("usr/lib"), link(tar.TypeSymlink, "lib", "usr/lib"), link(tar.TypeSymlink, "var/run", "/run"),
			folder("run"), file1("etc/gone", "1"), file1("etc/stays", "2"), file1("opt/a/x", "3"), file1("opt/a/y", "4"), file1("was/file", "5"),
			link(tar.TypeSymlink, "up", "../../../../../../tmp")),
		layer(t, file1("lib/so", "through a link"), file1("var/run/pid", "through an absolute link"), file1("etc/.wh.gone", ""),
			file1("opt/a/new", "mine"), file1("opt/a/.wh..wh..opq", ""), folder("was/file"), file1("was/file/now", "a folder"),
			link(tar.TypeLink, "etc/hard", "etc/stays"), file1("up/there", "inside all the same"),
			entry{tar.Header{Typeflag: tar.TypeReg, Name: "bin/su", Mode: 0o4755}, "x"}),
	), standard)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"usr/lib/so": "through a link", "run/pid": "through an absolute link", "etc/stays": "2",
		"etc/hard": "2", "opt/a/new": "mine", "was/file/now": "a folder", "tmp/there": "inside all the same"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
			t.Errorf("%s = %q %v, want %q", name, b, err, want)
		}
	}
	for _, name := range []string{"etc/gone", "opt/a/x", "opt/a/y", "etc/.wh.gone", "opt/a/.wh..wh..opq"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "bin/su")); err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Errorf("bin/su: %v %v, want setuid", info.Mode(), err)
	}
}

// What a layer must not do is refused, and nothing is written outside meanwhile.
func TestHostileLayers(t *testing.T) {
	zeros := strings.Repeat("\x00", 1<<20)
	many := make([]entry, 40)
	for n := range many {
		many[n] = file1("f"+string(rune('A'+n)), "")
	}
	for name, tt := range map[string]struct {
		layers [][]entry
		want   string
	}{
		"traversal":               {[][]entry{{file1("../beside", "x")}}, "leads out"},
		"traversal inside":        {[][]entry{{file1("a/../../beside", "x")}}, "leads out"},
		"hard link out":           {[][]entry{{link(tar.TypeLink, "a", "../../../../../etc/passwd")}}, "leads out"},
		"hard link to nothing":    {[][]entry{{link(tar.TypeLink, "a", "/etc/shadow")}}, "does not exist"},
		"hard link through links": {[][]entry{{link(tar.TypeSymlink, "d", "/etc"), link(tar.TypeLink, "a", "d/shadow")}}, "does not exist"},
		"hard link to a folder":   {[][]entry{{folder("d"), link(tar.TypeLink, "a", "d")}}, "no file of the image"},
		"device":                  {[][]entry{{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Devmajor: 8, Mode: 0o666}}}}, "device"},
		"character device":        {[][]entry{{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/mem", Devmajor: 1, Devminor: 1}}}}, "device"},
		"pipe":                    {[][]entry{{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p"}}}}, "device or pipe"},
		"links in a circle":       {[][]entry{{link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), file1("a/x", "y")}}, "too many links"},
		"a file as a folder":      {[][]entry{{file1("a", "b"), file1("a/x", "y")}}, "no folder"},
		"whiteout of nothing":     {[][]entry{{file1(".wh...", "")}}, "whiteout of nothing"},
		"too many files":          {[][]entry{many}, "too many files"},
		"too many bytes":          {[][]entry{{file1("a", zeros)}, {file1("b", zeros)}, {file1("c", zeros)}}, "too large"},
		"too many layers":         {[][]entry{{file1("a", "")}, {file1("b", "")}, {file1("c", "")}, {file1("d", "")}, {file1("e", "")}}, "layers"},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []v1.Layer
			for _, entries := range tt.layers {
				layers = append(layers, layer(t, entries...))
			}
			_, err := unpackTo(t, imageOf(t, v1.Config{}, layers...), bounds{bytes: 2 << 20, entries: 30, layers: 4})
			if !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrArtifact with %q", err, tt.want)
			}
		})
	}
}

// A sparse file takes no place in its archive.
func TestSparseBomb(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Size: 512, Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{}}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, strings.Repeat("x", 512))
	w.Close()
	// The header as GNU tar writes it for 1 TiB of which 512 bytes are there (old GNU format, tar(5)).
	block := b.Bytes()
	block[156] = tar.TypeGNUSparse
	copy(block[257:], "ustar  \x00")
	copy(block[386:], "00000000000\x00"+"00000001000\x00")
	copy(block[482:], "\x00")
	copy(block[483:], []byte{0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0})
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block[:512] {
		sum += int(c)
	}
	copy(block[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	h2, err := tar.NewReader(bytes.NewReader(block)).Next()
	if err != nil || h2.Size != 1<<40 {
		t.Fatalf("the bomb is none: %+v %v", h2, err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tr := &tree{root: root, left: bounds{bytes: 1 << 20, entries: 10}}
	if err := tr.apply(bytes.NewReader(block)); !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a sparse file of 1 TiB: %v", err)
	}
}

// Bytes that are not those which the configuration names are refused.
func TestWrongBytes(t *testing.T) {
	img := imageOf(t, v1.Config{}, layer(t, file1("a", "b")))
	cfg, _, err := configuration(img)
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := unpack(t.Context(), img, cfg, root, standard); !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), "want sha256:000") {
		t.Errorf("a layer with another digest: %v", err)
	}
}

// FuzzLayer: no bytes write outside the root, take more than they may, or end the program.
func FuzzLayer(f *testing.F) {
	for _, entries := range [][]entry{
		{file1("a/b", "c"), link(tar.TypeSymlink, "l", "/a"), file1("l/d", "e"), file1("l/.wh.b", "")},
		{link(tar.TypeSymlink, "l", "../.."), file1("l/x", "y"), link(tar.TypeLink, "h", "l/x")},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range entries {
			e.Size = int64(len(e.text))
			w.WriteHeader(&e.Header)
			io.WriteString(w, e.text)
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		above := t.TempDir()
		if err := os.Mkdir(filepath.Join(above, "root"), 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(above, "root"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		tr := &tree{root: root, left: bounds{bytes: 1 << 20, entries: 100}}
		_ = tr.apply(&bounded{ctx: t.Context(), r: bytes.NewReader(b), left: &tr.left.bytes})
		if beside, _ := os.ReadDir(above); len(beside) != 1 {
			t.Errorf("written outside: %v", beside)
		}
	})
}
