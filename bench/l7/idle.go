//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// idleConns are the idle connections whose memory is measured: 10,000, or as many as the files allow of which a proxy may want two each.
func idleConns() int {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return 1000
	}
	return int(min(10_000, max(1000, (int64(files.Cur)-2000)/2)))
}

// keeps is the memory that a proxy keeps of each of so many idle connections, in KiB.
func keeps(pid int, listen string, idlers int) (float64, error) {
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	ask := func(n int) error {
		for range n {
			c, err := net.Dial("tcp", listen)
			if err != nil {
				return fmt.Errorf("%w; next: ulimit -n %d", err, 3*idlers)
			}
			all = append(all, c)
			if _, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return err
			}
			res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return err
			}
		}
		return nil
	}
	if err := ask(100); err != nil { // pools, a heap
		return 0, err
	}
	before, err := resident(pid)
	if err != nil {
		return 0, err
	}
	if err := ask(idlers); err != nil {
		return 0, err
	}
	after, err := resident(pid)
	return (after - before) / float64(idlers), err
}

// resident is the memory of a process, in KiB.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("process %d has no memory", pid)
	}
	return strconv.ParseFloat(fields[0], 64)
}
