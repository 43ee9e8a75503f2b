// Package host watches the machine that measures: how busy it is, how late it wakes up who sleeps, what memory
// is left. It knows nothing of what runs on it. Start at [Watch].
package host

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/lab/result"
)

// Machine is watched during a load: how busy it is, and how late it wakes up who sleeps. Both bound what a
// measurement on it is worth.
type Machine struct {
	mu   sync.Mutex
	late []time.Duration // of wake-ups

	before, after ticks
	stop          context.CancelFunc
	done          chan struct{}
}

// nap is between two looks at the clock.
const nap = 5 * time.Millisecond

// Watch begins to watch, until [Machine.End] or the end of ctx.
func Watch(ctx context.Context) *Machine {
	ctx, stop := context.WithCancel(ctx)
	m := &Machine{stop: stop, done: make(chan struct{}), before: readTicks()}
	go func() {
		defer close(m.done)
		timer := time.NewTimer(nap)
		defer timer.Stop()
		for {
			due := time.Now().Add(nap)
			timer.Reset(nap)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			m.mu.Lock()
			m.late = append(m.late, time.Since(due))
			m.mu.Unlock()
		}
	}()
	return m
}

// Seen is what was seen of the host.
type Seen struct {
	Busy float64       // share of all processors, 0…1; -1: not known here
	Late time.Duration // p99 of wake-ups, of one every 5 ms
}

// End stops watching and says what was seen.
func (m *Machine) End() Seen {
	m.stop()
	<-m.done
	m.after = readTicks()
	o := Seen{Busy: m.after.since(m.before)}
	if n := len(m.late); n > 0 {
		slices.Sort(m.late)
		o.Late = max(0, m.late[min(n-1, n*99/100)])
	}
	return o
}

// ticks are the processors' time, used and in all, since the host started.
type ticks struct{ used, all float64 }

func (t ticks) since(b ticks) float64 {
	if t.all <= b.all {
		return -1
	}
	return (t.used - b.used) / (t.all - b.all)
}

// readTicks reads Linux's /proc/stat (proc(5)); elsewhere it knows nothing.
func readTicks() (t ticks) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		x, err := strconv.ParseFloat(f, 64)
		if i == 0 || i > 8 || err != nil { // guest time is in user time already
			continue
		}
		t.all += x
		if i != 4 && i != 5 { // idle, iowait
			t.used += x
		}
	}
	return t
}

// Describe says what machine this is and how loaded it was over the last minute, before anything is measured.
func Describe() result.Host {
	return result.Host{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Load: loadAverage(), Busy: -1}
}

// loadAverage is the host's over the last minute; -1 where it is not known.
func loadAverage() float64 {
	first, _, _ := strings.Cut(Loads(), " ")
	x, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return x
}

// Loads are the host's load averages over the last minute, five and fifteen, as they are read; "unknown" where they are not known.
func Loads() string {
	text, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// FreeMemory is what programs may still take, in bytes; 0 where it is not known.
func FreeMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
