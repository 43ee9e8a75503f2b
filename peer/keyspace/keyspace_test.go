package keyspace

import (
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"servent/peer"
)

var whole = new(big.Int).Lsh(big.NewInt(1), 160)

func number(id peer.ID) *big.Int { return new(big.Int).SetBytes(id[:]) }

// ids draws identifiers that are often close to one another, to the lowest or to the highest.
func ids() *rapid.Generator[peer.ID] {
	return rapid.Custom(func(t *rapid.T) (id peer.ID) {
		if fill := byte(0xff); rapid.Bool().Draw(t, "high") {
			for i := range id {
				id[i] = fill
			}
		}
		n := rapid.IntRange(0, len(id)).Draw(t, "bytes")
		copy(id[len(id)-n:], rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "low"))
		return id
	})
}

// Every function agrees with whole numbers modulo 2^160.
func TestArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, x := ids().Draw(t, "a"), ids().Draw(t, "b"), ids().Draw(t, "x")
		up := func(from, to peer.ID) *big.Int {
			d := new(big.Int).Sub(number(to), number(from))
			return d.Mod(d, whole)
		}
		if got, want := number(Distance(a, b)), up(a, b); got.Cmp(want) != 0 {
			t.Errorf("Distance(%x, %x) = %x, want %x", a, b, got, want)
		}
		way := up(a, b)
		if a == b {
			way = whole
		}
		want := up(a, x).Sign() > 0 && up(a, x).Cmp(way) <= 0 || a == b
		if got := Between(x, a, b); got != want {
			t.Errorf("Between(%x, %x, %x) = %v, want %v", x, a, b, got, want)
		}
		if got := Inside(x, a, b); got != (want && x != b) {
			t.Errorf("Inside(%x, %x, %x) = %v, want %v", x, a, b, got, want && x != b)
		}
		half := new(big.Int).Rsh(way, 1)
		half.Add(half, number(a)).Mod(half, whole)
		if got := number(Middle(a, b)); got.Cmp(half) != 0 {
			t.Errorf("Middle(%x, %x) = %x, want %x", a, b, got, half)
		}
	})
}

func TestOf(t *testing.T) {
	// FIPS 180-1, appendix A: the digest of "abc".
	if got, want := Of("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d"; hex.EncodeToString(got[:]) != want {
		t.Errorf("Of(abc) = %x, want %s", got, want)
	}
	const n, parts = 64_000, 64
	count := [parts]float64{}
	for i := range n {
		id := Of("key-" + strconv.Itoa(i))
		count[id[0]/(256/parts)]++
	}
	chi := 0.0
	for _, c := range count {
		chi += (c - n/parts) * (c - n/parts) / (n / parts)
	}
	if limit := parts - 1 + 4*math.Sqrt(2*(parts-1)); chi > limit { // χ² with 63 degrees, mean + 4σ
		t.Errorf("keys are uneven: χ² = %.0f, want at most %.0f", chi, limit)
	}
}
