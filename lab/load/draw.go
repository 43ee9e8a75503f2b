package load

import "math/bits"

// purpose keeps the draws of one request apart.
type purpose uint64

const (
	drawEntry purpose = iota + 1
	drawKey
	drawGap
	drawDoor
	drawSite
	drawThink
)

const golden = 0x9e3779b97f4a7c15 // 2^64/φ

// mix64 is the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one to one, and every bit of
// the input moves half of the output's.
func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// draw is the n-th number of a purpose's own stream: SplitMix64 begun at a state made of seed and purpose. It
// depends on nothing that happens, so two runs of one seed send the same requests in the same order.
func draw(seed, n uint64, p purpose) uint64 {
	return mix64(mix64(seed+uint64(p)*golden) + n*golden)
}

// again draws anew from a draw that was rejected.
func again(h uint64) uint64 { return mix64(h + golden) }

// unit is a draw as a number in [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// below is a draw as a whole number in [0, n), without division (Lemire, TOMACS 2019, without its rejection:
// the bias is below n/2^64).
func below(h, n uint64) uint64 {
	hi, _ := bits.Mul64(h, n)
	return hi
}
