// Package edit changes single values of a YAML text and keeps every other byte of it: comments, layout, quotes,
// line ends. It knows YAML and nothing of systems; it opens no file.
//
// Nothing is guessed. Each edit is tried on the text, the result is parsed again, and it counts only when the
// tree differs in nothing but the one value; what YAML could mean otherwise is refused. Start at [Set].
package edit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system"
)

// Change is what an edit did.
type Change struct {
	Pos   system.Pos // of the value in the new text, without a file; of an edit that is refused, where it would stand
	Old   string     // as it was, without its quotes; "" when there was none
	Added bool       // the key is new
}

// Set gives the value at a path a new one. The path goes from the top, key by key; [2] is the third item of a
// list. A key that is missing is added at the end of its mapping, and mappings on the way are made, indented as
// the text is. A list or mapping at the end of the path is replaced whole. What hides where a value comes from
// is refused, with the place: an anchor that is used elsewhere, a mapping taken over by its alias or by <<,
// several documents, a comment inside of what would be replaced.
func Set(text []byte, keys []string, value string) ([]byte, Change, error) {
	top, err := parse(text)
	if err != nil {
		return nil, Change{}, err
	}
	e := &editor{text: text, lines: lines(text), top: top, shared: map[*yaml.Node]bool{}}
	e.note(top)
	if err := e.find(keys, value); err != nil {
		return nil, Change{Pos: e.at}, err
	}
	for _, t := range e.tries {
		out := splice(text, t.from, t.to, t.with)
		after, err := parse(out)
		if err != nil || !same(top, after, keys, value, 0) {
			continue
		}
		n := at(after, keys)
		return out, Change{Pos: system.Pos{Line: n.Line, Col: n.Column}, Old: e.old, Added: e.added}, nil
	}
	return nil, Change{Pos: e.at}, fmt.Errorf("%s is written in a way that cannot be edited safely; change it by hand", name(keys))
}

// parse reads the one document of a text, which is a mapping.
func parse(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode):
		return nil, errors.New("the file is no mapping of keys")
	case err != nil:
		return nil, fmt.Errorf("read YAML: %w", err)
	case !errors.Is(dec.Decode(&more), io.EOF):
		return nil, errors.New("the file has several documents; change it by hand")
	}
	return doc.Content[0], nil
}

// editor is one edit.
type editor struct {
	text   []byte
	lines  []int // where each begins
	top    *yaml.Node
	shared map[*yaml.Node]bool // nodes that an alias names

	at    system.Pos
	old   string
	added bool
	tries []try // best first
}

// try is a part of the text and what it becomes.
type try struct {
	from, to int
	with     string
}

func (e *editor) try(from, to int, with string) { e.tries = append(e.tries, try{from, to, with}) }

// note finds what aliases name.
func (e *editor) note(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		e.shared[n.Alias] = true
	}
	for _, sub := range n.Content {
		e.note(sub)
	}
}

// find goes down the path and says what may be tried at its end.
func (e *editor) find(keys []string, value string) error {
	n, flow := e.top, false
	var above []*yaml.Node // mappings on the way
	var key *yaml.Node
	for i, word := range keys {
		e.at = system.Pos{Line: n.Line, Col: n.Column}
		if err := e.plain(n, keys[:i]); err != nil {
			return err
		}
		if word == "" {
			return fmt.Errorf("%s. ends with an empty key", orTop(keys[:i]))
		}
		if n.Kind == yaml.SequenceNode {
			item, err := strconv.Atoi(strings.Trim(word, "[]"))
			if err != nil || item < 0 || item >= len(n.Content) || word != fmt.Sprintf("[%d]", item) {
				return fmt.Errorf("%s is a list of %d; name an item, like %s[0]", name(keys[:i]), len(n.Content), name(keys[:i]))
			}
			n, key, flow = n.Content[item], nil, n.Style&yaml.FlowStyle != 0
			continue
		}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && key != nil {
			e.added = true
			e.fill(key, n, above, flow, keys[i:], value)
			return nil
		}
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("%s is no mapping there; change it by hand", name(keys[:i]))
		}
		above, flow = append(above, n), n.Style&yaml.FlowStyle != 0
		k, v := pair(n, word)
		if v == nil {
			if i < len(keys)-1 && taken(n, word, 0) {
				return fmt.Errorf("%s has its %s from another mapping by <<; change it by hand", orTop(keys[:i]), word)
			}
			e.added = true
			e.add(n, above, keys[i:], value)
			return nil
		}
		key, n = k, v
	}
	e.at = system.Pos{Line: n.Line, Col: n.Column}
	if n.Anchor != "" {
		return fmt.Errorf("%s carries the anchor &%s; change it by hand", name(keys), n.Anchor)
	}
	return e.replace(key, n, keys, value)
}

// plain says whether a node on the way may be changed inside without changing other places.
func (e *editor) plain(n *yaml.Node, keys []string) error {
	switch {
	case n.Kind == yaml.AliasNode:
		return fmt.Errorf("%s is *%s, which stands for other places, too; change it by hand", orTop(keys), n.Value)
	case e.shared[n]:
		return fmt.Errorf("%s is used in other places, too, as *%s; change it by hand", orTop(keys), n.Anchor)
	}
	return nil
}

// pair is a key of a mapping with its value; the last one, where it stands twice.
func pair(n *yaml.Node, key string) (k, v *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if c := n.Content[i]; c.Kind == yaml.ScalarNode && c.Value == key && !merges(c) {
			k, v = c, n.Content[i+1]
		}
	}
	return k, v
}

// merges says that a key takes another mapping in.
func merges(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style == 0
}

// taken says that a mapping has a key by <<.
func taken(n *yaml.Node, key string, depth int) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if depth > 32 {
		return true // nobody can tell
	}
	if n.Kind == yaml.SequenceNode {
		return slices.ContainsFunc(n.Content, func(one *yaml.Node) bool { return taken(one, key, depth+1) })
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; depth > 0 && k.Value == key || merges(k) && taken(n.Content[i+1], key, depth+1) {
			return true
		}
	}
	return false
}

// at is the node at a path that is there.
func at(n *yaml.Node, keys []string) *yaml.Node {
	for _, key := range keys {
		if n.Kind == yaml.SequenceNode {
			i, _ := strconv.Atoi(strings.Trim(key, "[]"))
			n = n.Content[i]
		} else {
			_, n = pair(n, key)
		}
	}
	return n
}

// same says that two trees differ in the value at a path at most, and that it is there in the second.
func same(a, b *yaml.Node, keys []string, value string, depth int) bool {
	if len(keys) == 0 {
		return b.Kind == yaml.ScalarNode && b.Value == value && b.Anchor == "" && (a == nil || a.Anchor == "")
	}
	if a == nil || a.Kind == yaml.ScalarNode && a.ShortTag() == "!!null" { // made on the way
		return b.Kind == yaml.MappingNode && b.Anchor == "" && len(b.Content) == 2 && b.Content[0].Value == keys[0] && same(nil, b.Content[1], keys[1:], value, depth+1)
	}
	if a.Kind != b.Kind || a.ShortTag() != b.ShortTag() || a.Anchor != b.Anchor || depth > maxDepth {
		return false
	}
	if a.Kind == yaml.SequenceNode {
		return len(a.Content) == len(b.Content) && !slices.ContainsFunc(indices(a.Content), func(i int) bool {
			if fmt.Sprintf("[%d]", i) == keys[0] {
				return !same(a.Content[i], b.Content[i], keys[1:], value, depth+1)
			}
			return !equal(a.Content[i], b.Content[i], depth+1)
		})
	}
	_, was := pair(a, keys[0])
	_, is := pair(b, keys[0])
	if a.Kind != yaml.MappingNode || is == nil {
		return false
	}
	i := 0
	for j := 0; j+1 < len(b.Content); j += 2 {
		k, v := b.Content[j], b.Content[j+1]
		switch {
		case v == is && was == nil: // the one that was added
			if !same(nil, v, keys[1:], value, depth+1) {
				return false
			}
			continue
		case i+1 >= len(a.Content) || !equal(a.Content[i], k, depth+1):
			return false
		case v == is:
			if !same(was, v, keys[1:], value, depth+1) {
				return false
			}
		case !equal(a.Content[i+1], v, depth+1):
			return false
		}
		i += 2
	}
	return i == len(a.Content)
}

// maxDepth of a tree that is compared.
const maxDepth = 1000

// equal says that two trees mean the same.
func equal(a, b *yaml.Node, depth int) bool {
	return depth <= maxDepth && a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value && a.Anchor == b.Anchor && a.Style == b.Style &&
		slices.EqualFunc(a.Content, b.Content, func(x, y *yaml.Node) bool { return equal(x, y, depth+1) })
}

func indices(all []*yaml.Node) []int {
	out := make([]int, len(all))
	for i := range out {
		out[i] = i
	}
	return out
}

// name is a path in words: services.web.ports[0].
func name(keys []string) string {
	return strings.ReplaceAll(strings.Join(keys, "."), ".[", "[")
}

func orTop(keys []string) string {
	if len(keys) == 0 {
		return "the file"
	}
	return name(keys)
}

func splice(text []byte, from, to int, with string) []byte {
	out := make([]byte, 0, len(text)+len(with))
	out = append(out, text[:from]...)
	out = append(out, with...)
	return append(out, text[to:]...)
}
