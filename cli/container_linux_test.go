package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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

	"servent/driver/container"
)

const containers = `name: containers
services:
  web:
    image: REGISTRY/probe:1
    ports: ["80"]
    deploy: {replicas: 3}
    secrets: [password]
    volumes: [kept:/srv]
    depends_on: [api]
    healthcheck: {test: [CMD, /bin/probe, "true"], interval: 10s}
  api:
    image: REGISTRY/probe:1
    user: "1000"
secrets:
  password: {environment: PROBE_PASSWORD}
volumes:
  kept: {}
x-servent:
  nodes: {machine: {count: 1}}
`

// An ordinary Compose file of images runs as it is: three replicas listen on the same port on one node, each is
// reached, and each reaches the other service by its name, at a port that only the image names.
func TestImagesRun(t *testing.T) {
	caps := container.New(container.Options{}).Probe(t.Context())
	if !caps.OK && os.Getenv("CI") == "true" {
		t.Fatal(caps.Reason)
	} else if !caps.OK {
		t.Skip(caps.Reason)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	pushProbe(t, at+"/probe:1")

	t.Setenv("PROBE_PASSWORD", "swordfish")
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", strings.ReplaceAll(containers, "REGISTRY", at))
	w.up()
	web := "http://" + w.published("web")
	seen := map[string]bool{}
	for range 60 {
		seen[fresh(t, web+"/me")] = true
	}
	if len(seen) != 3 || !seen["web-1"] || !seen["web-2"] || !seen["web-3"] {
		t.Errorf("answered: %v, want web-1, web-2 and web-3\n%s", seen, w.logs())
	}
	for _, address := range []string{"http://api/me", "http://api:80/me"} {
		if got := fetch(t, web+"/ask?url="+url.QueryEscape(address)); got != "api-1" {
			t.Errorf("web asks %s and gets %q, want api-1", address, got)
		}
	}
	env := fetch(t, web+"/env")
	for _, want := range []string{"PORT=80", "SERVENT_SERVICE=web", "SERVENT_DATA=/servent/data", "SERVENT_SECRET_PASSWORD=/run/secrets/password"} {
		if !strings.Contains("\n"+env+"\n", "\n"+want+"\n") {
			t.Errorf("environment lacks %s:\n%s", want, env)
		}
	}
	_, apiURL, _ := strings.Cut(env, "API_URL=")
	apiURL, _, _ = strings.Cut(apiURL, "\n")
	apiURL = strings.Replace(apiURL, "tcp://", "http://", 1)
	if got := fetch(t, web+"/ask?url="+url.QueryEscape(apiURL+"/me")); got != "api-1" {
		t.Errorf("web asks API_URL %s and gets %q, want api-1", apiURL, got)
	}
	if got := fetch(t, web+"/read?path=/run/secrets/password"); got != "swordfish" {
		t.Errorf("secret %q", got)
	}
	_, peers, _ := strings.Cut(env, "SERVENT_PEERS=")
	peers, _, _ = strings.Cut(peers, "\n")
	met := map[string]bool{}
	for peer := range strings.SplitSeq(peers, ",") {
		peer = strings.Replace(peer, "tcp://", "http://", 1)
		met[fetch(t, web+"/ask?url="+url.QueryEscape(peer+"/me"))] = true
	}
	if len(met) != 3 {
		t.Errorf("peers %s lead to %v, want all three", peers, met)
	}
	if out, err := w.run("logs", "web"); err != nil || !strings.Contains(out, "listening") {
		t.Errorf("logs: %v\n%s", err, out)
	}
}

// fresh is fetch by a connection of its own.
func fresh(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %q %v", url, res.Status, b, err)
	}
	return string(b)
}

// pushProbe makes an image of the driver's test program, which listens where PORT says, and pushes it.
func pushProbe(t *testing.T, ref string) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", probe, "../driver/container/testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/probe", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	tw.Write(program)
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: must(img.ConfigFile()).RootFS,
		Config: v1.Config{Entrypoint: []string{"/bin/probe"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
