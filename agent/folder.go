package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"servent/blob"
	"servent/driver"
	"servent/system"
)

// folder is the private folder of one instance and what lies around it:
//
//	instances/api/1/         where the program is started
//	instances/api/1/data/    SERVENT_DATA, or what data.path says
//	instances/api/1/tmp/     TMPDIR, emptied for every new instance
//	instances/api/1/.mounts/ configs and secrets, removed when the instance has stopped
//	instances/api/1.lock     held while it runs
//	volumes/db/1/            a named volume's part for the instances with number 1
//
// The folders on the way have mode 0711, so that a program which gives up its rights can still reach what
// it was given; data, temporary files and secrets are 0700.
type folder struct {
	root    string // the node's
	service *system.Service
	name    string // Assignment.Folder
	blob    func(context.Context, system.Digest) (io.ReadCloser, error)
	lock    *os.File // nil: not held
}

const (
	mounts = ".mounts"
	temp   = "tmp"
)

// furnished is what a program must be told of its folder.
type furnished struct {
	dir, data, temp string
	env             []string
	inside          []string       // env as an instance in a container has it
	mounts          []driver.Mount // for one
}

func (f *folder) dir() string {
	return filepath.Join(f.root, "instances", string(f.service.Name), f.name)
}

// furnish makes all that the instance needs, and takes its lock, which it keeps until [folder.leave]. fresh
// is the first time in an instance's life: temporary files of earlier ones go then, and all of its files
// when it has no data. It may be called again before every further start of the same instance.
func (f *folder) furnish(ctx context.Context, fresh bool) (furnished, error) {
	dir := f.dir()
	data, err := f.data(dir)
	if err != nil {
		return furnished{}, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return furnished{}, fmt.Errorf("make private folder: %w", err)
	}
	if f.lock == nil {
		if f.lock, err = lock(dir + ".lock"); err != nil {
			return furnished{}, fmt.Errorf("use folder %s: %w", dir, err)
		}
	}
	if fresh {
		if err := f.clear(dir); err != nil {
			return furnished{}, fmt.Errorf("empty private folder: %w", err)
		}
	}
	out := furnished{dir: dir, data: data, temp: filepath.Join(dir, temp)}
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.MkdirAll(out.temp, 0o700)); err != nil {
		return furnished{}, fmt.Errorf("make private folder: %w", err)
	}
	links := map[string]bool{}
	for i := range f.service.Volumes {
		env, err := f.volume(dir, &f.service.Volumes[i], links)
		if err != nil {
			return furnished{}, err
		}
		out.env = append(out.env, env)
		out.mount(f.service.Volumes[i].Type, env, f.service.Volumes[i].Target, f.service.Volumes[i].ReadOnly)
	}
	// After the volumes: where one is called as the data folder is, it is the data folder.
	if err := os.MkdirAll(data, 0o700); err != nil {
		return furnished{}, fmt.Errorf("make data folder: %w", err)
	}
	out.mounts = append(out.mounts, driver.Mount{Kind: "data", Source: data, Target: dataDir})
	for i := range f.service.Files {
		env, err := f.mount(ctx, dir, &f.service.Files[i])
		if err != nil {
			return furnished{}, err
		}
		out.env = append(out.env, env)
		out.mount("file", env, path.Join("/", f.service.Files[i].Target), true)
	}
	return out, nil
}

// mount notes where an instance in a container finds what the variable says.
func (out *furnished) mount(kind, env, target string, readOnly bool) {
	name, source, _ := strings.Cut(env, "=")
	if kind == "" {
		kind = "volume"
	}
	out.inside = append(out.inside, name+"="+target)
	out.mounts = append(out.mounts, driver.Mount{Kind: kind, Source: source, Target: target, ReadOnly: readOnly})
}

// data is the data folder. It checks all names that come from the plan: none may lead out.
func (f *folder) data(dir string) (string, error) {
	for _, n := range []string{string(f.service.Name), f.name} {
		if err := single(n); err != nil {
			return "", fmt.Errorf("private folder: %w", err)
		}
	}
	p := strings.TrimLeft(filepath.ToSlash(f.service.Data.Path), "/")
	if p == "" {
		p = "data"
	}
	if !filepath.IsLocal(filepath.FromSlash(p)) {
		return "", fmt.Errorf("data path %q leads out of the private folder", f.service.Data.Path)
	}
	return filepath.Join(dir, filepath.FromSlash(p)), nil
}

// single refuses what is not one plain name.
func single(n string) error {
	if !filepath.IsLocal(n) || n == "." || strings.ContainsAny(n, `/\`) {
		return fmt.Errorf("%q is no name of a file", n)
	}
	return nil
}

// clear empties what must not reach a new instance. Volumes are only linked here, and no link is followed.
func (f *folder) clear(dir string) error {
	if f.service.Data.Kind != system.DataSoft && !f.service.Tied() {
		return blob.RemoveAll(dir)
	}
	err := errors.Join(blob.RemoveAll(filepath.Join(dir, temp)), blob.RemoveAll(filepath.Join(dir, mounts)))
	entries, read := os.ReadDir(dir)
	if errors.Is(read, fs.ErrNotExist) {
		return err
	}
	volumes := filepath.Join(f.root, "volumes") + string(filepath.Separator)
	for _, e := range entries { // of a volume that the service may have no more
		if to, no := os.Readlink(filepath.Join(dir, e.Name())); no == nil && strings.HasPrefix(to, volumes) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, read)
}

// volume makes a volume or finds a bound folder, and says where it is as SERVENT_VOLUME_<NAME>. Without
// containers nothing can be mounted at an absolute target, so that the program finds it as a link in its
// private folder as well: at a relative target, or at the last name of an absolute one when that is free.
// Read-only is not enforced without containers.
func (f *folder) volume(dir string, v *system.Volume, links map[string]bool) (string, error) {
	target := path.Clean(filepath.ToSlash(v.Target))
	at, name := "", v.Source
	switch v.Type {
	case "bind":
		name = path.Base(target)
		info, err := os.Stat(v.Source)
		if err != nil {
			return "", fmt.Errorf("bind %s: %w", v.Target, err)
		}
		if at = v.Source; !info.IsDir() && !info.Mode().IsRegular() {
			return "", fmt.Errorf("bind %s: %s is no folder or file", v.Target, v.Source)
		}
	case "tmpfs":
		name = path.Base(target)
		at = filepath.Join(dir, temp, envName(name))
	case "volume", "":
		kept := name
		if name == "" { // anonymous: kept for this service alone
			name = path.Base(target)
			kept = string(f.service.Name) + "." + name
		}
		if err := single(kept); err != nil {
			return "", fmt.Errorf("volume %s: %w", v.Target, err)
		}
		at = filepath.Join(f.root, "volumes", kept, f.name)
		if err := os.MkdirAll(filepath.Dir(at), 0o711); err != nil {
			return "", fmt.Errorf("make volume %s: %w", name, err)
		}
	default:
		return "", fmt.Errorf("volume %s is a %s: want volume, bind or tmpfs", v.Target, v.Type)
	}
	if v.Type != "bind" {
		if err := os.MkdirAll(at, 0o700); err != nil {
			return "", fmt.Errorf("make volume %s: %w", name, err)
		}
	}
	if err := link(dir, target, at, links); err != nil {
		return "", fmt.Errorf("volume %s: %w", v.Target, err)
	}
	return "SERVENT_VOLUME_" + envName(name) + "=" + at, nil
}

// link makes target, in dir, lead to at. A name that an earlier volume of the service took, or that is ours,
// is left alone: the environment names every volume.
func link(dir, target, at string, links map[string]bool) error {
	if path.IsAbs(target) || filepath.IsAbs(target) {
		target = path.Base(target)
	}
	local := filepath.FromSlash(target)
	if !filepath.IsLocal(local) {
		return errors.New("the target leads out of the private folder")
	}
	first, _, _ := strings.Cut(target, "/")
	if first == "." || first == temp || first == mounts || links[target] {
		return nil
	}
	links[target] = true
	name := filepath.Join(dir, local)
	if err := os.MkdirAll(filepath.Dir(name), 0o711); err != nil {
		return err
	}
	if to, err := os.Readlink(name); err == nil && to == at {
		return nil
	}
	// A link of an earlier life gives way, and so does an empty folder.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is in the way: move it, or choose another target", name)
	}
	if err := os.Symlink(at, name); err != nil && runtime.GOOS != "windows" { // which asks for a right that few have
		return err
	}
	return nil
}

// mount writes a config or a secret, readable by its owner alone, and says where it is as
// SERVENT_CONFIG_<NAME> or SERVENT_SECRET_<NAME>. The file has its name, with the ending of its target, which
// programs go by.
func (f *folder) mount(ctx context.Context, dir string, m *system.MountedFile) (string, error) {
	if m.Kind != "config" && m.Kind != "secret" {
		return "", fmt.Errorf("mounted file %s is a %q: want config or secret", m.Name, m.Kind)
	}
	name := m.Name
	if ext := path.Ext(m.Target); path.Ext(name) != ext {
		name += ext
	}
	if err := single(name); err != nil {
		return "", fmt.Errorf("%s: %w", m.Kind, err)
	}
	at := filepath.Join(dir, mounts, m.Kind+"s", name)
	if err := f.write(ctx, at, m); err != nil {
		return "", fmt.Errorf("%s %s: %w", m.Kind, m.Name, err)
	}
	return "SERVENT_" + strings.ToUpper(m.Kind) + "_" + envName(m.Name) + "=" + at, nil
}

func (f *folder) write(ctx context.Context, at string, m *system.MountedFile) (err error) {
	text := io.NopCloser(strings.NewReader(m.Text))
	switch {
	case m.Digest != "" && f.blob == nil:
		return errors.New("this node has no store of blobs")
	case m.Digest != "":
		if text, err = f.blob(ctx, m.Digest); err != nil {
			return err
		}
	case m.From != "" || m.Env != "":
		return errors.New("its content was never sent to this node")
	}
	defer text.Close()
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.RemoveAll(at)); err != nil {
		return err
	}
	mode := fs.FileMode(0o400)
	if f.service.Software.Kind == system.Image { // whoever runs in there; on the node, the folder keeps others out
		mode = 0o444
	}
	w, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, text)
	return errors.Join(err, w.Close())
}

// leave removes secrets and configs and gives up the lock. The instance must be gone.
func (f *folder) leave() error {
	if f.lock == nil {
		return nil // never came, or another process is in there
	}
	err := errors.Join(blob.RemoveAll(filepath.Join(f.dir(), mounts)), f.lock.Close())
	f.lock = nil
	return err
}

// lock takes the file, so that no two instances ever use one folder, also of different nodes. The system
// frees it when this process ends, however it ends. It never waits.
func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, errHeld) {
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		holder, err := io.ReadAll(io.LimitReader(f, 100))
		if err != nil || len(holder) == 0 {
			holder = []byte("another process")
		}
		return nil, fmt.Errorf("%w by %s; stop it first", errHeld, strings.TrimSpace(string(holder)))
	}
	// For whoever finds it held; it is worth nothing otherwise, so that a full disk is no reason to fail.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "process %d\n", os.Getpid())
	}
	return f, nil
}

var errHeld = errors.New("it is in use")
