package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

type object = map[string]any

// build makes the example's two images from this program, as OCI image layouts (OCI Image Format Specification 1.1,
// image-layout.md, manifest.md, config.md): a tar of files, two JSON files that name it by its digest, and an index.
func build(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	app := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", app, "servent/examples/containers")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux") // static: the image needs nothing else
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	program, err := os.ReadFile(app)
	if err != nil {
		return err
	}
	layer, err := files(program)
	if err != nil {
		return err
	}
	for name, config := range map[string]object{
		"web": {
			"Entrypoint": []string{"/app", "web"}, "ExposedPorts": object{"8080/tcp": object{}},
		},
		"store": {
			"Entrypoint": []string{"/app", "store", "/data"}, "ExposedPorts": object{"7000/tcp": object{}}, "User": "1000",
			"Volumes":     object{"/data": object{}},
			"Healthcheck": object{"Test": []string{"CMD", "/app", "check", "http://127.0.0.1:7000/"}, "Interval": 5_000_000_000},
		},
	} {
		if err := image(filepath.Join(dir, name), layer, config); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Println("made", filepath.Join(dir, name))
	}
	return nil
}

// files is the one layer: the program, and a folder that the store's user may write.
func files(program []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, Uid: 1000, Gid: 1000}); err != nil {
		return nil, err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "app", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// image writes a layout of one image.
func image(dir string, layer []byte, config object) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	// put writes a blob and returns what refers to it.
	put := func(kind string, b []byte) (object, error) {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		return object{"mediaType": kind, "digest": "sha256:" + name, "size": len(b)}, os.WriteFile(filepath.Join(blobs, name), b, 0o644)
	}
	putJSON := func(kind string, v object) (object, error) {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		return put(kind, b)
	}
	const kind = "application/vnd.oci.image."
	one, err := put(kind+"layer.v1.tar", layer)
	if err != nil {
		return err
	}
	conf, err := putJSON(kind+"config.v1+json", object{"os": "linux", "architecture": runtime.GOARCH, "config": config,
		"rootfs": object{"type": "layers", "diff_ids": []any{one["digest"]}}})
	if err != nil {
		return err
	}
	manifest, err := putJSON(kind+"manifest.v1+json", object{"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": conf, "layers": []any{one}})
	if err != nil {
		return err
	}
	index, err := json.Marshal(object{"schemaVersion": 2, "mediaType": kind + "index.v1+json", "manifests": []any{manifest}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion": "1.0.0"}`), 0o644)
}
