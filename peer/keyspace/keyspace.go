// Package keyspace is arithmetic on identifiers of 160 bits: a ring on which the lowest follows the highest.
// It knows neither nodes nor messages. Start at [Between].
package keyspace

import (
	"bytes"
	"crypto/sha1"
	"math/bits"

	"servent/peer"
)

// Of is where a key, or whatever else has a name, lies on the ring: everyone who divides or looks for keys
// asks here. SHA-1 (FIPS 180-4) spreads, it protects nothing: who can choose keys can choose their places
// under any hash that all know.
func Of(name string) peer.ID { return sha1.Sum([]byte(name)) }

// Between says whether x lies after a and not after b, going up and round: the half-open interval (a, b] of
// Chord §IV. When a and b are the same it is the whole ring.
func Between(x, a, b peer.ID) bool {
	if bytes.Compare(a[:], b[:]) < 0 {
		return bytes.Compare(a[:], x[:]) < 0 && bytes.Compare(x[:], b[:]) <= 0
	}
	return bytes.Compare(a[:], x[:]) < 0 || bytes.Compare(x[:], b[:]) <= 0
}

// Inside says whether x lies after a and before b: the open interval (a, b). When a and b are the same it is
// the ring without them.
func Inside(x, a, b peer.ID) bool { return x != b && Between(x, a, b) }

// Alike says whether two places have the same bits wherever mask has ones.
func Alike(a, b, mask peer.ID) bool {
	for i := range mask {
		if (a[i]^b[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}

// Distance is the way from a up to b, and round if need be: 0 when they are the same.
func Distance(a, b peer.ID) (d peer.ID) {
	borrow := uint32(0)
	for i := len(a) - 4; i >= 0; i -= 4 {
		var diff uint32
		diff, borrow = bits.Sub32(word(b, i), word(a, i), borrow)
		put(&d, i, diff)
	}
	return d
}

// Middle is the point half way from a up to b, rounded down: opposite a when they are the same.
func Middle(a, b peer.ID) (m peer.ID) {
	d := Distance(a, b)
	top := uint32(0)
	if a == b {
		top = 1 // the way once round is 2^160
	}
	for i := 0; i < len(d); i += 4 {
		w := word(d, i)
		put(&d, i, w>>1|top<<31)
		top = w & 1
	}
	carry := uint32(0)
	for i := len(a) - 4; i >= 0; i -= 4 {
		var sum uint32
		sum, carry = bits.Add32(word(a, i), word(d, i), carry)
		put(&m, i, sum)
	}
	return m
}

func word(id peer.ID, i int) uint32 {
	return uint32(id[i])<<24 | uint32(id[i+1])<<16 | uint32(id[i+2])<<8 | uint32(id[i+3])
}

func put(id *peer.ID, i int, w uint32) {
	id[i], id[i+1], id[i+2], id[i+3] = byte(w>>24), byte(w>>16), byte(w>>8), byte(w)
}
