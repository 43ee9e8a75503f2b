//go:build !wasip1

// Command kinds is one handler to be run as a process, in a container and, built for wasip1, as a function; the example vm has it in its
// virtual machine. With "image FILE" it packs itself as docker save does, for want of a builder.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "image":
		err = image(os.Args[2])
	default:
		http.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		err = http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")), nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kinds:", err)
		os.Exit(1)
	}
}

// image writes an image of this program alone: a layer, a configuration that names it by its digest (OCI Image Format Specification 1.1, config.md),
// and a list of both.
func image(to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	program := to + ".program"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "servent/examples/kinds")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux") // static: the image needs nothing else
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	defer os.Remove(program)
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := pack("kinds", b)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(layer)
	type object = map[string]any
	config, err1 := json.Marshal(object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{"/kinds"}, "ExposedPorts": object{"8080/tcp": object{}}},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}}})
	list, err2 := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{"kinds:1"}, "Layers": []string{"layer.tar"}}})
	if err1 != nil || err2 != nil {
		return fmt.Errorf("describe the image: %v %v", err1, err2)
	}
	all, err := pack("config.json", config, "layer.tar", layer, "manifest.json", list)
	if err != nil {
		return err
	}
	return os.WriteFile(to, all, 0o644)
}

// pack writes a tar of names and contents in turns.
func pack(files ...any) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		content := files[i+1].([]byte)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i].(string), Mode: 0o755, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
