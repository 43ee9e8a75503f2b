// Command dist makes what a release consists of: an archive for each platform, Debian packages, and their SHA-256 sums. The same
// commit gives the same bytes: times are the commit's, files are sorted, and paths of the machine that builds are left out
// (reproducible-builds.org/docs/source-date-epoch). Debian packages are written by nfpm (tools.mod). Run it at the module's root.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is a platform that a release is made for, in Go's words.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "/" + t.arch }

var targets = []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}}

// next is the version that is worked on while no tag names one.
const next = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("o", "dist", "write to `FOLDER`")
	only := flag.String("targets", "", "only these `OS/ARCH,…`; all by default")
	flag.Parse()
	if err := run(ctx, *out, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, only string, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("want no words, have %q", rest)
	}
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	r := release{out: out}
	if r.version, r.at, err = describe(ctx); err != nil {
		return err
	}
	return r.make(ctx, chosen)
}

// choose reads OS/ARCH,….
func choose(only string) ([]target, error) {
	if only == "" {
		return targets, nil
	}
	var chosen []target
	for word := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(targets, func(t target) bool { return t.String() == word })
		if i < 0 {
			return nil, fmt.Errorf("-targets: want some of %v, have %q", targets, word)
		}
		chosen = append(chosen, targets[i])
	}
	return chosen, nil
}

// describe is the version of what is checked out, and when it was committed. A tag vX.Y.Z at the commit is the version; elsewhere it is a
// development version in the words of semver.org 2.0.0 §9 and §10, with the commit, and whether files differ from it.
func describe(ctx context.Context) (string, time.Time, error) {
	commit, err := output(ctx, "git", "log", "-1", "--format=%ct %h", "--abbrev=12")
	if err != nil {
		return "", time.Time{}, fmt.Errorf("the version is that of the commit: %w", err)
	}
	seconds, hash, _ := strings.Cut(commit, " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("time of the commit: %w", err)
	}
	count, err := output(ctx, "git", "rev-list", "--count", "HEAD")
	if err != nil {
		return "", time.Time{}, err
	}
	changed, err := output(ctx, "git", "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", time.Time{}, err
	}
	tag, err := output(ctx, "git", "describe", "--tags", "--exact-match", "--match", "v[0-9]*")
	if err != nil { // none is at this commit
		tag = ""
	}
	return named(tag, count, hash, changed != ""), time.Unix(at, 0).UTC(), nil
}

func named(tag, count, hash string, changed bool) string {
	v := strings.TrimPrefix(tag, "v")
	if v == "" {
		v = next + "-dev." + count + ".g" + hash
	}
	if changed {
		v += "+changed"
	}
	return v
}

// release is one version in the making.
type release struct {
	out     string
	version string
	at      time.Time // of every file in it
}

func (r *release) make(ctx context.Context, chosen []target) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "servent-dist-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	words, err := r.words(ctx, tmp)
	if err != nil {
		return err
	}
	var made []string
	for _, t := range chosen {
		binary := filepath.Join(tmp, t.os+"-"+t.arch, "servent")
		if err := r.build(ctx, "./cmd/servent", binary, t); err != nil {
			return err
		}
		name, err := r.archive(t, binary, words)
		if err != nil {
			return fmt.Errorf("archive for %s: %w", t, err)
		}
		made = append(made, name)
		if t.os == "linux" {
			if name, err = r.deb(ctx, t, tmp, binary, words); err != nil {
				return fmt.Errorf("package for %s: %w", t, err)
			}
			made = append(made, name)
		}
	}
	return r.sums(made)
}

// build compiles a program that holds no path of this machine and needs no library.
func (r *release) build(ctx context.Context, pkg, to string, t target) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -buildid= -X servent/cli.Version="+r.version, "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.os, "GOARCH="+t.arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build for %s: %w", t, err)
	}
	return nil
}

// file is one file of an archive or package.
type file struct {
	name string // in an archive
	path string // here
	deb  string // in a Debian package; empty: not there
	mode fs.FileMode
}

// words are what comes with the program: pages of the manual and words for shells, which the program of this machine writes, and the texts.
func (r *release) words(ctx context.Context, tmp string) ([]file, error) {
	host := filepath.Join(tmp, "host")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X servent/cli.Version="+r.version, "-o", host, "./cmd/servent")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build for this machine: %w\n%s", err, said)
	}
	man := filepath.Join(tmp, "man")
	if err := os.Mkdir(man, 0o755); err != nil {
		return nil, err
	}
	if err := r.ask(ctx, io.Discard, host, "man", man); err != nil {
		return nil, err
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil || len(pages) == 0 {
		return nil, errors.Join(err, errors.New("the program wrote no page of its manual"))
	}
	files := []file{
		{"LICENSE", "LICENSE", "/usr/share/doc/servent/copyright", 0o644},
		{"README.md", "README.md", "/usr/share/doc/servent/README.md", 0o644},
		{"CHANGELOG.md", "CHANGELOG.md", "/usr/share/doc/servent/CHANGELOG.md", 0o644},
	}
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		return nil, err
	}
	for _, p := range docs {
		name := filepath.ToSlash(p)
		files = append(files, file{name, p, "/usr/share/doc/servent/" + name, 0o644})
	}
	for _, p := range pages {
		packed := p + ".gz" // Debian Policy §12.1: manual pages are compressed
		if err := gzipped(p, packed); err != nil {
			return nil, err
		}
		files = append(files, file{"man/" + filepath.Base(p), p, "", 0o644}, file{"", packed, "/usr/share/man/man1/" + filepath.Base(packed), 0o644})
	}
	for _, sh := range []struct{ name, deb string }{{"bash", "/usr/share/bash-completion/completions/servent"},
		{"zsh", "/usr/share/zsh/vendor-completions/_servent"}, {"fish", "/usr/share/fish/vendor_completions.d/servent.fish"}} {
		p := filepath.Join(tmp, "servent."+sh.name)
		var b bytes.Buffer
		if err := r.ask(ctx, &b, host, "completion", sh.name); err != nil {
			return nil, err
		}
		if err := os.WriteFile(p, b.Bytes(), 0o644); err != nil {
			return nil, err
		}
		files = append(files, file{"completion/servent." + sh.name, p, sh.deb, 0o644})
	}
	return files, nil
}

// ask has a program write something at the release's time.
func (r *release) ask(ctx context.Context, out io.Writer, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.at.Unix(), 10))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return nil
}

// gzipped writes a file without name and time, as gzip -9n does.
func gzipped(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

// archive writes a .tar.gz, for Windows a .zip, all in one folder. It returns its name.
func (r *release) archive(t target, binary string, words []file) (string, error) {
	top := "servent-" + r.version + "-" + strings.Replace(t.os, "darwin", "macos", 1) + "-" + t.arch
	program, pack, tail := "servent", r.tarred, ".tar.gz"
	if t.os == "windows" {
		program, pack, tail = "servent.exe", r.zipped, ".zip"
	}
	files := []file{{name: path.Join(top, program), path: binary, mode: 0o755}}
	for _, f := range words {
		if f.name != "" {
			f.name = path.Join(top, f.name)
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	out, err := os.Create(filepath.Join(r.out, top+tail))
	if err != nil {
		return "", err
	}
	return top + tail, errors.Join(pack(out, files), out.Close())
}

func (r *release) tarred(w io.Writer, files []file) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(z)
	for _, f := range files {
		if err := copied(f.path, func(size int64) (io.Writer, error) {
			return tw, tw.WriteHeader(&tar.Header{Name: f.name, Mode: int64(f.mode), Size: size, ModTime: r.at, Uname: "root", Gname: "root"})
		}); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), z.Close())
}

func (r *release) zipped(w io.Writer, files []file) error {
	zw := zip.NewWriter(w)
	for _, f := range files {
		if err := copied(f.path, func(int64) (io.Writer, error) {
			h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: r.at}
			h.SetMode(f.mode)
			return zw.CreateHeader(h)
		}); err != nil {
			return err
		}
	}
	return zw.Close()
}

// copied puts a file's bytes where begin says.
func copied(from string, begin func(size int64) (io.Writer, error)) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	w, err := begin(info.Size())
	if err == nil {
		_, err = io.Copy(w, in)
	}
	return err
}

// deb has nfpm write a Debian package. It returns its name.
func (r *release) deb(ctx context.Context, t target, tmp, binary string, words []file) (string, error) {
	files := []file{{path: binary, deb: "/usr/bin/servent", mode: 0o755}}
	for _, f := range words {
		if f.deb != "" {
			files = append(files, f)
		}
	}
	at := r.at.Format(time.RFC3339)
	var y strings.Builder
	fmt.Fprintf(&y, `name: servent
arch: %s
platform: linux
version: %q
version_schema: semver
section: net
priority: optional
maintainer: Servent <noreply@servent.invalid>
mtime: %s
description: |-
  run a Compose file under any distributed-system architecture
  One program that runs the services of a Compose file on one machine or many,
  and measures which architecture scales.
recommends: [runc]
suggests: [podman, qemu-system]
deb:
  compression: xz
contents:
`, t.arch, r.version, at)
	for _, f := range files {
		fmt.Fprintf(&y, "- {src: %q, dst: %q, file_info: {mode: 0%o, mtime: %s, owner: root, group: root}}\n", f.path, f.deb, f.mode, at)
	}
	config := filepath.Join(tmp, "nfpm-"+t.arch+".yaml")
	if err := os.WriteFile(config, []byte(y.String()), 0o644); err != nil {
		return "", err
	}
	name := "servent_" + strings.Replace(r.version, "-dev", "~dev", 1) + "_" + t.arch + ".deb"
	return name, r.ask(ctx, io.Discard, "go", "tool", "-modfile=tools.mod", "nfpm", "package", "-f", config, "-p", "deb", "-t", filepath.Join(r.out, name))
}

// sums writes SHA256SUMS, which sha256sum -c reads, and prints it.
func (r *release) sums(made []string) error {
	slices.Sort(made)
	var b strings.Builder
	for _, name := range made {
		h := sha256.New()
		if err := copied(filepath.Join(r.out, name), func(int64) (io.Writer, error) { return h, nil }); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", h.Sum(nil), name)
	}
	fmt.Print(b.String())
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(b.String()), 0o644)
}

// output is what a program says, without the last line's end.
func output(ctx context.Context, program string, args ...string) (string, error) {
	b, err := exec.CommandContext(ctx, program, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", program, args[0], err)
	}
	return strings.TrimSpace(string(b)), nil
}
