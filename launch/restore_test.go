package launch

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/launch/backup"
	"servent/system"
)

// stopped is a folder of a system that does not run, whose control holds what no server can read.
func stopped(t *testing.T) Folder {
	t.Helper()
	f := FolderOf(t.TempDir())
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	k, _, err := f.open("laptop")
	if err != nil {
		t.Fatal(err)
	}
	k.Server = "node-1"
	db := filepath.Join(f.control(), "etcd", "member", "snap", "db")
	if err := errors.Join(f.write(keptName, k), os.MkdirAll(filepath.Dir(db), 0o700), os.WriteFile(db, []byte("no database"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHourlyBackups(t *testing.T) {
	f := stopped(t)
	for i := range hourlyKept + 5 {
		if err := f.backUp(t.Context(), time.Date(2026, 1, 1, i, 0, 0, 0, time.UTC), "test"); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(f.backups())
	if err != nil || len(left) != hourlyKept || left[0].Name() != "hourly-20260101-050000" {
		t.Errorf("%d backups are kept, from %v on (%v); want %d, from 05:00 on", len(left), left, err, hourlyKept)
	}
	full := errors.New("disk is full")
	if _, err := Backup(t.Context(), f, broken{full}, "test"); !errors.Is(err, full) {
		t.Errorf("a backup to a full disk = %v", err)
	}
	if left, _ := filepath.Glob(f.path("snapshot-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

type broken struct{ error }

func (b broken) Write([]byte) (int, error) { return 0, b.error }

// TestRestoreRefuses: what is no backup, or of something else, leaves the folder without a system, to be tried again.
func TestRestoreRefuses(t *testing.T) {
	f := stopped(t)
	var whole bytes.Buffer
	if _, err := Backup(t.Context(), f, &whole, "test"); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(f.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	about := func(text string) map[string]string {
		return map[string]string{partAbout: text, partKept: read(keptName), partControl: "x"}
	}
	other, err := func() (string, error) {
		g := FolderOf(t.TempDir())
		if err := g.Make(); err != nil {
			return "", err
		}
		_, _, err := g.open("laptop")
		b, err2 := os.ReadFile(g.path(keptName))
		return string(b), errors.Join(err, err2)
	}()
	if err != nil {
		t.Fatal(err)
	}
	cluster := strings.Split(strings.SplitAfter(read(keptName), `"cluster": "`)[1], `"`)[0]
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"half":            {whole.Bytes()[:whole.Len()/2], "not all of one"},
		"no backup":       {[]byte("PK\x03\x04"), "this is no backup"},
		"empty":           {nil, "this is no backup"},
		"a later format":  {packed(t, about(`{"format": 2, "cluster": "`+cluster+`"}`)), "format 2"},
		"no cluster":      {packed(t, about(`{"format": 1}`)), "several clusters"},
		"another cluster": {packed(t, map[string]string{partAbout: `{"format": 1, "cluster": "` + cluster + `"}`, partKept: other}), "several clusters"},
		"no authority":    {packed(t, map[string]string{partAbout: `{"format": 1}`, partKept: `{"cluster": "x"}`}), "authority"},
		"parts missing":   {packed(t, map[string]string{partAbout: `{"format": 1}`}), keptName},
		"bad control":     {whole.Bytes(), "snapshot"},
		"another part":    {packed(t, map[string]string{"run.json": "{}"}), "which no backup has"},
	} {
		to := FolderOf(t.TempDir())
		_, err := Restore(t.Context(), bytes.NewReader(tt.text), RestoreOptions{Folder: to})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if _, err := os.Stat(to.path(keptName)); err == nil {
			t.Errorf("%s: the folder has a system", name)
		}
		if left, _ := filepath.Glob(to.path("restoring*")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
	if _, err := Restore(t.Context(), bytes.NewReader(whole.Bytes()), RestoreOptions{Folder: f}); err == nil || !strings.Contains(system.Next(err), ".old") {
		t.Errorf("a folder with a system: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(ended, bytes.NewReader(whole.Bytes()), RestoreOptions{Folder: FolderOf(t.TempDir())}); err == nil {
		t.Error("it restores after it was called off")
	}
}

func packed(t *testing.T, parts map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := backup.NewWriter(&out, time.Now())
	for name, text := range parts {
		if err := w.AddText(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
