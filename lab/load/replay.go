package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Recorded is a request that somebody sent once.
type Recorded struct {
	At     time.Duration // after the first one of its log
	Method string
	Path   string // with the query if any; sent as it is, without places for keys
}

// checkReplay finds the entry for every method that was recorded, and refuses what cannot be sent.
func (r *runner) checkReplay() error {
	if len(r.o.Replay) == 0 {
		return nil
	}
	if !(r.o.Speed >= 0) || r.o.Speed > 1e6 {
		return fmt.Errorf("load: want a speed above 0 up to 1e6, have %v", r.o.Speed)
	}
	r.methods = map[string]int{}
	for i := range slices.Backward(r.kinds) { // of several with one method the first counts
		r.kinds[i].replayed = true
		r.methods[r.kinds[i].Method] = i
	}
	last := time.Duration(0)
	for i, rec := range r.o.Replay {
		_, known := r.methods[rec.Method]
		switch {
		case !known:
			return fmt.Errorf("load: no entry of the mix sends %s, which request %d of the replay is", rec.Method, i)
		case !sendable(rec.Path):
			return fmt.Errorf("load: want a path like /carts/17, have %q in request %d of the replay", rec.Path, i)
		case rec.At < last:
			return errors.New("load: want a replay in the order of its moments")
		}
		last = rec.At
	}
	return nil
}

// recorded is when the next request of the replay is meant to be sent; after the last one, its moment.
func (s *schedule) recorded() time.Duration {
	at := s.replay[min(s.next, len(s.replay)-1)].At
	s.next++
	if s.speed > 0 {
		at = time.Duration(float64(at) / s.speed)
	}
	return at
}

// sendable says that a path can stand in a request line: RFC 9112 §3.2.1, and bytes above ASCII as they are.
func sendable(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' })
}
