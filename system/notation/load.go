package notation

import (
	"math"
	"regexp"
	"strings"
)

// Arrivals reads an open load: requests a second whatever the answers, one rate or a climb: 50..2000/s.
func Arrivals(s string) (string, error) {
	const want = "arrivals like 500/s or 50..2000/s"
	from, to, climb := strings.Cut(s, "..")
	if !climb {
		from, to = "", s
	}
	high, err := Rate(to)
	if err != nil {
		return "", wrong(want, s)
	}
	if low, ok := number(from); climb && (!ok || low <= 0 || low >= high) {
		return "", wrong(want, s)
	}
	return s, nil
}

// Clients reads a closed load: how many wait for their answers, one number or a climb: 1..64.
func Clients(s string) (string, error) {
	const want = "a number of clients like 16 or 1..64"
	from, to, climb := strings.Cut(s, "..")
	low, err := Count(from)
	if err != nil || low < 1 {
		return "", wrong(want, s)
	}
	if high, err := Count(to); climb && (err != nil || high <= low) {
		return "", wrong(want, s)
	}
	return s, nil
}

// Expect reads how an answer over TCP ends: line, end, or a number of bytes.
func Expect(s string) (string, error) {
	if s == "" || s == "line" || s == "end" {
		return s, nil
	}
	if n, err := Count(s); err != nil || n < 1 {
		return "", wrong("the end of an answer: line, end or a number of bytes", s)
	}
	return s, nil
}

var keysForm = regexp.MustCompile(`^(?:zipf ([0-9.]+)|uniform) of ([0-9.eE+]+)$`)

// Keys reads which of how many keys a load asks for: zipf 0.99 of 1e5, uniform of 1000.
func Keys(s string) (string, error) {
	const want = "keys like zipf 0.99 of 1e5 or uniform of 1000"
	m := keysForm.FindStringSubmatch(s)
	if m == nil {
		return "", wrong(want, s)
	}
	n, ok := number(m[2])
	if !ok || n < 1 || n > 1e12 || n != math.Trunc(n) {
		return "", wrong(want, s)
	}
	if _, ok := number(m[1]); m[1] != "" && !ok {
		return "", wrong(want, s)
	}
	return s, nil
}

var lossForm = regexp.MustCompile(`^[1-9][0-9]* (nodes?|sites?)$`)

// Loss reads what a system must survive: 1 node, 2 sites.
func Loss(s string) (string, error) {
	if !lossForm.MatchString(s) {
		return "", wrong("what may be lost, like 1 node or 1 site", s)
	}
	return s, nil
}
