package cli

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/driver/container"
)

// runs skips a test where no container runs.
func runs(t *testing.T) {
	t.Helper()
	caps := container.New(container.Options{}).Probe(t.Context())
	if !caps.OK && os.Getenv("CI") == "true" {
		t.Fatal(caps.Reason)
	} else if !caps.OK {
		t.Skip(caps.Reason)
	}
}

// exampleContainers makes the example's images and its file.
func exampleContainers(w *world) {
	w.t.Helper()
	if out, err := exec.Command("go", "run", "servent/examples/containers", "images", filepath.Join(w.dir, "out")).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	file, err := os.ReadFile("../examples/containers/compose.yaml")
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("compose.yaml", strings.Replace(string(file), `"18080:8080"`, `"8080"`, 1))
}

// The same example where there is no runc, by podman: the program, built without the C library, finds it by DOCKER_HOST.
func TestExampleContainersByPodman(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("podman"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("podman is not installed, or this is not root")
		}
		t.Skip("podman is not installed, or this is not root")
	}
	dir, err := os.MkdirTemp("", "engine-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Lower bounds than podman's own, which some machines do not let it give away.
	bounds := "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n"
	if err := os.WriteFile(dir+"/containers.conf", []byte(bounds), 0o644); err != nil {
		t.Fatal(err)
	}
	service := exec.Command("podman", "--root", dir+"/root", "--runroot", dir+"/run", "--tmpdir", dir+"/tmp", "system", "service", "--time=0", "unix://"+dir+"/s")
	service.Dir = dir // conmon leaves files where it stands
	service.Env = append(os.Environ(), "CONTAINERS_CONF="+dir+"/containers.conf")
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = service.Process.Signal(os.Interrupt)
		_ = service.Wait() // how it ends is its affair
		_ = exec.Command("umount", "-R", "-l", dir+"/root/overlay").Run()
	})
	w := &world{t: t, dir: t.TempDir()}
	exampleContainers(w)
	servent := filepath.Join(dir, "servent")
	build := exec.Command("go", "build", "-o", servent, "servent/cmd/servent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(args ...string) string {
		cmd := exec.Command(servent, append([]string{"-C", w.dir}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+dir+"/s", "PATH="+dir) // where there is no runc
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("up", "-d")
	down := sync.OnceFunc(func() { run("down") })
	defer down()
	url := "http://" + w.published("web")
	seen, said := map[string]bool{}, ""
	for range 30 {
		said = fresh(t, url+"/")
		seen[strings.TrimSpace(said[strings.LastIndex(said, " ")+1:])] = true
	}
	if len(seen) != 3 || !strings.HasPrefix(said, "visit 30,") {
		t.Errorf("answered by %v, the last says %q, want three and visit 30", seen, said)
	}
	down()
	left, err := exec.Command("podman", "--root", dir+"/root", "--runroot", dir+"/run", "--tmpdir", dir+"/tmp", "ps", "--all", "--quiet").Output()
	if err != nil || len(left) > 0 {
		t.Errorf("podman has %q left, %v", left, err)
	}
}

// The example of containers: its images are made, its replicas share a port, its count outlives it, and one that
// takes too much memory is ended while the others answer.
func TestExampleContainers(t *testing.T) {
	t.Parallel()
	runs(t)
	w := &world{t: t, dir: t.TempDir()}
	exampleContainers(w)
	w.up()
	visit := regexp.MustCompile(`^visit (\d+), by (web-[123])\n$`)
	seen, last := map[string]bool{}, ""
	url := "http://" + w.published("web")
	for range 60 {
		said := visit.FindStringSubmatch(fresh(t, url+"/"))
		if said == nil {
			t.Fatal("no visit counted")
		}
		seen[said[2]], last = true, said[1]
	}
	if len(seen) != 3 || last != "60" {
		t.Errorf("answered by %v, and counted %s, want three and 60", seen, last)
	}

	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(path string) (int, string) {
		res, err := client.Get(url + path)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	if code, said := status("/out?url=http://192.0.2.1/"); code != http.StatusBadGateway {
		t.Errorf("without egress: %d %q", code, said)
	}
	if code, said := status("/eat"); code == http.StatusOK {
		t.Errorf("it ate and answers %q", said)
	}
	out := ""
	for end := time.Now().Add(30 * time.Second); ; {
		out, _ = w.run("logs", "web")
		if strings.Contains(out, "ended, out of memory") || time.Now().After(end) {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if !strings.Contains(out, "ended, out of memory") {
		t.Errorf("nothing was said of the memory:\n%s", out)
	}
	if code, said := status("/"); code != http.StatusOK || said != "visit 61, by "+strings.TrimSpace(strings.TrimPrefix(said, "visit 61, by "))+"\n" {
		t.Errorf("meanwhile: %d %q", code, said)
	}
	if out, err := w.run("down"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	w.up()
	url = "http://" + w.published("web")
	if said := fresh(t, url+"/"); !strings.HasPrefix(said, "visit 62,") {
		t.Errorf("after down and up: %q, want visit 62", said)
	}
}
