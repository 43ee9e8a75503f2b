package cli

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ordinary is as Compose files are: nothing in it is Servent's.
const ordinary = `services:
  proxy:
    image: nginx
    restart: always
    ports:
      - 0:80
    volumes:
      - type: bind
        source: ./proxy/nginx.conf
        target: /etc/nginx/conf.d/default.conf
        read_only: true
    depends_on:
      - web
  web:
    image: visits:latest
    environment:
      - REDIS_HOST=cache
    expose:
      - 5000
    deploy:
      replicas: 3
      resources:
        limits: {memory: 64M}
    depends_on:
      cache:
        condition: service_healthy
  cache:
    image: redis:7
    restart: unless-stopped
    command: redis-server --save 60 1 --loglevel warning
    volumes:
      - cache:/data
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 5s
      timeout: 3s
      retries: 5
volumes:
  cache:
`

// loopback leads the names of the images to the registry of the test, as a second file does with Docker.
const loopback = `services:
  proxy: {image: "REGISTRY/nginx"}
  web: {image: "REGISTRY/visits:latest"}
  cache: {image: "REGISTRY/redis:7"}
x-servent:
  nodes: {machine: {count: 1}}
`

const proxyConf = `server {
  listen 80;
  location / { proxy_pass http://web:5000; }
}
`

// A Compose file of nginx, a program with three replicas, and Redis, all as their packages have them, runs on one node.
func TestThreeContainers(t *testing.T) {
	t.Parallel()
	runs(t)
	for _, program := range []string{"nginx", "redis-server", "redis-cli", "ldd"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("%v: apt-get install nginx-light redis-server", err)
		}
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")

	nginx := newFiles(t)
	nginx.program("nginx")
	nginx.put("/etc/nginx/mime.types")
	nginx.text("etc/nginx/nginx.conf", "user nginx;\nworker_processes 1;\nerror_log /dev/stderr warn;\npid /run/nginx.pid;\nevents {}\n"+
		"http {\n  include mime.types;\n  access_log /dev/stdout;\n  include conf.d/*.conf;\n}\n")
	nginx.text("etc/passwd", "root:x:0:0::/root:/bin/sh\nnginx:x:101:101::/nonexistent:/bin/false\n")
	nginx.text("etc/group", "root:x:0:\nnginx:x:101:\n")
	for _, dir := range []string{"run", "var/log/nginx", "var/lib/nginx", "etc/nginx/conf.d", "tmp"} {
		nginx.dir(dir, 0)
	}
	nginx.push(at+"/nginx:latest", v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGQUIT"})

	redis := newFiles(t)
	redis.program("redis-server")
	redis.program("redis-cli")
	redis.text("etc/passwd", "root:x:0:0::/root:/bin/sh\nredis:x:999:999::/data:/bin/false\n")
	redis.text("etc/group", "root:x:0:\nredis:x:999:\n")
	redis.dir("data", 999)
	redis.push(at+"/redis:7", v1.Config{Cmd: []string{"redis-server"}, User: "redis", WorkingDir: "/data", ExposedPorts: map[string]struct{}{"6379/tcp": {}},
		Volumes: map[string]struct{}{"/data": {}}})

	built := filepath.Join(t.TempDir(), "visits")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, "./testdata/visits")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	visits := newFiles(t)
	visits.as("visits", built)
	visits.push(at+"/visits:latest", v1.Config{Entrypoint: []string{"/visits"}, User: "1000"})

	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", ordinary)
	w.write("loopback.yaml", strings.ReplaceAll(loopback, "REGISTRY", at))
	w.write("proxy/nginx.conf", proxyConf)
	w.up("-f", filepath.Join(w.dir, "compose.yaml"), "-f", filepath.Join(w.dir, "loopback.yaml"))
	visit := regexp.MustCompile(`^visit (\d+), by (web-[123])$`)
	seen, last := map[string]int{}, ""
	url := "http://" + w.published("proxy") + "/"
	for range 60 {
		text := fresh(t, url)
		said := visit.FindStringSubmatch(text)
		if said == nil {
			t.Fatalf("it answers %q", text)
		}
		seen[said[2]]++
		last = said[1]
	}
	if len(seen) != 3 || last != "60" {
		t.Errorf("answered by %v, and counted %s, want three and 60\n%s", seen, last, w.logs())
	}
	if out, err := w.run("logs", "proxy"); err != nil || strings.Count(out, `"GET / HTTP/1.1" 200`) < 60 {
		t.Errorf("nginx logged %d requests: %v", strings.Count(out, `"GET / HTTP/1.1" 200`), err)
	}
}

// files are those of an image that is made from what is installed here.
type files struct {
	t    *testing.T
	b    bytes.Buffer
	w    *tar.Writer
	have map[string]bool
}

func newFiles(t *testing.T) *files {
	f := &files{t: t, have: map[string]bool{}}
	f.w = tar.NewWriter(&f.b)
	return f
}

// program adds one and the libraries that it is linked with, where they are.
func (f *files) program(name string) {
	f.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		f.t.Fatal(err)
	}
	f.as("usr/bin/"+name, path)
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		f.t.Fatalf("ldd: %v: %s", err, out)
	}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		f.put(lib)
	}
}

// put adds a file at its own place, through links.
func (f *files) put(path string) { f.t.Helper(); f.as(path[1:], path) }

func (f *files) as(name, path string) {
	f.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, b)
}

func (f *files) text(name, text string) {
	f.t.Helper()
	f.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(text))
}

func (f *files) dir(name string, owner int) {
	f.t.Helper()
	f.entry(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, Uid: owner, Gid: owner}, nil)
}

func (f *files) entry(h tar.Header, b []byte) {
	f.t.Helper()
	if f.have[h.Name] {
		return
	}
	f.have[h.Name] = true
	h.Size = int64(len(b))
	if err := f.w.WriteHeader(&h); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.w.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) push(ref string, cfg v1.Config) {
	f.t.Helper()
	if err := f.w.Close(); err != nil {
		f.t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.b.Bytes())), nil })
	if err != nil {
		f.t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: must(img.ConfigFile()).RootFS, Config: cfg})
	}
	var r name.Reference
	if err == nil {
		r, err = name.ParseReference(ref)
	}
	if err == nil {
		err = remote.Write(r, img)
	}
	if err != nil {
		f.t.Fatal(fmt.Errorf("push %s: %w", ref, err))
	}
}
