package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

const rejoinWithin = 90 * time.Second // that servers may take to agree after one of them began anew

// burns kills all that the first machine runs and loses its disk, but for the user's own files.
func (m *machine) burns() {
	m.t.Helper()
	f := launch.FolderOf(m.dir)
	info, err := f.Info()
	if err != nil {
		m.t.Fatal(err)
	}
	_ = syscall.Kill(info.Pid, syscall.SIGKILL)
	for range 500 {
		if f.Free() {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := os.RemoveAll(string(f)); err != nil {
		m.t.Fatal(err)
	}
}

// TestRestore: the first machine of three servers burns down. While the other two agree it is one of them again, and nothing is lost; when they are gone, too, control
// begins anew from a backup, and what the others still had gives way to it.
func TestRestore(t *testing.T) {
	ms := fleetOf(t, 5)
	a, b, c, d, e := ms[0], ms[1], ms[2], ms[3], ms[4]
	a.write("compose.yaml", fleetFile)
	t.Cleanup(a.end)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a:\n%s\nb:\n%s\nc:\n%s\nd:\n%s", a.logs(), b.logs(), c.logs(), d.logs())
		}
	})
	do := func(m *machine, want string, words ...string) {
		t.Helper()
		out, err := m.run(words...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v: %v, want %q\n%s", words, err, want, out)
		}
	}
	refused := func(want string, words ...string) {
		t.Helper()
		if out, err := a.run(words...); err == nil || !strings.Contains(out, want) {
			t.Fatalf("%v: %v, want it refused with %q\n%s", words, err, want, out)
		}
	}
	labels := func() map[string]string {
		for _, n := range a.state().Nodes {
			if n.Node == "d" {
				return n.Labels
			}
		}
		return nil
	}
	do(a, "", "up", "-d", "--listen", a.host, "--as", "a")
	do(a, "zero.backup", "backup", a.dir+"/zero.backup")
	jb := b.join(append(a.token("--role", "server"), "--as", "b")...)
	a.votersAre("a b?", rejoinWithin)
	jc := c.join(append(a.token("--role", "server"), "--as", "c")...)
	jd := d.join(append(a.token(), "--as", "d")...)
	a.votersAre("a b c", rejoinWithin)
	a.until("all are there", time.Minute, func(s admin.State) bool { return s.Settled && nodeUp("d")(s) })
	do(a, "one.backup", "backup", a.dir+"/one.backup")
	do(a, "", "node", "label", "d", "disk=ssd")

	late := a.token()
	a.burns()
	// While it is gone the other servers take machines in, and renew certificates.
	e.join(b.host, late[1], "--as", "e")
	var was, is struct{ Credential json.RawMessage }
	kept := filepath.Join(string(launch.FolderOf(d.dir)), "member.json")
	read := func(into any) {
		t.Helper()
		text, err := os.ReadFile(kept)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read(&was)
	jd.signal(t, syscall.SIGTERM)
	_ = jd.ended(t)
	d.join()
	for end := time.Now().Add(30 * time.Second); ; <-time.After(100 * time.Millisecond) {
		if read(&is); !bytes.Equal(was.Credential, is.Credential) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("d's certificate was not renewed while the first machine was gone")
		}
	}
	// Of two backups the older one knows of no other server: it must be told.
	refused("restore --server", "restore", a.dir+"/zero.backup")
	refused("NAME=ADDRESS", "restore", "--server", "b", a.dir+"/zero.backup")
	refused("do not say that they agree", "restore", "--server", "x="+b.host, a.dir+"/zero.backup")
	refused("agree, without this machine", "restore", "--alone", "--server", "b="+b.host, a.dir+"/zero.backup")
	do(a, "this machine is one of them again", "restore", "--server", "b="+b.host, a.dir+"/zero.backup")
	do(a, "", "up", "-d")
	a.votersAre("a b c", rejoinWithin)
	a.until("d's label, which came after the backup, is there", time.Minute, func(admin.State) bool { return labels()["disk"] == "ssd" })

	a.burns()
	do(a, "this machine is one of them again", "restore", a.dir+"/one.backup")
	do(a, "", "up", "-d")
	a.votersAre("a b c", rejoinWithin)
	a.until("d's label, which came after the backup, is there", time.Minute, func(admin.State) bool { return labels()["disk"] == "ssd" })
	if n := len(a.state().Nodes); n != 5 || !nodeUp("e")(a.state()) {
		t.Errorf("%d nodes, want 5, with e, which joined while a was gone", n)
	}
	if out, err := e.run("ps"); err != nil {
		t.Errorf("e asks the first machine: %v\n%s", err, out)
	}

	for late := time.Now().Add(time.Minute); ; { // until a's own engine has caught up
		out, err := a.run("backup", a.dir+"/two.backup")
		if err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("backup: %v\n%s", err, out)
		}
		<-time.After(200 * time.Millisecond)
	}
	do(a, "", "node", "label", "d", "rack=7")
	refused("agree, without this machine", "-C", t.TempDir(), "restore", "--alone", a.dir+"/two.backup")
	for _, j := range []*joined{jb, jc} {
		j.signal(t, syscall.SIGKILL)
		_ = j.ended(t)
	}
	a.burns()
	refused("restore --alone", "restore", a.dir+"/two.backup")
	do(a, "what was changed after that is lost", "restore", "--alone", a.dir+"/two.backup")
	do(a, "", "up", "-d")
	a.votersAre("a", rejoinWithin)
	a.until("d follows", time.Minute, func(s admin.State) bool { return s.Settled && nodeUp("d")(s) })
	if l := labels(); l["disk"] != "ssd" || l["rack"] != "" {
		t.Errorf("d's labels are %v, want those of the backup", l)
	}
	do(a, "", "scale", "front=2")

	// The other two had a majority on their disks, with the label that is lost.
	b.join()
	c.join()
	a.votersAre("a b c", rejoinWithin)
	a.until("all follow", time.Minute, func(s admin.State) bool {
		return s.Settled && nodeUp("b")(s) && nodeUp("c")(s) && !slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool { return n.Plan != s.Generation })
	})
	if l := labels(); l["rack"] != "" {
		t.Errorf("d's labels are %v: what was given up is back", l)
	}
	do(a, "", "scale", "front=3")
	for _, id := range []system.NodeID{"b", "c"} {
		if !nodeUp(id)(a.state()) {
			t.Errorf("%s is not up", id)
		}
	}
}
