package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"servent/driver"
)

// tick of the times in /proc: USER_HZ is 100 on every architecture that Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// stat is what we read of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	state         byte
	pgrp, session int
	cpu           int64 // ticks, with those of ended children
	start         uint64
	rss           int64 // pages
}

// parseStat reads the fields after the name, which may hold spaces and parentheses.
func parseStat(b []byte) (s stat, ok bool) {
	name := bytes.LastIndexByte(b, ')')
	if name < 0 {
		return stat{}, false
	}
	f := bytes.Fields(b[name+1:]) // f[0] is field 3
	if len(f) < 22 || len(f[0]) != 1 {
		return stat{}, false
	}
	number := func(field int) (n int64) {
		n, err := strconv.ParseInt(string(f[field-3]), 10, 64)
		ok = ok && err == nil
		return n
	}
	ok = true
	s.state = f[0][0]
	s.pgrp, s.session = int(number(5)), int(number(6))
	for field := 14; field <= 17; field++ {
		s.cpu += number(field)
	}
	start, err := strconv.ParseUint(string(f[22-3]), 10, 64)
	s.start, s.rss = start, number(24)
	if !ok || err != nil {
		return stat{}, false
	}
	return s, true
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// processes calls fn for each process of this machine that we may see.
func processes(fn func(pid int)) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			fn(pid)
		}
	}
}

func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, false
	}
	return parseStat(b)
}

// members calls fn for each living process of the group or its session.
func (g *group) members(fn func(pid int, s stat)) {
	processes(func(pid int) {
		if s, ok := readStat(pid); ok && !s.dead() && (s.pgrp == g.pgid || s.session == g.pgid) {
			fn(pid, s)
		}
	})
}

// alive says whether a process of the group runs. One that is dead and not yet waited for does not: where
// nobody is init, orphans stay so.
func (g *group) alive() bool {
	if syscall.Kill(-g.pgid, 0) == syscall.ESRCH {
		return false
	}
	found := false
	processes(func(pid int) {
		if !found {
			s, ok := readStat(pid)
			found = ok && !s.dead() && s.pgrp == g.pgid
		}
	})
	return found
}

// strays kills every process that has the group's token, wherever it went, and says how many lived. One that is
// dying has no environment left to be known by, but may hold its files for a moment more: it counts until it is gone.
func (g *group) strays() (n int) {
	for pid, began := range g.dying {
		if s, ok := readStat(pid); ok && !s.dead() && s.start == began {
			n++
		} else {
			delete(g.dying, pid)
		}
	}
	processes(func(pid int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // empty for the dead
		if err != nil || !bytes.Contains(b, []byte(g.token)) {
			return
		}
		s, ok := readStat(pid)
		if _, known := g.dying[pid]; known || !ok || s.dead() || syscall.Kill(pid, syscall.SIGKILL) != nil {
			return
		}
		if g.dying == nil {
			g.dying = map[int]uint64{}
		}
		g.dying[pid] = s.start
		n++
	})
	return n
}

func (g *group) stats() (driver.Stats, error) {
	var st driver.Stats
	g.members(func(_ int, s stat) {
		st.CPU += time.Duration(s.cpu) * tick
		st.Memory += s.rss * int64(os.Getpagesize())
		st.Pids++
	})
	if st.Pids == 0 {
		return driver.Stats{}, fmt.Errorf("process %d has ended", g.pgid)
	}
	return st, nil
}

// private is the memory that would come free if the group ended: what is shared counts once.
func (g *group) private() (n int64) {
	var shared int64
	g.members(func(pid int, _ stat) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return
		}
		n += statusBytes(b, "RssAnon:")
		shared = max(shared, statusBytes(b, "RssShmem:"))
	})
	return n + shared
}

// statusBytes reads a line such as "RssAnon:	    1024 kB".
func statusBytes(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(rest)), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// bootID tells times since one start of the machine from those since another.
var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// startOf says when a process started, in words that no other process with its number shares; "" when
// there is none.
func startOf(pid int) string {
	s, ok := readStat(pid)
	if !ok || s.dead() {
		return ""
	}
	return fmt.Sprintf("%s+%d", bootID(), s.start)
}

// holder says who listens on a TCP port, as far as we may see: python3 (pid 12).
func holder(port int) string {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if inode, ok := listens(line, port); ok {
				sockets["socket:["+inode+"]"] = true
			}
		}
	}
	who := ""
	processes(func(pid int) {
		if who != "" || len(sockets) == 0 {
			return
		}
		fds := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(fds)
		if err != nil {
			return
		}
		for _, e := range entries {
			if to, err := os.Readlink(fds + "/" + e.Name()); err == nil && sockets[to] {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				who = fmt.Sprintf("%s (pid %d)", bytes.TrimSpace(name), pid)
				return
			}
		}
	})
	return who
}

// listens reads a line of /proc/net/tcp: "0: 0100007F:1F90 00000000:0000 0A … inode".
func listens(line []byte, port int) (inode string, ok bool) {
	f := bytes.Fields(line)
	if len(f) < 10 || string(f[3]) != "0A" { // TCP_LISTEN
		return "", false
	}
	_, hex, _ := bytes.Cut(f[1], []byte{':'})
	n, err := strconv.ParseUint(string(hex), 16, 16)
	return string(f[9]), err == nil && int(n) == port
}
