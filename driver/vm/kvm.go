package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// noKVM says why the processor does not run guests; empty: it does. Inside some virtual machines there is a /dev/kvm without the processor's
// own help, which interprets what it can and runs no kernel; elsewhere a guest of four instructions is tried, once.
var noKVM = sync.OnceValue(func() string {
	if runtime.GOOS != "linux" {
		return "KVM is Linux's"
	}
	if runtime.GOARCH == "amd64" {
		_, intel := os.Stat("/sys/module/kvm_intel")
		_, amd := os.Stat("/sys/module/kvm_amd")
		if intel != nil && amd != nil {
			return "neither kvm_intel nor kvm_amd is loaded"
		}
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	if err := f.Close(); err != nil {
		return err.Error()
	}
	q, err := find()
	if err == nil && runtime.GOARCH == "amd64" {
		err = tryKVM(q.program, "kvm", "host")
	}
	if err != nil {
		return err.Error()
	}
	return ""
})

const (
	tryFor   = 3 * time.Second
	tryCode  = 0x10           // that the guest ends QEMU with
	tryEnded = tryCode<<1 | 1 // as QEMU's exit code
)

// trySector is a disk's first sector that writes tryCode to the port of QEMU's isa-debug-exit, and waits.
var trySector = []byte{
	0xb0, tryCode, // mov al, tryCode
	0xe6, 0xf4, // out 0xf4, al
	0xf4,       // halt: hlt
	0xeb, 0xfd, // jmp halt
}

// tryKVM boots trySector by an accelerator of QEMU's on one of its processors.
func tryKVM(qemu, accel, cpu string) error {
	dir, err := os.MkdirTemp("", "servent-kvm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := make([]byte, 1<<20)
	copy(disk, trySector)
	disk[510], disk[511] = 0x55, 0xaa
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tryFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "16",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-drive", "if=virtio,format=raw,snapshot=on,file="+escape(path))
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == tryEnded:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("a guest of four instructions did not end in %v", tryFor)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	return fmt.Errorf("a guest of four instructions did not run: %v: %s", err, line)
}
