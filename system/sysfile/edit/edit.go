// Package edit changes single values of a YAML text and keeps every other byte of it: comments, layout,
// quotes. It knows YAML and nothing of systems; it opens no file. Start at [Set].
package edit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"servent/system"
)

// Set changes one value of a system file and keeps every other byte: comments, layout, quotes. The path is
// dotted: services.web.x-servent.architecture. A key that is missing is added at the start of its mapping,
// which must be there. What is written in a way that hides where a value comes from (anchors, merges, several
// documents) or goes over several lines is refused, with the place.
func Set(text []byte, path, value string) ([]byte, system.Pos, error) {
	out, at, err := set(text, path, value)
	if err == nil && !has(out, strings.Split(path, "."), value) { // YAML has more ways to write than are known here
		err = fmt.Errorf("%s is written in a way that cannot be edited safely; change it by hand", path)
	}
	if err != nil {
		return nil, at, err
	}
	return out, at, nil
}

// has says that a file has a value at a path.
func has(text []byte, keys []string, value string) bool {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return false
	}
	n := doc.Content[0]
	for _, key := range keys {
		var next *yaml.Node
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				next = n.Content[i+1]
			}
		}
		if next == nil {
			return false
		}
		n = next
	}
	return n.Value == value
}

func set(text []byte, path, value string) ([]byte, system.Pos, error) {
	var at system.Pos
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, at, fmt.Errorf("read YAML: %w", err)
	}
	if dec.Decode(&more) == nil {
		return nil, at, errors.New("the file has several documents; change it by hand")
	}
	keys := strings.Split(path, ".")
	n := doc.Content[0]
	for i, key := range keys {
		at = system.Pos{Line: n.Line, Col: n.Column}
		if n.Kind != yaml.MappingNode || n.Anchor != "" {
			return nil, at, fmt.Errorf("%s is no plain mapping there; change it by hand", strings.Join(keys[:i], "."))
		}
		var found *yaml.Node
		for k := 0; k+1 < len(n.Content); k += 2 {
			if merges(n.Content[k]) {
				return nil, at, fmt.Errorf("%s merges another mapping; change it by hand", strings.Join(keys[:i], "."))
			}
			if n.Content[k].Value == key {
				found = n.Content[k+1]
			}
		}
		if found == nil {
			if i < len(keys)-1 || len(n.Content) == 0 {
				return nil, at, fmt.Errorf("the file has no %s; write it by hand", strings.Join(keys[:i+1], "."))
			}
			out, err := insert(text, n, key, value)
			return out, at, err
		}
		n = found
	}
	at = system.Pos{Line: n.Line, Col: n.Column}
	if n.Kind != yaml.ScalarNode || n.Anchor != "" {
		return nil, at, fmt.Errorf("%s is no single word there; change it by hand", path)
	}
	from := offset(text, n.Line, n.Column)
	written, err := token(text[from:], n)
	if err != nil {
		return nil, at, fmt.Errorf("%s: %w; change it by hand", path, err)
	}
	return splice(text, from, from+len(written), quoted(value)), at, nil
}

// insert adds a key at the start of a mapping.
func insert(text []byte, n *yaml.Node, key, value string) ([]byte, error) {
	first := n.Content[0]
	at := offset(text, first.Line, first.Column)
	if n.Style&yaml.FlowStyle != 0 {
		return splice(text, at, at, key+": "+quoted(value)+", "), nil
	}
	line := text[bytes.LastIndexByte(text[:at], '\n')+1 : at]
	if len(bytes.TrimLeft(line, " ")) > 0 {
		return nil, fmt.Errorf("%s cannot be added before line %d; write it by hand", key, first.Line)
	}
	end := "\n"
	if bytes.Contains(text, []byte("\r\n")) {
		end = "\r\n"
	}
	return splice(text, at, at, key+": "+quoted(value)+end+string(line)), nil
}

// merges says that a key takes another mapping in.
func merges(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style == 0
}

func splice(text []byte, from, to int, word string) []byte {
	out := append([]byte{}, text[:from]...)
	return append(append(out, word...), text[to:]...)
}

// offset of a line and a column, both from 1; columns count characters.
func offset(text []byte, line, col int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(text[at:], '\n') + 1
	}
	for ; col > 1 && at < len(text); col-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}

// token is a scalar as it is written at the start of a text.
func token(text []byte, n *yaml.Node) ([]byte, error) {
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
				return line[:i+1], nil
			}
		}
	case n.Style == 0 && n.Value != "" && bytes.HasPrefix(line, []byte(n.Value)):
		return line[:len(n.Value)], nil
	}
	return nil, errors.New("it is not written on one line")
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./%+-]*$`)

// quoted writes a value so that YAML reads it as it is.
func quoted(value string) string {
	if plain.MatchString(value) {
		return value
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic("edit: a text cannot be written as JSON: " + err.Error())
	}
	return string(text)
}
