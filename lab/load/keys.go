package load

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"servent/system/notation"
)

// Keys says which of how many keys a load asks for. The zero value is one key.
type Keys struct {
	Kind  string  // uniform (also ""), zipf, sequential, hot
	N     int64   // how many keys there are; 0 means 1
	S     float64 // of zipf: the exponent, 0 (all alike) and up; key k is asked for in proportion to 1/(k+1)^S
	Share float64 // of hot: of the requests that go to the first Hot keys, 0…1
	Hot   int64   // of hot: how many keys share them; 0 means 1. The others share the rest.
	Only  []int64 // of sequential: these keys, one after the other, instead of the first N; no word in a file
}

const keysWanted = "keys like zipf 0.99 of 1e5, uniform of 1000, sequential of 1000, hot 80% of 1000, hot 80% on 20 of 1000 or 1000"

// ParseKeys reads keys as a file has them: zipf 0.99 of 1e5, uniform of 1000, sequential of 1000; hot 80% of
// 1000 (four fifths of the requests ask for one key), hot 80% on 20 of 1000; 1000 alone is uniform.
func ParseKeys(s string) (Keys, error) {
	wrong := func(why string) (Keys, error) {
		return Keys{}, fmt.Errorf("want %s, have %q%s", keysWanted, s, why)
	}
	words := strings.Fields(s)
	if len(words) == 1 {
		words = []string{"uniform", "of", words[0]}
	}
	if len(words) < 3 || words[len(words)-2] != "of" {
		return wrong("")
	}
	n, err := whole(words[len(words)-1])
	if err != nil {
		return wrong(": " + err.Error())
	}
	k, args := Keys{Kind: words[0], N: n}, words[1:len(words)-2]
	switch {
	case (k.Kind == "uniform" || k.Kind == "sequential") && len(args) == 0:
	case k.Kind == "zipf" && len(args) == 1:
		if k.S, err = notation.Amount(args[0]); err != nil || k.S > 100 {
			return wrong(": the exponent is a number from 0 to 100")
		}
	case k.Kind == "hot" && (len(args) == 1 || len(args) == 3 && args[1] == "on"):
		if k.Share, err = notation.Share(args[0]); err != nil {
			return wrong(": " + err.Error())
		}
		k.Hot = 1
		if len(args) == 3 {
			if k.Hot, err = whole(args[2]); err != nil {
				return wrong(": " + err.Error())
			}
		}
		if k.Hot >= k.N {
			return wrong(": some keys must be left for the others")
		}
	default:
		return wrong("")
	}
	return k, nil
}

// whole reads a whole number from 1 to 10^12, also as 1e5.
func whole(s string) (int64, error) {
	f, err := notation.Amount(s)
	if err != nil || f < 1 || f > 1e12 || f != math.Trunc(f) {
		return 0, fmt.Errorf("want a whole number from 1 to 1e12, have %q", s)
	}
	return int64(f), nil
}

// String is what ParseKeys reads.
func (k Keys) String() string {
	of := " of " + strconv.FormatInt(max(k.N, 1), 10)
	switch k.Kind {
	case "zipf":
		return "zipf " + strconv.FormatFloat(k.S, 'g', -1, 64) + of
	case "sequential":
		return "sequential" + of
	case "hot":
		share := strconv.FormatFloat(k.Share, 'g', -1, 64)
		if k.Hot > 1 {
			return fmt.Sprintf("hot %s on %d%s", share, k.Hot, of)
		}
		return "hot " + share + of
	}
	return "uniform" + of
}

// Key is the name of the i-th key, the most asked for first: k000017. It is the same whatever N is.
func Key(i int64) string { return string(appendKey(nil, i)) }

func appendKey(b []byte, i int64) []byte {
	b = append(b, 'k')
	for limit := int64(100_000); limit > 1 && i < limit; limit /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, i, 10)
}

// sampler draws keys.
type sampler struct {
	keys Keys
	cdf  []float64 // of zipf, to tableKeys: shares summed up to each key
	zipf rejection // of zipf above
}

// tableKeys is how many keys get a table of their own shares: 8 MiB.
const tableKeys = 1 << 20

func newSampler(k Keys) (*sampler, error) {
	if k.N = max(k.N, 1); len(k.Only) > 0 {
		k.N = int64(len(k.Only))
	}
	if len(k.Only) > 0 && k.Kind != "sequential" {
		return nil, fmt.Errorf("keys %s: only sequential ones may be named", k)
	}
	switch k.Kind {
	case "", "uniform", "sequential":
	case "hot":
		k.Hot = max(k.Hot, 1)
		if k.Hot >= k.N || !(k.Share >= 0 && k.Share <= 1) {
			return nil, fmt.Errorf("keys %s: want a share from 0 to 1 and fewer hot keys than keys", k)
		}
	case "zipf":
		if !(k.S >= 0 && k.S <= 100) {
			return nil, fmt.Errorf("keys %s: want an exponent from 0 to 100", k)
		}
		if k.N > tableKeys {
			return &sampler{keys: k, zipf: newRejection(k.N, k.S)}, nil
		}
		return &sampler{keys: k, cdf: zipfTable(k.N, k.S)}, nil
	default:
		return nil, fmt.Errorf("keys: want one of uniform, zipf, sequential, hot; have %q", k.Kind)
	}
	return &sampler{keys: k}, nil
}

// key is the key that request n of a run with this seed asks for.
func (s *sampler) key(seed, n uint64) int64 {
	h := draw(seed, n, drawKey)
	switch {
	case s.keys.Kind == "sequential" && len(s.keys.Only) > 0:
		return s.keys.Only[n%uint64(s.keys.N)]
	case s.keys.Kind == "sequential":
		return int64(n % uint64(s.keys.N))
	case s.keys.Kind == "hot" && unit(h) < s.keys.Share:
		return int64(below(again(h), uint64(s.keys.Hot)))
	case s.keys.Kind == "hot":
		return s.keys.Hot + int64(below(again(h), uint64(s.keys.N-s.keys.Hot)))
	case s.cdf != nil:
		i, _ := slices.BinarySearch(s.cdf, math.Nextafter(unit(h), 2)) // the first sum that is above
		return int64(i)
	case s.keys.Kind == "zipf":
		return s.zipf.key(h)
	}
	return int64(below(h, uint64(s.keys.N)))
}

// zipfTable sums the shares of the keys up, the last to 1. The sums are made from the small end and turned
// round, so that rounding does not eat the tail.
func zipfTable(n int64, s float64) []float64 {
	cdf := make([]float64, n)
	sum := 0.0
	for i := n; i > 0; i-- {
		cdf[i-1] = sum // of the keys behind
		sum += math.Pow(float64(i), -s)
	}
	for i := range cdf {
		cdf[i] = 1 - cdf[i]/sum
	}
	return cdf
}

// rejection draws Zipf numbers without a table, for any exponent from 0: rejection-inversion (Hörmann and
// Derflinger, TOMACS 1996, with the shortcut of §3). It inverts the integral of the density's hat and rejects
// what lies above the density: less than a tenth of the draws.
type rejection struct {
	n           int64
	s           float64
	first, last float64 // integral up to the first and the last key
	always      float64 // so near to a whole number nothing is rejected
}

func newRejection(n int64, s float64) rejection {
	r := rejection{n: n, s: s}
	r.first = r.integral(1.5) - 1
	r.last = r.integral(float64(n) + 0.5)
	r.always = 2 - r.inverse(r.integral(2.5)-r.density(2))
	return r
}

// density is 1/x^s.
func (r rejection) density(x float64) float64 { return math.Exp(-r.s * math.Log(x)) }

// integral of the density from 1: (x^(1-s) - 1)/(1-s), and log x at s = 1.
func (r rejection) integral(x float64) float64 {
	log := math.Log(x)
	return ratio(math.Expm1, (1-r.s)*log) * log
}

func (r rejection) inverse(y float64) float64 {
	t := max(y*(1-r.s), -1) // rounding may pass the end
	return math.Exp(ratio(math.Log1p, t) * y)
}

// ratio is f(x)/x for f = expm1 or log1p, whose limit at 0 is 1.
func ratio(f func(float64) float64, x float64) float64 {
	if math.Abs(x) < 1e-300 {
		return 1
	}
	return f(x) / x
}

func (r rejection) key(h uint64) int64 {
	for ; ; h = again(h) {
		u := r.last + unit(h)*(r.first-r.last)
		x := r.inverse(u)
		k := min(max(int64(x+0.5), 1), r.n)
		if float64(k)-x <= r.always || u >= r.integral(float64(k)+0.5)-r.density(float64(k)) {
			return k - 1
		}
	}
}
