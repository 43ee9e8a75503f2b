package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/blob"
	"servent/driver"
	"servent/driver/container/engine"
	"servent/system"
)

// Probe implements [driver.Driver]. It makes a network and throws it away, and asks runc for its version, or
// another engine where that fails.
func (d *Driver) Probe(ctx context.Context) driver.Caps {
	caps := driver.Caps{Move: driver.MoveWeak, Missing: map[string]string{}, Versions: map[string]string{}}
	version, err := runc(ctx)
	if d.opts.Engine != nil || err != nil {
		return d.probeEngine(ctx, caps, err)
	}
	caps.OK = true
	caps.Versions["runc"] = version
	caps.Limits = append(caps.Limits, "open files")
	for _, c := range controllers {
		if cgroups.controlled(c) {
			caps.Limits = append(caps.Limits, c)
		} else {
			caps.Missing[c] = "no cgroup hierarchy with this controller"
		}
	}
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		caps.Missing["seccomp"] = "this kernel filters no system calls"
	}
	if !overlays() {
		caps.Missing["overlay"] = "this kernel has no overlayfs; every instance gets a copy of its image"
	}
	return caps
}

// runc says which version of it may be used here, or why none may.
func runc(ctx context.Context) (version string, err error) {
	path, err := exec.LookPath("runc")
	if err != nil {
		return "", errors.New("runc is not installed: apt-get install runc")
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	version, _, _ = strings.Cut(strings.TrimPrefix(string(out), "runc version "), "\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("runc does not run: %w", err)
	case older(version):
		return "", fmt.Errorf("runc %s is too old: want 1.1 or newer", version)
	case os.Geteuid() != 0:
		return "", errors.New("a container needs root, for its network and its limits: start servent as root")
	}
	r, err := newRoom(furnished)
	if err != nil {
		return "", fmt.Errorf("this machine gives no namespaces: %w", err)
	}
	r.close()
	return version, nil
}

// older says that a version of runc is before 1.1, the first that keeps a container which has ended.
func older(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err != nil || major < 1 || major == 1 && minor < 1
}

func overlays() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(b)), "overlay")
}

// prepared is an image that this node has unpacked, or that its engine has.
type prepared struct {
	d        *Driver
	software system.Software
	image    v1.Config
	root     string         // its root file system; nobody writes there
	engine   *engine.Client // that has it; nil: it lies at root
	name     string         // by which the engine has it
}

// Prepare fetches and unpacks an image, or gives it to the engine, unless that has been done.
func (d *Driver) Prepare(ctx context.Context, a driver.Artifact) (driver.Prepared, error) {
	if a.Software.Kind != system.Image || a.Software.From == "" {
		return nil, fmt.Errorf("%w: no image", driver.ErrArtifact)
	}
	p := &prepared{d: d, software: a.Software}
	by, err := d.by(ctx)
	switch {
	case err != nil:
	case by != nil:
		p.engine = by
		err = d.given(ctx, a, p)
	default:
		var cfg *v1.ConfigFile
		if cfg, err = d.unpacked(ctx, a, p); err == nil {
			p.image = cfg.Config
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", a.Software.From, err)
	}
	if args, err := p.args(); err != nil || len(args) == 0 || args[0] == "" {
		return nil, errors.Join(fmt.Errorf("%w: %s says no program to run; give it a command", driver.ErrArtifact, a.Software.From), err)
	}
	return p, nil
}

// Close implements [driver.Prepared]: the image stays for the next.
func (p *prepared) Close() error { return nil }

// args is what runs: as Compose has it, an entrypoint of the file's takes the image's command away.
func (p *prepared) args() ([]string, error) {
	entry, command := p.image.Entrypoint, p.image.Cmd
	if c := p.software.Container; c != nil {
		if c.Entrypoint != nil {
			entry, command = c.Entrypoint, nil
		}
		if c.Command != nil {
			command = c.Command
		}
	}
	return append(slices.Clone(entry), command...), nil
}

// key names an unpacked image: by the digest in its name, or by its bundle's.
func key(a driver.Artifact) (string, bool) {
	digest := string(a.Software.Digest)
	if _, local := Local(a.Software.From); !local {
		_, digest, _ = strings.Cut(a.Software.From, "@")
	}
	hex, ok := strings.CutPrefix(digest, "sha256:")
	return hex + "-" + runtime.GOARCH, ok && len(hex) == 64 && filepath.IsLocal(hex)
}

// called finds the name under which an image is kept. A name without a digest is asked for each time.
func called(ctx context.Context, a *driver.Artifact, p *prepared, blobs string) (string, error) {
	if _, ok := key(*a); !ok {
		if err := Resolve(ctx, &a.Software, blobs, a.Dir); err != nil {
			return "", err
		}
		p.software.Container = a.Software.Container
	}
	if name, ok := key(*a); ok {
		return name, nil
	}
	if a.Dir != "" { // in a test, or a bundle without a digest
		return digestOf([]byte(a.Dir)), nil
	}
	return "", fmt.Errorf("%w: no digest", driver.ErrArtifact)
}

// unpacked makes sure that an image lies unpacked below the blobs: images/DIGEST/root and config.json. One
// process unpacks it, others wait.
func (d *Driver) unpacked(ctx context.Context, a driver.Artifact, p *prepared) (*v1.ConfigFile, error) {
	blobs, err := filepath.Abs(d.opts.Blobs)
	if err != nil {
		return nil, err
	}
	name, err := called(ctx, &a, p, blobs)
	if err != nil {
		return nil, err
	}
	images := filepath.Join(blobs, "images")
	dir := filepath.Join(images, name)
	p.root = filepath.Join(dir, "root")
	if cfg, err := known(dir); err == nil {
		return cfg, nil
	}
	if err := os.MkdirAll(images, 0o700); err != nil {
		return nil, err
	}
	free, err := hold(ctx, dir+".lock")
	if err != nil {
		return nil, err
	}
	defer free()
	if cfg, err := known(dir); err == nil {
		return cfg, nil
	}
	img, _, err := open(ctx, a.Software.From, a.Dir)
	if err != nil {
		return nil, err
	}
	cfg, raw, err := configuration(img)
	if err != nil {
		return nil, err
	}
	fresh := dir + ".new" // what a killed node left of it goes
	if err := errors.Join(blob.RemoveAll(fresh), blob.RemoveAll(dir), os.MkdirAll(filepath.Join(fresh, "root"), 0o755)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(fresh, "root"))
	if err != nil {
		return nil, err
	}
	err = unpack(ctx, img, cfg, root, standard)
	if err = errors.Join(err, root.Close()); err == nil {
		err = os.WriteFile(filepath.Join(fresh, "config.json"), raw, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, dir)
	}
	if err != nil {
		return nil, errors.Join(err, blob.RemoveAll(fresh))
	}
	return cfg, nil
}

func known(dir string) (*v1.ConfigFile, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	cfg := &v1.ConfigFile{}
	return cfg, json.Unmarshal(raw, cfg)
}

// hold locks a file until free is called, or the process ends.
func hold(ctx context.Context, path string) (free func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// runcRoot is where runc notes this node's containers.
func (d *Driver) runcRoot() (string, error) {
	if d.opts.StateDir == "" {
		return "", errors.New("no folder for runc")
	}
	dir, err := filepath.Abs(filepath.Join(d.opts.StateDir, "runc"))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	return dir, err
}

// Sweep ends the containers that an earlier life of the node left running and says which. It is called before
// the first start.
func (d *Driver) Sweep(ctx context.Context) ([]system.InstanceID, error) {
	root := filepath.Join(d.opts.StateDir, "runc")
	left, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) || d.opts.StateDir == "" {
		err = nil
	}
	var swept []system.InstanceID
	for _, e := range left {
		if out, bad := exec.CommandContext(ctx, "runc", "--root", root, "delete", "--force", e.Name()).CombinedOutput(); bad != nil {
			err = errors.Join(err, fmt.Errorf("end container %s: %w: %s", e.Name(), bad, out))
		}
		swept = append(swept, system.InstanceID(e.Name()))
	}
	more, bad := d.sweepEngine(ctx)
	return append(swept, more...), errors.Join(err, bad)
}

// Close kills what still runs and waits for it.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	var left []driver.Instance
	for i := range d.running {
		left = append(left, i)
	}
	d.mu.Unlock()
	var err error
	for _, i := range left {
		err = errors.Join(err, i.Stop(context.Background(), 0))
	}
	return err
}
