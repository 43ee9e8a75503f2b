//go:build unix

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"servent/driver"
	"servent/driver/container"
	"servent/system"
)

// contained answers each request by a container of its own, from the image of the guest. without says why it cannot.
func contained(dir, guest string) (h http.Handler, without string, err error) {
	d := container.New(container.Options{Blobs: filepath.Join(dir, "blobs"), StateDir: filepath.Join(dir, "state")})
	if caps := d.Probe(context.Background()); !caps.OK {
		return nil, caps.Reason, nil
	}
	if err := archive(filepath.Join(dir, "guest.tar"), guest); err != nil {
		return nil, "", err
	}
	p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Image, From: "docker-archive:./guest.tar"}, Dir: dir})
	if err != nil {
		return nil, "", err
	}
	turn := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn++
		i, err := p.Start(r.Context(), driver.Spec{Instance: system.Instance("fn", turn), Dir: filepath.Join(dir, "instance"), Limits: system.Limits{Resources: system.Resources{Memory: 64 << 20}}})
		if err == nil {
			err = relay(w, r, i)
			if bad := i.Stop(context.Background(), 0); err == nil {
				err = bad
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}), "", nil
}

// relay asks an instance as soon as it listens.
func relay(w io.Writer, r *http.Request, i driver.Instance) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			conn, err := i.Endpoint().Connect(ctx)
			if err == nil {
				return conn, nil
			}
			select {
			case exit := <-i.Wait():
				return nil, fmt.Errorf("it ended: %v", exit)
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}}}
	resp, err := client.Get("http://fn" + r.URL.Path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// archive writes an image of one file as docker save does: the layer, a configuration that names it by its digest, and a list of both.
func archive(path, program string) error {
	bin, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := pack(map[string][]byte{"guest": bin})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/guest", "serve"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return err
	}
	list, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"guest:1"}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	all, err := pack(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": list})
	if err != nil {
		return err
	}
	return os.WriteFile(path, all, 0o600)
}

func pack(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
