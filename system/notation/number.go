package notation

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"

	"servent/system"
)

// Duration reads Go's notation, not negative: 100ms, 1h30m.
func Duration(s string) (time.Duration, error) {
	const want = "a duration like 100ms, 2s or 1h"
	d, err := time.ParseDuration(s)
	if _, bare := number(s); bare && s != "0" {
		return 0, because(want, s, "the unit is missing")
	}
	if err != nil || d < 0 {
		return 0, wrong(want, s)
	}
	return d, nil
}

// Size reads bytes in Compose's units: 64M and 64mb are 64 MiB, a bare number is bytes.
func Size(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, wrong("a size like 64M or 2G", s)
	}
	return n, nil
}

// Count reads a whole number from 0.
func Count(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, wrong("a whole number", s)
	}
	return n, nil
}

// Amount reads a number from 0: 1.5, 5e8.
func Amount(s string) (float64, error) {
	f, ok := number(s)
	if !ok {
		return 0, wrong("a number", s)
	}
	return f, nil
}

// number is finite and not negative.
func number(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f >= 0 && !math.IsInf(f, 0) && !math.IsNaN(f)
}

// Rate reads how often in a second: 200/s.
func Rate(s string) (float64, error) {
	num, ok := strings.CutSuffix(s, "/s")
	f, good := number(strings.TrimSpace(num))
	if !ok || !good || f == 0 {
		return 0, wrong("a rate like 200/s", s)
	}
	return f, nil
}

var bitUnits = []struct {
	suffix string
	factor float64
}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}, {"bit", 1}}

// Bits reads a link's rate in bits a second: 50Mbit, 1 Gbit/s. Units are decimal, as on every cable.
func Bits(s string) (int64, error) {
	low := strings.TrimSuffix(strings.ToLower(s), "/s")
	for _, u := range bitUnits {
		if num, ok := strings.CutSuffix(low, u.suffix); ok {
			if f, ok := number(strings.TrimSpace(num)); ok && f*u.factor >= 1 && f*u.factor < 1e18 {
				return int64(f * u.factor), nil
			}
			break
		}
	}
	return 0, wrong("a link's rate like 50Mbit", s)
}

// Share reads a part of the whole, 0…1: 70%, 0.7.
func Share(s string) (float64, error) {
	num, percent := strings.CutSuffix(s, "%")
	f, ok := number(strings.TrimSpace(num))
	if percent {
		f /= 100
	}
	if !ok || f > 1 {
		return 0, wrong("a share like 70%", s)
	}
	return f, nil
}

var priceForm = regexp.MustCompile(`^([0-9.eE+]+)(?: +([A-Z]{3})/(hour|month))?$`)

// Price reads an amount, alone or with a currency (ISO 4217) and a time: 5 EUR/month.
func Price(s string) (system.Price, error) {
	const want = "a price like 5 EUR/month"
	m := priceForm.FindStringSubmatch(s)
	if m == nil {
		return system.Price{}, wrong(want, s)
	}
	f, ok := number(m[1])
	if !ok {
		return system.Price{}, wrong(want, s)
	}
	return system.Price{Amount: f, Currency: m[2], Per: m[3]}, nil
}
