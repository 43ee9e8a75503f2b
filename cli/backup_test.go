package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"servent/admin"
	"servent/launch"
)

// TestBackupOfALaptop: a system that runs, and one that does not, begins anew in another folder as it was.
func TestBackupOfALaptop(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", fleetLike)
	w.write("site/index.html", "hello")
	if out, err := w.run("backup"); err == nil || !strings.Contains(out, "servent up") {
		t.Errorf("backup of nothing: %v %s", err, out)
	}
	w.up()
	defer w.down()
	file := filepath.Join(w.dir, "shop.backup")
	about := ask[struct {
		Cluster, File string
		Bytes, Blobs  int
	}](w, "backup", file)
	if about.Cluster == "" || about.File != file || about.Bytes == 0 || about.Blobs != 1 {
		t.Errorf("backup --json says %+v", about)
	}
	info, err := os.Stat(file)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("the file: %v %v", info, err)
	}
	if said, err := w.run("backup", file); err == nil || !strings.Contains(said, "is there already") {
		t.Errorf("a second one of its name: %v %s", err, said)
	}
	if said, err := w.run("restore", file); err == nil || !strings.Contains(said, "mv ") {
		t.Errorf("restore over a system: %v %s", err, said)
	}
	w.down()
	if said, err := w.run("backup", filepath.Join(w.dir, "stopped.backup")); err != nil {
		t.Fatalf("backup of a stopped system: %v %s", err, said)
	}
	for _, name := range []string{"shop.backup", "stopped.backup"} {
		next := &world{t: t, dir: t.TempDir()}
		next.write("compose.yaml", fleetLike)
		next.write("site/index.html", "hello")
		if said, err := next.run("restore", filepath.Join(w.dir, name)); err != nil || !strings.Contains(said, about.Cluster) {
			t.Fatalf("restore %s: %v %s", name, err, said)
		}
		next.up()
		if s := next.state(); s.Generation < 1 || len(s.Instances) != 1 {
			t.Errorf("%s: plan %d, %d instances", name, s.Generation, len(s.Instances))
		}
		if all := ask[[]admin.Revision](next, "history"); len(all) == 0 || all[0].What != "first: site" {
			t.Errorf("%s: history %+v", name, all)
		}
		next.down()
		if left, _ := filepath.Glob(filepath.Join(string(launch.FolderOf(next.dir)), "snapshot-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

const fleetLike = `
name: shop
services:
  site:
    x-servent:
      files: ./site
      architecture: single
      route: /*
x-servent:
  nodes: {local: {count: 2}}
`
