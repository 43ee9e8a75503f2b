package route

import (
	"slices"
	"time"
)

// answers is how long answers of one service took to begin, of late.
type answers struct {
	ring   [256]answer
	next   int
	told   float64 // at the last sample, seconds
	toldAt time.Time
}

type answer struct {
	at   time.Time
	took time.Duration
}

const (
	answersOf    = 2 * time.Second // of late
	answersLeast = 8               // that say something
	answersShare = 0.95            // of them took less than what is told
)

func (a *answers) add(now time.Time, took time.Duration) {
	a.ring[a.next] = answer{now, took}
	a.next = (a.next + 1) % len(a.ring)
}

// sample is the time that nearly all answers took less than, 0: there were too few. More is said at once, less at most once a second.
func (a *answers) sample(now time.Time) float64 {
	var late []time.Duration
	for _, x := range a.ring {
		if !x.at.IsZero() && now.Sub(x.at) < answersOf {
			late = append(late, x.took)
		}
	}
	took := 0.0
	if len(late) >= answersLeast {
		slices.Sort(late)
		took = roundUp(1000*late[int(answersShare*float64(len(late)-1))].Seconds()) / 1000
	}
	if took < a.told && now.Sub(a.toldAt) < calmly {
		return a.told
	}
	if took != a.told {
		a.told, a.toldAt = took, now
	}
	return took
}
