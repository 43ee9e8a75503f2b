package blob

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"servent/system"
)

// hello is the SHA-256 of "hello", FIPS 180-4, as sha256sum prints it.
const hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

func store(t *testing.T) *Store {
	s := &Store{Dir: filepath.Join(t.TempDir(), "store")}
	t.Cleanup(func() { // before the test's own, which cannot empty read-only folders
		if err := RemoveAll(s.Dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// left lists what stands in a folder of the store.
func left(t *testing.T, s *Store, kind string) []string {
	t.Helper()
	entries, err := os.ReadDir(s.path(kind, ""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPutOpen(t *testing.T) {
	s := store(t)
	if s.Has(hello) {
		t.Error("an empty store has a blob")
	}
	for range 2 { // the second time it is there already
		d, err := s.Put(strings.NewReader("hello"))
		if d != hello || err != nil {
			t.Fatalf("Put() = %s, %v, want %s", d, err, hello)
		}
	}
	if got := all(t, s, hello); got != "hello" {
		t.Errorf("read %q, want hello", got)
	}
	if n := left(t, s, "tmp"); len(n) > 0 {
		t.Errorf("tmp holds %v, want nothing", n)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for p, want := range map[string]fs.FileMode{s.Dir: 0o700, s.path("blobs", ""): 0o700, s.path("blobs", hello[7:]): 0o600} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", p, info.Mode(), err, want)
		}
	}
}

func all(t *testing.T, s *Store, d system.Digest) string {
	t.Helper()
	r, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPutAsRefusesOtherBytes(t *testing.T) {
	s := store(t)
	if err := s.PutAs(hello, strings.NewReader("help")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("PutAs() = %v, want ErrCorrupt", err)
	}
	if s.Has(hello) || len(left(t, s, "tmp")) > 0 {
		t.Errorf("left: %v, %v", s.Has(hello), left(t, s, "tmp"))
	}
	if err := s.PutAs(hello, strings.NewReader("hello")); err != nil || !s.Has(hello) {
		t.Errorf("PutAs() = %v, Has() = %v", err, s.Has(hello))
	}
}

func TestPutLeavesNothingOfABrokenRead(t *testing.T) {
	s, broken := store(t), errors.New("cable cut")
	_, err := s.Put(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || len(left(t, s, "tmp"))+len(left(t, s, "blobs")) > 0 {
		t.Errorf("Put() = %v, left %v %v", err, left(t, s, "tmp"), left(t, s, "blobs"))
	}
}

func TestMissingAndBadDigests(t *testing.T) {
	s := store(t)
	if _, err := s.Open(hello); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open() = %v, want ErrNotFound", err)
	}
	if _, err := s.Bundle(hello); !errors.Is(err, ErrNotFound) {
		t.Errorf("Bundle() = %v, want ErrNotFound", err)
	}
	for _, d := range []system.Digest{"", "sha256:", "sha256:..", "sha256:../../etc/passwd", system.Digest(hello[7:]), "md5:" + system.Digest(hello[7:]), hello + "0", system.Digest(strings.ToUpper(hello)), "sha256:" + system.Digest(strings.ToUpper(hello[7:]))} {
		_, openErr := s.Open(d)
		_, bundleErr := s.Bundle(d)
		putErr := s.PutAs(d, strings.NewReader("hello"))
		for _, err := range []error{openErr, bundleErr, putErr} {
			if err == nil || !strings.Contains(err.Error(), "want sha256:") {
				t.Errorf("digest %q: %v, want a refusal", d, err)
			}
		}
		if s.Has(d) {
			t.Errorf("Has(%q)", d)
		}
	}
}

func TestRottenBytesAreRefusedAndForgotten(t *testing.T) {
	s := store(t)
	if err := s.PutAs(hello, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("blobs", hello[7:]), []byte("jello"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(hello)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read %q, %v, want ErrCorrupt", b, err)
	}
	if runtime.GOOS != "windows" && s.Has(hello) {
		t.Error("the store still claims to have the bytes")
	}
}

func TestConcurrentPuts(t *testing.T) {
	s := store(t)
	content := make([]byte, 1<<20)
	rand.Read(content)
	var wg sync.WaitGroup
	digests := make([]system.Digest, 8)
	for i := range digests {
		wg.Go(func() {
			var err error
			if digests[i], err = s.Put(iotest.HalfReader(bytes.NewReader(content))); err != nil {
				t.Error(err)
			}
			if got := all(t, s, digests[i]); got != string(content) {
				t.Errorf("put %d reads other bytes", i)
			}
		})
	}
	wg.Wait()
	if len(left(t, s, "blobs")) != 1 || len(left(t, s, "tmp")) != 0 {
		t.Errorf("blobs %v, tmp %v, want one and none", left(t, s, "blobs"), left(t, s, "tmp"))
	}
}

func TestBundle(t *testing.T) {
	s := store(t)
	some := tree{"bin/api": "#!/bin/sh", "page": "x", "l": "->bin/api"}
	d, err := s.Put(bytes.NewReader(packed(t, some.make(t, t.TempDir()), ".")))
	if err != nil {
		t.Fatal(err)
	}
	other := &Store{Dir: s.Dir} // as another process
	var wg sync.WaitGroup
	dirs := make([]string, 12)
	for i := range dirs {
		wg.Go(func() {
			var err error
			if dirs[i], err = []*Store{s, other}[i%2].Bundle(d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, dir := range dirs {
		if dir != dirs[0] {
			t.Errorf("bundles in %s and %s, want one folder", dir, dirs[0])
		}
	}
	if n := left(t, s, "bundles"); len(n) != 1 {
		t.Errorf("bundles hold %v, want one", n)
	}
	if got := read(t, dirs[0]); got["page"] != "x" || got["l"] != "->bin/api" || got["bin/api"] != "#!/bin/sh" {
		t.Errorf("bundle holds %v", got)
	}
	for p, want := range map[string]fs.FileMode{"": 0o555, "bin": 0o555, "bin/api": 0o555, "page": 0o444} {
		if info, err := os.Stat(filepath.Join(dirs[0], p)); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != want) {
			t.Errorf("%q has mode %v, %v, want %v", p, info.Mode(), err, want)
		}
	}
	if err := s.Prune(func(system.Digest) bool { return false }); err != nil {
		t.Error(err)
	}
	if left := append(left(t, s, "bundles"), left(t, s, "blobs")...); len(left) > 0 {
		t.Errorf("pruned, and there are %v", left)
	}
}

func TestBundleOfNoArchiveLeavesNothing(t *testing.T) {
	s := store(t)
	whole := packed(t, tree{"a": "x", "b": "->a"}.make(t, t.TempDir()), ".")
	for _, bad := range [][]byte{[]byte("hello"), whole[:300], entries(t, file("f"), symlink("l", "../.."))} {
		d, err := s.Put(bytes.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if dir, err := s.Bundle(d); err == nil || dir != "" {
			t.Errorf("Bundle() = %q, %v, want an error", dir, err)
		}
		if n := left(t, s, "bundles"); len(n) > 0 {
			t.Errorf("bundles hold %v, want nothing", n)
		}
	}
}

func TestBundleOfRottenBytes(t *testing.T) {
	s := store(t)
	b := packed(t, tree{"a": "some content"}.make(t, t.TempDir()), ".")
	d, err := s.Put(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, bytes.Index(b, []byte("some content")), len(b) - 1} { // name, content, after the end
		rotten := bytes.Clone(b)
		rotten[at] ^= 1
		if err := os.WriteFile(s.path("blobs", string(d[7:])), rotten, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bundle(d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: Bundle() = %v, want ErrCorrupt", at, err)
		}
	}
}

func TestPruneKeeps(t *testing.T) {
	s := store(t)
	if err := s.Prune(func(system.Digest) bool { return true }); err != nil {
		t.Errorf("Prune() of a store that is not there = %v", err)
	}
	var ds []system.Digest
	for _, text := range []string{"one", "two"} {
		d, err := s.Put(bytes.NewReader(packed(t, tree{text: text}.make(t, t.TempDir()), ".")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bundle(d); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	// One unfinished write of long ago, one of now.
	old, now := s.path("tmp", "blob-old"), s.path("tmp", "blob-now")
	long := time.Now().Add(-2 * abandoned)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(now, nil, 0o600), os.Chtimes(old, long, long)); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(func(d system.Digest) bool { return d == ds[0] }); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]string{string(ds[0][7:])})
	for _, kind := range []string{"blobs", "bundles"} {
		if got := fmt.Sprint(left(t, s, kind)); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	if got, want := fmt.Sprint(left(t, s, "tmp")), "[blob-now]"; got != want {
		t.Errorf("tmp: %s, want %s", got, want)
	}
}

func TestRemoveAllOfReadOnlyFolders(t *testing.T) {
	dir := tree{"a/b/c": "x", "l": "->../outside"}.make(t, filepath.Join(t.TempDir(), "in"))
	outside := tree{"mine": "x"}.make(t, filepath.Join(filepath.Dir(dir), "outside"))
	if err := protect(dir); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after RemoveAll: %v", err)
	}
	if got := read(t, outside); got["mine"] != "x" {
		t.Error("a link was followed")
	}
}

// TestKill kills a process again and again while it puts blobs and bundles; whatever has a name afterwards is whole.
func TestKill(t *testing.T) {
	if dir := os.Getenv("BLOB_TEST_DIR"); dir != "" {
		putForever(&Store{Dir: dir})
	}
	s := store(t)
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "BLOB_TEST_DIR="+s.Dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 30)); err != nil { // it has begun; killed at any point of the next
			t.Error(err)
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	for _, n := range left(t, s, "blobs") {
		all(t, s, prefix+system.Digest(n))
	}
	whole := 0
	for _, n := range left(t, s, "bundles") {
		if !strings.HasPrefix(n, "tmp-") {
			whole++
			if got := len(read(t, s.path("bundles", n))); got != 20 {
				t.Errorf("bundle %s has %d files, want 20", n, got)
			}
		}
	}
	if whole < rounds {
		t.Errorf("%d bundles, want at least %d", whole, rounds)
	}
}

func putForever(s *Store) {
	root, err := os.MkdirTemp(filepath.Dir(s.Dir), "tree")
	for i := 0; err == nil; i++ {
		for f := range 20 {
			err = errors.Join(err, os.WriteFile(filepath.Join(root, fmt.Sprint(f)), fmt.Appendf(nil, "%d %d %d", os.Getpid(), i, f), 0o600))
		}
		var b bytes.Buffer
		var d system.Digest
		err = errors.Join(err, Pack(&b, root, []string{"."}))
		if err == nil {
			d, err = s.Put(&b)
		}
		if err == nil {
			_, err = s.Bundle(d)
		}
		fmt.Print("put and unpacked\n")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func FuzzDigest(f *testing.F) {
	for _, d := range []string{hello, "", "sha256:", "sha256:../x", strings.ToUpper(hello)} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, d string) {
		file, err := name(system.Digest(d))
		if err == nil && (prefix+file != d || strings.ContainsAny(file, `/\.:`)) {
			t.Errorf("name(%q) = %q", d, file)
		}
	})
}

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	for _, text := range []string{"old", "new"} {
		if err := Replace(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("file = %q, %v; want %q", got, err, text)
		}
	}
	if all, _ := os.ReadDir(filepath.Dir(file)); len(all) != 1 {
		t.Errorf("%d files are left, want one", len(all))
	}
	if err := Replace(filepath.Join(file, "no folder"), nil, 0o600); err == nil {
		t.Error("no error where there is no folder")
	}
}
