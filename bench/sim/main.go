//go:build unix

// Command sim measures peer/sim's engine beside a queue by priority: the hold model of a million nodes of 128
// bytes, one of which is touched by each event, which then sends one message on; and the ring, for what a whole
// protocol costs. Yardsticks of the same run: container/heap, and a random walk over memory of the same size,
// which no engine can beat. It prints events per second of processor time, which other load on the machine
// shifts least.
package main

import (
	"container/heap"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"servent/lab/host"
	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/sim"
)

const (
	nodes  = 1 << 20
	rounds = 3
	ms     = 1_000_000
	from   = 10 * ms // of a link's delay
	to     = 100 * ms
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "turn" { // in a process of its own, so that none has another's heap
		pending, err := strconv.Atoi(os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			os.Exit(2)
		}
		fmt.Println(turn(os.Args[2], pending))
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run() error {
	before := host.Loads()
	type row struct {
		engine  string
		pending int
		rates   []float64
	}
	var rows []*row
	for _, pending := range []int{10_000, 100_000, 1_000_000} {
		for _, engine := range []string{"walk", "heap", "windows", "windows, 2 shards"} {
			rows = append(rows, &row{engine: engine, pending: pending})
		}
	}
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		rows = append(rows, &row{engine: "ring", pending: n})
	}
	for range rounds {
		for _, r := range rows {
			out, err := exec.Command(os.Args[0], "turn", r.engine, strconv.Itoa(r.pending)).Output()
			if err != nil {
				return fmt.Errorf("turn %s: %w", r.engine, err)
			}
			rate, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return err
			}
			r.rates = append(r.rates, rate)
			fmt.Fprintf(os.Stderr, "%s %d: %.3g\n", r.engine, r.pending, rate)
		}
	}
	fmt.Printf("# The simulator's engine\n\n`make bench-sim` · %s · %d CPUs · %s · load average %s before, %s after\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), before, host.Loads())
	fmt.Printf("Hold model: %d nodes of 128 bytes, so many messages under way, each of which touches the node that it reaches and is\nsent on to another, drawn evenly, 10 to 100 ms away. Millions of events per second of processor time: median (least to greatest) of %d turns.\n\n", nodes, rounds)
	fmt.Println("| pending | windows (peer/sim) | two shards | container/heap | windows / heap | random walk over the same memory |\n|---|---|---|---|---|---|")
	cell := func(r *row) string {
		slices.Sort(r.rates)
		return fmt.Sprintf("%.2f (%.2f–%.2f)", r.rates[len(r.rates)/2]/1e6, r.rates[0]/1e6, r.rates[len(r.rates)-1]/1e6)
	}
	for ; len(rows) >= 4 && rows[0].engine == "walk"; rows = rows[4:] {
		walk, queue, windows, two := cell(rows[0]), cell(rows[1]), cell(rows[2]), cell(rows[3])
		fmt.Printf("| %d | %s | %s | %s | %.1f | %s |\n", rows[0].pending, windows, two, queue, rows[2].rates[rounds/2]/rows[1].rates[rounds/2], walk)
	}
	fmt.Print("\nA settled ring that looks after itself, no lookups, one shard:\n\n| nodes | M events per CPU-second |\n|---|---|\n")
	for _, r := range rows {
		fmt.Printf("| %d | %s |\n", r.pending, cell(r))
	}
	fmt.Print("\nAll engines hand the same events to the same machine through the same `peer.Env`, whose cost is in both; the walk has none.\n")
	return nil
}

// turn returns events per second of processor time.
func turn(engine string, pending int) float64 {
	switch engine {
	case "walk":
		return walk()
	case "heap":
		return byHeap(pending)
	case "ring":
		return byRing(pending)
	case "windows, 2 shards":
		return byWindows(pending, 2)
	}
	return byWindows(pending, 1)
}

func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// machine touches the state of the node that an event reaches, and sends one message on.
type machine struct{ state [][16]uint64 }

func (m *machine) Drop(peer.Peer) {}

func (m *machine) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	s := &m.state[self]
	s[0]++
	s[8] += uint64(ev.Tag)
	env.Send(peer.Peer(env.Rand()%uint64(len(m.state))), peer.Event{Kind: peer.Travels, Tag: ev.Tag})
}

const least = 3_000_000 // events of a turn

func byWindows(pending, shards int) float64 {
	m := &machine{make([][16]uint64, nodes)}
	s := sim.New(sim.Options{Machine: m, Places: make([]peer.ID, nodes), Links: sim.Uniform{From: from, To: to}, Shards: shards})
	for i := range pending {
		s.Command(int64(i%100)*ms, peer.Slot(uint64(i)*0x9e3779b97f4a7c15>>44), peer.Event{Kind: peer.Join, Tag: peer.Tag(i)})
	}
	return measure(s, 200*ms, int64(least)*(from+to)/2/int64(pending))
}

func byRing(n int) float64 {
	r := ring.New(n, ring.Options{})
	s := sim.New(sim.Options{Machine: r, Places: sim.Places(1, n), Shards: 1})
	r.Settle(s)
	for i := range n {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
	}
	return measure(s, 1000*ms, max(int64(1e9*least/(8*float64(n))), 200*ms))
}

// measure lets time go by to warm up, and then some more.
func measure(s *sim.Sim, warm, span int64) float64 {
	ctx := context.Background() // it never ends, so Run returns nil
	_ = s.Run(ctx, warm)
	events, used := s.Counters().Events, cpu()
	_ = s.Run(ctx, s.Now()+span)
	return float64(s.Counters().Events-events) / (cpu() - used)
}

// walk is the yardstick: nothing but the touch.
func walk() float64 {
	state, x := make([][16]uint64, nodes), uint64(1)
	for i := range state {
		state[i][0] = 1 // the pages are there
	}
	used := cpu()
	const n = 10 * least
	for range n {
		x = x*6364136223846793005 + 1442695040888963407
		s := &state[x>>44]
		s[0]++
		s[8] += x
	}
	return n / (cpu() - used)
}

type waiting struct {
	at  int64
	seq int
	to  peer.Slot
	ev  peer.Event
}

type queue []*waiting

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*waiting)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

type directory struct{}

func (directory) Self(s peer.Slot) peer.Peer { return peer.Peer(s) }
func (directory) ID(peer.Peer) peer.ID       { return peer.ID{} }

// byHeap is what a simulator is at first: a heap of events, each of which stands by itself.
func byHeap(pending int) float64 {
	m := &machine{make([][16]uint64, nodes)}
	env, links := peer.NewEnv(directory{}, 0, make([]uint32, nodes)), sim.Uniform{From: from, To: to}
	var q queue
	seq := 0
	push := func(at int64, to peer.Slot, ev peer.Event) {
		seq++
		heap.Push(&q, &waiting{at, seq, to, ev})
	}
	for i := range pending {
		push(int64(i%100)*ms, peer.Slot(uint64(i)*0x9e3779b97f4a7c15>>44), peer.Event{Kind: peer.Join, Tag: peer.Tag(i)})
	}
	handle := func(n int) {
		for range n {
			w := heap.Pop(&q).(*waiting)
			w.ev.At = w.at
			env.Begin(w.to)
			m.Handle(env, w.to, &w.ev)
			for _, f := range env.Effects() {
				f.Event.Peers, f.Event.Data = nil, nil // there are none
				push(w.at+links.Delay(0, f.To, env.Rand()), peer.Slot(f.To), f.Event)
			}
		}
	}
	handle(2 * pending)
	used := cpu()
	handle(least)
	return least / (cpu() - used)
}
