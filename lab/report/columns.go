package report

import (
	"strings"
	"unicode"
)

// style is how loud a word of the terminal is; without colour all are plain.
type style string

const (
	plain  style = ""
	strong style = "1"
	faint  style = "2"
	bad    style = "1;31"
	good   style = "32"
	best   style = "1;32"
	warn   style = "33"
)

// cell is one word of a table.
type cell struct {
	text  string
	style style
}

// columns are a table with a head of two lines; the upper line is a title over several columns.
type columns struct {
	groups []group
	lines  []line
}

// group is neighbouring columns under one title.
type group struct {
	title string
	heads []string
}

// line is a row of the table, or words that go over its whole width.
type line struct {
	cells  []cell
	words  string // instead of cells, or after the first
	indent int
	style  style
}

func (c *columns) row(cells ...cell) { c.lines = append(c.lines, line{cells: cells}) }

func (c *columns) note(indent int, s style, words string) {
	c.lines = append(c.lines, line{words: words, indent: indent, style: s})
}

const (
	gap      = 2 // between columns of a group
	groupGap = 3
)

// widths of every column; the last column of a group is as wide as its title asks.
func (c *columns) widths() []int {
	var out []int
	for _, g := range c.groups {
		for _, h := range g.heads {
			out = append(out, width(h))
		}
	}
	for _, l := range c.lines {
		for i, x := range l.cells {
			if i < len(out) && (l.words == "" || i > 0 || len(l.cells) == 1) {
				out[i] = max(out[i], width(x.text))
			}
		}
	}
	i := 0
	for _, g := range c.groups {
		sum := gap * (len(g.heads) - 1)
		for range g.heads {
			sum += out[i]
			i++
		}
		if more := width(g.title) - sum; more > 0 {
			out[i-1] += more
		}
	}
	return out
}

// width of the whole table.
func (c *columns) width() int {
	n := -groupGap
	for _, w := range c.widths() {
		n += w
	}
	for _, g := range c.groups {
		n += groupGap + gap*(len(g.heads)-1)
	}
	return n
}

// print writes the table.
func (c *columns) print(p *paper) {
	widths := c.widths()
	var upper, lower []cell
	gaps := make([]int, 0, len(widths)) // after each column
	for _, g := range c.groups {
		for k, h := range g.heads {
			title := ""
			if k == 0 {
				title = g.title
			}
			upper, lower = append(upper, cell{title, faint}), append(lower, cell{h, faint})
			gaps = append(gaps, gap)
		}
		gaps[len(gaps)-1] = groupGap
	}
	p.spread(upper, widths, gaps)
	p.spread(lower, widths, gaps)
	for _, l := range c.lines {
		switch {
		case l.cells == nil:
			p.wrap(l.indent, l.style, l.words)
		case l.words != "":
			p.hang(l.cells[0], widths[0]+groupGap, l.style, l.words)
		default:
			p.spread(l.cells, widths, gaps)
		}
	}
}

// paper is the terminal that is written to, line by line.
type paper struct {
	b      strings.Builder
	colour bool
	wide   int
}

func (p *paper) paint(c cell) string {
	if !p.colour || c.style == plain || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.style) + "m" + c.text + "\x1b[0m"
}

// spread prints one line of columns: each word begins at its column and may reach over following empty ones.
func (p *paper) spread(cells []cell, widths, gaps []int) {
	at, done := 0, 0
	for i, c := range cells {
		if c.text != "" {
			p.b.WriteString(strings.Repeat(" ", max(at-done, 0)))
			p.b.WriteString(p.paint(c))
			done = at + width(c.text)
		}
		at += widths[i] + gaps[i]
	}
	p.b.WriteByte('\n')
}

// wrap prints words in lines of the paper's width, all indented.
func (p *paper) wrap(indent int, s style, words string) {
	p.hang(cell{}, indent, s, words)
}

// hang prints a label and words beside it; further lines stand under the words.
func (p *paper) hang(label cell, indent int, s style, words string) {
	for i, l := range fold(words, max(p.wide-indent, 20)) {
		if i == 0 {
			p.b.WriteString(p.paint(label))
			p.b.WriteString(strings.Repeat(" ", max(indent-width(label.text), 0)))
		} else {
			p.b.WriteString(strings.Repeat(" ", indent))
		}
		p.b.WriteString(p.paint(cell{l, s}))
		p.b.WriteByte('\n')
	}
}

// items prints words with a dot between them; no line breaks within one that fits.
func (p *paper) items(label cell, indent int, s style, words []string) {
	var lines []string
	for _, w := range words {
		if n := len(lines); n > 0 && width(lines[n-1])+3+width(w) <= p.wide-indent {
			lines[n-1] += " · " + w
		} else {
			lines = append(lines, w)
		}
	}
	for _, l := range lines {
		p.hang(label, indent, s, l)
		label = cell{}
	}
}

func (p *paper) blank() { p.b.WriteByte('\n') }

// fold breaks words into lines of at most n characters; a longer word stays whole. Wider gaps than one space
// are kept within a line.
func fold(words string, n int) []string {
	var out []string
	rest := strings.TrimRight(words, " ")
	for width(rest) > n {
		cut, at := -1, 0
		for i, r := range rest {
			if r == ' ' {
				if at > n && cut >= 0 {
					break
				}
				cut = i
				if at > n {
					break
				}
			}
			at += width(string(r))
		}
		if cut <= 0 {
			break
		}
		out = append(out, strings.TrimRight(rest[:cut], " "))
		rest = strings.TrimLeft(rest[cut:], " ")
	}
	return append(out, rest)
}

// width is how many columns of a terminal words take. Marks that combine take none; the wide characters of East
// Asia take two (UAX #11, the ranges that are wide as a whole).
func width(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case r >= 0x1100 && (r <= 0x115F || r >= 0x2E80 && r <= 0xA4CF || r >= 0xAC00 && r <= 0xD7A3 || r >= 0xF900 && r <= 0xFAFF ||
			r >= 0xFE30 && r <= 0xFE6F || r >= 0xFF00 && r <= 0xFF60 || r >= 0xFFE0 && r <= 0xFFE6 || r >= 0x1F300 && r <= 0x1FAFF || r >= 0x20000 && r <= 0x3FFFD):
			n += 2
		default:
			n++
		}
	}
	return n
}
