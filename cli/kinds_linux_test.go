package cli

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"servent/driver/container"
	"servent/driver/vm"
)

const kindsSystem = `
name: kinds
services:
  process:
    x-servent: {process: [servent, example, counter], switch: {by: request}}
  function:
    x-servent:
      wasm: {module: ./greet.wasm, build: [go, build, -o, greet.wasm, ./greet]}
      architecture: function
  container:
    image: REGISTRY/probe:1
    x-servent: {switch: {by: request}}
  machine:
    deploy: {resources: {limits: {memory: 192M}}}
    x-servent:
      vm: {kernel: image/out/vmlinuz, initrd: image/out/initrd, append: quiet, warm: true}
      switch: {by: request}
  all:
    x-servent:
      builtin: flow
      route: /*
      flow:
        - parallel:
            - [{call: process, request: POST /c/x}]
            - [{call: function, request: GET /ada}]
            - [{call: container, request: GET /me}]
            - [{call: machine, request: GET /ping, timeout: 30s}]
x-servent: {nodes: {node: {count: 2}}}
`

// One file with every kind of software in one system: a process, a function, a container, a virtual machine, and a flow that asks them all.
func TestAllKinds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a machine and compiles a module")
	}
	for _, caps := range []struct {
		ok     bool
		reason string
	}{
		{container.New(container.Options{}).Probe(t.Context()).OK, container.New(container.Options{}).Probe(t.Context()).Reason},
		{vm.New(vm.Options{}).Probe(t.Context()).OK, vm.New(vm.Options{}).Probe(t.Context()).Reason},
	} {
		if !caps.ok && os.Getenv("CI") == "true" {
			t.Fatal(caps.reason)
		} else if !caps.ok {
			t.Skip(caps.reason)
		}
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	pushProbe(t, at+"/probe:1")
	w := &world{t: t, dir: t.TempDir()}
	if out, err := exec.Command("go", "run", "servent/examples/vm/image", filepath.Join(w.dir, "image", "out")).CombinedOutput(); err != nil {
		t.Fatalf("make the machine: %v\n%s", err, out)
	}
	w.write("compose.yaml", strings.ReplaceAll(kindsSystem, "REGISTRY", at))
	w.write("go.mod", "module greet\n\ngo 1.26\n")
	w.write(filepath.Join("greet", "main.go"), greet)
	w.up("--wait", "3m")
	resp, err := http.Post("http://"+w.published("all")+"/", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := `"value":["1\n",", /ada\n","container-1","pong"]`; err != nil || !strings.Contains(string(got), want) {
		t.Errorf("%s %v: %s, want %s\n%s", resp.Status, err, got, want, w.logs())
	}
}
