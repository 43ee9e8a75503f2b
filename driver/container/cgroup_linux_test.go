package container

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"servent/driver"
)

// hierarchy writes files below a folder that stands for /sys/fs/cgroup.
func hierarchy(t *testing.T, files map[string]string) hierarchies {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return hierarchies(root)
}

// Cgroups of version 1 and 2 say the same, each in its files (kernel documentation, cgroup-v1/memory.rst and
// cgroup-v2.rst, from which the texts are). The version that the machine has is also looked at by the tests of limits.
func TestHierarchies(t *testing.T) {
	for name, h := range map[string]hierarchies{
		"1": hierarchy(t, map[string]string{
			"memory/cgroup.procs": "1\n", "cpu/cgroup.procs": "1\n", "memory/memory.memsw.limit_in_bytes": "9223372036854771712\n",
			"memory/web-1/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
			"memory/web-1/memory.stat":        "cache 4096\nrss 1\ntotal_cache 4096\ntotal_rss 8192\ntotal_mapped_file 4096\n",
			"cpuacct/web-1/cpuacct.usage":     "1500000\n", "pids/web-1/pids.current": "3\n",
			"memory/web-2/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
		}),
		"2": hierarchy(t, map[string]string{
			"cgroup.controllers": "cpuset cpu io memory hugetlb\n", "system.slice/memory.swap.max": "max\n",
			"web-1/memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", "web-1/memory.current": "12288\n",
			"web-1/cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n", "web-1/pids.current": "3\n",
			"web-2/memory.events": "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n",
		}),
	} {
		if h.unified() != (name == "2") {
			t.Errorf("%s: unified = %v", name, h.unified())
		}
		for c, want := range map[string]bool{"memory": true, "cpu": true, "pids": false} {
			if h.controlled(c) != want {
				t.Errorf("%s: controlled(%s) = %v", name, c, !want)
			}
		}
		if !h.swaps() || !h.killedForMemory("web-1") || h.killedForMemory("web-2") || h.killedForMemory("web-3") {
			t.Errorf("%s: swaps %v, killed %v %v %v", name, h.swaps(), h.killedForMemory("web-1"), h.killedForMemory("web-2"), h.killedForMemory("web-3"))
		}
		if got, err := h.stats("web-1"); err != nil || got != (driver.Stats{CPU: 1500 * time.Microsecond, Memory: 12288, Pids: 3}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err := h.stats("web-2"); err == nil {
			t.Errorf("%s: what is not there has stats", name)
		}
	}
	if hierarchy(t, map[string]string{"cgroup.controllers": "cpu\n", "system.slice/cpu.max": "max 100000\n"}).swaps() {
		t.Error("swap is not counted, and can be limited")
	}
}

// What runc is told, which it writes as memory.max, cpu.max and pids.max, or as files of version 1.
func TestResources(t *testing.T) {
	var s driver.Spec
	s.Limits.Memory, s.Limits.CPUs, s.Limits.Pids = 64<<20, 1.5, 7
	r := resources(s)
	if *r.Memory.Limit != 64<<20 || *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || *r.Pids.Limit != 7 {
		t.Errorf("%+v %+v %+v", r.Memory, r.CPU, r.Pids)
	}
	if r := resources(driver.Spec{}); r.Memory != nil || r.CPU != nil || r.Pids != nil || !slices.EqualFunc(r.Devices, []specs.LinuxDeviceCgroup{{Access: "rwm"}},
		func(a, b specs.LinuxDeviceCgroup) bool {
			return a.Allow == b.Allow && a.Access == b.Access && a.Type == b.Type
		}) {
		t.Errorf("without limits: %+v", r)
	}
}

// A program that makes processes without end is held, and one that burns processors gets its share; a neighbour
// answers meanwhile.
func TestGreed(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	a := onDisk(t, probeImage(t, v1.Config{}), nil)
	neighbour := up(t, d, a, specFor(t, 1))
	s := specFor(t, 2)
	s.Limits.Pids = 40
	i := up(t, d, a, s)
	said := ask(t, i, "/fork?n=200")
	made := regexp.MustCompile(`^made (\d+): .*resource temporarily unavailable`).FindStringSubmatch(said)
	if made == nil {
		t.Fatalf("it says %q, want that it was held", said)
	}
	if n, _ := strconv.Atoi(made[1]); n == 0 || n >= 40 {
		t.Errorf("it made %d processes, want below 40", n)
	}
	if st, err := i.Stats(t.Context()); err != nil || st.Pids > 40 {
		t.Errorf("it has %+v, %v, want 40 processes and threads at the most", st, err)
	}
	ask(t, neighbour, "/")

	s = specFor(t, 3)
	s.Limits.CPUs = 0.2
	i = up(t, d, a, s)
	before, err := i.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	ask(t, i, "/burn?for=2s") // two busy threads
	took := time.Since(begun)
	after, err := i.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A fifth of a processor for that time; a period of 100 ms may have been begun on either side.
	if share := (after.CPU - before.CPU).Seconds() / (took.Seconds() + 0.2); share > 0.25 {
		t.Errorf("it used %.2f processors, want 0.2 at the most", share)
	}
	throttled, err := cgroups.file("cpu", i.ID(), "cpu.stat", "cpu.stat")
	if err == nil && field(throttled, "nr_throttled") == 0 {
		t.Errorf("it was never held back: %s", throttled)
	}
	ask(t, neighbour, "/")
}
