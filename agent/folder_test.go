package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"servent/system"
)

func serviceWith(kind system.DataKind, volumes ...system.Volume) *system.Service {
	return &system.Service{Name: "db", Data: system.Data{Kind: kind}, Volumes: volumes}
}

// furnish makes the folder of a new instance, as after the stop of the one before.
func furnish(t *testing.T, f *folder) furnished {
	t.Helper()
	if err := f.leave(); err != nil {
		t.Fatal(err)
	}
	out, err := f.furnish(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.leave() })
	return out
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestFolderKeepsDataAndNothingElse(t *testing.T) {
	volume := system.Volume{Type: "volume", Source: "rows", Target: "/var/lib/db"}
	for _, tt := range []struct {
		name    string
		service *system.Service
		keeps   bool
	}{
		{"none", serviceWith(system.DataNone), false},
		{"not said", serviceWith(""), false},
		{"soft", serviceWith(system.DataSoft), true},
		{"hard", serviceWith(system.DataHard), true},
		{"a volume", serviceWith(system.DataNone, volume), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &folder{root: t.TempDir(), service: tt.service, name: "1"}
			first := furnish(t, f)
			inData, beside, inTemp := filepath.Join(first.data, "rows"), filepath.Join(first.dir, "core"), filepath.Join(first.temp, "x")
			for _, p := range []string{inData, beside, inTemp} {
				write(t, p)
			}
			if _, err := f.furnish(t.Context(), false); err != nil || !exists(inTemp) || !exists(inData) {
				t.Errorf("a restart: %v; temp kept: %v, data kept: %v; want all", err, exists(inTemp), exists(inData))
			}
			if again := furnish(t, f); again.data != first.data {
				t.Errorf("data in %s, then in %s", first.data, again.data)
			}
			if exists(inData) != tt.keeps || exists(beside) != tt.keeps || exists(inTemp) {
				t.Errorf("a new instance finds data %v, file %v, temp %v; want %v, %v, false", exists(inData), exists(beside), exists(inTemp), tt.keeps, tt.keeps)
			}
		})
	}
}

func TestFolderModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has other rights")
	}
	s := serviceWith(system.DataHard, system.Volume{Type: "volume", Source: "v", Target: "v"})
	s.Files = []system.MountedFile{{Kind: "secret", Name: "password", Text: "s3cret"}}
	f := &folder{root: t.TempDir(), service: s, name: "1"}
	made := furnish(t, f)
	for p, want := range map[string]fs.FileMode{
		made.dir: 0o711, made.data: 0o700, made.temp: 0o700, f.root + "/volumes/v/1": 0o700,
		made.dir + "/.mounts": 0o700, made.dir + "/.mounts/secrets": 0o700, made.dir + "/.mounts/secrets/password": 0o400,
	} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", p, info.Mode(), err, want)
		}
	}
}

func TestFolderEmptiesWhatItsOwnerMadeReadOnly(t *testing.T) {
	f := &folder{root: t.TempDir(), service: serviceWith(system.DataNone), name: "1"}
	made := furnish(t, f)
	stubborn := filepath.Join(made.temp, "mod", "cache", "file") // as Go's module cache
	write(t, stubborn)
	if err := os.Chmod(filepath.Dir(stubborn), 0o500); err != nil {
		t.Fatal(err)
	}
	furnish(t, f)
	if exists(stubborn) {
		t.Error("a new instance finds files of the one before")
	}
}

func TestDataPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "data", "rows": "rows", "/data": "data", "/var/lib/db": "var/lib/db", ".": "",
		"../x": "!", "/../x": "!", "a/../../x": "!",
	} {
		s := serviceWith(system.DataHard)
		s.Data.Path = path
		f := &folder{root: t.TempDir(), service: s, name: "1"}
		got, err := f.furnish(t.Context(), true)
		defer f.leave()
		if want == "!" {
			if err == nil {
				t.Errorf("path %q: data in %s, want a refusal", path, got.data)
			}
		} else if err != nil || got.data != filepath.Join(f.dir(), want) || !exists(got.data) {
			t.Errorf("path %q: data in %s, %v, want %s", path, got.data, err, want)
		}
	}
}

func TestFolderRefusesNamesThatLeadOut(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*folder, *system.Service)
	}{
		{"service", func(_ *folder, s *system.Service) { s.Name = ".." }},
		{"service with a slash", func(_ *folder, s *system.Service) { s.Name = "a/b" }},
		{"folder", func(f *folder, _ *system.Service) { f.name = "../2" }},
		{"no folder", func(f *folder, _ *system.Service) { f.name = "" }},
		{"volume", func(_ *folder, s *system.Service) {
			s.Volumes = []system.Volume{{Type: "volume", Source: "../x", Target: "/x"}}
		}},
		{"volume's target", func(_ *folder, s *system.Service) {
			s.Volumes = []system.Volume{{Type: "volume", Source: "x", Target: "../x"}}
		}},
		{"config", func(_ *folder, s *system.Service) { s.Files = []system.MountedFile{{Kind: "config", Name: "../x"}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serviceWith(system.DataHard)
			f := &folder{root: t.TempDir(), service: s, name: "1"}
			tt.change(f, s)
			_, err := f.furnish(t.Context(), true)
			defer f.leave()
			if err == nil {
				t.Error("furnish() = nil, want a refusal")
			}
		})
	}
}

func TestVolumes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a right that few have on Windows")
	}
	root, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "app.ini"))
	s := serviceWith(system.DataNone,
		system.Volume{Type: "volume", Source: "rows", Target: "/var/lib/rows"},
		system.Volume{Type: "volume", Source: "more-rows", Target: "deep/more"},
		system.Volume{Type: "volume", Source: "twin", Target: "/other/rows"}, // its name is taken
		system.Volume{Type: "volume", Target: "/cache"},
		system.Volume{Type: "bind", Source: outside, Target: "/srv/site"},
		system.Volume{Type: "bind", Source: filepath.Join(outside, "app.ini"), Target: "/etc/app.ini"},
		system.Volume{Type: "tmpfs", Target: "/run/fast"},
		system.Volume{Type: "volume", Source: "scratch", Target: "/tmp"}, // ours
	)
	f := &folder{root: root, service: s, name: "2"}
	made := furnish(t, f)
	at := func(name string) string { return filepath.Join(root, "volumes", name, "2") }
	want := []string{
		"SERVENT_VOLUME_ROWS=" + at("rows"), "SERVENT_VOLUME_MORE_ROWS=" + at("more-rows"), "SERVENT_VOLUME_TWIN=" + at("twin"),
		"SERVENT_VOLUME_CACHE=" + at("db.cache"), "SERVENT_VOLUME_SITE=" + outside, "SERVENT_VOLUME_APP_INI=" + filepath.Join(outside, "app.ini"),
		"SERVENT_VOLUME_FAST=" + filepath.Join(made.temp, "FAST"), "SERVENT_VOLUME_SCRATCH=" + at("scratch"),
	}
	if !slices.Equal(made.env, want) {
		t.Errorf("environment:\n%s\nwant:\n%s", strings.Join(made.env, "\n"), strings.Join(want, "\n"))
	}
	for link, want := range map[string]string{"rows": at("rows"), "deep/more": at("more-rows"), "cache": at("db.cache"), "site": outside} {
		if to, err := os.Readlink(filepath.Join(made.dir, link)); err != nil || to != want {
			t.Errorf("%s leads to %s, %v, want %s", link, to, err, want)
		}
	}
	write(t, filepath.Join(made.dir, "rows", "1"))
	write(t, filepath.Join(made.temp, "FAST", "1"))
	furnish(t, f)
	if !exists(filepath.Join(at("rows"), "1")) || exists(filepath.Join(made.temp, "FAST", "1")) {
		t.Error("a new instance must find its volume and no temporary file")
	}
	// Another version has another volume at the same place, and one less.
	s = serviceWith(system.DataNone, system.Volume{Type: "volume", Source: "newer", Target: "/var/lib/rows"})
	f.leave()
	f = &folder{root: root, service: s, name: "2"}
	furnish(t, f)
	if to, err := os.Readlink(filepath.Join(made.dir, "rows")); to != at("newer") {
		t.Errorf("rows leads to %s, %v, want %s", to, err, at("newer"))
	}
	if _, err := os.Lstat(filepath.Join(made.dir, "cache")); err == nil {
		t.Error("a volume that the service has no more is still linked")
	}
	if !exists(filepath.Join(at("rows"), "1")) {
		t.Error("the older volume's files are gone")
	}
}

func TestVolumeAsDataFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a right that few have on Windows")
	}
	root := t.TempDir()
	f := &folder{root: root, service: serviceWith(system.DataHard), name: "1"}
	made := furnish(t, f) // a life without the volume leaves an empty folder there
	f.leave()
	f = &folder{root: root, service: serviceWith(system.DataHard, system.Volume{Type: "volume", Source: "rows", Target: "/data"}), name: "1"}
	made = furnish(t, f)
	write(t, filepath.Join(made.data, "1"))
	if !exists(filepath.Join(root, "volumes", "rows", "1", "1")) {
		t.Error("what is written to SERVENT_DATA is not in the volume of that name")
	}
	// Files where a volume shall be are never hidden or lost.
	f.leave()
	if err := os.Remove(made.data); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(made.data, "mine"))
	if _, err := f.furnish(t.Context(), true); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("furnish() = %v, want a word about the files in the way", err)
	}
	if !exists(filepath.Join(made.data, "mine")) {
		t.Error("files are lost")
	}
}

func TestVolumeTroubles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file)
	for _, tt := range []struct {
		name   string
		root   string
		volume system.Volume
		want   string
	}{
		{"missing bind", t.TempDir(), system.Volume{Type: "bind", Source: filepath.Join(file, "not", "there"), Target: "/x"}, "bind /x"},
		{"unknown type", t.TempDir(), system.Volume{Type: "npipe", Target: "/x"}, "want volume, bind or tmpfs"},
		{"unwritable", file, system.Volume{Type: "volume", Source: "v", Target: "/x"}, "make private folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &folder{root: tt.root, service: serviceWith(system.DataHard, tt.volume), name: "1"}
			defer f.leave()
			if _, err := f.furnish(t.Context(), true); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("furnish() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	s := serviceWith(system.DataHard)
	s.Files = []system.MountedFile{
		{Kind: "config", Name: "app", Text: "debug: true", Target: "/etc/app.yaml"},
		{Kind: "config", Name: "empty", Target: "/empty"},
		{Kind: "secret", Name: "db-password", Digest: "sha256:1", From: "/home/me/password", Target: "/run/secrets/db-password"},
	}
	gone := errors.New("nobody has it")
	f := &folder{root: t.TempDir(), service: s, name: "1", blob: func(_ context.Context, d system.Digest) (io.ReadCloser, error) {
		if d != "sha256:1" {
			return nil, gone
		}
		return io.NopCloser(strings.NewReader("s3cret")), nil
	}}
	made := furnish(t, f)
	if made, err := f.furnish(t.Context(), false); err != nil || len(made.env) != 3 {
		t.Errorf("a restart: %v, %v", made.env, err)
	}
	for i, want := range []struct{ name, text string }{
		{"SERVENT_CONFIG_APP", "debug: true"}, {"SERVENT_CONFIG_EMPTY", ""}, {"SERVENT_SECRET_DB_PASSWORD", "s3cret"},
	} {
		name, path, _ := strings.Cut(made.env[i], "=")
		text, err := os.ReadFile(path)
		if name != want.name || string(text) != want.text || err != nil {
			t.Errorf("%s holds %q, %v, want %s with %q", made.env[i], text, err, want.name, want.text)
		}
	}
	if got, want := filepath.Base(strings.SplitN(made.env[0], "=", 2)[1]), "app.yaml"; got != want {
		t.Errorf("the config is called %s, want %s: programs go by the ending", got, want)
	}
	if err := f.leave(); err != nil || exists(filepath.Join(made.dir, mounts)) {
		t.Errorf("after the stop: %v, secrets there: %v", err, exists(filepath.Join(made.dir, mounts)))
	}
	for _, tt := range []struct {
		file system.MountedFile
		want string
	}{
		{system.MountedFile{Kind: "secret", Name: "a", Digest: "sha256:2"}, "secret a: nobody has it"},
		{system.MountedFile{Kind: "secret", Name: "a", Env: "PASSWORD"}, "never sent"},
		{system.MountedFile{Kind: "key", Name: "a"}, "want config or secret"},
	} {
		s.Files = []system.MountedFile{tt.file}
		if _, err := f.furnish(t.Context(), true); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("furnish() = %v, want %q", err, tt.want)
		}
	}
}

func TestNeverTwiceOnOneFolder(t *testing.T) {
	one := &folder{root: t.TempDir(), service: serviceWith(system.DataHard), name: "1"}
	two := &folder{root: one.root, service: one.service, name: "1"} // as of another agent
	made := furnish(t, one)
	write(t, filepath.Join(made.temp, "x"))
	_, err := two.furnish(t.Context(), true)
	if want := fmt.Sprintf("in use by process %d", os.Getpid()); !errors.Is(err, errHeld) || !strings.Contains(err.Error(), want) {
		t.Errorf("furnish() = %v, want %q", err, want)
	}
	if err := two.leave(); err != nil || !exists(filepath.Join(made.temp, "x")) {
		t.Errorf("who was refused touched the folder: %v", err)
	}
	if err := one.leave(); err != nil {
		t.Fatal(err)
	}
	furnish(t, two)
}

// TestLockEndsWithItsProcess kills a process that holds a folder, as kill -9 of a node does.
func TestLockEndsWithItsProcess(t *testing.T) {
	if root := os.Getenv("AGENT_TEST_ROOT"); root != "" {
		if _, err := lock(filepath.Join(root, "lock")); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin) // until it is killed or its parent is gone
		return
	}
	root := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), "AGENT_TEST_ROOT="+root)
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	_, err := lock(filepath.Join(root, "lock"))
	if want := fmt.Sprintf("process %d", cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("lock() = %v, want a refusal that names %s", err, want)
	}
	cmd.Process.Kill()
	cmd.Wait()
	f, err := lock(filepath.Join(root, "lock"))
	if err != nil {
		t.Fatalf("after kill -9 of the holder: %v", err)
	}
	f.Close()
}
