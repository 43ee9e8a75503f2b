package blob

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a bundle.
const (
	MaxBundle  = 4 << 30 // bytes of all its files
	MaxEntries = 200_000 // files, folders and links
)

// bounds are those above, or smaller ones in a test.
type bounds struct {
	bytes   int64
	entries int
}

var standard = bounds{MaxBundle, MaxEntries}

// Pack writes the named files and folders below root as a bundle: a tar archive (POSIX.1-2001) that depends
// on names, content and executable bits alone, so that the same files have the same digest on every machine.
// Paths are relative to root; "." is all of it. A link is kept when it leads to something inside root;
// links that leave it, devices, sockets and pipes are refused.
func Pack(w io.Writer, root string, paths []string) error {
	if err := pack(w, root, paths, standard); err != nil {
		return fmt.Errorf("pack %s: %w", root, err)
	}
	return nil
}

func pack(w io.Writer, root string, paths []string, most bounds) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	found := map[string]fs.FileInfo{}
	for _, p := range paths {
		if err := collect(r, p, found, most); err != nil {
			return err
		}
	}
	names := slices.Sorted(maps.Keys(found))
	tw := tar.NewWriter(w)
	left := most.bytes
	for _, n := range names {
		if err := checkName(n); err != nil {
			return err
		}
		for dir := path.Dir(n); dir != "."; dir = path.Dir(dir) {
			if info := found[dir]; info != nil && info.Mode()&fs.ModeSymlink != 0 {
				return fmt.Errorf("%s goes through the link %s: name the file that it leads to", n, dir)
			}
		}
		if found[n].Mode().IsRegular() {
			left -= found[n].Size()
		}
		if left < 0 {
			return fmt.Errorf("%s: the bundle is larger than %d bytes", n, most.bytes)
		}
		if err := packOne(tw, r, n, found[n]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// collect adds p and all below it to found.
func collect(r *os.Root, p string, found map[string]fs.FileInfo, most bounds) error {
	p = path.Clean(filepath.ToSlash(p))
	if !fs.ValidPath(p) {
		return fmt.Errorf("%s: want a path below the folder", p)
	}
	start, err := r.Lstat(filepath.FromSlash(p))
	if err != nil {
		return err
	}
	if !start.IsDir() { // WalkDir would follow a link that it starts at
		found[p] = start
		return nil
	}
	return fs.WalkDir(r.FS(), p, func(n string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := r.Lstat(filepath.FromSlash(n))
		if err != nil {
			return err
		}
		if n != "." {
			found[n] = info
		}
		if len(found) > most.entries {
			return fmt.Errorf("%s: the bundle has more than %d files", n, most.entries)
		}
		return nil
	})
}

func packOne(tw *tar.Writer, r *os.Root, n string, info fs.FileInfo) error {
	local := filepath.FromSlash(n)
	head := tar.Header{Name: n, Mode: 0o644} // no times, no owner
	switch mode := info.Mode(); {
	case mode.IsDir():
		head.Typeflag, head.Name, head.Mode = tar.TypeDir, n+"/", 0o755
		return tw.WriteHeader(&head)
	case mode&fs.ModeSymlink != 0:
		to, err := r.Readlink(local)
		if err != nil {
			return err
		}
		head.Typeflag, head.Linkname = tar.TypeSymlink, filepath.ToSlash(to)
		if err := checkLink(n, head.Linkname); err != nil {
			return err
		}
		return tw.WriteHeader(&head)
	case !mode.IsRegular():
		return fmt.Errorf("%s is a %s: a bundle holds files, folders and links", n, kindOf(mode))
	}
	f, err := r.Open(local)
	if err != nil {
		return err
	}
	defer f.Close()
	first := make([]byte, 4)
	got, err := io.ReadFull(f, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read %s: %w", n, err)
	}
	if info.Mode()&0o111 != 0 || runtime.GOOS == "windows" && runnable(n, first[:got]) {
		head.Mode = 0o755
	}
	head.Typeflag, head.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(&head); err != nil {
		return err
	}
	size, err := io.Copy(tw, io.MultiReader(bytes.NewReader(first[:got]), f))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && size != info.Size() {
		return fmt.Errorf("%s changed while it was packed", n)
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", n, err)
	}
	return nil
}

// runnable stands for the executable bit, which Windows does not have: a program is known by its first
// bytes (#!, ELF, MZ, Mach-O in both orders and fat) or its name.
func runnable(name string, first []byte) bool {
	for _, magic := range []string{"#!", "\x7fELF", "MZ", "\xcf\xfa\xed\xfe", "\xfe\xed\xfa\xcf", "\xca\xfe\xba\xbe"} {
		if bytes.HasPrefix(first, []byte(magic)) {
			return true
		}
	}
	return slices.Contains([]string{".bat", ".cmd", ".ps1", ".sh"}, strings.ToLower(path.Ext(name)))
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeDevice != 0:
		return "device"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "special file"
}

// checkName refuses what leads out of the bundle on this machine, and names that mean something else on
// another: a backslash separates folders on Windows.
func checkName(n string) error {
	bad := func(r rune) bool { return unicode.IsControl(r) || r == '\\' }
	switch {
	case !utf8.ValidString(n) || strings.ContainsFunc(n, bad):
		return fmt.Errorf("name %q: a bundle takes no backslash, control character or broken UTF-8 in a name", n)
	case !fs.ValidPath(n) || n == "." || !filepath.IsLocal(filepath.FromSlash(n)):
		return fmt.Errorf("name %q leads out of the bundle", n)
	}
	return nil
}

// checkLink refuses a link at n, in a folder that is no link itself, that could lead out of the bundle.
// ".." may stand only at the start of a target: there it leaves folders that are real. After a name, which
// may be a link to anywhere in the bundle, it would leave that link's target instead.
func checkLink(n, to string) error {
	parts := strings.Split(to, "/")
	up := 0
	for up < len(parts) && parts[up] == ".." {
		up++
	}
	depth := strings.Count(n, "/")
	switch {
	case to == "" || path.IsAbs(to) || up > depth || slices.Contains(parts[up:], ".."):
	case up == len(parts): // a folder above
		return nil
	case path.Clean(to) == "." || checkName(path.Join(parts[up:]...)) == nil:
		return nil
	}
	return fmt.Errorf("%s links to %q, which is or may be outside of the bundle", n, to)
}

// Unpack makes what [Pack] packed below dir, which must be empty or not exist yet. It trusts nothing: names
// and links that lead out, two entries of one name, devices, hard links and archives beyond the bounds are
// refused, and no file is ever written through a link. It reads no further than the archive's end. What it
// made before an error stays: the caller throws dir away.
func Unpack(r io.Reader, dir string) error {
	if err := unpack(r, dir, standard); err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	return nil
}

func unpack(r io.Reader, dir string, most bounds) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return errors.Join(err, errors.New("the folder is not empty"))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	links := map[string]string{}
	tr := tar.NewReader(r)
	left := most.bytes
	for count := 0; ; count++ {
		head, err := tr.Next()
		if err == io.EOF {
			return link(root, links)
		}
		if err != nil {
			return fmt.Errorf("not a bundle: %w", err)
		}
		if count == most.entries {
			return fmt.Errorf("the bundle has more than %d files", most.entries)
		}
		n := strings.TrimSuffix(head.Name, "/")
		if err := checkName(n); err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.FromSlash(path.Dir(n)), 0o755); err != nil {
			return err
		}
		switch head.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(filepath.FromSlash(n), 0o755)
		case tar.TypeSymlink:
			if _, twice := links[n]; twice {
				err = fmt.Errorf("%s stands twice in the bundle", n)
			}
			links[n] = head.Linkname // made last: nothing is written through them
		case tar.TypeReg:
			if left -= head.Size; left < 0 {
				return fmt.Errorf("%s: the bundle is larger than %d bytes", n, most.bytes)
			}
			err = unpackFile(root, n, head, tr)
		default:
			err = fmt.Errorf("%s: entry of type %q: a bundle holds files, folders and links", n, head.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, n string, head *tar.Header, r io.Reader) error {
	mode := fs.FileMode(0o644)
	if head.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := root.OpenFile(filepath.FromSlash(n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// link makes the links when all else is there. None stands in a folder that is a link, so that the folders
// which checkLink lets a target leave are real.
func link(root *os.Root, links map[string]string) error {
	for _, n := range slices.Sorted(maps.Keys(links)) {
		if err := checkLink(n, links[n]); err != nil {
			return err
		}
		if err := root.Symlink(filepath.FromSlash(links[n]), filepath.FromSlash(n)); err != nil {
			return err // also when a folder or file of that name is there
		}
	}
	return nil
}

// protect takes the right to write from all below dir, and gives everybody the right to read: the folder
// above decides who comes here.
func protect(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o444)
		if e.IsDir() || info.Mode()&0o111 != 0 {
			mode = 0o555
		}
		return os.Chmod(p, mode)
	})
}
