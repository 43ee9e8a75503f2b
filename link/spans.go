package link

import (
	"math"
	"math/bits"
	"time"
)

// spans counts durations in buckets no wider than 1/16 of their value, in fixed memory.
type spans struct {
	n       int64
	buckets [fine * 60]int32
}

const (
	fineBits = 4
	fine     = 1 << fineBits
)

// bucket keeps the leading bit of a duration and the four behind it.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < fine {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - fineBits
	return shift*fine + int(v>>shift)
}

// upper is the largest duration of a bucket.
func upper(b int) time.Duration {
	if b < fine {
		return time.Duration(b)
	}
	shift := b/fine - 1
	return time.Duration((uint64(fine+b%fine)+1)<<shift - 1)
}

func (s *spans) add(d time.Duration) {
	s.n++
	if b := &s.buckets[bucket(d)]; *b < math.MaxInt32 {
		*b++
	}
}

// at returns a duration that the given share of all does not exceed, at most 1/16 too large; 0 when
// there is none.
func (s *spans) at(share float64) time.Duration {
	want := int64(math.Ceil(share * float64(s.n)))
	for b, n := range s.buckets {
		if want -= int64(n); n > 0 && want <= 0 {
			return upper(b)
		}
	}
	return 0
}
