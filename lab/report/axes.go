package report

import (
	"math"
	"slices"
	"strconv"
)

// scale maps figures between lo and hi to places between from and to.
type scale struct {
	lo, hi   float64
	from, to float64
	log      bool
}

// newScale is one that holds all drawable figures; a linear one begins at zero.
func newScale(figures []float64, from, to float64, log bool) scale {
	s := scale{lo: math.Inf(1), hi: math.Inf(-1), from: from, to: to, log: log}
	for _, x := range figures {
		if drawable(x) && (x > 0 || !log) {
			s.lo, s.hi = min(s.lo, x), max(s.hi, x)
		}
	}
	switch {
	case s.lo > s.hi && log:
		s.lo, s.hi = 1, 10
	case s.lo > s.hi:
		s.lo, s.hi = 0, 1
	case log:
		s.lo, s.hi = s.lo/1.15, s.hi*1.15
	default:
		s.lo, s.hi = min(s.lo, 0), max(s.hi, 0)
		if s.lo == s.hi {
			s.hi = 1
		}
	}
	return s
}

// has says that a figure has a place.
func (s scale) has(x float64) bool {
	return drawable(x) && (!s.log || x > 0) && x >= s.lo-1e-9*math.Abs(s.lo) && x <= s.hi+1e-9*math.Abs(s.hi)
}

// place of a figure; beyond the ends it is the end.
func (s scale) place(x float64) float64 {
	lo, hi := s.lo, s.hi
	x = max(min(x, hi), lo)
	if math.IsNaN(x) {
		x = lo
	}
	if s.log {
		lo, hi, x = math.Log(lo), math.Log(hi), math.Log(x)
	}
	if hi == lo {
		return s.from
	}
	return s.from + (x-lo)/(hi-lo)*(s.to-s.from)
}

// ticks are about n round figures on the scale.
func (s scale) ticks(n int) []float64 {
	if s.log {
		return s.decades(n)
	}
	step := (s.hi - s.lo) / float64(max(n, 1))
	mag := math.Pow(10, math.Floor(math.Log10(step)))
	if mag == 0 || math.IsNaN(mag) || math.IsInf(mag, 0) {
		return []float64{s.lo}
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
	for i := math.Ceil(s.lo/step - 1e-9); len(out) < 4*n+4; i++ {
		if x := i * step; x <= s.hi*(1+1e-9) {
			out = append(out, x+0)
		} else {
			break
		}
	}
	return out
}

// decades are 1, 2 and 5 of each power of ten, or the powers alone where these are many.
func (s scale) decades(n int) []float64 {
	var out []float64
	first, last := math.Floor(math.Log10(s.lo)), math.Ceil(math.Log10(s.hi))
	every := max(1, math.Ceil((last-first)/float64(max(n, 1))))
	for e := math.Floor(first/every) * every; e <= last; e += every {
		for _, f := range []float64{1, 2, 5} {
			if x := f * math.Pow(10, e); s.has(x) && (f == 1 || last-first <= 3) {
				out = append(out, x)
			}
		}
	}
	return out
}

// tip is a tick with its words.
type tick struct {
	x     float64
	words string
}

func ticksOf(xs []float64) []tick {
	out := make([]tick, len(xs))
	for i, x := range xs {
		out[i] = tick{x, grouped(x)}
	}
	return out
}

// plot is a picture with two axes.
type plot struct {
	*drawing
	x, y scale
}

// frame draws grid, ticks and the names of the axes. Ticks that would touch the one before are left out.
func (p *plot) frame(xs, ys []tick, xname, yname string) {
	left, right, top, bottom := p.x.from, p.x.to, p.y.to, p.y.from
	last := math.Inf(1)
	for _, t := range ys {
		y := p.y.place(t.x)
		if last-y < 16 {
			continue
		}
		last = y
		p.line("grid", left, y, right, y)
		p.text("tick", "end", left-8, y+4, t.words)
	}
	last = math.Inf(-1)
	for _, t := range xs {
		x := p.x.place(t.x)
		wide := float64(len(t.words)) * 7.2
		if x-wide/2 < last+8 {
			continue
		}
		last = x + wide/2
		p.line("axis", x, bottom, x, bottom+5)
		p.text("tick", "middle", x, bottom+20, t.words)
	}
	p.line("axis", left, bottom, right, bottom)
	p.text("name", "middle", (left+right)/2, bottom+42, xname)
	p.upright("name", left-54, (top+bottom)/2, yname)
}

// tag is a name at the right end of a line.
type tag struct {
	y     float64
	words string
	tip   string
	index int
}

// tags writes names beside the lines that they belong to, moved apart where they would touch.
func (p *plot) tags(tags []tag) {
	const apart = 19
	slices.SortStableFunc(tags, func(a, b tag) int {
		switch {
		case a.y < b.y:
			return -1
		case a.y > b.y:
			return 1
		}
		return 0
	})
	top, bottom := p.y.to+4, p.y.from-4
	for i := range tags {
		tags[i].y = max(tags[i].y, top)
		if i > 0 {
			tags[i].y = max(tags[i].y, tags[i-1].y+apart)
		}
	}
	for i := len(tags) - 1; i >= 0; i-- {
		limit := bottom
		if i < len(tags)-1 {
			limit = tags[i+1].y - apart
		}
		tags[i].y = max(min(tags[i].y, limit), top)
	}
	for _, t := range tags {
		p.open(series(t.index), t.tip)
		p.line("key", p.x.to+14, t.y, p.x.to+40, t.y)
		p.marker("dot", t.index, p.x.to+27, t.y, 5)
		p.text("tag", "start", p.x.to+48, t.y+4.5, clip(t.words, 24))
		p.close()
	}
}

// room is the height of a plot whose names at the right side need so many lines.
func room(height float64, names int) float64 { return max(height, float64(names)*19+100) }

// nodeTicks are the numbers of nodes that were measured.
func nodeTicks(ns []int) []tick {
	out := make([]tick, len(ns))
	for i, n := range ns {
		out[i] = tick{float64(n), strconv.Itoa(n)}
	}
	return out
}
