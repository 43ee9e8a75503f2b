//go:build unix && !linux

package process

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"servent/driver"
	"servent/system"
)

// limiter sets no limits: these systems have no cgroups and no prlimit.
type limiter struct{ watches bool }

func newLimiter() *limiter { return &limiter{watches: true} }

func (l *limiter) describe(caps *driver.Caps) {
	caps.Limits = append(caps.Limits, "memory")
	caps.Missing["memory cgroup"] = fmt.Sprintf("this system has no cgroups; memory is looked at every %v instead", watchEvery)
	for _, what := range []string{"cpu", "pids", "open files"} {
		caps.Missing[what] = "this system cannot limit them for one instance"
	}
}

// cage is always nil: there are no cgroups.
type cage struct{}

func (l *limiter) cage(system.Limits) (*cage, error) { return nil, nil }

func openCage([]string) *cage     { return nil }
func (c *cage) folders() []string { return nil }
func (c *cage) kill()             {}
func (c *cage) oom() bool         { return false }
func (c *cage) remove()           {}
func open(int) error              { return nil }
func holder(int) string           { return "" }
func (g *group) strays() (n int)  { return 0 }
func (g *group) private() (n int64) {
	st, err := g.stats()
	if err != nil {
		return 0
	}
	return st.Memory
}

func confine(int, *cage, system.Limits) error { return nil }

func attributes(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// alive: a group of none but dead processes answers EPERM on macOS.
func (g *group) alive() bool { return syscall.Kill(-g.pgid, 0) == nil }

func (g *group) stats() (driver.Stats, error) {
	out, err := exec.Command("ps", "-A", "-o", "pgid=,rss=,time=").Output()
	if err != nil {
		return driver.Stats{}, fmt.Errorf("stats of process %d: %w", g.pgid, err)
	}
	st := sum(out, g.pgid)
	if st.Pids == 0 {
		return driver.Stats{}, fmt.Errorf("process %d has ended", g.pgid)
	}
	return st, nil
}

// sum adds up the lines of a group: "  412  20480 0:01.27", kilobytes and [[days-]hours:]minutes:seconds.
func sum(out []byte, pgid int) (st driver.Stats) {
	for line := range bytes.Lines(out) {
		f := strings.Fields(string(line))
		if len(f) != 3 || f[0] != strconv.Itoa(pgid) {
			continue
		}
		rss, _ := strconv.ParseInt(f[1], 10, 64)
		st.Memory += rss << 10
		st.CPU += clock(f[2])
		st.Pids++
	}
	return st
}

func clock(text string) (d time.Duration) {
	days, rest, ok := strings.Cut(text, "-")
	if !ok {
		days, rest = "0", text
	}
	n, _ := strconv.Atoi(days)
	seconds := 0.0
	for part := range strings.SplitSeq(rest, ":") {
		v, _ := strconv.ParseFloat(part, 64)
		seconds = seconds*60 + v
	}
	return time.Duration(n)*24*time.Hour + time.Duration(seconds*float64(time.Second))
}

// startOf says when a process started; "" when there is none.
func startOf(pid int) string {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
