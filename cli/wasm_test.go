package cli

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

const wasmSystem = `name: modules
services:
  greet:
    deploy: {replicas: 2}
    environment: {GREETING: hello}
    x-servent:
      wasm: {module: ./greet.wasm, build: [go, build, -o, greet.wasm, ./greet]}
      architecture: replicated
      route: /*
      limits: {memory: 64M, fuel: 1e8, timeout: 30s} # fuel must end before time, also while the module is interpreted
`

const greet = `package main

import (
	"fmt"
	"os"
)

func main() {
	if os.Getenv("PATH_INFO") == "/loop" {
		for {
		}
	}
	fmt.Printf("Content-Type: text/plain\n\n%s, %s\n", os.Getenv("GREETING"), os.Getenv("PATH_INFO"))
}
`

// A module is built, bundled, compiled and called; what loops in it is ended, and its neighbours answer.
func TestModuleRuns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", wasmSystem)
	w.write("go.mod", "module greet\n\ngo 1.26\n")
	w.write(filepath.Join("greet", "main.go"), greet)
	w.up()
	at := "http://" + w.published("greet")
	if got, want := fetch(t, at+"/ada"), "hello, /ada\n"; got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	r, err := http.Get(at + "/loop")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusBadGateway {
		t.Errorf("a loop without end is answered with %s, want 502 when its fuel is used up", r.Status)
	}
	if got := fetch(t, at+"/after"); !strings.HasPrefix(got, "hello") {
		t.Errorf("after it: %q", got)
	}
	if out, err := w.run("logs", "greet"); err != nil || !strings.Contains(out, "it used up its fuel") {
		t.Errorf("logs: %v, want a word of the fuel\n%s", err, out)
	}
	w.write("compose.yaml", strings.Replace(wasmSystem, "./greet.wasm", "./great.wasm", 1))
	if out, err := w.run("up", "-d"); err == nil || !strings.Contains(out, "great.wasm") {
		t.Errorf("a module that the build does not make: %v\n%s", err, out)
	}
}
