package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"servent/blob"
	"servent/control/etcd"
	"servent/system"
)

// alarms look for what will hurt this node before long.
type alarms struct {
	node *Node
	now  atomic.Pointer[[]system.Alarm] // never nil
	slow bool                           // control's disk was, the last time; of run's goroutine alone

	mu     sync.Mutex // guards clocks
	clocks map[system.NodeID]clock
}

// clock is by how much this machine's was ahead of a server's.
type clock struct {
	ahead time.Duration
	at    time.Time
}

const (
	alarmEvery = 15 * time.Second
	slowSync   = 100 * time.Millisecond // of control's disk: etcd's own time between two signs of life
	clockFor   = time.Minute            // that what was heard of a server's clock counts
	clockOff   = 10 * time.Second       // a certificate is taken if clocks differ by less than 5 minutes
	clockStep  = 10 * time.Second       // in which it is told: what changes every second is no news
)

// The steps at which an alarm is told again: below so many bytes, and above so many hundredths of [etcd.Quota].
var (
	diskSteps    = []uint64{16 << 20, 100 << 20, 500 << 20}
	controlSteps = []int64{95, 80, 60}
)

func newAlarms(n *Node) *alarms {
	a := &alarms{node: n, clocks: map[system.NodeID]clock{}}
	a.now.Store(new([]system.Alarm))
	return a
}

// clock takes by how much this machine's clock is ahead of a server's.
func (a *alarms) clock(server system.NodeID, ahead time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clocks[server] = clock{ahead, time.Now()}
}

// ahead is what was heard of late.
func (a *alarms) ahead() map[system.NodeID]time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[system.NodeID]time.Duration{}
	for server, c := range a.clocks {
		if time.Since(c.at) > clockFor { // it has left, say
			delete(a.clocks, server)
			continue
		}
		out[server] = c.ahead
	}
	return out
}

// run looks until ctx ends.
func (a *alarms) run(ctx context.Context) error {
	tick := time.NewTicker(alarmEvery)
	defer tick.Stop()
	for {
		next := a.look(ctx)
		if old := *a.now.Swap(&next); !slices.Equal(old, next) {
			for _, alarm := range next {
				if !slices.Contains(old, alarm) {
					a.node.log.Warn("alarm", "kind", alarm.Kind, "text", alarm.Text)
				}
			}
			a.node.again()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look is what there is to say now, sorted by kind.
func (a *alarms) look(ctx context.Context) (all []system.Alarm) {
	add := func(kind system.AlarmKind, text string) {
		if text != "" {
			all = append(all, system.Alarm{Kind: kind, Text: text})
		}
	}
	engine := a.node.ownEngine()
	add(system.AlarmClock, clockAlarm(a.ahead()))
	if engine != nil {
		bounded, cancel := context.WithTimeout(ctx, reachWithin)
		defer cancel()
		if is, err := engine.Standing(bounded); err == nil {
			add(system.AlarmControl, controlAlarm(is.Size))
		}
	}
	if free, err := blob.Free(a.node.boot.Blobs); err == nil {
		add(system.AlarmDisk, diskAlarm(free))
	}
	if engine != nil && !a.node.boot.Emulated {
		took, err := syncTime(a.node.boot.ControlDir)
		was := a.slow
		if a.slow = err == nil && took > slowSync; a.slow && was { // once is a moment's
			add(system.AlarmSync, syncText)
		}
	}
	return all
}

// diskAlarm is empty while there is room.
func diskAlarm(free uint64) string {
	for _, step := range diskSteps {
		if free < step {
			return fmt.Sprintf("less than %d MiB are free on the disk of its folder", step>>20)
		}
	}
	return ""
}

// controlAlarm is empty while control's data are small. Nothing makes them large by right.
func controlAlarm(size int64) string {
	for _, step := range controlSteps {
		if size*100 >= etcd.Quota*step {
			return fmt.Sprintf("control's data fill more than %d %% of their %d MiB; when they are full nothing can be changed", step, etcd.Quota>>20)
		}
	}
	return ""
}

// clockAlarm is empty while the clock agrees with those of the servers that were heard.
func clockAlarm(ahead map[system.NodeID]time.Duration) string {
	var words []string
	for server, by := range ahead {
		word := "ahead of"
		if by < 0 {
			by, word = -by, "behind"
		}
		if by > clockOff {
			words = append(words, fmt.Sprintf("%s %s %s's", by.Truncate(clockStep), word, server))
		}
	}
	if len(words) == 0 {
		return ""
	}
	slices.Sort(words)
	return "its clock is " + strings.Join(words, " and ") + "; from 5m on they refuse each other"
}

const syncText = "a write to control's disk takes more than 100ms to be safe; from 1s on servers lose one another"

// syncTime is the middle one of three.
func syncTime(dir string) (time.Duration, error) {
	file, err := os.OpenFile(filepath.Join(dir, "sync"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	var took [3]time.Duration
	for i := range took {
		began := time.Now()
		_, err := file.Write(make([]byte, 4<<10))
		if err := errors.Join(err, file.Sync()); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.SortFunc(took[:], cmp.Compare)
	return took[1], nil
}
