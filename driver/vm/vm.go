// Package vm runs virtual machines on QEMU: from a disk image, or from a kernel and its first file system. A machine is one
// QEMU process, kept by [driver/process] as any other: it dies with its node, and its serial console is its output.
//
// The guest has a network of its own, made by QEMU without root: it answers at one port, which the node forwards to, and
// reaches the doors of its node at [driver.Gate], and nothing else. It never makes an image, and takes none apart.
// Start at [New]; machine.go is one instance, template.go how it starts warm, qmp.go QEMU's own protocol.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"servent/driver"
	"servent/system"
)

// What a machine has where the file does not say.
const (
	defaultMemory = 256 << 20
	defaultPort   = 8080
)

// Options of [New].
type Options struct {
	Process   driver.Driver // keeps the processes
	Self      []string      // program and arguments that join standard input and output to an address, which follows
	Templates string        // folder of warm machines, shared by all nodes here; empty: each is made in its own
	Log       *slog.Logger  // nil discards
}

// Driver is the engine.
type Driver struct{ o Options }

// New returns a driver. It starts nothing.
func New(o Options) *Driver {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{o}
}

// Name implements [driver.Driver].
func (d *Driver) Name() string { return string(system.VM) }

// Probe says whether QEMU is there, and whether the processor runs guests or QEMU must translate them.
func (d *Driver) Probe(ctx context.Context) driver.Caps {
	caps := driver.Caps{Limits: []string{"memory", "cpu"}, Move: driver.MoveWeak, Missing: map[string]string{}, Versions: map[string]string{}}
	q, err := find()
	if err != nil {
		caps.Reason = err.Error()
		return caps
	}
	out, err := exec.CommandContext(ctx, q.program, "--version").Output()
	if err != nil {
		caps.Reason = fmt.Sprintf("%s does not run: %v", q.program, err)
		return caps
	}
	caps.OK = true
	caps.Versions["qemu"] = version(out)
	caps.Versions["accel"] = "kvm"
	if why := noKVM(); why != "" {
		caps.Versions["accel"] = "tcg"
		caps.Missing["kvm"] = why + ": QEMU translates the guest's instructions, some ten times slower"
	}
	return caps
}

// version picks the number out of "QEMU emulator version 7.2.22 (Debian …)".
func version(out []byte) string {
	line, _, _ := strings.Cut(string(out), "\n")
	_, after, ok := strings.Cut(line, "version ")
	if !ok {
		return strings.TrimSpace(line)
	}
	number, _, _ := strings.Cut(after, " ")
	return number
}

// qemu is the program for this machine's processors.
type qemu struct {
	program string
	arch    string // as QEMU names it
	console string // of the guest's kernel
}

func find() (qemu, error) {
	q := map[string]qemu{"amd64": {arch: "x86_64", console: "ttyS0"}, "arm64": {arch: "aarch64", console: "ttyAMA0"}}[runtime.GOARCH]
	if q.arch == "" || runtime.GOOS == "windows" {
		return q, fmt.Errorf("virtual machines are not run on %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	var err error
	if q.program, err = exec.LookPath("qemu-system-" + q.arch); err != nil {
		return q, fmt.Errorf("no qemu-system-%s here; on Debian: apt-get install qemu-system-%s qemu-utils", q.arch, map[string]string{"x86_64": "x86", "aarch64": "arm"}[q.arch])
	}
	return q, nil
}

// Prepare checks the files of a machine and, if it is to start warm, boots it once.
func (d *Driver) Prepare(ctx context.Context, a driver.Artifact) (driver.Prepared, error) {
	m := a.Software.Machine
	if a.Software.Kind != system.VM || m == nil || a.Dir == "" || m.Disk == "" && m.Kernel == "" {
		return nil, fmt.Errorf("%w: no disk and no kernel", driver.ErrArtifact)
	}
	q, err := find()
	if err != nil {
		return nil, err
	}
	p := &prepared{d: d, q: q, m: *m, digest: a.Software.Digest}
	for _, f := range []struct {
		name string
		path *string
	}{{m.Disk, &p.disk}, {m.Kernel, &p.kernel}, {m.Initrd, &p.initrd}, {m.UserData, &p.userData}} {
		if f.name == "" {
			continue
		}
		*f.path = filepath.Join(a.Dir, filepath.FromSlash(f.name))
		if info, err := os.Stat(*f.path); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is no file of the bundle", driver.ErrArtifact, f.name)
		}
	}
	if p.disk != "" {
		if p.format, err = format(p.disk); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", driver.ErrArtifact, m.Disk, err)
		}
		if _, err := exec.LookPath("qemu-img"); err != nil {
			return nil, errors.New("no qemu-img here; on Debian: apt-get install qemu-utils")
		}
	}
	if p.kernel != "" {
		if err := bootable(p.kernel); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", driver.ErrArtifact, m.Kernel, err)
		}
	}
	if m.Warm {
		if p.template, err = d.warm(ctx, p); err != nil {
			return nil, fmt.Errorf("make a warm machine: %w", err)
		}
	}
	return p, nil
}

// format tells a qcow2 image from a raw one. A raw one has at least one sector.
func format(path string) (string, error) {
	head, err := start(path, 512)
	switch {
	case err != nil:
		return "", err
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return "qcow2", nil
	case len(head) < 512:
		return "", errors.New("too short for a disk")
	}
	return "raw", nil
}

// bootable refuses what is no kernel of Linux for this kind of machine: it would be seen on no console.
func bootable(path string) error {
	head, err := start(path, 0x210)
	if err != nil {
		return err
	}
	if runtime.GOARCH == "amd64" && (len(head) < 0x206 || string(head[0x202:0x206]) != "HdrS") { // Linux's boot protocol
		return errors.New("no Linux kernel for x86: its header has no HdrS")
	}
	if runtime.GOARCH == "arm64" && (len(head) < 64 || string(head[56:60]) != "ARM\x64") && !bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		return errors.New("no Linux kernel for arm64")
	}
	return nil
}

// start reads the first bytes of a file.
func start(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}
