package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
	"servent/driver/container/engine"
	"servent/driver/drivertest"
	"servent/system"
)

// cableProgram is built once, without the C library.
var cableProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "servent-cable-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "cable")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/cable")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return out, cmd.Run()
})

// engines are the programs that answer Docker's API, as this test starts them, each on a socket of its own.
var engines = map[string]func(dir, socket string) *exec.Cmd{
	"podman": func(dir, socket string) *exec.Cmd {
		cmd := exec.Command("podman", "--root", dir+"/root", "--runroot", dir+"/run", "--tmpdir", dir+"/tmp", "system", "service", "--time=0", "unix://"+socket)
		cmd.Env, cmd.Dir = append(os.Environ(), "CONTAINERS_CONF="+podmanConf(dir)), dir // conmon leaves files where it stands
		return cmd
	},
	"dockerd": func(dir, socket string) *exec.Cmd {
		return exec.Command("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--data-root", dir+"/data", "--exec-root", dir+"/exec",
			"--pidfile", dir+"/pid", "--host", "unix://"+socket)
	},
}

// podmanConf gives podman lower bounds than its own, which some machines do not let it give away.
func podmanConf(dir string) string {
	at := filepath.Join(dir, "containers.conf")
	_ = os.WriteFile(at, []byte("[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n"), 0o644) // podman says what is wrong then
	return at
}

// served is an engine that tests share.
type served struct {
	start func() (*engine.Client, error)
	stop  func()
}

var (
	sharedEngines = map[string]*served{"podman": serving("podman"), "dockerd": serving("dockerd")}
)

func serving(name string) *served {
	s := &served{stop: func() {}}
	s.start = sync.OnceValues(func() (*engine.Client, error) {
		dir, err := os.MkdirTemp("", "engine-") // the path of a socket is short
		if err != nil {
			return nil, err
		}
		socket := filepath.Join(dir, "s")
		cmd := engines[name](dir, socket)
		said := &driver.Ending{}
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		s.stop = func() {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait() // how it ends is its affair
			_ = exec.Command("umount", "-R", "-l", dir).Run()
			os.RemoveAll(dir)
		}
		e := engine.At(socket)
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			_, err := e.Version(context.Background())
			if err == nil {
				return e, nil
			}
			if time.Now().After(end) {
				return nil, fmt.Errorf("%s does not answer: %w: %s", name, err, said.Last())
			}
		}
	})
	return s
}

// byEngine is a driver by an engine that is installed; the test is skipped where it is not.
func byEngine(t *testing.T, name string) *Driver {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed, or this is not root", name)
		}
		t.Skipf("%s is not installed, or this is not root", name)
	}
	self, err := cableProgram()
	if err != nil {
		t.Fatal(err)
	}
	e, err := sharedEngines[name].start()
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Blobs: t.TempDir(), StateDir: t.TempDir(), Engine: e, Self: []string{self}})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// onEvery runs a test with runc and with each other engine.
func onEvery(t *testing.T, test func(t *testing.T, d *Driver)) {
	t.Run("runc", func(t *testing.T) { test(t, newDriver(t)) })
	for name := range engines {
		t.Run(name, func(t *testing.T) { test(t, byEngine(t, name)) })
	}
}

func TestEngineConformance(t *testing.T) {
	good := onDisk(t, probeImage(t, v1.Config{}), nil)
	ends := good
	ends.Software.Container = &system.Container{Command: []string{"exit"}}
	bad := map[string]driver.Artifact{
		"no image":       {Software: system.Software{Kind: system.Image}},
		"an empty place": {Software: system.Software{Kind: system.Image, From: "oci:./x"}, Dir: t.TempDir()},
		"no program":     onDisk(t, imageOf(t, v1.Config{}, layer(t, file1("a", "b"))), nil),
	}
	for name := range engines {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Subject {
				return drivertest.Subject{Driver: byEngine(t, name), Good: good, Ends: &ends, Bad: bad, Spec: specFor, Path: "/", Says: "hello from a container"}
			})
		})
	}
}
