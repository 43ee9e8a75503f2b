// Command image makes a kernel and its first file system for the example: Debian's kernel for clouds, the drivers that it needs, and one
// static Go program. It takes the kernel that is installed, else it fetches its package, without installing it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// drivers in the order in which they need one another.
var drivers = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover", "net_failover", "virtio_net", "evdev", "button"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "image: want a folder to make kernel and initrd in: image DIR")
		os.Exit(2)
	}
	if err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := kernel(dir)
	if err != nil {
		return err
	}
	kernels, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*-cloud-"+runtime.GOARCH)) // the pattern is right
	if len(kernels) == 0 {
		return fmt.Errorf("no vmlinuz in %s", root)
	}
	release := strings.TrimPrefix(filepath.Base(kernels[len(kernels)-1]), "vmlinuz-")
	guest := filepath.Join(dir, "guest.new")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", guest, "servent/examples/vm/guest")
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w\n%s", err, out)
	}
	defer os.Remove(guest)
	var b bytes.Buffer
	a := archive{w: &b}
	a.folder("modules")
	a.file("init", guest, 0o755)
	for n, name := range drivers {
		path, err := module(filepath.Join(root, "lib", "modules", release), name)
		if err != nil {
			return err
		}
		if path != "" {
			a.file(fmt.Sprintf("modules/%02d-%s.ko", n, name), path, 0o644)
		}
	}
	a.end()
	if a.err != nil {
		return a.err
	}
	if err := os.WriteFile(filepath.Join(dir, "initrd"), b.Bytes(), 0o644); err != nil {
		return err
	}
	return copied(filepath.Join(dir, "vmlinuz"), kernels[len(kernels)-1])
}

var needs = regexp.MustCompile(`Depends: (linux-image-\S+-cloud-\S+)`)

// kernel returns the folder below which boot and lib of a kernel for clouds lie.
func kernel(dir string) (string, error) {
	if found, _ := filepath.Glob("/boot/vmlinuz-*-cloud-" + runtime.GOARCH); len(found) > 0 {
		return "/", nil
	}
	root := filepath.Join(dir, "kernel")
	if found, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*")); len(found) > 0 {
		return root, nil
	}
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-"+runtime.GOARCH).Output()
	name := needs.FindSubmatch(out)
	if err != nil || name == nil {
		return "", errors.Join(errors.New("no kernel for clouds is installed, and apt knows none; on Debian: apt-get install linux-image-cloud-"+runtime.GOARCH), err)
	}
	temp, err := os.MkdirTemp(dir, "package")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	get := exec.Command("apt-get", "download", "-qq", string(name[1]))
	get.Dir = temp
	if out, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w\n%s", name[1], err, out)
	}
	packages, _ := filepath.Glob(filepath.Join(temp, "*.deb"))
	if len(packages) != 1 {
		return "", fmt.Errorf("apt-get download %s: want one package, have %d", name[1], len(packages))
	}
	if out, err := exec.Command("dpkg-deb", "-x", packages[0], root).CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg-deb: %w\n%s", err, out)
	}
	return root, nil
}

// module finds a driver; one that is part of the kernel has no file.
func module(dir, name string) (path string, err error) {
	err = filepath.WalkDir(dir, func(at string, d os.DirEntry, err error) error {
		if err == nil && strings.ReplaceAll(d.Name(), "-", "_") == name+".ko" {
			path = at
			return filepath.SkipAll
		}
		return err
	})
	if err != nil || path != "" {
		return path, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return "", err
	}
	if !strings.Contains(strings.ReplaceAll(string(builtin), "-", "_"), "/"+name+".ko") {
		return "", fmt.Errorf("the kernel in %s has no %s", dir, name)
	}
	return "", nil
}

func copied(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// archive is a first file system in the form that kernels read: cpio's "newc".
type archive struct {
	w   io.Writer
	n   int // bytes, and entries
	ino int
	err error
}

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
		a.n += len(b)
	}
}

func (a *archive) pad() {
	if rest := a.n % 4; rest > 0 {
		a.write(bytes.Repeat([]byte{0}, 4-rest))
	}
}

func (a *archive) entry(name string, mode int, content []byte) {
	a.ino++
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(head))
	a.write([]byte(name + "\x00"))
	a.pad()
	a.write(content)
	a.pad()
}

func (a *archive) folder(name string) { a.entry(name, 0o040755, nil) }

func (a *archive) file(name, path string, mode int) {
	b, err := os.ReadFile(path)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.entry(name, 0o100000|mode, b)
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, nil) }
