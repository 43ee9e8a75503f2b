//go:build linux

// Command guest is the whole user space of a small virtual machine: the first process of its kernel. It loads the drivers that the image
// brings, takes its address, and counts requests on $PORT.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: want to be the first process of a machine")
		os.Exit(1)
	}
	if err := serve(); err != nil {
		fmt.Println("guest:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func serve() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		_ = os.MkdirAll(m.at, 0o755)
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko") // in the order of their names
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, path := range modules {
		if err := load(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	for _, name := range []string{"lo", "eth0"} {
		if err := address(name); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	go button()
	var count atomic.Int64
	http.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "pong") })
	http.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Join(environ(), "\n")) })
	http.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) {
		c := http.Client{Timeout: 5 * time.Second}
		res, err := c.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		fmt.Fprintln(w, res.Status)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from a virtual machine: request %d\n", count.Add(1))
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	fmt.Println("guest: answers on port", port)
	return http.ListenAndServe(":"+port, nil)
}

// environ is what this instance is told: by the machine it runs on, since one that starts warm was booted before it had a name.
func environ() []string {
	c := http.Client{Timeout: 5 * time.Second}
	res, err := c.Get("http://10.0.2.100/")
	if err != nil {
		return os.Environ()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return os.Environ()
	}
	return strings.Fields(string(b))
}

// button waits until somebody presses the power button, and ends the machine.
func button() {
	paths, _ := filepath.Glob("/dev/input/event*") // the pattern is right
	for _, path := range paths {
		go func() {
			f, err := os.Open(path)
			if err != nil {
				return
			}
			for event := make([]byte, 24); ; { // struct input_event: two words of time, type, code, value
				if _, err := io.ReadFull(f, event); err != nil {
					return
				}
				const evKey, keyPower = 1, 116
				if binary.NativeEndian.Uint16(event[16:]) == evKey && binary.NativeEndian.Uint16(event[18:]) == keyPower {
					fmt.Println("guest: asked to end")
					_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
				}
			}
		}()
	}
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// address gives an interface the address that QEMU's own network has for the guest, and takes it up; the one that sees only itself has one.
func address(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	set := func(call uintptr, ip [4]byte) error {
		var req struct { // struct ifreq with a sockaddr_in
			name   [16]byte
			family uint16
			port   uint16
			ip     [4]byte
			_      [16]byte
		}
		copy(req.name[:], name)
		req.family, req.ip = unix.AF_INET, ip
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), call, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return errno
		}
		return nil
	}
	if name != "lo" {
		if err := set(unix.SIOCSIFADDR, [4]byte{10, 0, 2, 15}); err != nil {
			return err
		}
		if err := set(unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 0}); err != nil {
			return err
		}
	}
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], name)
	req.flags = unix.IFF_UP | unix.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
