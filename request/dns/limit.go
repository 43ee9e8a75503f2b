package dns

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// limiter is response rate limiting, as BIND and NSD have it (Vixie and Schryver, "DNS Response Rate Limiting", ISC-TN-2012-1):
// an account for each network and each thing said to it, which earns rate a second and pays one for an answer. A forged
// source gets no more than the rate; every slip-th answer beyond it goes out truncated, which is no larger
// than the query, so that a true client asks again by TCP. Accounts lie in a table of a fixed size, each in the one place where its hash
// falls: who comes takes the place over, full, as in NSD.
type limiter struct {
	rate, slip int
	seed       maphash.Seed
	accounts   []account
}

type account struct {
	whose   uint64
	at      int64 // ns, when it earned last
	balance int64 // 1/1000 of an answer; not below window seconds' worth of debt
	over    int32 // answers beyond the rate
}

type verdict uint8

const (
	send verdict = iota
	drop
	slip
)

const (
	accounts = 1 << 15 // of 32 bytes, one table a socket
	window   = 15      // seconds after which debts are forgotten
)

func newLimiter(rate, slip int) *limiter {
	if rate < 0 {
		return nil
	}
	return &limiter{rate: min(rate, 1e9), slip: slip, seed: maphash.MakeSeed(), accounts: make([]account, accounts)}
}

// judge says what becomes of an answer to a client; about tells one thing said from another.
func (l *limiter) judge(from netip.Addr, about uint64, now time.Time) verdict {
	var key [24]byte
	a := from.As16()
	n := 7 // bytes of a /56
	if from.Is4() || from.Is4In6() {
		n = 15 // of ::ffff:0:0/96, and 24 bits
	}
	copy(key[:], a[:n])
	for i := range 8 {
		key[16+i] = byte(about >> (8 * i))
	}
	h := maphash.Bytes(l.seed, key[:])
	acc, ns := &l.accounts[h%accounts], now.UnixNano()
	full := int64(l.rate) * 1000
	if acc.whose != h {
		*acc = account{whose: h, at: ns, balance: full}
	}
	ms := max(0, ns-acc.at) / 1e6
	acc.at += ms * 1e6
	balance := min(full, acc.balance+min(ms, window*1000)*int64(l.rate)) - 1000 // 1/1000 of an answer is earned rate times a millisecond
	acc.balance = max(balance, -window*full)
	if balance >= 0 {
		acc.over = 0
		return send
	}
	acc.over++
	if l.slip > 0 && int(acc.over)%l.slip == 0 {
		return slip
	}
	return drop
}
