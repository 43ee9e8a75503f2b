package edit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// replace says how a value that is there becomes another.
func (e *editor) replace(key, n *yaml.Node, keys []string, value string) error {
	from := e.offset(n)
	rest := e.text[from:]
	switch {
	case n.Kind == yaml.AliasNode:
		e.old = "*" + n.Value
		e.each(from, from+len(e.old), 0, value)
	case n.Kind == yaml.ScalarNode && n.Value == "" && n.Style == 0: // nothing is written there
		if at := e.colon(key); at >= 0 {
			for _, word := range written(value, 0) {
				e.try(at, at, " "+word)
			}
		}
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0:
		e.old = n.Value
		end := token(rest, n)
		if end < 0 {
			return fmt.Errorf("%s is not written on one line; change it by hand", name(keys))
		}
		e.each(from, from+end, n.Style, value)
	case n.Style&yaml.FlowStyle != 0:
		end, comment := closed(rest)
		if comment || end < 0 {
			return fmt.Errorf("%s has a comment inside; change it by hand", name(keys))
		}
		e.old = short(rest[:end])
		e.each(from, from+end, 0, value)
	default:
		return e.block(key, n, keys, value)
	}
	return nil
}

// block replaces lines below a key: a list, a mapping, or text of several lines.
func (e *editor) block(key, n *yaml.Node, keys []string, value string) error {
	if key == nil || key.Line > len(e.lines) {
		return fmt.Errorf("%s goes over several lines; change it by hand", name(keys))
	}
	if n.Kind != yaml.ScalarNode && commented(n) {
		return fmt.Errorf("%s has a comment inside; change it by hand", name(keys))
	}
	last := key.Line // the last line that belongs to it, from 1
	for l := key.Line + 1; l <= len(e.lines); l++ {
		text := e.line(l)
		body := bytes.TrimLeft(text, " ")
		in := len(text) - len(body)
		if len(bytes.TrimSpace(body)) == 0 {
			continue
		}
		if in > key.Column-1 || n.Kind == yaml.SequenceNode && in == key.Column-1 && body[0] == '-' {
			last = l
			continue
		}
		break
	}
	at := e.colon(key)
	if at < 0 {
		return nil
	}
	to, first := e.end(last), e.end(key.Line)
	head := e.text[at:first]
	e.old = short(e.text[at:to])
	if n.Kind == yaml.ScalarNode {
		e.old = n.Value
		head = indicator.ReplaceAll(head, nil)
	}
	for _, word := range written(value, 0) {
		e.try(at, to, " "+word+string(bytes.TrimRight(head, " ")))
	}
	return nil
}

// indicator begins a text of several lines.
var indicator = regexp.MustCompile(`^[ \t]+[|>][-+0-9]*`)

// commented says that a comment stands inside a node.
func commented(n *yaml.Node) bool {
	return n.HeadComment+n.LineComment+n.FootComment != "" || slices.ContainsFunc(n.Content, commented)
}

// each tries the forms of a value in the place of another.
func (e *editor) each(from, to int, style yaml.Style, value string) {
	for _, word := range written(value, style) {
		e.try(from, to, word)
	}
}

// add puts a key at the end of a mapping, and where that cannot be, at its start.
func (e *editor) add(n *yaml.Node, above []*yaml.Node, keys []string, value string) {
	if n.Style&yaml.FlowStyle != 0 {
		e.addFlow(n, keys, value)
		return
	}
	first := n.Content[0]
	in := strings.Repeat(" ", first.Column-1)
	step := e.step(above)
	for _, word := range written(value, 0) {
		lines := entry(keys, word, in, step)
		for _, at := range []int{e.end(e.last(n)), e.lines[first.Line-1] - 1} {
			if at >= 0 {
				e.insert(at, lines)
			}
		}
		if first.Line == 1 { // nothing stands before it: after a byte order mark
			e.try(e.offset(first), e.offset(first), strings.Join(lines, e.newline())+e.newline())
		}
	}
}

// insert puts lines behind the line that ends at an offset.
func (e *editor) insert(at int, lines []string) {
	if at > 0 && e.text[at-1] == '\r' && bytes.HasPrefix(e.text[at:], []byte("\n")) {
		at-- // the end of a line is that of its text
	}
	e.try(at, at, e.newline()+strings.Join(lines, e.newline()))
}

// addFlow puts a key into {…}: before the first one.
func (e *editor) addFlow(n *yaml.Node, keys []string, value string) {
	at := e.offset(n)
	if open := bytes.IndexByte(e.text[at:], '{'); open >= 0 && len(n.Content) == 0 {
		at += open + 1
	} else if len(n.Content) > 0 {
		at = e.offset(n.Content[0])
	}
	for _, word := range written(value, 0) {
		text := flow(keys, word)
		if len(n.Content) == 0 {
			e.try(at, at, text)
			continue
		}
		begin := e.lines[n.Content[0].Line-1]
		if lead := e.text[begin:at]; n.Content[0].Line > n.Line && len(bytes.TrimLeft(lead, " \t")) == 0 {
			e.try(at, at, text+","+e.newline()+string(lead)) // each key on a line of its own
		}
		e.try(at, at, text+", ")
	}
}

// fill gives a key without a value a mapping.
func (e *editor) fill(key, n *yaml.Node, above []*yaml.Node, inFlow bool, keys []string, value string) {
	for _, word := range written(value, 0) {
		if n.Value != "" { // null or ~
			from := e.offset(n)
			e.try(from, from+len(n.Value), "{"+flow(keys, word)+"}")
			continue
		}
		if !inFlow {
			in := strings.Repeat(" ", key.Column-1)
			step := e.step(above)
			e.insert(e.end(key.Line), entry(keys, word, in+strings.Repeat(" ", step), step))
		}
		if at := e.colon(key); at >= 0 {
			e.try(at, at, " {"+flow(keys, word)+"}")
		}
	}
}

// entry is a key with its value on lines of their own, with the mappings on the way.
func entry(keys []string, word, in string, step int) []string {
	var lines []string
	for i, key := range keys {
		line := in + strings.Repeat(" ", i*step) + quotedKey(key) + ":"
		if i == len(keys)-1 {
			line += " " + word
		}
		lines = append(lines, line)
	}
	return lines
}

// flow is a key with its value on one line: a: {b: c}.
func flow(keys []string, word string) string {
	return strings.Join(mapped(keys), ": {") + ": " + word + strings.Repeat("}", len(keys)-1)
}

func mapped(keys []string) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		out[i] = quotedKey(key)
	}
	return out
}

// step is how much deeper a mapping stands than the one around it: as near by, else as anywhere, else 2.
func (e *editor) step(above []*yaml.Node) int {
	for i := len(above) - 1; i > 0; i-- {
		if d := above[i].Column - above[i-1].Column; d > 0 && above[i].Style&yaml.FlowStyle == 0 {
			return d
		}
	}
	if d := deeper(e.top); d > 0 {
		return d
	}
	return 2
}

// deeper is the first step to a mapping in block style below a node, or 0.
func deeper(n *yaml.Node) int {
	for i := 1; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		v := n.Content[i]
		if v.Kind != yaml.MappingNode || v.Style&yaml.FlowStyle != 0 {
			continue
		}
		if d := v.Column - n.Column; d > 0 {
			return d
		}
	}
	return 0
}

// last is the last line of a mapping in block style, from 1.
func (e *editor) last(n *yaml.Node) int {
	last := lowest(n)
	for l := last + 1; l <= len(e.lines); l++ { // what goes on below the first line of its last value
		text := e.line(l)
		body := bytes.TrimLeft(text, " ")
		switch {
		case len(bytes.TrimSpace(body)) == 0:
		case len(text)-len(body) < n.Column:
			return last
		case body[0] != '#':
			last = l
		}
	}
	return last
}

// lowest is the last line on which something of a node begins, from 1; a closing bracket counts, too.
func lowest(n *yaml.Node) int {
	line := n.Line
	for _, sub := range n.Content {
		line = max(line, lowest(sub))
	}
	return line
}

// newline is how lines end.
func (e *editor) newline() string {
	if bytes.Contains(e.text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// lines are the offsets at which lines begin. YAML 1.2 §5.4: a line ends with CR LF, LF or CR.
func lines(text []byte) []int {
	all := []int{0}
	for i, c := range text {
		if c == '\n' || c == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			all = append(all, i+1)
		}
	}
	return all
}

// line is a line's text, from 1, without its end.
func (e *editor) line(l int) []byte { return bytes.TrimRight(e.text[e.lines[l-1]:e.end(l)], "\r") }

// end is where the text of a line ends, from 1: at its LF, or at the end of the text.
func (e *editor) end(l int) int {
	if l >= len(e.lines) {
		return len(e.text)
	}
	return e.lines[l] - 1
}

// mark is the byte order mark, which has no column.
var mark = []byte("\ufeff")

// offset of a node. Columns count characters, from 1.
func (e *editor) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(e.lines) {
		return len(e.text)
	}
	at := e.lines[n.Line-1]
	if at == 0 && bytes.HasPrefix(e.text, mark) {
		at = len(mark)
	}
	for col := n.Column; col > 1 && at < len(e.text); col-- {
		_, size := utf8.DecodeRune(e.text[at:])
		at += size
	}
	return at
}

// colon is the offset behind a key and its colon, or −1.
func (e *editor) colon(key *yaml.Node) int {
	if key == nil {
		return -1
	}
	at := e.offset(key)
	size := token(e.text[at:], key)
	if size < 0 {
		return -1
	}
	at += size
	for at < len(e.text) && (e.text[at] == ' ' || e.text[at] == '\t') {
		at++
	}
	if at == len(e.text) || e.text[at] != ':' {
		return -1
	}
	return at + 1
}

// token is the length of a scalar as it is written at the start of a text, or −1 if it goes over several lines.
func token(text []byte, n *yaml.Node) int {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && len(line) > 0:
		quote := line[0]
		for i := 1; i < len(line); i++ {
			switch {
			case line[i] == '\\' && quote == '"':
				i++
			case line[i] == quote && quote == '\'' && i+1 < len(line) && line[i+1] == quote:
				i++
			case line[i] == quote:
				return i + 1
			}
		}
	case n.Style == 0 && n.Value != "" && bytes.HasPrefix(line, []byte(n.Value)):
		return len(n.Value)
	}
	return -1
}

// closed is the length of a list or mapping in brackets, and whether a comment stands in it; −1 if it is never
// closed.
func closed(text []byte) (end int, comment bool) {
	depth := 0
	for i := 0; i < len(text); i++ {
		before := byte(' ')
		if i > 0 {
			before = text[i-1]
		}
		switch c := text[i]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1, comment
			}
		case c == '#' && (before == ' ' || before == '\t' || before == '\n' || before == ','):
			comment = true
		case (c == '"' || c == '\'') && bytes.IndexByte([]byte(" \t\r\n[{,:"), before) >= 0:
			size := 1
			for ; i+size < len(text) && text[i+size] != c; size++ {
				if c == '"' && text[i+size] == '\\' {
					size++
				}
			}
			i += size
		}
	}
	return -1, comment
}

// short is a text of several lines on one, clipped.
func short(text []byte) string {
	s := []rune(strings.Join(strings.Fields(string(text)), " "))
	if len(s) > 60 {
		return string(s[:60]) + "…"
	}
	return string(s)
}

var plainKey = regexp.MustCompile(`^[\p{L}0-9_./-]+$`)

// written are the ways to write a value, best first: as the old one was, without quotes, with.
func written(value string, style yaml.Style) []string {
	var all []string
	printable := !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
	switch {
	case style&yaml.SingleQuotedStyle != 0 && printable:
		all = append(all, "'"+strings.ReplaceAll(value, "'", "''")+"'")
	case style&yaml.DoubleQuotedStyle != 0:
	case printable && strings.TrimSpace(value) == value && !null(value): // that it is no more than a word is tried
		all = append(all, value)
	}
	return append(all, quoted(value))
}

// null says that a plain text would be nothing to YAML.
func null(value string) bool {
	return slices.Contains([]string{"", "~", "null", "Null", "NULL"}, value)
}

// quoted writes a text so that YAML reads it as it is.
func quoted(value string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		panic("edit: a text cannot be written as JSON: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quotedKey(key string) string {
	if plainKey.MatchString(key) && !null(key) {
		return key
	}
	return quoted(key)
}
