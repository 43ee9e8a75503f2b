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

	"servent/driver"
	"servent/driver/container"
	"servent/driver/vm"
	"servent/lab"
	"servent/lab/result"
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

// haveKinds skips a test where containers or virtual machines do not run.
func haveKinds(t *testing.T) {
	t.Helper()
	for _, d := range []driver.Driver{container.New(container.Options{}), vm.New(vm.Options{})} {
		caps := d.Probe(t.Context())
		if !caps.OK && os.Getenv("CI") == "true" {
			t.Fatal(caps.Reason)
		} else if !caps.OK {
			t.Skip(caps.Reason)
		}
	}
}

// The example of one handler in four files: compared, with what runs each of them in figures.
func TestCompareKinds(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine and compiles a module")
	}
	haveKinds(t)
	w := &world{t: t, dir: t.TempDir()}
	if err := os.CopyFS(w.dir, os.DirFS("../examples/kinds")); err != nil {
		t.Fatal(err)
	}
	w.write("go.mod", "module kinds\n\ngo 1.26\n")
	for _, args := range [][]string{{"run", "servent/examples/kinds", "image", filepath.Join(w.dir, "out", "kinds.tar")},
		{"run", "servent/examples/vm/image", filepath.Join(w.dir, "machine")}} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	machine, err := os.ReadFile(filepath.Join(w.dir, "vm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("vm.yaml", strings.Replace(string(machine), ", build: [go, run, servent/examples/vm/image, machine]", "", 1))
	args := []string{"compare", "--nodes", "1", "--no-fault"}
	for _, name := range []string{"process", "container", "vm", "function"} {
		args = append(args, filepath.Join(w.dir, name+".yaml"))
	}
	out, err := w.run(args...)
	if err != nil {
		t.Fatalf("compare: %v\n%s", err, out)
	}
	res, err := result.Read(lab.Latest(filepath.Join(w.dir, ".servent")))
	if err != nil {
		t.Fatal(err)
	}
	memory := map[string]int64{}
	for _, v := range res.Variants {
		is := v.Runs
		if is == nil || is.StartMS <= 0 || is.FirstMS <= 0 || is.WarmMS <= 0 || is.Rate <= 0 || is.CPUMicros <= 0 || is.Isolation == "" || v.Answers.Verdict != "right" {
			t.Errorf("%s: %+v, answers %s; want figures and right answers", v.Name, is, v.Answers.Verdict)
			continue
		}
		if is.Woken != (v.Name == "function") || is.Starts != map[bool]int{true: 1, false: 3}[is.Woken] {
			t.Errorf("%s: %+v", v.Name, is)
		}
		memory[v.Name] = is.Memory
	}
	if len(res.Variants) != 4 || memory["vm"] <= 4*memory["process"] {
		t.Errorf("%d variants, memory %v; want four, and a machine that holds the most", len(res.Variants), memory)
	}
	for _, want := range []string{"one instance on one node, real", "kernel of its own", "it saves less than 5 %"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
}

// One file with every kind of software in one system: a process, a function, a container, a virtual machine, and a flow that asks them all.
func TestAllKinds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a machine and compiles a module")
	}
	haveKinds(t)
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
