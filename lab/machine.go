package lab

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// machine watches the host during a load: how busy it is, and how late it wakes up who sleeps. Both
// bound what a measurement on it is worth.
type machine struct {
	mu   sync.Mutex
	late []time.Duration // of wake-ups

	before, after ticks
	stop          context.CancelFunc
	done          chan struct{}
}

// nap is between two looks at the clock.
const nap = 5 * time.Millisecond

// watch begins to watch.
func watch(ctx context.Context) *machine {
	ctx, stop := context.WithCancel(ctx)
	m := &machine{stop: stop, done: make(chan struct{}), before: readTicks()}
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

// observed is what was seen of the host.
type observed struct {
	busy float64       // share of all processors, 0…1; -1: not known here
	late time.Duration // p99 of wake-ups
}

// end stops watching and says what was seen.
func (m *machine) end() observed {
	m.stop()
	<-m.done
	m.after = readTicks()
	o := observed{busy: m.after.since(m.before)}
	if n := len(m.late); n > 0 {
		slices.Sort(m.late)
		o.late = max(0, m.late[min(n-1, n*99/100)])
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

// loadAverage is the host's over the last minute; -1 where it is not known.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(text), " ")
	x, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return x
}

// freeMemory is what programs may still take, in bytes; 0 where it is not known.
func freeMemory() int64 {
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
