package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/driver/process"
	"servent/system"
)

// TestMain is also the program that joins a guest's connection to a door.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "connect" {
		if err := Connect(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if dir, err := image(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// image is the example's kernel and first file system, made once.
var image = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vmimage")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "run", "servent/examples/vm/image", dir).CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// bundle is a folder with the machine's files. Without QEMU or a kernel the test is skipped, or under CI fails.
func bundle(t *testing.T) string {
	t.Helper()
	_, err := find()
	dir := ""
	if err == nil {
		dir, err = image()
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	return dir
}

func machines(t *testing.T, templates string) *Driver {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := process.New(process.Options{})
	t.Cleanup(func() { p.Close() })
	return New(Options{Process: p, Self: []string{self, "connect"}, Templates: templates})
}

func artifact(dir string, m system.Machine) driver.Artifact {
	return driver.Artifact{Software: system.Software{Kind: system.VM, Machine: &m}, Dir: dir}
}

func small(warm bool) system.Machine {
	return system.Machine{Kernel: "vmlinuz", Initrd: "initrd", Append: "quiet", Memory: 192 << 20, Warm: warm}
}

func port(t *testing.T) int {
	n, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// well waits until the guest answers.
func well(t *testing.T, i driver.Instance) time.Duration {
	t.Helper()
	began := time.Now()
	for end := began.Add(2 * time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := i.(driver.Checker).Check(ctx)
		cancel()
		if err == nil {
			return time.Since(began)
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func get(t *testing.T, i driver.Instance, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, body, err := drivertest.Ask(ctx, i.Endpoint(), path)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// A guest boots, is told what programs are told, reaches the doors of its node and nothing else, and ends when its power button is pressed.
func TestColdMachine(t *testing.T) {
	t.Parallel()
	dir := bundle(t)
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer door.Close()
	other := httptest.NewServer(http.NotFoundHandler()) // nobody said that it may
	defer other.Close()
	p, err := machines(t, "").Prepare(t.Context(), artifact(dir, small(false)))
	if err != nil {
		t.Fatal(err)
	}
	var console lines
	_, at, _ := net.SplitHostPort(door.Listener.Addr().String())
	i, err := p.Start(t.Context(), driver.Spec{Instance: "m/1", Host: "127.0.0.1", Port: port(t), Dir: t.TempDir(), Stdout: &console,
		Env: []string{"PORT=1", "GREETING=hello", "API_URL=http://" + driver.Gate + ":" + at}, Ways: []driver.Way{{Name: "api", To: door.Listener.Addr().String()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	t.Logf("cold: %v", well(t, i))
	env := strings.Fields(get(t, i, "/env"))
	for _, want := range []string{"PORT=8080", "GREETING=hello", "API_URL=http://" + driver.Gate + ":" + at} {
		if !slices.Contains(env, want) {
			t.Errorf("the guest is not told %s: %q", want, env)
		}
	}
	if got := get(t, i, "/fetch?url=http://"+driver.Gate+":"+at); got != "418 I'm a teapot\n" {
		t.Errorf("a door of its node answers the guest %q", got)
	}
	_, closed, _ := net.SplitHostPort(other.Listener.Addr().String())
	for _, at := range []string{driver.Gate + ":" + closed, "10.0.2.2:" + closed, "10.0.2.2:" + at} {
		if got := get(t, i, "/fetch?url=http://"+at); strings.HasPrefix(got, "404") || strings.HasPrefix(got, "418") {
			t.Errorf("the guest reaches %s: %q", at, got)
		}
	}
	if st, err := i.Stats(t.Context()); err != nil || st.Memory == 0 || st.CPU == 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
	if err := i.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(console.String(), "guest: asked to end") {
		t.Errorf("the guest was not asked to end; its console:\n%s", console.String())
	}
}

type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What every engine must do alike; the machines start warm, from one template.
func TestDriver(t *testing.T) {
	t.Parallel()
	dir := bundle(t)
	templates, bad := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"vmlinuz": "no kernel", "disk": "short"} {
		if err := os.WriteFile(filepath.Join(bad, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ports := map[int]int{}
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{
			Driver: machines(t, templates),
			Good:   artifact(dir, small(true)),
			Bad: map[string]driver.Artifact{
				"nothing":        {Software: system.Software{Kind: system.VM}, Dir: dir},
				"no kernel":      artifact(bad, system.Machine{Kernel: "vmlinuz"}),
				"no such file":   artifact(bad, system.Machine{Kernel: "vmlinux"}),
				"too short":      artifact(bad, system.Machine{Disk: "disk"}),
				"no bundle":      artifact("", small(false)),
				"another engine": {Software: system.Software{Kind: system.Wasm}, Dir: dir},
			},
			Spec: func(t *testing.T, n int) driver.Spec {
				if ports[n] == 0 {
					ports[n] = port(t)
				}
				return driver.Spec{Instance: system.Instance("m", n), Host: "127.0.0.1", Port: ports[n], Dir: t.TempDir()}
			},
			Path: "/ping", Says: "pong",
		}
	})
}

// A machine that starts from its template answers sooner than one that boots, and begins where the template was saved.
func TestWarmMachine(t *testing.T) {
	dir, templates := t.TempDir(), t.TempDir()
	for _, name := range []string{"vmlinuz", "initrd"} {
		if err := os.Symlink(filepath.Join(bundle(t), name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", filepath.Join(dir, "disk.qcow2"), "64M").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	d := machines(t, templates)
	took := map[bool]time.Duration{}
	for _, warm := range []bool{false, true} {
		m := small(warm)
		m.Disk = "disk.qcow2"
		p, err := d.Prepare(t.Context(), artifact(dir, m))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		i, err := p.Start(t.Context(), driver.Spec{Instance: "m/1", Host: "127.0.0.1", Port: port(t), Dir: t.TempDir(), Env: []string{"WHO=m/1"}})
		if err != nil {
			t.Fatal(err)
		}
		well(t, i)
		if got := get(t, i, "/"); got != "hello from a virtual machine: request 1\n" {
			t.Errorf("warm %v: %q", warm, got)
		}
		took[warm] = time.Since(began)
		if env := get(t, i, "/env"); !strings.Contains(env, "WHO=m/1\n") {
			t.Errorf("warm %v: the guest is not told who it is: %q", warm, env)
		}
		if err := i.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("to the first answer: cold %v, warm %v: %.1f times faster", took[false], took[true], took[false].Seconds()/took[true].Seconds())
	if took[true] >= took[false] {
		t.Error("a warm start is no faster than a cold one")
	}
	m := small(true)
	m.Disk = "disk.qcow2"
	if again, err := d.Prepare(t.Context(), artifact(dir, m)); err != nil {
		t.Fatal(err)
	} else if left, _ := os.ReadDir(templates); len(left) != 1 {
		t.Errorf("%d templates for one machine: %v", len(left), again)
	}
}

// A disk boots by what stands in its first sector, and its serial port is the instance's output.
func TestDiskBoots(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-img"); err != nil || runtime.GOARCH != "amd64" {
		bundle(t)
		return
	}
	const says = "hello from the first sector\r\n"
	sector := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x16, 0x7c, // mov si, text
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz halt
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp next
		0xf4,       // halt: hlt
		0xeb, 0xfd, // jmp halt
	}
	disk := make([]byte, 1<<20)
	copy(disk, append(sector, says...))
	disk[510], disk[511] = 0x55, 0xaa
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := machines(t, "").Prepare(t.Context(), artifact(dir, system.Machine{Disk: "disk.raw", Memory: 64 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	var console lines
	i, err := p.Start(t.Context(), driver.Spec{Instance: "m/1", Host: "127.0.0.1", Port: port(t), Dir: t.TempDir(), Stdout: &console, Stderr: &console})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Stop(context.Background(), 0)
	for end := time.Now().Add(time.Minute); !strings.Contains(console.String(), says); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("its console says %q", console.String())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := i.(driver.Checker).Check(ctx); err == nil {
		t.Error("a machine without a network is well")
	}
}

// The guest that KVM is tried with ends as it must where guests run: QEMU's translator is such a place, and no accelerator is none.
func TestTryKVM(t *testing.T) {
	t.Parallel()
	bundle(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the guest is for amd64")
	}
	q, err := find()
	if err != nil {
		t.Fatal(err)
	}
	if err := tryKVM(q.program, "tcg", "max"); err != nil {
		t.Error(err)
	}
	if err := tryKVM(q.program, "nobody", "max"); err == nil || !strings.Contains(err.Error(), "did not run") {
		t.Errorf("an accelerator that is none: %v", err)
	}
}

// Disks: each instance writes to its own overlay, which is kept, and belongs to one image.
func TestOverlay(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		bundle(t)
	}
	images, dir := t.TempDir(), t.TempDir()
	disk := filepath.Join(images, "disk.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", disk, "64M").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	p := &prepared{disk: disk, format: "qcow2"}
	first, err := p.overlay(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.overlay(dir, nil); err != nil || again != first {
		t.Errorf("the second time %s, %v; want %s", again, err, first)
	}
	other := &prepared{disk: filepath.Join(images, "other.qcow2"), format: "qcow2"}
	if _, err := other.overlay(dir, nil); !errors.Is(err, driver.ErrArtifact) {
		t.Errorf("over another image: %v, want ErrArtifact", err)
	}
	if err := os.WriteFile(other.disk, []byte("QFI\xfb and no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := other.overlay(t.TempDir(), nil); !errors.Is(err, driver.ErrArtifact) {
		t.Errorf("over a broken image: %v, want ErrArtifact", err)
	}
}

// QEMU's answers, as somebody else might send them.
func FuzzMonitor(f *testing.F) {
	f.Add(`{"QMP": {}}` + "\n" + `{"return": {}}` + "\n" + `{"event": "STOP"}` + "\n" + `{"return": {"status": "running"}}` + "\n")
	f.Add(`{"QMP": {}}` + "\n" + `{"error": {"desc": "no"}}` + "\n")
	f.Add("{}\n\n[]\n")
	f.Fuzz(func(t *testing.T, said string) {
		here, there := net.Pipe()
		var under sync.WaitGroup
		under.Go(func() {
			go func() { _, _ = there.Write([]byte(said)); there.Close() }()
			buf := make([]byte, 1024)
			for {
				if _, err := there.Read(buf); err != nil {
					return
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m := newMonitor(here)
		if m.greet(ctx) == nil {
			_, _ = m.status(ctx)
		}
		m.close()
		under.Wait()
	})
}

func TestTold(t *testing.T) {
	env := []string{"PORT=20001", "A=b", "SPACE=a b", "SERVENT_SELF=http://x"}
	for n := range 60 {
		env = append(env, "V"+strconv.Itoa(n)+"="+strings.Repeat("x", 40))
	}
	got := strings.Fields(told(env, 80))
	if len(got) > toldMost || got[0] != "PORT=80" || got[1] != "A=b" || slices.Contains(got, "b") {
		t.Errorf("told %q", got)
	}
}
