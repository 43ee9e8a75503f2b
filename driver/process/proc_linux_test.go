package process

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/driver"
	"servent/system"
)

func TestProbe(t *testing.T) {
	caps := New(Options{}).Probe(t.Context())
	if !caps.OK {
		t.Errorf("caps = %+v, want OK", caps)
	}
	for _, what := range []string{"cpu", "pids"} {
		limited := strings.Contains(strings.Join(caps.Limits, " "), what)
		if limited == (caps.Missing[what] != "") {
			t.Errorf("%s is limited: %v, is missing: %q", what, limited, caps.Missing[what])
		}
	}
}

func TestOpenFiles(t *testing.T) {
	s := spec(t, 1)
	s.Limits.OpenFiles = 77
	i, log := run(t, newDriver(t), s, program("files"))
	if exit := waited(t, i); !exit.OK() {
		t.Errorf("exit = %v", exit)
	}
	if got := lines(t, log, 1); got[0] != "77 <nil>" {
		t.Errorf("the program may open %q files from its start, want 77", got)
	}
}

// TestMemory: a program that takes too much is killed, by a cgroup or by looking.
func TestMemory(t *testing.T) {
	looking := newDriver(t)
	looking.limits = func() *limiter { return &limiter{watches: true} }
	for name, d := range map[string]*Driver{"as here": newDriver(t), "by looking": looking} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, 1)
			s.Limits.Memory = 96 << 20
			i, _ := run(t, d, s, program("hog", "300"))
			if exit := waited(t, i); !exit.OOM || exit.String() != "out of memory" {
				t.Errorf("exit = %+v, want out of memory", exit)
			}
			i, log := run(t, d, s, program("hog", "4"))
			lines(t, log, 1)
			if err := i.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if exit := waited(t, i); exit.OOM {
				t.Errorf("exit = %+v, want no trouble with memory", exit)
			}
		})
	}
}

// TestCgroups: the cgroup is there while the instance is, with what was asked for, and then is not.
func TestCgroups(t *testing.T) {
	d := newDriver(t)
	l := d.limits()
	if len(l.why) > 0 {
		t.Skipf("this machine lets us make no cgroups: %v", l.why)
	}
	s := spec(t, 1)
	s.Limits = system.Limits{Resources: system.Resources{Memory: 128 << 20, CPUs: 0.5, Pids: 50}, OpenFiles: 100}
	i, log := run(t, d, s, program("tree", "1"))
	pids := lines(t, log, 2)
	dirs := i.group.cage.folders()
	if len(dirs) == 0 {
		t.Fatal("no cgroup")
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			if !strings.Contains("\n"+string(b), "\n"+pid+"\n") {
				t.Errorf("%s is not in %s", pid, dir)
			}
		}
	}
	if err := i.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if isDir(dir) {
			t.Errorf("%s is left", dir)
		}
	}
}

// TestCgroupFiles checks what is written, in a tree of plain files.
func TestCgroupFiles(t *testing.T) {
	limits := system.Limits{Resources: system.Resources{Memory: 64 << 20, CPUs: 1.5, Pids: 9}}
	type tree = map[string]string
	for _, tt := range []struct {
		name   string
		mounts func(root string) string
		own    string
		there  tree // files that the kernel would have
		want   tree // of our cgroup
	}{
		{"version 2, delegated above us",
			func(root string) string { return "30 24 0:26 / " + root + " rw shared:9 - cgroup2 cgroup2 rw" }, "0::/user/service\n",
			tree{"user/cgroup.subtree_control": "cpuset cpu io memory pids", "user/service/cgroup.subtree_control": ""},
			tree{"user/memory.max": "67108864", "user/memory.swap.max": "0", "user/cpu.max": "150000 100000", "user/pids.max": "9"}},
		{"version 1",
			func(root string) string {
				return "31 30 0:27 / " + root + "/cpu rw - cgroup cgroup rw,cpu,cpuacct\n32 30 0:28 /docker/x " + root +
					"/memory rw - cgroup cgroup rw,memory\n33 30 0:29 / " + root + "/pids rw - cgroup cgroup rw,pids"
			}, "5:memory:/docker/x\n4:cpu,cpuacct:/\n3:pids:/elsewhere\n0::/\n",
			tree{"memory/x": "", "cpu/x": "", "pids/x": ""},
			tree{"memory/memory.limit_in_bytes": "67108864", "memory/memory.memsw.limit_in_bytes": "67108864",
				"cpu/cpu.cfs_quota_us": "150000", "pids/pids.max": "9"}},
		{"none", func(string) string { return "25 1 0:5 / /proc rw - proc proc rw" }, "0::/\n", nil, tree{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range tt.there {
				path = filepath.Join(root, path)
				os.MkdirAll(filepath.Dir(path), 0o700)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := &limiter{folders: map[string]string{}, why: map[string]string{}}
			l.find(parseMounts(tt.mounts(root)), parseCgroups(tt.own))
			c, err := l.cage(limits)
			if err != nil {
				t.Fatal(err)
			}
			got := tree{}
			for _, dir := range c.folders() {
				files, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					os.Chmod(filepath.Join(dir, f.Name()), 0o600) // a cgroup's file has a mode before we write
					b, err := os.ReadFile(filepath.Join(dir, f.Name()))
					rel, err2 := filepath.Rel(root, filepath.Join(filepath.Dir(dir), f.Name()))
					if err != nil || err2 != nil {
						t.Fatal(err, err2)
					}
					got[rel] = string(b)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if (len(tt.want) == 0) != (l.why["memory"] != "") {
				t.Errorf("why not = %v", l.why)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	const line = "4711 (a) b (c) S 1 4700 4600 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 987654 1000 55 18446744073709551615 1 1\n"
	got, ok := parseStat([]byte(line))
	want := stat{state: 'S', pgrp: 4700, session: 4600, cpu: 100, start: 987654, rss: 55}
	if !ok || got != want {
		t.Errorf("parseStat() = %+v, %v, want %+v", got, ok, want)
	}
	for _, bad := range []string{"", ")", "1 (x) S 1 2 3", strings.Replace(line, "987654", "x", 1), strings.Replace(line, "4700", "x", 1)} {
		if _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("parseStat(%q) is ok", bad)
		}
	}
	own, ok := readStat(os.Getpid())
	if !ok || own.rss <= 0 || own.dead() {
		t.Errorf("our own = %+v, %v", own, ok)
	}
}

func TestListens(t *testing.T) {
	const line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 54321 1 0000 100 0 0 10 0\n"
	if inode, ok := listens([]byte(line), 8080); !ok || inode != "54321" {
		t.Errorf("listens() = %q, %v, want 54321", inode, ok)
	}
	for _, bad := range []string{"", strings.Replace(line, " 0A ", " 01 ", 1), strings.Replace(line, "1F90", "1F91", 1), strings.Replace(line, ":1F90", "", 1)} {
		if _, ok := listens([]byte(bad), 8080); ok {
			t.Errorf("listens(%q) is ok", bad)
		}
	}
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("4711 (a) b (c) S 1 4700 4600 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 987654 1000 55 18446744073709551615\n"))
	f.Add([]byte("RssAnon:\t   1024 kB\n"))
	f.Add([]byte("36 35 98:0 /root /point rw shared:1 - cgroup cgroup rw,memory\n4:memory:/x\n0::/y"))
	f.Add([]byte("1: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 54321"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); !ok && s != (stat{}) {
			t.Errorf("a stat that is none: %+v", s)
		}
		statusBytes(b, "RssAnon:")
		for _, m := range parseMounts(string(b)) {
			if m.point == "" {
				t.Error("a mount without a point")
			}
			if dir := m.inside("/../../x"); dir == "" {
				t.Error("no folder")
			}
		}
		parseCgroups(string(b))
		listens(b, 8080)
	})
}

// TestHolder names a program, not only us.
func TestHolder(t *testing.T) {
	i, _ := run(t, newDriver(t), spec(t, 1), program("serve"))
	serving(t, i)
	if got, want := holder(i.spec.Port), "(pid "+strconv.Itoa(i.Pid())+")"; !strings.HasSuffix(got, want) {
		t.Errorf("holder() = %q, want one with %s", got, want)
	}
	if got := holder(port(t)); got != "" {
		t.Errorf("holder() of a free port = %q", got)
	}
}

// TestGateOpens: a gated program is not left stopped or traced.
func TestGateOpens(t *testing.T) {
	s := spec(t, 1)
	s.Limits.OpenFiles = 256
	i, _ := run(t, newDriver(t), s, program("serve"))
	serving(t, i)
	b, err := os.ReadFile("/proc/" + i.ID() + "/status")
	if err != nil || !strings.Contains(string(b), "TracerPid:\t0\n") {
		t.Errorf("the program is still traced: %v", err)
	}
	if err := i.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if exit := waited(t, i); exit != (driver.Exit{Code: 7}) {
		t.Errorf("exit = %+v, want the program's own", exit)
	}
}
