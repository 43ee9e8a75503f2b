package figure

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// px is a coordinate.
func px(x float64) string {
	if !Drawable(x) {
		x = 0
	}
	return strconv.FormatFloat(math.Round(x*10)/10+0, 'f', -1, 64) // +0: no "-0"
}

// Drawing writes one SVG. Its look is in style.css; its elements carry classes only.
type Drawing struct {
	b    strings.Builder
	w, H float64
}

// Draw begins a picture; title and description are what a screen reader says.
func Draw(id string, w, h float64, title, desc string) *Drawing {
	d := &Drawing{w: w, H: h}
	d.b.WriteString(`<svg viewBox="0 0 ` + px(w) + ` ` + px(h) + `" width="` + px(w) + `" height="` + px(h) + `" role="img" aria-labelledby="` + id + `-t ` + id + `-d">`)
	d.b.WriteString(`<title id="` + id + `-t">` + Escape(title) + `</title><desc id="` + id + `-d">` + Escape(desc) + `</desc>`)
	return d
}

// End is the whole picture.
func (d *Drawing) End() string {
	d.b.WriteString("</svg>")
	return d.b.String()
}

// Open begins a group that carries a tooltip.
func (d *Drawing) Open(class, tip string) {
	d.b.WriteString(`<g class="` + class + `">`)
	if tip != "" {
		d.b.WriteString("<title>" + Escape(tip) + "</title>")
	}
}

// Close ends a group.
func (d *Drawing) Close() { d.b.WriteString("</g>") }

// Line joins two places.
func (d *Drawing) Line(class string, x1, y1, x2, y2 float64) {
	d.b.WriteString(`<line class="` + class + `" x1="` + px(x1) + `" y1="` + px(y1) + `" x2="` + px(x2) + `" y2="` + px(y2) + `"/>`)
}

// Rect has its upper left corner at x, y.
func (d *Drawing) Rect(class string, x, y, w, h float64) {
	d.b.WriteString(`<rect class="` + class + `" x="` + px(x) + `" y="` + px(y) + `" width="` + px(max(w, 0)) + `" height="` + px(max(h, 0)) + `"/>`)
}

// Text is anchored at start, middle or end.
func (d *Drawing) Text(class, anchor string, x, y float64, words string) {
	d.b.WriteString(`<text class="` + class + `" x="` + px(x) + `" y="` + px(y) + `"`)
	if anchor != "start" {
		d.b.WriteString(` text-anchor="` + anchor + `"`)
	}
	d.b.WriteString(">" + Escape(words) + "</text>")
}

// Upright is text along a vertical axis.
func (d *Drawing) Upright(class string, x, y float64, words string) {
	d.b.WriteString(`<text class="` + class + `" text-anchor="middle" transform="translate(` + px(x) + ` ` + px(y) + `) rotate(-90)">` + Escape(words) + `</text>`)
}

// Spot is a place of a picture.
type Spot struct{ X, Y float64 }

// At is the place at x from the left and y from the top.
func At(x, y float64) Spot { return Spot{x, y} }

// Path joins places.
func (d *Drawing) Path(class string, places []Spot) {
	if len(places) < 2 {
		return
	}
	d.b.WriteString(`<path class="` + class + `" d="` + trail(places) + `"/>`)
}

// Area is the ground between an upper and a lower border.
func (d *Drawing) Area(class string, upper, lower []Spot) {
	if len(upper) < 2 || len(lower) < 2 {
		return
	}
	back := slices.Clone(lower)
	slices.Reverse(back)
	d.b.WriteString(`<path class="` + class + `" d="` + trail(append(slices.Clone(upper), back...)) + `Z"/>`)
}

func trail(places []Spot) string {
	var b strings.Builder
	for i, p := range places {
		switch i {
		case 0:
			b.WriteByte('M')
		default:
			b.WriteByte('L')
		}
		b.WriteString(px(p.X) + " " + px(p.Y))
	}
	return b.String()
}

// Marker is the shape of a variant; shapes tell variants apart where colours do not.
func (d *Drawing) Marker(class string, index int, x, y, size float64) {
	s := size
	switch index % 7 {
	case 0:
		d.b.WriteString(`<circle class="` + class + `" cx="` + px(x) + `" cy="` + px(y) + `" r="` + px(s) + `"/>`)
		return
	case 1:
		s *= 0.9
		d.closed(class, Spot{x - s, y - s}, Spot{x + s, y - s}, Spot{x + s, y + s}, Spot{x - s, y + s})
	case 2:
		s *= 1.2
		d.closed(class, Spot{x, y - s}, Spot{x + s, y + s*0.8}, Spot{x - s, y + s*0.8})
	case 3:
		s *= 1.3
		d.closed(class, Spot{x, y - s}, Spot{x + s, y}, Spot{x, y + s}, Spot{x - s, y})
	case 4:
		s *= 1.2
		d.closed(class, Spot{x, y + s}, Spot{x + s, y - s*0.8}, Spot{x - s, y - s*0.8})
	case 5:
		a := s * 0.4
		s *= 1.2
		d.closed(class, Spot{x - a, y - s}, Spot{x + a, y - s}, Spot{x + a, y - a}, Spot{x + s, y - a}, Spot{x + s, y + a}, Spot{x + a, y + a},
			Spot{x + a, y + s}, Spot{x - a, y + s}, Spot{x - a, y + a}, Spot{x - s, y + a}, Spot{x - s, y - a}, Spot{x - a, y - a})
	case 6:
		a := s * 0.6
		d.closed(class, Spot{x - s, y - a}, Spot{x, y - s*1.2}, Spot{x + s, y - a}, Spot{x + s, y + a}, Spot{x, y + s*1.2}, Spot{x - s, y + a})
	}
}

func (d *Drawing) closed(class string, places ...Spot) {
	d.b.WriteString(`<path class="` + class + `" d="` + trail(places) + `Z"/>`)
}

// Small begins a little picture within words, which a screen reader passes over.
func Small(class string, w, h float64) *Drawing {
	d := &Drawing{w: w, H: h}
	d.b.WriteString(`<svg class="` + class + `" viewBox="0 0 ` + px(w) + ` ` + px(h) + `" aria-hidden="true">`)
	return d
}

// Series is the class of a variant: its colour, and its dashes.
func Series(index int) string { return "s s" + strconv.Itoa(index%7) }

// Arrow is a message with its words on it; one to oneself is a loop.
func (d *Drawing) Arrow(x1, y1, x2, y2 float64, words string) {
	if x1 == x2 {
		d.Path("msg", []Spot{{x1, y1}, {x1 + 26, y1 + 1}, {x1 + 26, y2 + 2}, {x1 + 6, y2 + 2}})
		d.closed("tip", Spot{x1 + 1, y2 + 2}, Spot{x1 + 9, y2 - 2}, Spot{x1 + 9, y2 + 6})
		d.Text("on", "start", x1+32, y2+1, words)
		return
	}
	way := 1.0
	if x2 < x1 {
		way = -1
	}
	d.Line("msg", x1, y1, x2-way*6, y2)
	d.closed("tip", Spot{x2 - way, y2}, Spot{x2 - way*9, y2 - 4.5}, Spot{x2 - way*9, y2 + 3.5})
	d.Text("on", "middle", (x1+x2)/2, (y1+y2)/2-5, words)
}
