package study

import (
	"math"
	"testing"
)

// Shares of 20,000 nodes are within their sampling error of the law; the paper's Fig. 9 says the same of 20 places.
func TestBalance(t *testing.T) {
	near := func(what string, got, want, part float64) {
		t.Helper()
		if math.Abs(got-want) > part*want {
			t.Errorf("%s: %.4f of the mean, want %.4f within %.0f %%", what, got, want, 100*part)
		}
	}
	one, many := balance(1, 20_000, 1), balance(1, 20_000, virtual)
	near("one place, 1st percentile", one.P1, oneLaw.P1, 0.25) // 200 nodes lie below: 7 % standard error
	near("one place, 99th percentile", one.P99, oneLaw.P99, 0.06)
	near("20 places, 1st percentile", many.P1, virtualLaw.P1, 0.03)
	near("20 places, 99th percentile", many.P99, virtualLaw.P99, 0.03)
	if got := balance(1, 1, 1); got != (Balance{1, 1}) {
		t.Errorf("a node alone has %v", got)
	}
}
