package container

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"servent/driver"
	"servent/system"
)

// A registry's password is Docker's, and is written nowhere.
func TestLogin(t *testing.T) {
	newDriver(t)
	const user, password = "someone", "correct-horse-battery"
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(at + "/probe:1")
	if err == nil {
		err = remote.Write(ref, probeImage(t, v1.Config{}), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	if err != nil {
		t.Fatal(err)
	}
	login := func(host, password string) {
		dir := t.TempDir()
		auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"`+host+`":{"auth":"`+auth+`"}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("DOCKER_CONFIG", dir)
		t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "none"))
	}
	var logged bytes.Buffer
	prepare := func() (*Driver, error) {
		d := New(Options{Blobs: t.TempDir(), StateDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		_, err := d.Prepare(t.Context(), driver.Artifact{Software: system.Software{Kind: system.Image, From: at + "/probe:1"}})
		return d, err
	}
	for why, host := range map[string]string{"wrong": at, "of another": "registry.example"} {
		login(host, "tr0ub4dor")
		if _, err := prepare(); !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), "docker login") || strings.Contains(err.Error(), "tr0ub4dor") {
			t.Errorf("with a password that is %s: %v", why, err)
		}
	}
	login(at, password)
	d, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	secret := []string{password, base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	err = filepath.WalkDir(d.opts.Blobs, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range secret {
			if bytes.Contains(b, []byte(s)) || strings.Contains(logged.String(), s) {
				t.Errorf("the password is in %s or in the log", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
