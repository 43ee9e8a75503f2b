package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

// machine is a folder in a network namespace of its own, or, without one, on this machine.
type machine struct {
	*world
	ns, host string
}

// fleetOf makes namespaces on one cable, with the addresses 10.213.77.1 and on.
func fleetOf(t *testing.T, n int) []*machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces want root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no ip here; on Debian: apt-get install iproute2")
	}
	name := func(i int) string { return fmt.Sprintf("svt%d-%d", os.Getpid()%100000, i) }
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	hub := name(0)
	ip("netns", "add", hub)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", hub).Run() })
	ip("-n", hub, "link", "add", "name", "hub0", "type", "bridge")
	ip("-n", hub, "link", "set", "hub0", "up")
	var all []*machine
	for i := 1; i <= n; i++ {
		m := &machine{world: &world{t: t, dir: t.TempDir()}, ns: name(i), host: fmt.Sprint("10.213.77.", i)}
		ip("netns", "add", m.ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", m.ns).Run() })
		port := fmt.Sprint("p", i)
		ip("-n", hub, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", m.ns)
		ip("-n", hub, "link", "set", port, "master", "hub0", "up")
		ip("-n", m.ns, "link", "set", "lo", "up")
		ip("-n", m.ns, "addr", "add", m.host+"/24", "dev", "eth0")
		ip("-n", m.ns, "link", "set", "eth0", "up")
		all = append(all, m)
	}
	return all
}

// cable pulls the machine's cable out, or puts it in again.
func (m *machine) cable(state string) {
	m.t.Helper()
	hub := m.ns[:strings.LastIndex(m.ns, "-")] + "-0"
	if out, err := exec.Command("ip", "-n", hub, "link", "set", "p"+m.ns[strings.LastIndex(m.ns, "-")+1:], state).CombinedOutput(); err != nil {
		m.t.Fatalf("cable %s: %v: %s", state, err, out)
	}
}

// end ends what runs on a first machine.
func (m *machine) end() {
	_, _ = m.run("down")
	for range 500 {
		if launch.FolderOf(m.dir).Free() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	m.t.Errorf("the first machine did not end\n%s", m.logs())
}

func (m *machine) command(args ...string) *exec.Cmd {
	if m.ns == "" {
		return exec.Command(program, append([]string{"-C", m.dir}, args...)...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", m.ns, program, "-C", m.dir}, args...)...)
}

// run runs a command line on the machine and returns stdout and stderr together.
func (m *machine) run(args ...string) (string, error) {
	cmd := m.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Run()
	return out.String(), err
}

// curl asks for a URL from the machine.
func (m *machine) curl(url string) (string, error) {
	out, err := exec.Command("ip", "netns", "exec", m.ns, "curl", "-sS", "--fail", "-m", "15", url).CombinedOutput()
	return string(out), err
}

// joined is a `servent join` that runs.
type joined struct {
	cmd  *exec.Cmd
	done chan error

	mu  sync.Mutex
	out bytes.Buffer
}

func (j *joined) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(p)
}

func (j *joined) said() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// join runs `servent join` on the machine; it is ended at the end of the test.
func (m *machine) join(words ...string) *joined {
	m.t.Helper()
	j := &joined{cmd: m.command(append([]string{"join"}, words...)...), done: make(chan error, 1)}
	j.cmd.Stdout, j.cmd.Stderr = j, j
	if err := j.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() { j.done <- j.cmd.Wait() }()
	m.t.Cleanup(func() {
		_ = j.cmd.Process.Signal(os.Interrupt) // it may have ended
		j.ended(m.t)
		for range 500 {
			if launch.FolderOf(m.dir).Free() {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
		m.t.Errorf("%s did not end: %s", m.ns, j.said())
	})
	return j
}

func (j *joined) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-j.done:
		j.done <- err
		return err
	case <-time.After(time.Minute):
		_ = j.cmd.Process.Kill()
		t.Fatalf("join did not end: %s", j.said())
		return nil
	}
}

// token makes one and returns the words of the join.
func (m *machine) token(args ...string) []string {
	m.t.Helper()
	out, err := m.command(append([]string{"token"}, args...)...).Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) != 4 || words[0] != "servent" || words[1] != "join" {
		m.t.Fatalf("token: %v: %q", err, out)
	}
	return words[2:]
}

const fleetFile = `
name: shop
services:
  front:
    x-servent:
      process: [servent, example, counter]
      architecture: replicated
      route: /*
`

const fleetFileMore = fleetFile + `
  site:
    deploy: {placement: {constraints: ["node.labels.disk == ssd"]}}
    secrets: [key]
    x-servent:
      files: ./site
      architecture: single
      route: /site/*
secrets:
  key: {file: ./key}
x-servent:
  web: {https: 8443, certificates: [{cert: mine.pem, key: mine.key}]}
`

func nodeUp(id system.NodeID) func(admin.State) bool {
	return func(s admin.State) bool {
		for _, n := range s.Nodes {
			if n.Node == id {
				return n.State == "up"
			}
		}
		return false
	}
}

// Two machines: a token, a join, one file. A service runs on the second, from bytes that only the first had, and is reached from the first.
// The second is killed, cut off and put out; requests to what runs on both go on.
func TestFleet(t *testing.T) {
	t.Parallel()
	ms := fleetOf(t, 2)
	a, b := ms[0], ms[1]
	a.write("compose.yaml", fleetFile)
	t.Cleanup(a.end)
	if out, err := a.run("up", "-d", "--listen", a.host, "--as", "a"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
	}
	words := a.token("--ttl", "10m")
	j := b.join(append(words, "--as", "b", "--label", "disk=ssd")...)
	a.until("joined", time.Minute, nodeUp("b"))
	thief, err := b.command("-C", t.TempDir(), "join", words[0], words[1], "--as", "thief").CombinedOutput()
	if err == nil || !strings.Contains(string(thief), "used up") {
		t.Errorf("a used token: %v: %s", err, thief)
	}

	// The second machine says what runs, from files that only it has.
	b.write("compose.yaml", fleetFileMore)
	b.write("site/site/index.html", "from the second machine")
	b.write("key", "a secret")
	certified(t, b.dir, "mine", "shop.example.org")
	for verb, words := range map[string]string{"down": "a at " + a.host, "console": "a at " + a.host, "up --as c": "has joined one"} {
		if out, err := b.run(strings.Fields(verb)...); err == nil || !strings.Contains(out, words) {
			t.Errorf("%s on a member: %v: %s; want words with %q", verb, err, out, words)
		}
	}
	if out, err := b.run("up"); err != nil || !strings.Contains(out, "shop · fleet · 2 of 2 nodes up") {
		t.Fatalf("up on the second machine: %v\n%s\n%s\n%s", err, out, a.logs(), b.logs())
	}
	for _, args := range [][]string{{"ps"}, {"node", "ls"}} {
		here, err := a.run(args...)
		there, err2 := b.run(args...)
		if err != nil || err2 != nil || strings.Split(here, "\n")[0] != strings.Split(there, "\n")[0] || !strings.Contains(there, "shop · fleet") {
			t.Errorf("%v: on the first machine %v: %s\non the second %v: %s", args, err, here, err2, there)
		}
	}
	if out, err := b.run("--json", "ps"); err != nil || strings.Contains(out, "#token=") {
		t.Errorf("ps --json on the second machine: %v: %s; want no key of the first one's page", err, out)
	}
	url := ""
	for _, p := range a.state().Published {
		if p.Service == "front" && strings.HasPrefix(p.URL, "http:") {
			url = p.URL
		}
	}
	if got, err := a.curl(url + "/site/"); err != nil || got != "from the second machine" {
		t.Fatalf("the second machine's service, asked for at the first: %q, %v\n%s", got, err, b.logs())
	}
	if got, err := b.curl("http://127.0.0.1:18080/site/"); err != nil || got != "from the second machine" {
		t.Errorf("the web door of the second machine: %q, %v", got, err)
	}
	for _, m := range ms { // each speaks TLS by the certificate that only the second one had
		var got []byte
		err := errors.New("not yet")
		for end := time.Now().Add(15 * time.Second); err != nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			got, err = exec.Command("ip", "netns", "exec", m.ns, "curl", "-sS", "--fail", "-m", "15", "--cacert", filepath.Join(b.dir, "mine.pem"), "--connect-to", "shop.example.org:8443:127.0.0.1:8443",
				"https://shop.example.org:8443/site/").CombinedOutput()
		}
		if err != nil || string(got) != "from the second machine" {
			t.Errorf("%s by TLS: %q, %v\n%s", m.ns, got, err, m.logs())
		}
	}
	spread := func() { // new instances go where the fewest are
		t.Helper()
		for _, n := range []string{"front=1", "front=4"} {
			if out, err := a.run("scale", n); err != nil {
				t.Fatalf("scale %s: %v\n%s", n, err, out)
			}
		}
		on := map[system.NodeID]int{}
		for _, in := range a.state().Instances {
			if in.Service == "front" {
				on[in.Node]++
			}
		}
		if on["a"] == 0 || on["b"] == 0 {
			t.Fatalf("instances %v, want some on both machines", on)
		}
	}

	// alive sends requests to what runs on both machines, and says how long after its beginning the last one failed.
	alive := func(what string, within time.Duration, trouble func()) {
		t.Helper()
		began := time.Now()
		var last, slowest time.Duration
		trouble()
		for time.Since(began) < 3*within && time.Since(began)-last < within {
			sent := time.Now()
			if _, err := a.curl(url + "/c/x"); err != nil {
				last = time.Since(began)
			}
			slowest = max(slowest, time.Since(sent))
		}
		t.Logf("%s: requests failed for %v; the slowest took %v", what, last, slowest)
		if last > 3*within {
			t.Errorf("%s: requests failed for %v, want at most three times %v", what, last, within)
		}
	}
	spread()
	alive("killed", 2*time.Second, func() { _ = j.cmd.Process.Kill() })
	j.ended(t)
	a.until("missed", time.Minute, func(s admin.State) bool { return !nodeUp("b")(s) })
	j = b.join()
	a.until("back", time.Minute, func(s admin.State) bool { return nodeUp("b")(s) && s.Settled })
	if got, err := a.curl(url + "/site/"); err != nil || got != "from the second machine" {
		t.Errorf("after it came back: %q, %v", got, err)
	}
	spread()
	alive("cut off", 6*time.Second, func() { b.cable("down") })
	b.cable("up")
	a.until("healed", 2*time.Minute, nodeUp("b"))

	if out, err := a.run("up", "-d"); err != nil || !strings.Contains(out, "note: this file replaces what spiffe://") { // its own file knows of no site
		t.Errorf("up with another file than the second machine's: %v: %s", err, out)
	}
	spread()
	<-time.After(3 * time.Second) // the plan is written down
	b.servesAlone(a, j)
	j = b.join()
	a.until("back again", time.Minute, nodeUp("b"))

	if out, err := a.run("node", "rm", "b"); err != nil {
		t.Fatalf("node rm: %v\n%s", err, out)
	}
	a.until("out", time.Minute, func(s admin.State) bool { return !nodeUp("b")(s) })
	_ = j.cmd.Process.Kill()
	j.ended(t)
	again := b.join()
	if err := again.ended(t); err == nil || !strings.Contains(again.said(), "not of the fleet any more") {
		t.Errorf("join of one that was put out: %v: %s", err, again.said())
	}
	if out, err := b.run("scale", "front=2"); err == nil || !strings.Contains(out, "not of the fleet any more") {
		t.Errorf("scale by one that was put out: %v: %s", err, out)
	}
	if out, err := b.run("leave", "--force"); err != nil {
		t.Errorf("leave --force: %v: %s", err, out)
	}
	if err := acted(a.dir, `"what":"join"`, "POST /v1/token", "DELETE /v1/node", `"what":"PUT /v1/wanted","who":"spiffe://`); err != nil {
		t.Error(err)
	}
	if out, err := a.run("audit", "--refused"); err != nil || !strings.Contains(out, "used up") || strings.Contains(out, "DELETE /v1/node") {
		t.Errorf("audit --refused: %v: %s", err, out)
	}
}

// servesAlone cuts the machine off, kills it, and starts it again: what ran there by the last plan runs, and its own doors answer, though nobody answers for
// control. Then the cable is put in again.
func (b *machine) servesAlone(a *machine, j *joined) {
	b.t.Helper()
	b.cable("down")
	_ = j.cmd.Process.Kill()
	j.ended(b.t)
	alone := b.join()
	var kept struct {
		PortBase int `json:"port_base"`
	}
	text, err := os.ReadFile(filepath.Join(b.dir, ".servent", "member.json"))
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	began := time.Now()
	b.heals(time.Minute, func() error {
		out, err := b.curl(fmt.Sprintf("http://127.0.0.1:%d/c/x", kept.PortBase+1))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	b.t.Logf("cut off and started anew, it answers after %v", time.Since(began))
	_ = alone.cmd.Process.Kill()
	alone.ended(b.t)
	b.cable("up")
}

// acted says which words no line of the audit log has.
func acted(dir string, words ...string) error {
	text, err := os.ReadFile(filepath.Join(dir, ".servent", "log", "audit.log"))
	for line := range bytes.Lines(text) {
		if !json.Valid(line) {
			err = errors.Join(err, fmt.Errorf("audit: %q is no JSON", line))
		}
	}
	for _, w := range words {
		if !bytes.Contains(text, []byte(w)) {
			err = errors.Join(err, fmt.Errorf("audit: nothing of %q:\n%s", w, text))
		}
	}
	return err
}

// What is not a fleet says how to be one; what is no token, or no address, says what is.
func TestFleetMisused(t *testing.T) {
	t.Parallel()
	w := start(t, fleetFile)
	for _, tt := range []struct {
		args  []string
		words string
	}{
		{[]string{"token"}, "servent up --listen"},
		{[]string{"node", "rm", "node-1"}, "servent up --listen"},
		{[]string{"join", "127.0.0.1", "sv1.x"}, "this is no token"},
		{[]string{"join", "127.0.0.1"}, "want ADDRESS and TOKEN"},
		{[]string{"join"}, "is in no fleet"},
		{[]string{"leave"}, "is in no fleet"},
		{[]string{"node", "label", "node-1", "disk"}, "want NAME=VALUE"},
	} {
		if out, err := w.run(tt.args...); err == nil || !strings.Contains(out, tt.words) || !strings.Contains(out, "next: ") {
			t.Errorf("%v: %v: %s; want words with %q, and a next step", tt.args, err, out, tt.words)
		}
	}
	if out, err := w.run("node", "ls"); err != nil || !strings.Contains(out, "node-1") {
		t.Errorf("node ls: %v: %s", err, out)
	}
	w.down()
	if out, err := w.run("up", "-d", "--listen", "127.0.0.1"); err == nil || !strings.Contains(out, "cannot become a fleet") {
		t.Errorf("a laptop's system made a fleet: %v: %s", err, out)
	}
	for _, bad := range []string{"0.0.0.0", "localhost", "127.0.0.1:x", "127.0.0.1:0"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(fleetFile), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, program, "-C", dir, "up", "-d", "--listen", bad).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), "--listen: want") {
			t.Errorf("--listen %s: %v: %s", bad, err, out)
		}
	}
}
