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
	"servent/system"
)

// Probe implements [driver.Driver]. It makes a network and throws it away, and asks runc for its version.
func (d *Driver) Probe(ctx context.Context) driver.Caps {
	caps := driver.Caps{Move: driver.MoveWeak, Missing: map[string]string{}, Versions: map[string]string{}}
	path, err := exec.LookPath("runc")
	if err != nil {
		caps.Reason = "runc is not installed: apt-get install runc"
		return caps
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	version, _, _ := strings.Cut(strings.TrimPrefix(string(out), "runc version "), "\n")
	switch {
	case err != nil:
		caps.Reason = "runc does not run: " + err.Error()
		return caps
	case older(version):
		caps.Reason = "runc " + version + " is too old: want 1.1 or newer"
		return caps
	case os.Geteuid() != 0:
		caps.Reason = "a container needs root, for its network and its limits: start servent as root"
		return caps
	}
	r, err := newRoom()
	if err != nil {
		caps.Reason = "this machine gives no namespaces: " + err.Error()
		return caps
	}
	r.close()
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

// prepared is an unpacked image.
type prepared struct {
	d        *Driver
	software system.Software
	image    v1.Config
	root     string // its root file system; nobody writes there
}

// Prepare fetches and unpacks an image, unless it has been.
func (d *Driver) Prepare(ctx context.Context, a driver.Artifact) (driver.Prepared, error) {
	if a.Software.Kind != system.Image || a.Software.From == "" {
		return nil, fmt.Errorf("%w: no image", driver.ErrArtifact)
	}
	p := &prepared{d: d, software: a.Software}
	cfg, err := d.unpacked(ctx, a, p)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", a.Software.From, err)
	}
	p.image = cfg.Config
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

// unpacked makes sure that an image lies unpacked below the blobs: images/DIGEST/root and config.json. One
// process unpacks it, others wait. A name without a digest is asked for each time.
func (d *Driver) unpacked(ctx context.Context, a driver.Artifact, p *prepared) (*v1.ConfigFile, error) {
	blobs, err := filepath.Abs(d.opts.Blobs)
	if err != nil {
		return nil, err
	}
	if _, ok := key(a); !ok {
		if err := Resolve(ctx, &a.Software, blobs, a.Dir); err != nil {
			return nil, err
		}
		p.software.Container = a.Software.Container
	}
	name, ok := key(a)
	if !ok && a.Dir != "" { // in a test, or a bundle without a digest
		name = digestOf([]byte(a.Dir))
	} else if !ok {
		return nil, fmt.Errorf("%w: no digest", driver.ErrArtifact)
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
		return nil, nil
	}
	var swept []system.InstanceID
	for _, e := range left {
		if out, bad := exec.CommandContext(ctx, "runc", "--root", root, "delete", "--force", e.Name()).CombinedOutput(); bad != nil {
			err = errors.Join(err, fmt.Errorf("end container %s: %w: %s", e.Name(), bad, out))
		}
		swept = append(swept, system.InstanceID(e.Name()))
	}
	return swept, err
}

// Close kills what still runs and waits for it.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	var left []*instance
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
