package cli

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// The example of containers: its images are made, its replicas share a port, its count outlives it, and one that
// takes too much memory is ended while the others answer.
func TestExampleContainers(t *testing.T) {
	t.Parallel()
	runs(t)
	w := &world{t: t, dir: t.TempDir()}
	if out, err := exec.Command("go", "run", "servent/examples/containers", "images", filepath.Join(w.dir, "out")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file, err := os.ReadFile("../examples/containers/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.write("compose.yaml", strings.Replace(string(file), `"18080:8080"`, `"8080"`, 1))
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
