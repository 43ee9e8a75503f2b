package launch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"servent/system"
)

const (
	auditFiles   = 8                // earlier files that are kept, each of up to maxNodeLog bytes
	actsMost     = 10_000           // that are read out at once
	refusedBurst = 100              // refusals that are all written down; then one in refusedEvery
	refusedEvery = 1 * time.Second  // strangers must not be able to wash away what is written
	torn         = "unreadable"     // what a line that is no act is shown as
	severalMore  = "several others" // who, of refusals that were counted only
)

// audit is the file in which stands who did what, a JSON line each.
type audit struct {
	file string
	log  *slog.Logger
	now  func() time.Time // nil: the clock

	mu      sync.Mutex
	credit  float64 // refusals that may be written now
	at      time.Time
	skipped int // refusals that were only counted
}

func (a *audit) write(act system.Act) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if act.Why != "" && !a.room() {
		a.skipped++
		return
	}
	acts := []system.Act{act}
	if a.skipped > 0 {
		acts = append([]system.Act{{Time: act.Time, What: "refused", Who: severalMore, Why: fmt.Sprintf("%d more were refused, too many to write each down", a.skipped)}}, acts...)
		a.skipped = 0
	}
	if err := a.add(acts); err != nil {
		a.log.Error("write down who did what", "act", act, "err", err)
	}
}

// room says whether one more refusal is written. mu is held.
func (a *audit) room() bool {
	clock := a.now
	if clock == nil {
		clock = time.Now
	}
	now := clock()
	if a.at.IsZero() {
		a.credit = refusedBurst
	} else {
		a.credit = min(refusedBurst, a.credit+max(0, now.Sub(a.at).Seconds())/refusedEvery.Seconds())
	}
	a.at = now
	if a.credit < 1 {
		return false
	}
	a.credit--
	return true
}

func (a *audit) add(acts []system.Act) error {
	var text []byte
	for _, act := range acts {
		b, err := json.Marshal(act)
		if err != nil {
			return err
		}
		text = append(append(text, b...), '\n')
	}
	if info, err := os.Stat(a.file); err == nil && info.Size() > maxNodeLog {
		for i := auditFiles - 1; i >= 0; i-- {
			_ = os.Rename(a.older(i), a.older(i+1)) // there are not that many yet
		}
	}
	f, err := os.OpenFile(a.file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// older is the i-th file before the one that is written; 0 is that one.
func (a *audit) older(i int) string {
	if i == 0 {
		return a.file
	}
	return fmt.Sprintf("%s.%d", a.file, i)
}

// acts are the last so many, oldest first; 0: as many as are read out at once.
func (a *audit) acts(last int) ([]system.Act, error) {
	if last == 0 || last > actsMost {
		last = actsMost
	}
	a.mu.Lock()
	defer a.mu.Unlock() // no file moves while it is read
	all := []system.Act{}
	for i := 0; i <= auditFiles && len(all) < last; i++ {
		some, err := readActs(a.older(i))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read who did what: %w", err)
		}
		all = append(some, all...)
	}
	return all[max(0, len(all)-last):], nil
}

func readActs(path string) (acts []system.Act, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		var act system.Act
		if err := json.Unmarshal(sc.Bytes(), &act); err != nil { // the power went while it was written
			act = system.Act{What: torn, Of: fmt.Sprintf("%s:%d", path, n), Why: err.Error()}
		}
		acts = append(acts, act)
	}
	return acts, sc.Err()
}
