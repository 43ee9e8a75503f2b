package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What fn new writes is built, called once, and served.
func TestFunctionIsMade(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	for _, lang := range []string{"go", "c", "assemblyscript"} {
		t.Run(lang, func(t *testing.T) {
			switch lang {
			case "c":
				have(t, "clang", "wasm-ld")
				if err := exec.Command("sh", "-c", "echo '#include <stdio.h>' | clang --target=wasm32-wasi -E -xc -").Run(); err != nil && os.Getenv("CI") != "true" {
					t.Skip("wasi-libc is not installed")
				}
			case "assemblyscript":
				if os.Getenv("SERVENT_LONG") == "" {
					t.Skip("it fetches the compiler; SERVENT_LONG=1 runs it")
				}
				have(t, "npm")
			}
			w := &world{t: t, dir: t.TempDir()}
			if out, err := w.run("fn", "new", "hello", "--lang", lang); err != nil {
				t.Fatalf("fn new: %v\n%s", err, out)
			}
			if out, err := w.run("fn", "new", "hello", "--lang", lang); err == nil || !strings.Contains(out, "something already") {
				t.Errorf("fn new once more: %v\n%s", err, out)
			}
			out, err := w.run("fn", "run", "hello", "--call", "GET /ada")
			if err != nil || !strings.Contains(out, "hello from hello: /ada\n") || !strings.Contains(out, "200 OK in ") {
				t.Fatalf("fn run: %v\n%s", err, out)
			}
			out, err = w.run("fn", "run", filepath.Join("hello", "hello.wasm"), "--call", "GET /bob", "--json")
			if err != nil || !strings.Contains(out, `"body": "hello from hello: /bob\n"`) {
				t.Errorf("fn run of the module: %v\n%s", err, out)
			}
			if out, err = w.run("fn", "run", "hello", "--call", "GET /", "--fuel", "100"); err == nil || !strings.Contains(out, "used up its fuel") {
				t.Errorf("fn run with little fuel: %v\n%s", err, out)
			}
		})
	}
}

// tiny answers by one call of WASI's fd_write: "ok".
const tiny = "\x00asm\x01\x00\x00\x00\x01\x0c\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\x00\x00\x03\x02\x01\x01\x05\x03\x01\x00\x01" +
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x01\x0a\x0f\x01\x0d\x00\x41\x01\x41\x00\x41\x01\x41\x30\x10\x00\x1a\x0b\x0b\x1e\x01\x00\x41\x00\x0b\x18\x08\x00\x00\x00\x10\x00\x00\x00Status: 200\n\nok\n"

func TestFunctionIsServed(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("small.wasm", tiny)
	cmd := exec.Command(program, "-C", w.dir, "fn", "run", "small.wasm", "--port", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	at, _, ok := strings.Cut(line, "  ")
	if err != nil || !ok {
		t.Fatalf("it says %q, %v, want where it serves", line, err)
	}
	if got := fetch(t, at+"/x"); got != "ok\n" {
		t.Errorf("answer %q, want ok", got)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestFunctionWords(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("small.wasm", tiny)
	w.write("text.wasm", "#!/bin/sh\n")
	w.write(filepath.Join("none", "compose.yaml"), "services:\n  a: {x-servent: {files: .}}\n")
	w.write(filepath.Join("two", "compose.yaml"), "services:\n  a: {x-servent: {wasm: ../small.wasm}}\n  b: {x-servent: {wasm: ../small.wasm}}\n")
	for _, tt := range []struct {
		words string
		fails bool
		says  string
	}{
		{"new Hello", true, "want a name of small letters"},
		{"new ../x", true, "want a name of small letters"},
		{"new x --lang cobol", true, `want go, c, assemblyscript; have "cobol"`},
		{"run", true, "accepts between 1 and 2"},
		{"run gone.wasm", true, "no such file"},
		{"run text.wasm --call", true, "needs an argument"},
		{"run text.wasm --call GET_/", true, "not a WebAssembly module"},
		{"run small.wasm --call GET_/", false, "200 OK"},
		{"run small.wasm other --call GET_/", true, "want no service"},
		{"run small.wasm --call GET", true, "want a method and a path"},
		{"run small.wasm --call G()T_/", true, "invalid method"},
		{"run small.wasm --body x", true, "belong to --call"},
		{"run small.wasm --call GET_/ -H x", true, `want "Name: value"`},
		{"run small.wasm --call GET_/ --body @gone", true, "--body: open gone"},
		{"run small.wasm --call GET_/ --memory much", true, "--memory: "},
		{"run small.wasm --call GET_/ --fuel much", true, "--fuel: "},
		{"run small.wasm --call GET_/ --fuel 1", true, "used up its fuel"},
		{"run small.wasm --call GET_/ --output 5B", true, "more than it may"},
		{"run small.wasm --call GET_/ --env x", true, "want NAME=VALUE"},
		{"run small.wasm --call GET_/ --reach db", true, "want SERVICE=HOST:PORT"},
		{"run small.wasm --port 70000", true, "want 0 to 65535"},
		{"run none --call GET_/", true, "no service is a WebAssembly module"},
		{"run two --call GET_/", true, "there are a, b: say which"},
		{"run two c --call GET_/", true, `want one of a, b, have "c"`},
		{"run two b --call GET_/", false, "200 OK"},
	} {
		var words []string
		for _, word := range strings.Fields(tt.words) {
			words = append(words, strings.ReplaceAll(word, "_", " "))
		}
		out, err := w.run(append([]string{"fn"}, words...)...)
		if (err != nil) != tt.fails || !strings.Contains(out, tt.says) {
			t.Errorf("fn %s: %v, want %q\n%s", tt.words, err, tt.says, out)
		}
	}
}

// The one in AssemblyScript makes HTML of Markdown, and nothing that is sent to it becomes markup of its own.
func TestMarkdownFunction(t *testing.T) {
	if os.Getenv("SERVENT_LONG") == "" {
		t.Skip("it fetches the compiler; SERVENT_LONG=1 runs it")
	}
	have(t, "npm")
	w := example(t, "functions")
	w.up("-f", "compose.yaml", "-f", "compose.assemblyscript.yaml")
	at, _, _ := strings.Cut("http://"+w.published("markdown"), "/markdown")
	for text, want := range map[string]string{
		"# Hello *you*\n\nA **strong** word and `a < b`.\nmore\n\n- one\n- [two](/2)\n": "<h1>Hello <em>you</em></h1>\n<p>A <strong>strong</strong> word and <code>a &lt; b</code>.\nmore</p>\n" +
			"<ul><li>one</li><li><a href=\"/2\">two</a></li></ul>\n",
		"<script>x</script> [y](javascript:z) [q](https://a/\"onclick=)": "<p>&lt;script&gt;x&lt;/script&gt; [y](javascript:z) <a href=\"https://a/&quot;onclick=\">q</a></p>\n",
		"**open half `": "<p>**open half `</p>\n",
		"":              "",
	} {
		resp, err := http.Post(at+"/markdown", "text/markdown", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%q becomes %q, %v; want %q", text, got, err, want)
		}
	}
}

// The example functions: a function in Go asks the database that its service names, and none other; one in C answers beside it.
func TestFunctions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	have(t, "clang", "wasm-ld")
	w := example(t, "functions")
	w.up("-f", "compose.yaml", "-f", "compose.c.yaml")
	thumbs, _, _ := strings.Cut("http://"+w.published("thumbs"), "/thumbs")
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 600, 300))); err != nil {
		t.Fatal(err)
	}
	put := func(at string, body []byte) (int, string) {
		r, err := http.NewRequest(http.MethodPut, at, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		return resp.StatusCode, text.String()
	}
	if code, text := put(thumbs+"/thumbs/a", picture.Bytes()); code != http.StatusCreated {
		t.Fatalf("PUT: %d %s\n%s", code, text, w.logs())
	}
	got, err := png.Decode(strings.NewReader(fetch(t, thumbs+"/thumbs/a")))
	if err != nil || got.Bounds().Dx() != 128 || got.Bounds().Dy() != 64 {
		t.Errorf("the thumbnail: %v, %v; want 128 x 64", got, err)
	}
	if code, text := put(thumbs+"/thumbs/b", []byte("no picture")); code != http.StatusBadRequest {
		t.Errorf("no picture: %d %s, want 400", code, text)
	}
	crc, _, _ := strings.Cut("http://"+w.published("crc"), "/crc")
	if code, text := put(crc+"/crc", picture.Bytes()); code != http.StatusOK || text != fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(picture.Bytes())) {
		t.Errorf("crc: %d %q, want that of hash/crc32", code, text)
	}
	// Without depends_on it may not ask.
	file, err := os.ReadFile(filepath.Join(w.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(file[bytes.Index(file, []byte("    depends_on")):]), "\n")
	w.write("compose.yaml", strings.Replace(string(file), line+"\n", "", 1))
	w.up("-f", "compose.yaml", "-f", "compose.c.yaml")
	for end := time.Now().Add(60 * time.Second); ; { // until the instance of the older file is gone
		code, text := put(thumbs+"/thumbs/c", picture.Bytes())
		if code == http.StatusBadGateway && strings.Contains(text, "name it in depends_on") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("without depends_on: %d %s, want 502", code, text)
		}
	}
}
