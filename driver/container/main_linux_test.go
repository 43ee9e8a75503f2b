package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// newDriver is a driver for a test; the test is skipped where there is none.
func newDriver(t *testing.T) *Driver {
	t.Helper()
	d := New(Options{Blobs: t.TempDir(), StateDir: t.TempDir()})
	if caps := d.Probe(t.Context()); !caps.OK {
		if os.Getenv("CI") == "true" {
			t.Fatal(caps.Reason)
		}
		t.Skip(caps.Reason)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// program is the test program, built once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "servent-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the test program: %w: %s", err, b)
	}
	return os.ReadFile(out)
})

// entry is one of a layer.
type entry struct {
	tar.Header
	text string
}

func file1(name, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, text}
}

// layer makes one of entries.
func layer(t *testing.T, entries ...entry) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == tar.TypeReg && h.Size == 0 {
			h.Size = int64(len(e.text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithCompressedCaching)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// imageOf makes an image for this machine.
func imageOf(t *testing.T, cfg v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err == nil {
		img, err = mutate.ConfigFile(img, withConfig(t, img, cfg))
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func withConfig(t *testing.T, img v1.Image, cfg v1.Config) *v1.ConfigFile {
	t.Helper()
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", runtime.GOARCH, cfg
	return f
}

// probeImage runs the test program; it has a user app, a folder of the user's, and links as old images do.
func probeImage(t *testing.T, cfg v1.Config) v1.Image {
	t.Helper()
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Entrypoint == nil {
		cfg.Entrypoint = []string{"/bin/probe"}
	}
	probeOnce.Do(func() {
		probeLayer = layer(t,
			entry{tar.Header{Typeflag: tar.TypeReg, Name: "bin/probe", Mode: 0o755}, string(b)},
			file1("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"),
			file1("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"),
			entry{tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}, ""},
			entry{tar.Header{Typeflag: tar.TypeDir, Name: "srv/data", Mode: 0o755, Uid: 1000, Gid: 1000}, ""},
			entry{tar.Header{Typeflag: tar.TypeReg, Name: "srv/data/first", Mode: 0o644, Uid: 1000, Gid: 1000}, "from the image"},
		)
	})
	return imageOf(t, cfg, probeLayer)
}

// The layer of the test program is packed once.
var (
	probeOnce  sync.Once
	probeLayer v1.Layer
)

// onDisk writes an image as an OCI layout and returns its artifact.
func onDisk(t *testing.T, img v1.Image, c *system.Container) driver.Artifact {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return driver.Artifact{Software: system.Software{Kind: system.Image, From: "oci:./image", Container: c}, Dir: dir}
}

// registryOn serves a registry on loopback and returns its host:port.
func registryOn(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(r, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func specFor(t *testing.T, n int) driver.Spec {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return driver.Spec{Instance: system.Instance("web", n), Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Dir: t.TempDir()}
}

// up prepares and starts, and waits until it answers.
func up(t *testing.T, d *Driver, a driver.Artifact, s driver.Spec) driver.Instance {
	t.Helper()
	i := begin(t, d, a, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		status, _, err := drivertest.Ask(ctx, i.Endpoint(), "/")
		if err == nil && status == http.StatusOK {
			return i
		}
		select {
		case exit := <-i.Wait():
			t.Fatalf("ended: %v", exit)
		case <-ctx.Done():
			t.Fatalf("no answer: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func begin(t *testing.T, d *Driver, a driver.Artifact, s driver.Spec) driver.Instance {
	t.Helper()
	p, err := d.Prepare(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	i, err := p.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	return i
}

func ask(t *testing.T, i driver.Instance, path string) string {
	t.Helper()
	status, body, err := drivertest.Ask(t.Context(), i.Endpoint(), path)
	if err != nil || status != http.StatusOK {
		t.Fatalf("GET %s = %d %q %v", path, status, body, err)
	}
	return body
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
