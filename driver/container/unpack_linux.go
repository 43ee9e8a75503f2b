package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
)

// bounds of an image, or smaller ones in a test.
type bounds struct {
	bytes   int64 // of all layers, unpacked
	entries int   // of all layers
	layers  int
}

var standard = bounds{bytes: 16 << 30, entries: 1_000_000, layers: 127} // so many layers has Docker at the most

// tree is a root file system that layers are unpacked into, one over the other. Nothing in a layer reaches
// outside: os.Root holds what is written, and links are followed as a program in there would follow them.
type tree struct {
	root  *os.Root
	left  bounds
	owned bool // files get their owners: we are root

	// Of the present layer: what it brought, and what lies above that.
	mine, above map[string]bool
	name, at    string // the folder that was looked up last, and where it is
}

// bad is a mistake of the image, which no second try mends.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", driver.ErrArtifact, fmt.Errorf(format, args...))
}

// unpack applies all layers of an image, each checked by its digest.
func unpack(ctx context.Context, img v1.Image, cfg *v1.ConfigFile, root *os.Root, most bounds) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) > most.layers || len(layers) != len(cfg.RootFS.DiffIDs) {
		return bad("%d layers, named %d; want %d at the most", len(layers), len(cfg.RootFS.DiffIDs), most.layers)
	}
	t := &tree{root: root, left: most, owned: os.Geteuid() == 0}
	for n, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
		err = t.check(ctx, r, cfg.RootFS.DiffIDs[n])
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	return nil
}

// check applies a layer and compares its digest.
func (t *tree) check(ctx context.Context, r io.Reader, want v1.Hash) error {
	sum := sha256.New()
	all := io.TeeReader(&bounded{ctx: ctx, r: r, left: &t.left.bytes}, sum)
	if err := t.apply(all); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, all); err != nil { // what follows the archive's end
		return err
	}
	if is := fmt.Sprintf("sha256:%x", sum.Sum(nil)); is != want.String() {
		return bad("its bytes are %s, want %s", is, want)
	}
	return nil
}

// bounded reads until a context ends or there was too much.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return n, bad("the image is too large")
	}
	return n, err
}

func (t *tree) apply(r io.Reader) error {
	t.mine, t.above, t.name = map[string]bool{}, map[string]bool{}, ""
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil && !errors.Is(err, driver.ErrArtifact):
			return bad("no tar archive: %w", err)
		case err != nil:
			return err
		}
		if t.left.entries--; t.left.entries < 0 {
			return bad("the image has too many files")
		}
		if err := t.entry(h, tr); err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
}

// entry applies one file, folder, link or whiteout (OCI image specification, layer.md).
func (t *tree) entry(h *tar.Header, r io.Reader) error {
	if slices.Contains(strings.Split(h.Name, "/"), "..") || strings.ContainsRune(h.Name, 0) || len(h.Name) > 4096 {
		return bad("the name leads out of the image")
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return bad("no name")
		}
		return t.dress(".", h)
	}
	dir, err := t.folder(path.Dir(name), true)
	if err != nil {
		return err
	}
	base := path.Base(name)
	if gone, ok := strings.CutPrefix(base, ".wh."); ok {
		return t.whiteout(dir, gone)
	}
	at := path.Join(dir, base)
	if err := t.clear(at, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	if err := t.make(at, h, r); err != nil {
		return err
	}
	t.mine[at] = true
	for up := path.Dir(at); up != "." && !t.above[up]; up = path.Dir(up) {
		t.above[up] = true
	}
	return nil
}

// clear makes room for an entry: a folder stays where a folder comes.
func (t *tree) clear(at string, folder bool) error {
	info, err := t.root.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir() && folder:
		return nil
	}
	t.name = ""
	return t.root.RemoveAll(at)
}

func (t *tree) make(at string, h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := t.root.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg, tar.TypeGNUSparse:
		if h.Size > t.left.bytes { // a sparse file is larger than its bytes in the archive
			return bad("the image is too large")
		}
		if h.Typeflag == tar.TypeGNUSparse || len(h.PAXRecords) > 0 {
			t.left.bytes -= h.Size
		}
		f, err := t.root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > 4095 {
			return bad("a link to nowhere")
		}
		t.name = ""
		if err := t.root.Symlink(h.Linkname, at); err != nil {
			return err
		}
		return t.chown(at, h)
	case tar.TypeLink:
		return t.link(at, h)
	default: // devices, pipes: a container gets its own, and never the machine's
		return bad("a device or pipe (type %q), which no image needs", h.Typeflag)
	}
	return t.dress(at, h)
}

// link makes a further name of a file of this image.
func (t *tree) link(at string, h *tar.Header) error {
	if slices.Contains(strings.Split(h.Linkname, "/"), "..") {
		return bad("a link that leads out of the image")
	}
	old := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
	dir, err := t.folder(path.Dir(old), false)
	if err != nil {
		return err
	}
	old = path.Join(dir, path.Base(old))
	info, err := t.root.Lstat(old)
	if err != nil || !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
		return bad("a link to %q, which is no file of the image", h.Linkname)
	}
	return t.root.Link(old, at)
}

// dress gives owner, mode and time. No mode survives a change of the owner whole.
func (t *tree) dress(at string, h *tar.Header) error {
	if err := t.chown(at, h); err != nil {
		return err
	}
	if err := t.root.Chmod(at, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	if h.ModTime.IsZero() || h.ModTime.Unix() < 0 {
		return nil
	}
	return t.root.Chtimes(at, h.ModTime, h.ModTime)
}

func (t *tree) chown(at string, h *tar.Header) error {
	const most = 1<<31 - 1
	if h.Uid < 0 || h.Gid < 0 || h.Uid > most || h.Gid > most {
		return bad("owner %d:%d", h.Uid, h.Gid)
	}
	if !t.owned {
		return nil
	}
	return t.root.Lchown(at, h.Uid, h.Gid)
}

// whiteout takes away what lower layers have: one name, or with .wh..wh..opq all of a folder.
func (t *tree) whiteout(dir, gone string) error {
	t.name = ""
	switch {
	case gone == ".wh..opq":
		return t.prune(dir)
	case strings.HasPrefix(gone, ".wh."): // aufs's own notes
		return nil
	case gone == "" || gone == "." || gone == "..":
		return bad("a whiteout of nothing")
	}
	return t.drop(path.Join(dir, gone))
}

// drop removes one name, but for what this layer brought.
func (t *tree) drop(at string) error {
	if !t.mine[at] && !t.above[at] {
		return t.root.RemoveAll(at)
	}
	if info, err := t.root.Lstat(at); err != nil || !info.IsDir() {
		return err
	}
	return t.prune(at)
}

func (t *tree) prune(dir string) error {
	f, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if err := t.drop(path.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// folder finds a folder as a program in the image would, and makes what is missing when asked to. The answer
// goes through no link.
func (t *tree) folder(name string, create bool) (string, error) {
	if t.name == name && t.name != "" {
		return t.at, nil
	}
	at, err := within(t.root, name, func(dir string) error {
		if !create {
			return fs.ErrNotExist
		}
		return t.root.Mkdir(dir, 0o755)
	})
	if err != nil {
		return "", bad("folder %.200q: %w", name, err)
	}
	t.name, t.at = name, at
	return at, nil
}

// within follows a path to a folder below root, with links that begin at root. missing is called for one that
// is not there.
func within(root *os.Root, name string, missing func(string) error) (string, error) {
	at, links := ".", 0
	for rest := strings.Split(name, "/"); len(rest) > 0; {
		n := rest[0]
		rest = rest[1:]
		switch n {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, n)
		info, err := root.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			if err = missing(next); err == nil {
				info, err = root.Lstat(next)
			}
		}
		switch {
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := root.Readlink(next)
			if links++; err != nil || links > 40 {
				return "", errors.Join(err, errors.New("too many links"))
			}
			if path.IsAbs(to) {
				at = "."
			}
			rest = append(strings.Split(to, "/"), rest...)
			continue
		case !info.IsDir():
			return "", fmt.Errorf("%s is no folder", next)
		}
		at = next
	}
	return at, nil
}
