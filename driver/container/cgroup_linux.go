package container

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"servent/driver"
)

const cgroups = "/sys/fs/cgroup"

var controllers = []string{"memory", "cpu", "pids"}

// unified says that this machine has cgroups of version 2 alone.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers"))
	return err == nil
}

// controlled says that runc can limit by a controller here.
func controlled(controller string) bool {
	if unified() {
		b, err := os.ReadFile(filepath.Join(cgroups, "cgroup.controllers"))
		return err == nil && strings.Contains(" "+strings.TrimSpace(string(b))+" ", " "+controller+" ")
	}
	_, err := os.Stat(filepath.Join(cgroups, controller, "cgroup.procs"))
	return err == nil
}

// swaps says that swap can be limited.
func swaps() bool {
	if unified() { // the root has no such file, each cgroup below has it, where the kernel counts swap
		have, _ := filepath.Glob(filepath.Join(cgroups, "*", "memory.swap.max"))
		return len(have) > 0
	}
	_, err := os.Stat(filepath.Join(cgroups, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// file reads a file of a container's cgroup: of version 1 in the controller's hierarchy, or of version 2.
func file(controller, id, v1, v2 string) (string, error) {
	path := filepath.Join(cgroups, controller, id, v1)
	if unified() {
		path = filepath.Join(cgroups, id, v2)
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
func killedForMemory(id string) bool {
	text, err := file("memory", id, "memory.oom_control", "memory.events")
	return err == nil && field(text, "oom_kill") > 0
}

func stats(id string) (driver.Stats, error) {
	memory, err1 := file("memory", id, "memory.stat", "memory.current")
	cpu, err2 := file("cpuacct", id, "cpuacct.usage", "cpu.stat")
	pids, err3 := file("pids", id, "pids.current", "pids.current")
	if err := errors.Join(err1, err2, err3); err != nil {
		return driver.Stats{}, err
	}
	s := driver.Stats{}
	if unified() {
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
