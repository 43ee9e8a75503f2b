package host

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A machine that computes as hard as it can is seen to be busy, one that waits less so.
func TestWatch(t *testing.T) {
	spin := func(ctx context.Context) {
		var all sync.WaitGroup
		for range runtime.NumCPU() {
			all.Go(func() {
				for ctx.Err() == nil {
				}
			})
		}
		all.Wait()
	}
	ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer stop()
	w := Watch(t.Context())
	spin(ctx)
	seen := w.End()
	text, _ := os.ReadFile("/proc/stat")
	ours := strings.Count(string(text), "\ncpu") == runtime.NumCPU() // not so in a container that may use some of them
	if ours && (seen.Busy < 0.5 || seen.Busy > 1) {
		t.Errorf("busy = %v while all processors computed, want 0.5…1", seen.Busy)
	}
	if runtime.GOOS == "linux" && seen.Busy < 0 {
		t.Error("how busy it is is not known on Linux")
	}
	if seen.Late <= 0 || seen.Late > 10*time.Second {
		t.Errorf("woke up %v late, want something above 0", seen.Late)
	}
	h := Describe()
	if h.CPUs < 1 || h.OS != runtime.GOOS || h.Busy != -1 || runtime.GOOS == "linux" && h.Load < 0 {
		t.Errorf("Describe = %+v", h)
	}
}

func TestTicks(t *testing.T) {
	if got := (ticks{used: 30, all: 110}).since(ticks{used: 10, all: 10}); got != 0.2 {
		t.Errorf("20 of 100 ticks are %v, want 0.2", got)
	}
	if got := (ticks{}).since(ticks{}); got != -1 {
		t.Errorf("no ticks are %v, want -1", got)
	}
}
