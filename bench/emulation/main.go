// Command emulation measures whether n emulated nodes have n times the capacity of one: it starts a
// system of n nodes with a typed rate, loads it with a closed loop, and prints throughput beside the
// ideal. Two busy loops keep the machine loaded meanwhile. It is also the program that the system runs.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"servent/lab/host"
)

const (
	rate    = 25.0 // requests a second of one node
	perNode = 16   // closed-loop clients
	warmUp  = 2 * time.Second
	measure = 8 * time.Second
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "burn" {
		for sum := [32]byte{}; ; sum = sha256.Sum256(sum[:]) { // until it is killed
		}
	}
	burn := flag.Int("burn", 2, "busy loops beside the measurement")
	flag.Parse()
	if err := run(flag.Arg(0), *burn); err != nil {
		fmt.Fprintln(os.Stderr, "emulation:", err)
		os.Exit(1)
	}
}

// serve answers every request after a real delay.
func serve(delay string) {
	d, err := time.ParseDuration(delay)
	if err != nil {
		panic(err)
	}
	_ = http.ListenAndServe(os.Getenv("HOST")+":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(d)
		fmt.Fprintln(w, "ok")
	}))
}

func run(servent string, burn int) error {
	servent, err := filepath.Abs(servent)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range burn {
		loop := exec.Command(self, "burn")
		if err := loop.Start(); err != nil {
			return err
		}
		defer func() {
			_ = loop.Process.Kill()
			_ = loop.Wait()
		}()
	}
	version, err := exec.Command(servent, "version").Output()
	if err != nil {
		return err
	}
	fmt.Printf("# Throughput of emulated nodes\n\n`make bench-emulation` · %s · %d CPUs with %d busy loops beside · load average %s\n\n",
		strings.TrimSpace(string(version)), runtime.NumCPU(), burn, host.Loads())
	fmt.Printf("Capacity %.0f/s a node, typed; %d closed-loop clients a node, %v. The ideal follows by construction.\n\n", rate, perNode, measure)
	fmt.Println("| nodes | ideal /s | measured /s | off | late | |\n|---|---|---|---|---|---|")
	for _, n := range []int{1, 2, 4, 8, 16} {
		if err := point(servent, n, 0); err != nil {
			return err
		}
	}
	fmt.Println("\nA program that takes 80 ms where its node has 40 ms a request:\n\n| nodes | ideal /s | measured /s | off | late | |\n|---|---|---|---|---|---|")
	return point(servent, 2, 40*time.Millisecond)
}

const file = `name: emulation
services:
  work:
    ports: ["0:80"]
    deploy: {replicas: %d}
    x-servent:
      process: {run: [%q, serve, %q]}
      architecture: replicated
      switch: {by: request}
x-servent:
  nodes:
    node: {count: %d, capacity: {rate: %v/s, pass: 1000000/s}}
`

func point(servent string, n int, slow time.Duration) error {
	dir, err := os.MkdirTemp("", "emulation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), fmt.Appendf(nil, file, n, self, slow.String(), n, rate), 0o600); err != nil {
		return err
	}
	defer exec.Command(servent, "-C", dir, "down").Run()
	var stderr bytes.Buffer
	up := exec.Command(servent, "-C", dir, "up", "-d", "--json")
	up.Stderr = &stderr
	out, err := up.Output()
	if err != nil {
		return fmt.Errorf("up: %w\n%s", err, stderr.String())
	}
	var state struct {
		Published []struct{ URL string }
		Console   string
	}
	if err := json.Unmarshal(out, &state); err != nil {
		return err
	}
	done := load(state.Published[0].URL, n*perNode)
	late, valid, err := stations(state.Console)
	if err != nil {
		return err
	}
	ideal, got := rate*float64(n), float64(done)/measure.Seconds()
	word := "valid"
	if late > 0.01 {
		word = fmt.Sprintf("INVALID: program or host too slow for the capacity; valid would be ≤ %.0f/s", valid)
	}
	fmt.Printf("| %d | %.0f | %.1f | %+.1f %% | %.1f %% | %s |\n", n, ideal, got, 100*(got/ideal-1), 100*late, word)
	return nil
}

// load counts the answers that come within the measured time.
func load(url string, clients int) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), warmUp+measure)
	defer cancel()
	var done atomic.Int64
	var wg sync.WaitGroup
	from := time.Now().Add(warmUp)
	until := from.Add(measure)
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}} // a connection of its own
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
				resp, err := client.Do(req)
				if err != nil {
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if now := time.Now(); err == nil && resp.StatusCode == http.StatusOK && now.After(from) && now.Before(until) {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return done.Load()
}

// stations asks what share of requests came late, and which rate would be valid.
func stations(console string) (late, valid float64, err error) {
	base, token, _ := strings.Cut(console, "/#token=")
	req, err := http.NewRequest(http.MethodGet, base+"/v1/meter", nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	var nodes []struct {
		Station struct {
			Served    float64 `json:"served"`
			Late      float64 `json:"late"`
			ValidRate float64 `json:"valid_rate"`
		} `json:"station"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return 0, 0, err
	}
	var served, tardy float64
	for _, n := range nodes {
		served += n.Station.Served
		tardy += n.Station.Late
		if valid == 0 || n.Station.ValidRate < valid {
			valid = n.Station.ValidRate
		}
	}
	return tardy / max(served, 1), valid, nil
}
