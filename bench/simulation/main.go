// Command simulation measures how well the queueing simulation of a comparison foretells what it has not
// seen: emulated systems of 4 and 8 nodes, after it was calibrated on 1 and 2; and a server that has a real
// queue and a real worker of its own, with no emulated station anywhere. It is also that server.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"servent/lab/host"
	"servent/lab/law"
	"servent/lab/load"
	"servent/lab/result"
	"servent/system"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "simulation: serve:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "simulation: want the servent program to measure: simulation bin/servent")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, servent string) error {
	servent, err := filepath.Abs(servent)
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, servent, "version").Output()
	if err != nil {
		return err
	}
	fmt.Printf("# The simulation against what is measured\n\n`make bench-simulation` · %s · %d CPUs · load average %s\n\n",
		strings.TrimSpace(string(version)), runtime.NumCPU(), host.Loads())
	if err := emulated(ctx, servent); err != nil {
		return err
	}
	return real(ctx)
}

// emulated compares a program on 1, 2, 4 and 8 emulated nodes with what was foretold.
func emulated(ctx context.Context, servent string) error {
	dir, err := os.MkdirTemp("", "simulation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, servent, "-C", dir, "compare", "--json", "--nodes", "1,2,4,8", "--no-fault")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it started
	cmd.WaitDelay = time.Minute
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	r, err := result.Parse("compare --json", out)
	if err != nil {
		return err
	}
	fmt.Printf("## Emulated nodes\n\n%s; %s. Capacity 25/s a node, typed.\n\n", r.Load, "points of 4 and 8 nodes were held out")
	fmt.Println("| variant | nodes | emulated /s | simulated /s | error |\n|---|---|---|---|---|")
	for _, v := range r.Variants {
		if v.Law == nil {
			continue
		}
		for _, h := range v.Law.HeldOut {
			fmt.Printf("| %s | %d | %.1f | %.1f | %+.1f %% |\n", v.Name, h.Nodes, h.Measured, h.Simulated, 100*h.Error)
		}
	}
	if f := r.Foretold; f != nil {
		fmt.Printf("\nGoal: median error ≤ 5 %%. %s: **%.1f %%** of %d points.\n", goal(f.HeldOut > 0 && f.Error <= law.RateError), 100*f.Error, f.HeldOut)
	} else {
		fmt.Println("\nNothing was simulated: no point of 1 or 2 nodes is valid.")
	}
	for _, c := range r.Validity.Checks {
		if !c.OK {
			fmt.Printf("\n**Not valid:** %s.\n", c.Text)
		}
	}
	return nil
}

func goal(kept bool) string {
	if kept {
		return "Kept"
	}
	return "NOT kept"
}

const file = `name: simulation
services:
  counter:
    x-servent: {process: [servent, example, counter], key: "/c/{key}"}
x-servent:
  nodes: {node: {count: 8, capacity: {rate: 25/s}}}
  compare: {load: {mix: {"POST /c/{key}": 1}, keys: uniform of 200}}
`

// What the server of the second part takes for a request, and how many requests a point has.
const (
	mean   = 4 * time.Millisecond
	spread = 0.6 // standard deviation / mean
	count  = 2000
)

// serve is one worker behind a queue, first come first served: a channel that holds one token. It works, on a
// processor, for as long as was drawn, and answers with how long that took.
func serve() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	worker := make(chan struct{}, 1)
	times, draw := law.LogNormal(mean, spread), rand.New(rand.NewPCG(1, 2)) // the worker's own
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with whoever started it
		_ = ln.Close()
	}()
	err = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		worker <- struct{}{}
		began := time.Now()
		for want := times.At(draw.Float64()*0.999999 + 5e-7); time.Since(began) < want; { // work, not sleep
		}
		took := time.Since(began)
		<-worker
		fmt.Fprintln(w, int64(took))
	}))
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// real compares the server with a simulation that knows how long it works for one request, and that was
// calibrated on two light loads.
func real(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("where the server listens: %w", err)
	}
	door := strings.TrimSpace(line)

	alone, err := drive(ctx, door, point{clients: 1})
	if err != nil {
		return err
	}
	var took []time.Duration
	for _, rec := range alone.Records {
		n, err := strconv.ParseInt(string(bytes.TrimSpace(rec.Body)), 10, 64)
		if err != nil {
			return fmt.Errorf("an answer of the server: %w", err)
		}
		took = append(took, time.Duration(n))
	}
	service := law.Empirical(took)
	most := float64(time.Second) / float64(service.Mean())
	fmt.Printf("\n## A real queue, no station\n\nOne worker that works for %v in the mean (lognormal, spread %.1f), behind a queue of its own; Poisson arrivals at a share of the\n%.0f/s that it can serve, or clients that wait for their answers. %d requests a line; the first two calibrate the simulation.\n\n",
		service.Mean().Round(10*time.Microsecond), spread, most, count)
	fmt.Println("The server says how long it worked, so only the host's overhead is unknown: *known*. Beside it, with a factor of the work to be\nfound as well, as for a server that says nothing: *stretched*.")
	fmt.Println("\n| load | measured /s | known | error | stretched | error | p50 ms | known | error | p99 ms | known | error |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
	var seen []law.Observed
	var known, stretched law.Calibration
	var rates, medians, others []float64
	for i, p := range []point{{clients: 1}, {share: 0.3}, {share: 0.5}, {share: 0.7}, {share: 0.8}, {share: 0.9}, {clients: 2}, {clients: 4}, {clients: 16}} {
		p.rate = p.share * most
		got := alone
		if i > 0 {
			if got, err = drive(ctx, door, p); err != nil {
				return err
			}
		}
		o := p.observed(service, got)
		if i < 2 {
			seen = append(seen, o)
			continue
		}
		if i == 2 {
			if known, err = law.Calibrate(seen, law.NothingUnknown); err == nil {
				stretched, err = law.Calibrate(seen, law.ServiceUnknown)
			}
			if err != nil {
				return err
			}
		}
		told, err := known.Foretell(o.Setup, law.Goal{})
		if err != nil {
			return err
		}
		other, err := stretched.Foretell(o.Setup, law.Goal{})
		if err != nil {
			return err
		}
		ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
		off := func(have, want float64) float64 { return have/want - 1 }
		p99 := got.Latency.Quantile(0.99)
		if p.clients > 0 { // in an open loop that keeps up, the rate is what was offered: no merit of a simulation
			rates, others = append(rates, math.Abs(off(told.Rate, o.Rate))), append(others, math.Abs(off(other.Rate, o.Rate)))
		}
		medians = append(medians, math.Abs(off(ms(told.P50), ms(o.P50))))
		fmt.Printf("| %s | %.1f | %.1f | %+.1f %% | %.1f | %+.1f %% | %.1f | %.1f | %+.0f %% | %.1f | %.1f | %+.0f %% |\n", p, o.Rate, told.Rate, 100*off(told.Rate, o.Rate),
			other.Rate, 100*off(other.Rate, o.Rate), ms(o.P50), ms(told.P50), 100*off(ms(told.P50), ms(o.P50)), ms(p99), ms(told.P99), 100*off(ms(told.P99), ms(p99)))
	}
	fmt.Printf("\nMedian error, known: rate of the closed loops **%.1f %%**, median latency of all loads **%.1f %%** (overhead %v each way). Stretched: rate **%.1f %%** (overhead %v, work ×%.2f).\n",
		100*law.Median(rates).Median, 100*law.Median(medians).Median, known.Overhead.Round(time.Microsecond), 100*law.Median(others).Median, stretched.Overhead.Round(time.Microsecond), stretched.Scale)
	return nil
}

// point is one load of the server.
type point struct {
	clients int     // closed loop
	share   float64 // open loop: of what it can serve
	rate    float64 // that is
}

func (p point) String() string {
	if p.clients > 0 {
		return fmt.Sprintf("closed, %d", p.clients)
	}
	return fmt.Sprintf("open, %.0f %%", 100*p.share)
}

// observed is what was measured as the simulation would have to give it.
func (p point) observed(service law.Sampler, got *load.Result) law.Observed {
	s := law.Setup{Seed: 1, Architecture: system.Single, Nodes: 1, Service: service, Clients: p.clients, Rate: p.rate, Poisson: true, Requests: 50_000}
	rate := got.Rate()
	if p.clients == 0 { // of arrivals, which its end does not thin out
		last := got.Records[0].Intended
		for _, rec := range got.Records {
			last = max(last, rec.Intended)
		}
		rate = float64(len(got.Records)-1) / last.Seconds()
		s.Rate = rate
	}
	return law.Observed{Setup: s, Rate: rate, P50: got.Latency.Quantile(0.5)}
}

func drive(ctx context.Context, door string, p point) (*load.Result, error) {
	o := load.Options{Sites: []load.Site{{Doors: func() []string { return []string{door} }}}, Mix: []load.Entry{{Method: http.MethodGet, Path: "/", Weight: 1}},
		Keys: load.Keys{Kind: "uniform", N: 1}, Clients: p.clients, Rate: load.Rate{From: p.rate}, Poisson: true, Count: count, Seed: 1, Keep: true}
	got, err := load.Run(ctx, o)
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case got.Good < count:
		return nil, fmt.Errorf("%s: %d of %d requests were answered right: %v", p, got.Good, count, got.Errors)
	}
	return got, nil
}
