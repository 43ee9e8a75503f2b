package figure

import (
	"encoding/xml"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// Clean makes words of users and programs one line that moves no cursor and turns no writing direction.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// Clip shortens words to n characters.
func Clip(s string, n int) string {
	if rs := []rune(s); len(rs) > n {
		return string(rs[:max(n-1, 0)]) + "…"
	}
	return s
}

// Quantity is a figure with as many digits as a reader needs.
func Quantity(x float64) string {
	a := math.Abs(x)
	switch {
	case math.IsNaN(x):
		return "?"
	case a > 1e15:
		return strconv.FormatFloat(x, 'g', 3, 64)
	case a >= 10 || x == math.Trunc(x):
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 1:
		return short(strconv.FormatFloat(x, 'f', 1, 64))
	case a >= 0.001:
		return short(strconv.FormatFloat(x, 'f', 1-int(math.Floor(math.Log10(a))), 64)) // two digits that count
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

// short leaves out zeros after the point that say nothing.
func short(digits string) string {
	return strings.TrimRight(strings.TrimRight(digits, "0"), ".")
}

// Grouped is a quantity with a comma at the thousands.
func Grouped(x float64) string {
	q := Quantity(x)
	sign, digits := "", q
	if strings.HasPrefix(q, "-") {
		sign, digits = "-", q[1:]
	}
	if strings.Trim(digits, "0123456789") != "" {
		return q
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Share is a part of one as a percentage. Nearly all is never called all.
func Share(x float64) string {
	if x > 0.99 && x < 1 {
		return strconv.FormatFloat(math.Floor(x*1000)/10, 'f', 1, 64) + " %"
	}
	return Quantity(math.Round(x*1000)/10) + " %"
}

// Change is a part of one with its sign: +3.1 %, −20 %.
func Change(x float64) string {
	r := math.Round(x*1000) / 10
	switch {
	case math.IsNaN(x):
		return "?"
	case r == 0: // also −0
		return "0 %"
	case r < 0:
		return "−" + Quantity(-r) + " %"
	}
	return "+" + Quantity(r) + " %"
}

// Seconds of a survival: 1.1s.
func Seconds(x float64) string {
	switch {
	case math.IsNaN(x):
		return "?"
	case x >= 100 || math.IsInf(x, 0):
		return Quantity(x) + "s"
	}
	return strconv.FormatFloat(x, 'f', 1, 64) + "s"
}

// Escape makes words of anybody harmless as text or attribute of HTML and XML.
func Escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(Clean(s))) // a Builder takes everything
	return b.String()
}

// Drawable figures have a place on an axis.
func Drawable(x float64) bool { return !math.IsNaN(x) && math.Abs(x) <= 1e15 }
