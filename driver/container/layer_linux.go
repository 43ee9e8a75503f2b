package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"servent/driver"
)

// layer gives an instance its root file system at dir/layer/root: the image, with a layer of its own over it
// that takes what it writes, by overlayfs, which is mounted in the room alone; or a copy, where a kernel or the
// file system below cannot.
func (p *prepared) layer(r *room, dir string) error {
	base := filepath.Join(dir, "layer")
	at, upper, work := filepath.Join(base, "root"), filepath.Join(base, "upper"), filepath.Join(base, "work")
	info, err := os.Stat(p.root)
	if err != nil {
		return err
	}
	for _, d := range []string{at, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(upper, info.Mode().Perm()); err != nil { // it is what the root is seen as
		return err
	}
	err = r.do(func() error {
		options := "lowerdir=" + escape(p.root) + ",upperdir=" + escape(upper) + ",workdir=" + escape(work)
		return unix.Mount("overlay", at, "overlay", unix.MS_NODEV, options)
	})
	if err == nil {
		return nil
	}
	if err := copyTree(p.root, at); err != nil {
		return fmt.Errorf("copy the image: %w", err)
	}
	return nil
}

// escape hides what means something among mount options.
func escape(path string) string {
	var out []byte
	for i := range len(path) {
		if c := path[i]; c == ',' || c == ':' || c == '\\' {
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

// fill gives an empty volume what the image, whose root file system is given, has at its place, with owners and modes, as Docker does.
func fill(image, volume, target string) error {
	have, err := os.ReadDir(volume)
	if err != nil || len(have) > 0 {
		return err
	}
	root, err := os.OpenRoot(image)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := within(root, target[1:], func(string) error { return fs.ErrNotExist })
	if errors.Is(err, fs.ErrNotExist) {
		return os.Chmod(volume, 0o755)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrArtifact, err)
	}
	return copyTree(filepath.Join(image, filepath.FromSlash(dir)), volume)
}

// copyTree copies what lies in a folder, and the folder's own owner and mode, into another that is there. The
// tree is one that nobody else writes, and no link is followed.
func copyTree(from, to string) error {
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	return fs.WalkDir(src.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := src.Lstat(name)
		if err != nil {
			return err
		}
		name = path.Clean(name)
		switch {
		case info.IsDir():
			if err := dst.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := src.Readlink(name)
			if err == nil {
				err = dst.Symlink(link, name)
			}
			return errors.Join(err, owner(dst, name, info))
		case info.Mode().IsRegular():
			if err := copyFile(src, dst, name); err != nil {
				return err
			}
		default:
			return nil
		}
		const modes = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
		return errors.Join(owner(dst, name, info), dst.Chmod(name, info.Mode()&modes))
	})
}

func copyFile(src, dst *os.Root, name string) error {
	r, err := src.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

func owner(dst *os.Root, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return dst.Lchown(name, int(st.Uid), int(st.Gid))
}
