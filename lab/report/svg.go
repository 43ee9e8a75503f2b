package report

import (
	"encoding/xml"
	"math"
	"slices"
	"strconv"
	"strings"
)

// escape makes words of anybody harmless as text or attribute of HTML and XML.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(clean(s))) // a Builder takes everything
	return b.String()
}

// px is a coordinate.
func px(x float64) string {
	if !drawable(x) {
		x = 0
	}
	return strconv.FormatFloat(math.Round(x*10)/10+0, 'f', -1, 64) // +0: no "-0"
}

// drawing writes one SVG. Its look is in style.css; its elements carry classes only.
type drawing struct {
	b    strings.Builder
	w, h float64
}

// draw begins a picture; title and description are what a screen reader says.
func draw(id string, w, h float64, title, desc string) *drawing {
	d := &drawing{w: w, h: h}
	d.b.WriteString(`<svg viewBox="0 0 ` + px(w) + ` ` + px(h) + `" width="` + px(w) + `" height="` + px(h) + `" role="img" aria-labelledby="` + id + `-t ` + id + `-d">`)
	d.b.WriteString(`<title id="` + id + `-t">` + escape(title) + `</title><desc id="` + id + `-d">` + escape(desc) + `</desc>`)
	return d
}

func (d *drawing) end() string {
	d.b.WriteString("</svg>")
	return d.b.String()
}

// open begins a group that carries a tooltip.
func (d *drawing) open(class, tip string) {
	d.b.WriteString(`<g class="` + class + `">`)
	if tip != "" {
		d.b.WriteString("<title>" + escape(tip) + "</title>")
	}
}

func (d *drawing) close() { d.b.WriteString("</g>") }

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.b.WriteString(`<line class="` + class + `" x1="` + px(x1) + `" y1="` + px(y1) + `" x2="` + px(x2) + `" y2="` + px(y2) + `"/>`)
}

func (d *drawing) rect(class string, x, y, w, h float64) {
	d.b.WriteString(`<rect class="` + class + `" x="` + px(x) + `" y="` + px(y) + `" width="` + px(max(w, 0)) + `" height="` + px(max(h, 0)) + `"/>`)
}

// text is anchored at start, middle or end.
func (d *drawing) text(class, anchor string, x, y float64, words string) {
	d.b.WriteString(`<text class="` + class + `" x="` + px(x) + `" y="` + px(y) + `"`)
	if anchor != "start" {
		d.b.WriteString(` text-anchor="` + anchor + `"`)
	}
	d.b.WriteString(">" + escape(words) + "</text>")
}

// upright is text along a vertical axis.
func (d *drawing) upright(class string, x, y float64, words string) {
	d.b.WriteString(`<text class="` + class + `" text-anchor="middle" transform="translate(` + px(x) + ` ` + px(y) + `) rotate(-90)">` + escape(words) + `</text>`)
}

// at is a place of a picture.
type at struct{ x, y float64 }

// path joins places; steps of less than half a unit are left out.
func (d *drawing) path(class string, places []at) {
	if len(places) < 2 {
		return
	}
	d.b.WriteString(`<path class="` + class + `" d="` + trail(places) + `"/>`)
}

// area is the ground between an upper and a lower border.
func (d *drawing) area(class string, upper, lower []at) {
	if len(upper) < 2 || len(lower) < 2 {
		return
	}
	back := slices.Clone(lower)
	slices.Reverse(back)
	d.b.WriteString(`<path class="` + class + `" d="` + trail(append(slices.Clone(upper), back...)) + `Z"/>`)
}

func trail(places []at) string {
	var b strings.Builder
	for i, p := range places {
		switch i {
		case 0:
			b.WriteByte('M')
		default:
			b.WriteByte('L')
		}
		b.WriteString(px(p.x) + " " + px(p.y))
	}
	return b.String()
}

// marker is the shape of a variant; shapes tell variants apart where colours do not.
func (d *drawing) marker(class string, index int, x, y, size float64) {
	s := size
	switch index % 7 {
	case 0:
		d.b.WriteString(`<circle class="` + class + `" cx="` + px(x) + `" cy="` + px(y) + `" r="` + px(s) + `"/>`)
		return
	case 1:
		s *= 0.9
		d.closed(class, at{x - s, y - s}, at{x + s, y - s}, at{x + s, y + s}, at{x - s, y + s})
	case 2:
		s *= 1.2
		d.closed(class, at{x, y - s}, at{x + s, y + s*0.8}, at{x - s, y + s*0.8})
	case 3:
		s *= 1.3
		d.closed(class, at{x, y - s}, at{x + s, y}, at{x, y + s}, at{x - s, y})
	case 4:
		s *= 1.2
		d.closed(class, at{x, y + s}, at{x + s, y - s*0.8}, at{x - s, y - s*0.8})
	case 5:
		a := s * 0.4
		s *= 1.2
		d.closed(class, at{x - a, y - s}, at{x + a, y - s}, at{x + a, y - a}, at{x + s, y - a}, at{x + s, y + a}, at{x + a, y + a},
			at{x + a, y + s}, at{x - a, y + s}, at{x - a, y + a}, at{x - s, y + a}, at{x - s, y - a}, at{x - a, y - a})
	case 6:
		a := s * 0.6
		d.closed(class, at{x - s, y - a}, at{x, y - s*1.2}, at{x + s, y - a}, at{x + s, y + a}, at{x, y + s*1.2}, at{x - s, y + a})
	}
}

func (d *drawing) closed(class string, places ...at) {
	d.b.WriteString(`<path class="` + class + `" d="` + trail(places) + `Z"/>`)
}

// series is the class of a variant: its colour, and its dashes.
func series(index int) string { return "s s" + strconv.Itoa(index%7) }
