package load

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"servent/system/notation"
)

// Rate is how many requests a second are meant to be sent, whatever the answers.
type Rate struct {
	From float64
	To   float64 // reached at the end, evenly; 0: From all the time
}

// ParseRate reads 200/s, or a climb: 50..2000/s.
func ParseRate(s string) (Rate, error) {
	if _, err := notation.Arrivals(s); err != nil {
		return Rate{}, err
	}
	from, to, climb := strings.Cut(s, "..")
	if !climb {
		r, err := notation.Rate(s)
		return Rate{From: r}, err
	}
	high, err := notation.Rate(to)
	if err != nil {
		return Rate{}, err
	}
	low, err := notation.Amount(from)
	return Rate{From: low, To: high}, err
}

// String is what ParseRate reads.
func (r Rate) String() string {
	from := strconv.FormatFloat(r.From, 'g', -1, 64)
	if r.To == 0 || r.To == r.From {
		return from + "/s"
	}
	return from + ".." + strconv.FormatFloat(r.To, 'g', -1, 64) + "/s"
}

func (r Rate) steady() bool { return r.To == 0 || r.To == r.From }

func (r Rate) check(d time.Duration) error {
	for _, f := range []float64{r.From, r.To} {
		if !(f >= 0) || f > 1e7 {
			return fmt.Errorf("want a rate up to 1e7/s, have %s", r)
		}
	}
	if !r.steady() && d <= 0 {
		return errors.New("a climbing rate needs a duration")
	}
	return nil
}

// schedule says when requests are to be sent. It is asked for one after the other.
type schedule struct {
	rate    Rate
	climb   float64 // seconds
	poisson bool
	seed    uint64
	sum     float64 // Poisson: of gaps so far, in mean gaps
	next    int
	replay  []Recorded // instead of a rate
	speed   float64
}

// at is when the next request is meant to be sent, from the start.
func (s *schedule) at() time.Duration {
	if len(s.replay) > 0 {
		return s.recorded()
	}
	i := float64(s.next)
	if s.poisson {
		// The gaps of a Poisson process are exponential; a climb stretches its time, as it does the fixed one's.
		s.sum -= math.Log(1 - unit(draw(s.seed, uint64(s.next), drawGap)))
		i = s.sum
	}
	s.next++
	f, t := s.rate.From, s.rate.To
	if s.rate.steady() {
		return seconds(i / f)
	}
	// f·t + (t-f)·t²/2D requests are meant to be sent until t; solved for t.
	if i == 0 {
		return 0
	}
	g := (t - f) / s.climb
	return seconds(2 * i / (f + math.Sqrt(max(0, f*f+2*g*i))))
}

func seconds(f float64) time.Duration {
	if f > 1e9 {
		f = 1e9
	}
	return time.Duration(f * float64(time.Second))
}
