// Package figure draws pictures as SVG, with axes where they need them, and writes figures as people read
// them. Words of anybody are cleaned and escaped here, on their way into a picture. It knows colours and dashes
// by their classes alone, and nothing of results or comparisons: what is drawn is decided in lab/report.
// Start at [Draw] and [Plot].
package figure

import (
	"math"
	"slices"
	"strconv"
)

// Scale maps figures between lo and hi to places between from and to.
type Scale struct {
	Lo, Hi   float64
	From, To float64
	Log      bool
}

// NewScale is one that holds all drawable figures; a linear one begins at zero.
func NewScale(figures []float64, from, to float64, log bool) Scale {
	s := Scale{Lo: math.Inf(1), Hi: math.Inf(-1), From: from, To: to, Log: log}
	for _, x := range figures {
		if Drawable(x) && (x > 0 || !log) {
			s.Lo, s.Hi = min(s.Lo, x), max(s.Hi, x)
		}
	}
	switch {
	case s.Lo > s.Hi && log:
		s.Lo, s.Hi = 1, 10
	case s.Lo > s.Hi:
		s.Lo, s.Hi = 0, 1
	case log:
		s.Lo, s.Hi = s.Lo/1.15, s.Hi*1.15
	default:
		s.Lo, s.Hi = min(s.Lo, 0), max(s.Hi, 0)
		if s.Lo == s.Hi {
			s.Hi = 1
		}
	}
	return s
}

// Has says that a figure has a place.
func (s Scale) Has(x float64) bool {
	return Drawable(x) && (!s.Log || x > 0) && x >= s.Lo-1e-9*math.Abs(s.Lo) && x <= s.Hi+1e-9*math.Abs(s.Hi)
}

// Place of a figure; beyond the ends it is the end.
func (s Scale) Place(x float64) float64 {
	lo, hi := s.Lo, s.Hi
	x = max(min(x, hi), lo)
	if math.IsNaN(x) {
		x = lo
	}
	if s.Log {
		lo, hi, x = math.Log(lo), math.Log(hi), math.Log(x)
	}
	if hi == lo {
		return s.From
	}
	return s.From + (x-lo)/(hi-lo)*(s.To-s.From)
}

// Ticks are about n round figures on the scale.
func (s Scale) Ticks(n int) []float64 {
	if s.Log {
		return s.decades(n)
	}
	step := (s.Hi - s.Lo) / float64(max(n, 1))
	mag := math.Pow(10, math.Floor(math.Log10(step)))
	if mag == 0 || math.IsNaN(mag) || math.IsInf(mag, 0) {
		return []float64{s.Lo}
	}
	switch f := step / mag; {
	case f <= 1:
		step = mag
	case f <= 2:
		step = 2 * mag
	case f <= 5:
		step = 5 * mag
	default:
		step = 10 * mag
	}
	var out []float64
	for i := math.Ceil(s.Lo/step - 1e-9); len(out) < 4*n+4; i++ {
		if x := i * step; x <= s.Hi*(1+1e-9) {
			out = append(out, x+0)
		} else {
			break
		}
	}
	return out
}

// decades are 1, 2 and 5 of each power of ten, or the powers alone where these are many.
func (s Scale) decades(n int) []float64 {
	var out []float64
	first, last := math.Floor(math.Log10(s.Lo)), math.Ceil(math.Log10(s.Hi))
	every := max(1, math.Ceil((last-first)/float64(max(n, 1))))
	for e := math.Floor(first/every) * every; e <= last; e += every {
		for _, f := range []float64{1, 2, 5} {
			if x := f * math.Pow(10, e); s.Has(x) && (f == 1 || last-first <= 3) {
				out = append(out, x)
			}
		}
	}
	return out
}

// Tick is a figure of an axis with its words.
type Tick struct {
	X     float64
	Words string
}

// Mark is a tick at x.
func Mark(x float64, words string) Tick { return Tick{x, words} }

// TicksOf are ticks whose words are their figures.
func TicksOf(xs []float64) []Tick {
	out := make([]Tick, len(xs))
	for i, x := range xs {
		out[i] = Tick{x, Grouped(x)}
	}
	return out
}

// Plot is a picture with two axes.
type Plot struct {
	*Drawing
	X, Y Scale
}

// Frame draws grid, ticks and the names of the axes. Ticks that would touch the one before are left out.
func (p *Plot) Frame(xs, ys []Tick, xname, yname string) {
	left, right, top, bottom := p.X.From, p.X.To, p.Y.To, p.Y.From
	last := math.Inf(1)
	for _, t := range ys {
		y := p.Y.Place(t.X)
		if last-y < 16 {
			continue
		}
		last = y
		p.Line("grid", left, y, right, y)
		p.Text("tick", "end", left-8, y+4, t.Words)
	}
	last = math.Inf(-1)
	for _, t := range xs {
		x := p.X.Place(t.X)
		wide := float64(len(t.Words)) * 7.2
		if x-wide/2 < last+8 {
			continue
		}
		last = x + wide/2
		p.Line("axis", x, bottom, x, bottom+5)
		p.Text("tick", "middle", x, bottom+20, t.Words)
	}
	p.Line("axis", left, bottom, right, bottom)
	p.Text("name", "middle", (left+right)/2, bottom+42, xname)
	p.Upright("name", left-54, (top+bottom)/2, yname)
}

// Tag is a name at the right end of a line.
type Tag struct {
	Y     float64
	Words string
	Tip   string
	Index int
}

// Tags writes names beside the lines that they belong to, moved apart where they would touch.
func (p *Plot) Tags(tags []Tag) {
	const apart = 19
	slices.SortStableFunc(tags, func(a, b Tag) int {
		switch {
		case a.Y < b.Y:
			return -1
		case a.Y > b.Y:
			return 1
		}
		return 0
	})
	top, bottom := p.Y.To+4, p.Y.From-4
	for i := range tags {
		tags[i].Y = max(tags[i].Y, top)
		if i > 0 {
			tags[i].Y = max(tags[i].Y, tags[i-1].Y+apart)
		}
	}
	for i := len(tags) - 1; i >= 0; i-- {
		limit := bottom
		if i < len(tags)-1 {
			limit = tags[i+1].Y - apart
		}
		tags[i].Y = max(min(tags[i].Y, limit), top)
	}
	for _, t := range tags {
		p.Open(Series(t.Index), t.Tip)
		p.Line("key", p.X.To+14, t.Y, p.X.To+40, t.Y)
		p.Marker("dot", t.Index, p.X.To+27, t.Y, 5)
		p.Text("tag", "start", p.X.To+48, t.Y+4.5, Clip(t.Words, 24))
		p.Close()
	}
}

// Room is the height of a plot whose names at the right side need so many lines.
func Room(height float64, names int) float64 { return max(height, float64(names)*19+100) }

// NodeTicks are the numbers of nodes that were measured.
func NodeTicks(ns []int) []Tick {
	out := make([]Tick, len(ns))
	for i, n := range ns {
		out[i] = Tick{float64(n), strconv.Itoa(n)}
	}
	return out
}
