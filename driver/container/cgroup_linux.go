package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/driver"
)

// hierarchies is where the cgroups of a machine are.
type hierarchies string

const cgroups hierarchies = "/sys/fs/cgroup"

var controllers = []string{"memory", "cpu", "pids"}

// unified says that the machine has cgroups of version 2 alone.
func (h hierarchies) unified() bool {
	_, err := os.Stat(filepath.Join(string(h), "cgroup.controllers"))
	return err == nil
}

// controlled says that runc can limit by a controller.
func (h hierarchies) controlled(controller string) bool {
	if h.unified() {
		b, err := os.ReadFile(filepath.Join(string(h), "cgroup.controllers"))
		return err == nil && slices.Contains(strings.Fields(string(b)), controller)
	}
	_, err := os.Stat(filepath.Join(string(h), controller, "cgroup.procs"))
	return err == nil
}

// swaps says that swap can be limited.
func (h hierarchies) swaps() bool {
	if h.unified() { // the root has no such file, each cgroup below has it, where the kernel counts swap
		have, _ := filepath.Glob(filepath.Join(string(h), "*", "memory.swap.max"))
		return len(have) > 0
	}
	_, err := os.Stat(filepath.Join(string(h), "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// file reads a file of a container's cgroup: of version 1 in the controller's hierarchy, or of version 2.
func (h hierarchies) file(controller, id, v1, v2 string) (string, error) {
	path := filepath.Join(string(h), controller, id, v1)
	if h.unified() {
		path = filepath.Join(string(h), id, v2)
	}
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// field is the number after a word at the beginning of a line.
func field(text, word string) int64 {
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			v, _ := strconv.ParseInt(n, 10, 64)
			return v
		}
	}
	return 0
}

// killedForMemory says that the kernel ended something in the container for want of memory.
func (h hierarchies) killedForMemory(id string) bool {
	text, err := h.file("memory", id, "memory.oom_control", "memory.events")
	return err == nil && field(text, "oom_kill") > 0
}

func (h hierarchies) stats(id string) (driver.Stats, error) {
	memory, err1 := h.file("memory", id, "memory.stat", "memory.current")
	cpu, err2 := h.file("cpuacct", id, "cpuacct.usage", "cpu.stat")
	pids, err3 := h.file("pids", id, "pids.current", "pids.current")
	if err := errors.Join(err1, err2, err3); err != nil {
		return driver.Stats{}, err
	}
	s := driver.Stats{}
	if h.unified() {
		s.Memory, _ = strconv.ParseInt(memory, 10, 64)
		s.CPU = time.Duration(field(cpu, "usage_usec")) * time.Microsecond
	} else {
		s.Memory = field(memory, "total_rss") + field(memory, "total_mapped_file")
		n, _ := strconv.ParseInt(cpu, 10, 64)
		s.CPU = time.Duration(n)
	}
	s.Pids, _ = strconv.Atoi(pids)
	return s, nil
}
