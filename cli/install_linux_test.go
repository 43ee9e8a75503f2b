package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The unit is one that systemd understands, and that its own judge finds well bounded.
func TestNodeInstall(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "a % folder")}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := w.run("node", "install", "--dry-run"); err == nil || !strings.Contains(out, "in no fleet") || !strings.Contains(out, "--listen ADDRESS") {
		t.Errorf("without a fleet: %v\n%s", err, out)
	}
	if out, err := w.run("node", "install", "--listen", "10.0.0.1", "--unit", "../x", "--dry-run"); err == nil || !strings.Contains(out, "is no name of a unit") {
		t.Errorf("a wild name: %v\n%s", err, out)
	}
	if out, err := w.run("node", "uninstall", "--unit", "servent-nobody"); err == nil || !strings.Contains(out, "servent node install") {
		t.Errorf("uninstall of none: %v\n%s", err, out)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Skip("systemd-analyze is not installed")
	}
	for user, worst := range map[string]float64{"daemon": 2.5, "root": 8.5} {
		out, err := w.run("node", "install", "--listen", "10.0.0.1", "--user", user, "--dry-run")
		if err != nil {
			t.Fatalf("dry run: %v\n%s", err, out)
		}
		if !strings.Contains(out, "a %% folder") || !strings.Contains(out, "up --listen 10.0.0.1") {
			t.Errorf("the unit:\n%s", out)
		}
		path := filepath.Join(t.TempDir(), "servent.service")
		if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
		said, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		if err != nil || strings.Contains(string(said), "servent.service:") {
			t.Errorf("systemd-analyze verify: %v\n%s\n%s", err, said, out)
		}
		said, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", path).CombinedOutput()
		m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(said)
		if m == nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, said)
		}
		exposure, _ := strconv.ParseFloat(string(m[1]), 64)
		t.Logf("as %s: exposure %.1f", user, exposure)
		if exposure > worst {
			t.Errorf("as %s: exposure %.1f, want at most %.1f\n%s", user, exposure, worst, said)
		}
	}
}
