package figure

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		s    Scale
		n    int
		want []float64
	}{
		{NewScale([]float64{191}, 0, 1, false), 4, []float64{0, 50, 100, 150}},
		{NewScale([]float64{0}, 0, 1, false), 2, []float64{0, 0.5, 1}},
		{NewScale(nil, 0, 1, false), 1, []float64{0, 1}},
		{NewScale([]float64{10, 100}, 0, 1, true), 5, []float64{10, 20, 50, 100}},
		{NewScale([]float64{1, 1e6}, 0, 1, true), 3, []float64{1, 1000, 1e6}},
	} {
		got := tt.s.Ticks(tt.n)
		if !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }) {
			t.Errorf("%+v.ticks(%d) = %v, want %v", tt.s, tt.n, got, tt.want)
		}
	}
}

// Whatever the figures, those that a scale has lie between its ends, in their order.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 8).Draw(t, "figures")
		s := NewScale(xs, 74, 690, rapid.Bool().Draw(t, "log"))
		slices.Sort(xs)
		last := 74.0
		for _, x := range xs {
			if !s.Has(x) {
				continue
			}
			at := s.Place(x)
			if at < last-1e-6 || at > 690+1e-6 {
				t.Fatalf("%v lies at %v, after one at %v", x, at, last)
			}
			last = at
		}
	})
}

// What is written into a picture moves nothing and leaves no place of its own.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "</svg><script>", "\x1b[2J", "a\u202eb", "\xff", `"'&`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Escape(s); strings.ContainsAny(got, "<>\"'\n\r\x1b") || Clean(got) != got {
			t.Errorf("Escape(%q) = %q", s, got)
		}
		if got := Clip(s, 5); utf8.RuneCountInString(got) > max(5, 0) {
			t.Errorf("Clip(%q, 5) = %q", s, got)
		}
	})
}
