package container

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

func TestConformance(t *testing.T) {
	newDriver(t)
	good := onDisk(t, probeImage(t, v1.Config{}), nil)
	ends := good
	ends.Software.Container = &system.Container{Command: []string{"exit"}}
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{
			Driver: newDriver(t), Good: good, Ends: &ends, Spec: specFor, Path: "/", Says: "hello from a container",
			Bad: map[string]driver.Artifact{
				"no image":       {Software: system.Software{Kind: system.Image}},
				"no name":        {Software: system.Software{Kind: system.Image, From: "UPPER/case:!"}},
				"an empty place": {Software: system.Software{Kind: system.Image, From: "oci:./x"}, Dir: t.TempDir()},
				"no program":     onDisk(t, imageOf(t, v1.Config{}, layer(t, file1("a", "b"))), nil),
			},
		}
	})
}

// An image comes from a registry by its tag, and the same bytes stand when the registry is gone.
func TestRegistry(t *testing.T) {
	d := newDriver(t)
	at := registryOn(t)
	push(t, at+"/probe:1", probeImage(t, v1.Config{ExposedPorts: map[string]struct{}{"9090/udp": {}, "8081/tcp": {}, "8080": {}}}))
	sw := system.Software{Kind: system.Image, From: at + "/probe:1"}
	if err := Resolve(t.Context(), &sw, d.opts.Blobs, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(sw.From, at+"/probe:1@sha256:") || !slices.Equal(sw.Container.Ports, []int{8080, 8081}) {
		t.Errorf("found %s with ports %v", sw.From, sw.Container.Ports)
	}
	i := up(t, d, driver.Artifact{Software: sw}, specFor(t, 1))
	if got := ask(t, i, "/me"); got != "web-1" {
		t.Errorf("its name is %q, want web-1", got)
	}
	for name, want := range map[string]string{at + "/probe:2": "no such image", at + "/nobody": "no such image"} {
		_, err := d.Prepare(t.Context(), driver.Artifact{Software: system.Software{Kind: system.Image, From: name}})
		if !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	gone := system.Software{Kind: system.Image, From: at + "/probe:1"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as if nobody answered
	if err := Resolve(ctx, &gone, d.opts.Blobs, ""); err != nil || gone.From != sw.From || !slices.Equal(gone.Container.Ports, sw.Container.Ports) {
		t.Errorf("without the registry: %v, %s", err, gone.From)
	}
	if _, err := d.Prepare(ctx, driver.Artifact{Software: sw}); err != nil {
		t.Errorf("unpacked before, prepared without a registry: %v", err)
	}
}

func TestPlatform(t *testing.T) {
	newDriver(t)
	at := registryOn(t)
	foreign := func(arch string) v1.Image {
		img := imageOf(t, v1.Config{Cmd: []string{"x"}}, layer(t, file1("x", arch)))
		cfg := withConfig(t, img, v1.Config{})
		cfg.Architecture = arch
		img, err := mutate.ConfigFile(img, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	index := mutate.IndexMediaType(empty.Index, "application/vnd.oci.image.index.v1+json")
	for _, arch := range []string{"riscv64", "s390x"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: foreign(arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	push(t, at+"/one:1", foreign("riscv64"))
	ref, err := name.ParseReference(at + "/many:1")
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"one": "it is for linux/riscv64, and this machine runs linux/", "many": "it is for linux/riscv64, linux/s390x, and"} {
		err := Resolve(t.Context(), &system.Software{From: at + "/" + name + ":1"}, t.TempDir(), "")
		if !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	mine := mutate.AppendManifests(index, mutate.IndexAddendum{Add: foreign(runtime.GOARCH), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	if err := remote.WriteIndex(ref, mine); err != nil {
		t.Fatal(err)
	}
	if err := Resolve(t.Context(), &system.Software{From: at + "/many:1"}, t.TempDir(), ""); err != nil {
		t.Errorf("one of three: %v", err)
	}
}

func TestDockerArchive(t *testing.T) {
	d := newDriver(t)
	dir := t.TempDir()
	tag, err := name.NewTag("probe:1")
	if err == nil {
		err = tarball.WriteToFile(filepath.Join(dir, "probe.tar"), tag, probeImage(t, v1.Config{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	a := driver.Artifact{Software: system.Software{Kind: system.Image, From: "docker-archive:./saved/probe.tar"}, Dir: dir}
	up(t, d, a, specFor(t, 1))
}

// What Compose says of a container is so.
func TestCompose(t *testing.T) { onEvery(t, testCompose) }

func testCompose(t *testing.T, d *Driver) {
	a := onDisk(t, probeImage(t, v1.Config{Cmd: []string{"exit"}, User: "0", Env: []string{"FROM=image", "BOTH=image"}}), &system.Container{
		Command: []string{"serve"}, User: "app", WorkingDir: "/srv", Hostname: "thing", ReadOnly: true, Tmpfs: []string{"/scratch:size=1m,mode=1777"}, Ports: []int{80},
	})
	s := specFor(t, 2)
	s.Env = []string{"BOTH=service", "PORT=1"}
	if d.opts.Engine == nil {
		s.Limits.OpenFiles = 123 // podman asks for more processes then than every machine lets it give away
	}
	volume, secret, data := t.TempDir(), filepath.Join(t.TempDir(), "secret"), t.TempDir()
	if err := os.WriteFile(secret, []byte("swordfish"), 0o444); err != nil {
		t.Fatal(err)
	}
	s.Mounts = []driver.Mount{
		{Kind: "volume", Source: volume, Target: "/srv/data"}, {Kind: "volume", Source: t.TempDir(), Target: "/kept", ReadOnly: true},
		{Kind: "file", Source: secret, Target: "/run/secrets/it", ReadOnly: true}, {Kind: "data", Source: data, Target: "/servent/data"},
	}
	i := up(t, d, a, s)
	env := strings.Split(ask(t, i, "/env"), "\n")
	for _, want := range []string{"FROM=image", "BOTH=service", "PORT=80", "HOME=/home/app", "HOSTNAME=thing"} {
		if !slices.Contains(env, want) {
			t.Errorf("environment %q lacks %s", env, want)
		}
	}
	for path, want := range map[string]string{"/run/secrets/it": "swordfish", "/srv/data/first": "from the image", "/etc/hostname": "thing\n"} {
		if got := ask(t, i, "/read?path="+path); got != want {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]bool{"/x": false, "/etc/x": false, "/kept/x": false, "/run/secrets/it": false, "/scratch/x": true, "/srv/data/x": true, "/servent/data/x": true} {
		if status, _, err := drivertest.Ask(t.Context(), i.Endpoint(), "/write?path="+path); err != nil || (status == 200) != want {
			t.Errorf("writing %s: %d %v, want it to work: %v", path, status, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(volume, "x")); err != nil {
		t.Errorf("the volume did not get what was written: %v", err)
	}
	if limits := ask(t, i, "/read?path=/proc/self/limits"); d.opts.Engine == nil && !regexp.MustCompile(`Max open files +123 `).MatchString(limits) {
		t.Errorf("limits:\n%s", limits)
	}
	if err := i.Exec(t.Context(), []string{"/bin/probe", "true"}); err != nil {
		t.Errorf("Exec: %v", err)
	}
	if err := i.Exec(t.Context(), []string{"/bin/probe", "false"}); err == nil || !strings.HasSuffix(err.Error(), "not well") {
		t.Errorf("Exec of what fails: %v", err)
	}
	for who, want := range map[string]string{"nobody": "passwd", "app:nobody": "group"} {
		bad := a
		bad.Software.Container = &system.Container{User: who}
		p, err := d.Prepare(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Start(t.Context(), specFor(t, 3)); !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), want) {
			t.Errorf("user %s: %v", who, err)
		}
	}
	missing := a
	missing.Software.Container = &system.Container{Entrypoint: []string{"/bin/nothing"}}
	p, err := d.Prepare(t.Context(), missing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context(), specFor(t, 4)); err == nil || !strings.Contains(err.Error(), "/bin/nothing") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// The checklist of what a container must not be able to do, as root in there.
func TestHeld(t *testing.T) { onEvery(t, testHeld) }

func testHeld(t *testing.T, d *Driver) {
	i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), nil), specFor(t, 1))
	held := decode[struct {
		UID, Processes                  int
		CapEff, CapBnd, CapPrm, Seccomp string
		NoNewPrivs, CapAmb              string
		Did, Devices, Links, Root       []string
	}](t, ask(t, i, "/hold"))
	other := d.opts.Engine != nil // what it sees of the kernel is for that engine to say
	if len(held.Did) > 0 && !other {
		t.Errorf("it could %q", held.Did)
	}
	if want := []string{"bin", "dev", "etc", "proc", "srv", "sys", "tmp"}; !slices.Equal(held.Root, want) && !other {
		t.Errorf("its root and what leads there hold %q, want %q", held.Root, want)
	}
	const docker = "00000000a80425fb" // the mask of Docker's default capabilities
	if held.CapEff != docker || held.CapBnd != docker || held.CapPrm != docker || held.CapAmb != "0000000000000000" {
		t.Errorf("capabilities %+v, want %s", held, docker)
	}
	if held.NoNewPrivs != "1" || held.Seccomp != "2" || held.UID != 0 {
		t.Errorf("privileges %+v", held)
	}
	if want := []string{"/dev/console", "/dev/core", "/dev/fd", "/dev/full", "/dev/mqueue", "/dev/null", "/dev/ptmx", "/dev/pts", "/dev/random", "/dev/shm",
		"/dev/stderr", "/dev/stdin", "/dev/stdout", "/dev/tty", "/dev/urandom", "/dev/zero"}; slices.ContainsFunc(held.Devices, func(d string) bool { return !slices.Contains(want, d) }) {
		t.Errorf("devices %q, want of %q alone", held.Devices, want)
	}
	if held.Processes != 1 || slices.ContainsFunc(held.Links, func(l string) bool { return l != "lo" }) {
		t.Errorf("it sees %d processes and the networks %q", held.Processes, held.Links)
	}
}

// What the file adds and drops is so, as the kernel says; what is dangerous does not start, whoever asks.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	for _, tt := range []struct {
		c    system.Container
		want string
	}{
		{system.Container{CapDrop: []string{"ALL"}}, "0000000000000000"},
		{system.Container{CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}}, "0000000000000400"},
		{system.Container{CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"NET_RAW", "MKNOD"}}, "00000000a00415fb"},
	} {
		i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), &tt.c), specFor(t, 1))
		held := decode[struct{ CapEff, CapBnd string }](t, ask(t, i, "/hold"))
		if held.CapEff != tt.want || held.CapBnd != tt.want {
			t.Errorf("%+v: %+v, want %s", tt.c, held, tt.want)
		}
	}
	p, err := d.Prepare(t.Context(), onDisk(t, probeImage(t, v1.Config{}), &system.Container{CapAdd: []string{"SYS_ADMIN"}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context(), specFor(t, 1)); !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), "SYS_ADMIN is not given") {
		t.Errorf("SYS_ADMIN: %v", err)
	}
}

// A program that takes too much memory is ended, and said so; its neighbour answers.
func TestMemoryLimit(t *testing.T) { onEvery(t, testMemoryLimit) }

func testMemoryLimit(t *testing.T, d *Driver) {
	a := onDisk(t, probeImage(t, v1.Config{}), nil)
	neighbour := up(t, d, a, specFor(t, 1))
	greedy := a
	greedy.Software.Container = &system.Container{Command: []string{"eat"}}
	s := specFor(t, 2)
	s.Limits.Memory, s.Limits.Pids, s.Limits.CPUs = 32<<20, 64, 0.5
	i := begin(t, d, greedy, s)
	for name, want := range map[string][]string{"pids": {"64"}, "cpu": {"50000", "50000 100000"}} {
		if d.opts.Engine != nil {
			break // its cgroups are its own
		}
		got, err := cgroups.file(name, i.ID(), map[string]string{"pids": "pids.max", "cpu": "cpu.cfs_quota_us"}[name], name+".max")
		if err != nil || !slices.Contains(want, got) {
			select {
			case exit := <-i.Wait(): // it was quicker
				t.Logf("%s not looked at: %v", name, exit)
			default:
				t.Errorf("%s limit %q %v, want %v", name, got, err, want)
			}
		}
	}
	select {
	case exit := <-i.Wait():
		if byPodman := d.opts.Engine != nil && exit.Signal == "killed"; !exit.OOM && !byPodman { // which does not always see why
			t.Errorf("exit %+v, want out of memory", exit)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it still eats")
	}
	ask(t, neighbour, "/")
}

// Ways lead from an instance to doors of the node, by name, also at the port that it listens on itself; there is
// no other way out.
func TestWays(t *testing.T) { onEvery(t, testWays) }

func testWays(t *testing.T, d *Driver) {
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "door") }))
	t.Cleanup(door.Close)
	at := strings.TrimPrefix(door.URL, "http://")
	a := onDisk(t, probeImage(t, v1.Config{}), &system.Container{Ports: []int{80}})
	s := specFor(t, 1)
	s.Ways = []driver.Way{{Name: "db", Port: 80, To: at}, {Name: "db", Port: 5432, To: at}, {Name: "api.v2", Port: 80, To: at}, {Name: "dead", Port: 1, To: "127.0.0.1:1"}}
	i := up(t, d, a, s)
	for _, url := range []string{"http://db/", "http://db:5432/", "http://api.v2/"} {
		if got := ask(t, i, "/ask?url="+url); got != "door" {
			t.Errorf("%s answers %q", url, got)
		}
	}
	for _, url := range []string{"http://dead:1/", door.URL, "http://192.0.2.1/", "http://nobody/"} {
		if status, body, err := drivertest.Ask(t.Context(), i.Endpoint(), "/ask?url="+url); err != nil || status != http.StatusBadGateway {
			t.Errorf("%s: %d %q %v, want that it is not reached", url, status, body, err)
		}
	}
	// Others on the node reach the instance at its own port of the node.
	if _, body, err := drivertest.Ask(t.Context(), driver.Endpoint{Address: i.Endpoint().Address}, "/me"); err != nil || body != "web-1" {
		t.Errorf("at %s: %q %v", i.Endpoint().Address, body, err)
	}
}

// What a killed node leaves behind is found by its next life and ended.
func TestSweep(t *testing.T) { onEvery(t, testSweep) }

func testSweep(t *testing.T, d *Driver) {
	i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), nil), specFor(t, 1))
	next := New(d.opts)
	swept, err := next.Sweep(t.Context())
	if err != nil || len(swept) != 1 {
		t.Errorf("Sweep() = %v, %v, want one", swept, err)
	}
	select {
	case <-i.Wait():
	case <-time.After(20 * time.Second):
		t.Error("it still runs")
	}
	if swept, err := next.Sweep(t.Context()); err != nil || len(swept) > 0 {
		t.Errorf("a second Sweep() = %v, %v", swept, err)
	}
}

// What is missing is said in words.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if caps := New(Options{}).Probe(t.Context()); caps.OK || !strings.Contains(caps.Reason, "runc is not installed") {
		t.Errorf("without runc: %+v", caps)
	}
	old := "#!/bin/sh\necho runc version 1.0.3\n"
	if err := os.WriteFile(filepath.Join(dir, "runc"), []byte(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if caps := New(Options{}).Probe(t.Context()); caps.OK || !strings.Contains(caps.Reason, "too old") {
		t.Errorf("with an old runc: %+v", caps)
	}
}
