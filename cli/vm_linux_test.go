package cli

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/admin"
)

// The example with virtual machines: built, booted once, started twice from there, and switched to by request; a machine that is killed comes back.
func TestVirtualMachines(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no QEMU for x86: ", err)
	}
	w := &world{t: t, dir: t.TempDir()}
	out := filepath.Join(w.dir, "image", "out")
	if b, err := exec.Command("go", "run", "servent/examples/vm/image", out).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: %s", err, b)
		}
		t.Skipf("no kernel for the guest: %v: %s", err, b)
	}
	file, err := os.ReadFile("../examples/vm/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.write("compose.yaml", strings.Replace(string(file), "        build: [go, run, ./image, image/out]\n", "", 1)+"x-servent: {nodes: {node: {count: 2}}}\n")
	began := time.Now()
	w.up()
	t.Logf("up with two machines: %v", time.Since(began))
	url := "http://" + w.door("node-1", "hello") + "/"
	ask := func(path string) string {
		t.Helper()
		client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %q %v", path, res.Status, b, err)
		}
		return string(b)
	}
	if got := ask(""); !strings.HasPrefix(got, "hello from a virtual machine: request ") {
		t.Errorf("got %q", got)
	}
	victim := w.state().Instances[0]
	p, err := os.FindProcess(victim.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 20 { // the other answers meanwhile
		if got := ask("ping"); got != "pong" {
			t.Errorf("got %q", got)
		}
	}
	w.until("two machines again", 3*time.Minute, func(s admin.State) bool {
		ready := 0
		for _, in := range s.Instances {
			if in.State == "ready" && in.Pid != victim.Pid {
				ready++
			}
		}
		return ready == 2
	})
	if logs, err := w.run("logs", "hello"); err != nil || !strings.Contains(logs, "guest: answers on port 8080") && !strings.Contains(logs, "hello/") {
		t.Errorf("logs: %v\n%s", err, logs)
	}
}
