package trial

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"servent/lab/host"
	"servent/lab/load"
)

// vegeta is the judge: github.com/tsenart/vegeta, a tool of tools.mod.
func vegeta(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it is built, once
	defer cancel()
	var why bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=../../tools.mod", "-n", "vegeta")
	cmd.Stderr = &why
	out, err := cmd.Output()
	path := strings.TrimSpace(string(out))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("vegeta, which judges the generator, cannot be built: %v\n%s", err, why.String())
		}
		t.Skipf("vegeta, which judges the generator, cannot be built here: %v\n%s", err, why.String())
	}
	return path
}

const (
	judgeRate   = 150 // a second
	judgeRound  = 2 * time.Second
	judgeRounds = 2
)

// The generator and vegeta load one server in turns, at one rate. Its answers take 5 to 200 ms, in each turn the
// same ones: so each percentile must be the same, but for the larger of 5 % and how late the host woke up. When
// the host was late, they are measured anew, twice at most.
func TestAgainstVegeta(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute on a busy machine")
	}
	judge := vegeta(t)
	var asked atomic.Int64
	sites := site(t, func(w http.ResponseWriter, r *http.Request) { <-time.After(takes(asked.Add(1))) })
	url := "http://" + sites[0].Doors()[0] + "/"
	for try := 1; ; try++ {
		var ours, theirs []time.Duration
		var late time.Duration
		for range judgeRounds {
			asked.Store(0)
			r, err := Run(t.Context(), Options{Load: load.Options{Sites: sites, Mix: get, Rate: load.Rate{From: judgeRate}, Duration: judgeRound}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Errors+r.NotSent != 0 || r.Requests != judgeRate*int64(judgeRound/time.Second) {
				t.Fatalf("%d sent, %d failed %v, %d not sent", r.Requests, r.Errors, r.Kinds, r.NotSent)
			}
			for _, b := range r.Bins {
				ours = append(ours, slices.Repeat([]time.Duration{time.Duration(b.Micros) * time.Microsecond}, int(b.Count))...)
			}
			late = max(late, time.Duration(r.WakeMS*1e6))
			asked.Store(0)
			watch := host.Watch(t.Context())
			theirs = append(theirs, attack(t, judge, url)...)
			late = max(late, watch.End().Late)
		}
		var differ []string
		for _, q := range []float64{0.5, 0.9, 0.99} {
			a, b := quantile(ours, q), quantile(theirs, q)
			most := max(time.Duration(0.05*float64(b)), late)
			t.Logf("p%g: %v, vegeta %v, may differ by %v", 100*q, a, b, most)
			if d := (a - b).Abs(); d > most {
				differ = append(differ, fmt.Sprintf("p%g = %v, vegeta has %v: they differ by %v, want %v at most", 100*q, a, b, d, most))
			}
		}
		if len(differ) == 0 {
			return
		}
		if try == 3 || late < 5*time.Millisecond {
			t.Fatalf("%s (the host woke up %v late, try %d)", strings.Join(differ, "\n"), late, try)
		}
		t.Logf("the host woke up %v late: once more", late)
	}
}

// takes is how long the i-th answer of a turn takes: 5 to 200 ms, their logarithms evenly distributed and in no
// order (the golden ratio's multiples).
func takes(i int64) time.Duration {
	_, u := math.Modf(float64(i) * math.Phi)
	return time.Duration(5 * math.Pow(40, u) * float64(time.Millisecond))
}

// attack lets vegeta load a server for a turn, and returns its latencies.
func attack(t *testing.T, judge, url string) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	results := filepath.Join(t.TempDir(), "results")
	cmd := exec.CommandContext(ctx, judge, "attack", fmt.Sprintf("-rate=%d/1s", judgeRate), "-duration="+judgeRound.String(), "-output="+results)
	cmd.Stdin = strings.NewReader("GET " + url + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("vegeta attack: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, judge, "encode", "-to=json", results).Output()
	if err != nil {
		t.Fatalf("vegeta encode: %v", err)
	}
	var all []time.Duration
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var hit struct {
			Code    int           `json:"code"`
			Latency time.Duration `json:"latency"`
			Error   string        `json:"error"`
		}
		if err := json.Unmarshal(s.Bytes(), &hit); err != nil || hit.Code != http.StatusOK {
			t.Fatalf("vegeta: %s %v", s.Bytes(), err)
		}
		all = append(all, hit.Latency)
	}
	if len(all) != judgeRate*int(judgeRound/time.Second) {
		t.Fatalf("vegeta sent %d, want %d", len(all), judgeRate*int(judgeRound/time.Second))
	}
	return all
}

// quantile by nearest rank, as [meter.Latency.Quantile] has it.
func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[int(math.Ceil(q*float64(len(all))))-1]
}
