package load

import (
	"context"
	"time"
)

// nap is the shortest wait. Requests that are due within one nap are sent together, late by at most that:
// above 5,000 a second, waking for each would cost more than sending it.
const nap = 200 * time.Microsecond

// pacer waits for moments. Sleeping is not exact: Go's timers on Linux wake by epoll, whose unit is the
// millisecond, half of which every request would be late. So the last stretch is left to the clock of the
// kernel where there is a better one: a timerfd on Linux (measured on two busy cores, at 2,000 waits a second:
// late by 21 µs in the median, 49 µs at p99; time.Sleep 540 µs and 1.1 ms). It costs 30 µs of processor a
// wait, and nothing spins. Elsewhere time.Timer is what there is; macOS and Windows keep it to about a
// millisecond. However it waits, how late each request was is measured and told.
type pacer struct {
	timer *time.Timer
	fine  *fine // nil: none
}

func newPacer() *pacer {
	p := &pacer{timer: time.NewTimer(time.Hour), fine: newFine()}
	p.timer.Stop()
	return p
}

func (p *pacer) close() {
	p.timer.Stop()
	if p.fine != nil {
		p.fine.close()
	}
}

// until waits for a moment, and says whether it came before ctx ended.
func (p *pacer) until(ctx context.Context, at time.Time) bool {
	for ctx.Err() == nil {
		now := time.Now()
		left := at.Sub(now)
		switch {
		case left <= 0:
			return true
		case p.fine == nil:
			p.rough(ctx, max(left, nap))
		case left > 10*time.Millisecond:
			p.rough(ctx, left-5*time.Millisecond)
		default:
			if !p.fine.sleep(max(left, nap)) || !time.Now().After(now) {
				// A clock that stood still meanwhile is not the kernel's, but that of a synctest bubble.
				p.fine.close()
				p.fine = nil
			}
		}
	}
	return false
}

func (p *pacer) rough(ctx context.Context, d time.Duration) {
	p.timer.Reset(d)
	select {
	case <-p.timer.C:
	case <-ctx.Done():
	}
}
