package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"servent/driver"
	"servent/system"
)

// limiter knows where this node may make cgroups. Memory is bounded by a cgroup, or else by looking at it
// every 250ms: RLIMIT_AS and RLIMIT_DATA count what a program reserves, and Go, Java and others reserve
// far more than they use. Processor and process numbers need a cgroup: RLIMIT_NPROC counts all that the
// user runs. Open files are an rlimit.
type limiter struct {
	folders map[string]string // memory, cpu, pids → parent of our cgroups
	v2      bool
	why     map[string]string // of those that are missing
	watches bool              // no cgroup bounds memory
}

var controllers = []string{"memory", "cpu", "pids"}

func newLimiter() *limiter {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	own, err2 := os.ReadFile("/proc/self/cgroup")
	l := &limiter{folders: map[string]string{}, why: map[string]string{}}
	if err := errors.Join(err, err2); err != nil {
		l.refuse(err.Error())
	} else {
		l.find(parseMounts(string(mounts)), parseCgroups(string(own)))
	}
	l.watches = l.folders["memory"] == ""
	return l
}

func (l *limiter) refuse(why string) {
	for _, c := range controllers {
		if l.folders[c] == "" {
			l.why[c] = why
		}
	}
}

// mount is one cgroup hierarchy: v2 has no controllers here.
type mount struct {
	root, point string
	v2          bool
	controllers []string
}

// parseMounts reads /proc/self/mountinfo: "36 35 98:0 /root /point rw,… shared:1 - cgroup cgroup rw,memory".
func parseMounts(text string) (mounts []mount) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 3 {
			continue
		}
		switch a[0] {
		case "cgroup2":
			mounts = append(mounts, mount{root: b[3], point: b[4], v2: true})
		case "cgroup":
			mounts = append(mounts, mount{root: b[3], point: b[4], controllers: strings.Split(a[2], ",")})
		}
	}
	return mounts
}

// parseCgroups reads /proc/self/cgroup: "4:memory:/path", and "0::/path" for v2.
func parseCgroups(text string) map[string]string {
	paths := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			paths[name] = f[2]
		}
	}
	return paths
}

// find looks for folders that we may make cgroups in.
func (l *limiter) find(mounts []mount, own map[string]string) {
	for _, m := range mounts {
		if !m.v2 {
			continue
		}
		// A cgroup with processes in it gives no controllers to its children (cgroups(7), no internal
		// processes); so we look upward for one that does.
		for dir := m.inside(own[""]); strings.HasPrefix(dir, m.point); dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
			if err != nil || !hasAll(strings.Fields(string(b)), controllers) || !makes(dir) {
				continue
			}
			for _, c := range controllers {
				l.folders[c] = dir
			}
			l.v2 = true
			return
		}
	}
	for _, m := range mounts {
		for _, c := range controllers {
			if dir := m.inside(own[c]); !m.v2 && hasAll(m.controllers, []string{c}) && makes(dir) {
				l.folders[c] = dir
			}
		}
	}
	l.refuse("no cgroup that this node may write; run it as root or under systemd with Delegate=yes")
}

// inside is where the path of a cgroup lies below the mount.
func (m mount) inside(path string) string {
	if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(m.root, "/")); ok {
		if dir := filepath.Join(m.point, rel); isDir(dir) {
			return dir
		}
	}
	return m.point // a container sees its own cgroup as the root
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}

// makes tries whether we may make a cgroup.
func makes(dir string) bool {
	probe, err := os.MkdirTemp(dir, "servent-probe-")
	return err == nil && os.Remove(probe) == nil
}

func (l *limiter) describe(caps *driver.Caps) {
	caps.Limits = append(caps.Limits, "memory", "open files")
	for _, c := range controllers {
		switch {
		case l.why[c] == "" && c != "memory":
			caps.Limits = append(caps.Limits, c)
		case l.why[c] != "" && c == "memory":
			caps.Missing["memory cgroup"] = fmt.Sprintf("%s; memory is looked at every %v instead", l.why[c], watchEvery)
		case l.why[c] != "":
			caps.Missing[c] = l.why[c]
		}
	}
}

// setting is a file of a cgroup and what we write into it.
type setting struct{ file, value string }

func (s setting) write(dir string) error {
	return os.WriteFile(filepath.Join(dir, s.file), []byte(s.value), 0)
}

// cage is the cgroup of one instance: one folder with v2, one a controller with v1. A nil cage is none.
type cage struct{ dirs []string }

var cages atomic.Int64

// cage makes a cgroup for what can be limited; nil when there is nothing to limit or no cgroup.
func (l *limiter) cage(limits system.Limits) (*cage, error) {
	const period = 100_000 // microseconds, the kernel's default
	memory := strconv.FormatInt(limits.Memory, 10)
	quota := strconv.Itoa(max(1000, int(limits.CPUs*period)))
	pids := strconv.FormatInt(limits.Pids, 10)
	name := fmt.Sprintf("servent-%d-%d", os.Getpid(), cages.Add(1))
	c := &cage{}
	for _, want := range []struct {
		controller string
		set        bool
		v1, v2     setting
	}{
		{"memory", limits.Memory > 0, setting{"memory.limit_in_bytes", memory}, setting{"memory.max", memory}},
		{"cpu", limits.CPUs > 0, setting{"cpu.cfs_quota_us", quota}, setting{"cpu.max", fmt.Sprintf("%s %d", quota, period)}},
		{"pids", limits.Pids > 0, setting{"pids.max", pids}, setting{"pids.max", pids}},
	} {
		parent := l.folders[want.controller]
		if !want.set || parent == "" {
			continue
		}
		dir, set := filepath.Join(parent, name), want.v1
		if l.v2 {
			set = want.v2
		}
		if !slices.Contains(c.dirs, dir) {
			if err := os.Mkdir(dir, 0o755); err != nil {
				c.remove()
				return nil, fmt.Errorf("limit %s: %w", want.controller, err)
			}
			c.dirs = append(c.dirs, dir)
		}
		if err := set.write(dir); err != nil {
			c.remove()
			return nil, fmt.Errorf("limit %s: %w", want.controller, err)
		}
		if want.controller == "memory" { // what is swapped out counts too; a kernel that counts no swap has no such file
			swap := setting{"memory.memsw.limit_in_bytes", memory}
			if l.v2 {
				swap = setting{"memory.swap.max", "0"}
			}
			swap.write(dir)
		}
	}
	if len(c.dirs) == 0 {
		return nil, nil
	}
	return c, nil
}

// openCage finds the cgroup that an earlier life made.
func openCage(dirs []string) *cage {
	if len(dirs) == 0 {
		return nil
	}
	return &cage{dirs: dirs}
}

func (c *cage) folders() []string {
	if c == nil {
		return nil
	}
	return c.dirs
}

// kill ends all processes in it.
func (c *cage) kill() {
	for _, dir := range c.folders() {
		if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
			continue // Linux 5.14, v2
		}
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// oom says whether the kernel killed in it for want of memory.
func (c *cage) oom() bool {
	for _, dir := range c.folders() {
		for _, file := range []string{"memory.events", "memory.oom_control"} {
			b, _ := os.ReadFile(filepath.Join(dir, file))
			for line := range strings.Lines(string(b)) {
				if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
					return true
				}
			}
		}
	}
	return false
}

// remove takes the empty cgroup away. The kernel says busy until it has buried the last process.
func (c *cage) remove() {
	for _, dir := range c.folders() {
		for pause := time.Millisecond; errors.Is(os.Remove(dir), syscall.EBUSY) && pause < 200*time.Millisecond; pause *= 2 {
			time.Sleep(pause)
		}
	}
}

// confine puts a process that has not yet run under its limits.
func confine(pid int, c *cage, limits system.Limits) error {
	for _, dir := range c.folders() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("limit the process: %w", err)
		}
	}
	if n := uint64(limits.OpenFiles); limits.OpenFiles > 0 {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
			return fmt.Errorf("limit open files to %d: %w", n, err)
		}
	}
	return nil
}

// attributes of a new process: its own session, and death with the keeper's thread. A gated one stops at
// its exec, before its first instruction, as a traced program does (ptrace(2), PTRACE_TRACEME), so that
// nothing of it runs outside its limits; open lets it go.
func attributes(gated bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Ptrace: gated}
}

// open lets a gated process run. It runs on the thread that made it.
func open(pid int) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for the process to stop: %w", err)
		}
	}
	if err := syscall.PtraceDetach(pid); err != nil && err != syscall.ESRCH { // ESRCH: it was killed meanwhile
		return fmt.Errorf("let the process run: %w", err)
	}
	return nil
}
