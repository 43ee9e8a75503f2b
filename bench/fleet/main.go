// Command fleet measures what many nodes of one system cost on one machine: how long a change takes to reach the last of them, what control keeps, and what a
// node's process takes. Nodes are processes of their own and share the machine's processors, which a real fleet's do not.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/admin"
	"servent/lab/host"
	"servent/launch"
	"servent/system"
)

func main() {
	sizes := flag.String("nodes", "1,10,50,100,200", "how many nodes")
	changes := flag.Int("changes", 20, "changes measured at each size")
	flag.Parse()
	if err := run(flag.Arg(0), *sizes, *changes); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(servent, sizes string, changes int) error {
	servent, err := filepath.Abs(servent)
	if err != nil {
		return err
	}
	before := host.Loads()
	var rows []string
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d nodes …\n", n)
		row, err := measure(servent, n, changes)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		fmt.Fprintln(os.Stderr, row)
		rows = append(rows, row)
	}
	fmt.Printf("# A fleet's size\n\n`make bench-fleet` · %s · %d CPUs · %s · load average %s before, %s after\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), before, host.Loads())
	fmt.Printf("Each node is a process of its own; all of a row share this machine. A change is `scale`, back and forth; it has reached a node when the node has reported that it follows the new plan, "+
		"as the admin door shows it, looked at every 5 ms. Median and worst of %d. What control keeps: the part of its file that is in use after the changes, which are forgotten after an hour. Memory: the proportional set size of a node's "+
		"process (of `/proc/PID/smaps_rollup`), the median; of node 1's with control's engine beside it.\n\n", changes)
	fmt.Println("| nodes | all up after | the last node has a change after | worst | control's data | a node's memory | the server and its engine |\n|---|---|---|---|---|---|---|")
	for _, row := range rows {
		fmt.Println(row)
	}
	return nil
}

const file = `
name: many
services:
  front:
    x-servent:
      process: [servent, example, counter]
      architecture: replicated
      scale: {min: 1}
      route: /*
x-servent:
  nodes: {node: {count: %d}}
`

func measure(servent string, n, changes int) (row string, err error) {
	dir, err := os.MkdirTemp("", "servent-bench-fleet-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), fmt.Appendf(nil, file, n), 0o600); err != nil {
		return "", err
	}
	began := time.Now()
	defer func() {
		if out, downErr := exec.Command(servent, "-C", dir, "down").CombinedOutput(); downErr != nil {
			err = errors.Join(err, fmt.Errorf("down: %w: %s", downErr, out))
		}
	}()
	if out, err := exec.Command(servent, "-C", dir, "up", "-d", "--wait", "5m").CombinedOutput(); err != nil {
		return "", fmt.Errorf("up: %w: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	folder := launch.FolderOf(dir)
	client, err := folder.Client()
	if err != nil {
		return "", err
	}
	s, err := follows(ctx, client, n, 0)
	if err != nil {
		return "", err
	}
	up := time.Since(began)
	var took []time.Duration
	for i := range changes {
		began := time.Now()
		if err := client.Scale(ctx, map[system.ServiceName]int{"front": 1 + (i+1)%2}); err != nil {
			return "", err
		}
		if s, err = follows(ctx, client, n, s.Generation+1); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
		for wait := time.Now().Add(2 * time.Second); time.Now().Before(wait); { // what comes of it settles
			if s, err = client.State(ctx); err != nil {
				return "", err
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	slices.Sort(took)
	var sizes []int64
	server := int64(0)
	for i, node := range s.Nodes {
		size, err := memory(node.Pid)
		if err != nil {
			return "", err
		}
		if node.Role == "server" {
			child, err := engine(node.Pid)
			if err != nil {
				return "", err
			}
			server = size + child
		}
		if node.Role != "server" || i == 0 && n == 1 {
			sizes = append(sizes, size)
		}
	}
	slices.Sort(sizes)
	kept, err := data(servent, dir)
	if err != nil {
		return "", err
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
	return fmt.Sprintf("| %d | %.1f s | %s | %s | %.2f MiB | %.1f MiB | %.1f MiB |", n, up.Seconds(), ms(took[len(took)/2]), ms(took[len(took)-1]), mib(kept), mib(sizes[len(sizes)/2]), mib(server)), nil
}

// follows waits until all nodes follow a plan of at least that generation.
func follows(ctx context.Context, client *admin.Client, n int, generation int64) (s admin.State, err error) {
	for {
		if s, err = client.State(ctx); err != nil {
			return s, err
		}
		have := 0
		for _, node := range s.Nodes {
			if node.State == "up" && node.Plan >= max(generation, s.Generation) {
				have++
			}
		}
		if have == n && s.Generation >= generation && s.Generation > 0 {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("%d of %d nodes follow plan %d: %w", have, n, max(generation, s.Generation), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// data is how many bytes a backup's snapshot of control has in use.
func data(servent, dir string) (int64, error) {
	path := filepath.Join(dir, "bench.backup")
	if out, err := exec.Command(servent, "-C", dir, "backup", path).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("backup: %w: %s", err, out)
	}
	out, err := exec.Command("tar", "tvzf", path, "control.db").Output()
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("read %q", out)
	}
	return strconv.ParseInt(fields[2], 10, 64)
}

// engine is the memory of the process that a server keeps control in.
func engine(pid int) (int64, error) {
	total := int64(0)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			line, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil || !strings.Contains(string(line), "__etcd") {
				continue
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				return 0, err
			}
			size, err := memory(pid)
			if err != nil {
				return 0, err
			}
			total += size
		}
	}
	return total, nil
}

// memory is a process's proportional set size in bytes.
func memory(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no Pss")
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
