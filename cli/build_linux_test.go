package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const builtFile = `services:
  web:
    build:
      context: ./web
      args: {WHO: "somebody"}
    ports: ["8080"]
    stop_grace_period: 1s
x-servent:
  nodes: {machine: {count: 1}}
`

const recipe = `FROM scratch
ARG WHO=nobody
ENV WHO=$WHO
COPY probe /bin/probe
EXPOSE 8080
ENTRYPOINT ["/bin/probe"]
`

// Compose's build, by podman: the image runs by runc like any other; built again without a change it is the same, and
// with one it is new.
func TestBuildByPodman(t *testing.T) {
	runs(t)
	if out, err := exec.Command("podman", "version").CombinedOutput(); err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("podman: %v: %s", err, out)
	} else if err != nil {
		t.Skipf("podman: %v: %s", err, out)
	}
	w := &world{t: t, dir: t.TempDir()}
	// A storage of the test's own, with nothing that the kernel must have.
	w.write("storage.conf", "[storage]\ndriver = \"vfs\"\ngraphroot = \""+filepath.Join(w.dir, "graph")+"\"\nrunroot = \""+filepath.Join(w.dir, "run")+"\"\n")
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(w.dir, "storage.conf"))
	if err := os.Mkdir(filepath.Join(w.dir, "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(w.dir, "web", "probe"), "../driver/container/testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.write("compose.yaml", builtFile)
	w.write("web/Dockerfile", strings.Replace(recipe, "ENTRYPOINT", "ENTRYPIONT", 1))
	if out, err := w.run("plan"); err == nil || !strings.Contains(out, "ENTRYPIONT") || !strings.Contains(out, "compose.yaml:2:3: build: podman build") {
		t.Errorf("a wrong Dockerfile: %v\n%s", err, out)
	}
	w.write("web/Dockerfile", recipe)
	w.up()
	who := func() string { return fetch(t, "http://"+w.published("web")+"/env") }
	if env := who(); !strings.Contains(env, "WHO=somebody") {
		t.Errorf("environment %q, want WHO=somebody", env)
	}
	if out, err := w.run("up", "-d"); err != nil || !strings.Contains(out, "nothing changed") {
		t.Errorf("built again, without a change: %v\n%s", err, out)
	}
	w.write("web/Dockerfile", strings.Replace(recipe, "WHO=$WHO", "WHO=$WHO-else", 1))
	if out, err := w.run("up", "-d"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if env := who(); !strings.Contains(env, "WHO=somebody-else") {
		t.Errorf("environment %q, want WHO=somebody-else", env)
	}
}
