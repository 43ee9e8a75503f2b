package sysfile

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system"
)

// path leads to a value: keys, and [3] for the fourth item of a list.
type path []string

func (p path) key(names ...string) path { return append(slices.Clip(p), names...) }

func (p path) item(i int) path { return p.key("[" + strconv.Itoa(i) + "]") }

// String is services.web.ports[0].
func (p path) String() string {
	return strings.ReplaceAll(strings.Join(p, "."), ".[", "[")
}

// index of a step that is an item.
func index(step string) (int, bool) {
	num, ok := strings.CutPrefix(step, "[")
	num, end := strings.CutSuffix(num, "]")
	i, err := strconv.Atoi(num)
	return i, ok && end && err == nil
}

// spot is a place where a value of the merged model was written.
type spot struct {
	src *source
	key *yaml.Node // nil for the whole file and for items
	val *yaml.Node
}

// node is where an editor should jump: a plain value itself, the key of all else.
func (s spot) node() *yaml.Node {
	if s.key != nil && (s.val.Kind != yaml.ScalarNode || s.val.ShortTag() == "!!null") {
		return s.key
	}
	return s.val
}

func (s spot) pos() system.Pos { return s.src.pos(s.node()) }

// spots finds where the value at p of the merged model was written, in the order in which Compose
// merges: what is included, then each file, and for a service what it extends first. The last spot won.
// depth is how much of p was found; the spots are those of p[:depth].
func spots(files []*source, p path) (found []spot, depth int) {
	for _, src := range files {
		found = append(found, src.roots()...)
	}
	for depth < len(p) {
		next := step(found, p[depth])
		if depth == 1 && p[0] == "services" {
			next = withBases(next, p[1], nil)
		}
		if len(next) == 0 {
			break
		}
		found = next
		depth++
	}
	return found, depth
}

// roots are a file's documents after those of the files it includes.
func (s *source) roots() []spot {
	var all []spot
	for _, inc := range s.includes {
		all = append(all, inc.roots()...)
	}
	for _, doc := range s.docs {
		all = append(all, spot{src: s, val: doc})
	}
	return all
}

// extends says whether a service extends another.
func (f *file) extends(service string) bool {
	return slices.ContainsFunc(f.all, func(s *source) bool { return s.bases[service] != base{} })
}

// withBases puts before each spot of a service the spots of the service that it extends.
func withBases(services []spot, name string, seen []base) []spot {
	var all []spot
	for _, at := range services {
		b, ok := at.src.bases[name]
		if ok && !slices.Contains(seen, b) {
			found := step(step(b.src.roots(), "services"), b.service)
			all = append(all, withBases(found, b.service, append(slices.Clip(seen), b))...)
		}
		all = append(all, at)
	}
	return all
}

// step goes one key or item deeper from every spot. Items of a list that several files write stand one
// after the other, as Compose appends them.
func step(from []spot, name string) []spot {
	var next []spot
	i, item := index(name)
	for _, at := range from {
		val := follow(at.val)
		switch {
		case val == nil:
		case val.Kind == yaml.MappingNode && !item:
			if k, v := lookup(val, name, 0); v != nil {
				next = append(next, spot{at.src, k, v})
			}
		case val.Kind == yaml.SequenceNode && item:
			if i >= 0 && i < len(val.Content) {
				next = append(next, spot{src: at.src, val: val.Content[i]})
			}
			i -= len(val.Content)
		case val.Kind == yaml.SequenceNode: // the short form of a mapping: NAME, NAME=value
			for _, one := range val.Content {
				if head, _, _ := strings.Cut(one.Value, "="); one.Kind == yaml.ScalarNode && head == name {
					next = append(next, spot{src: at.src, val: one})
				}
			}
		}
	}
	return next
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// lookup finds a key of a mapping, its own before one merged with <<.
func lookup(m *yaml.Node, name string, depth int) (key, val *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if k := m.Content[i]; k.Value == name && !isMerge(k) {
			return k, m.Content[i+1]
		}
	}
	for i := 0; i+1 < len(m.Content) && depth < 32; i += 2 {
		if isMerge(m.Content[i]) {
			for _, from := range mergedFrom(m.Content[i+1]) {
				if k, v := lookup(from, name, depth+1); v != nil {
					return k, v
				}
			}
		}
	}
	return nil, nil
}

func isMerge(k *yaml.Node) bool { return k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 }

// mergedFrom are the mappings behind a <<: one, or those of a list.
func mergedFrom(n *yaml.Node) []*yaml.Node {
	n = follow(n)
	switch {
	case n == nil:
	case n.Kind == yaml.MappingNode:
		return []*yaml.Node{n}
	case n.Kind == yaml.SequenceNode:
		var all []*yaml.Node
		for _, one := range n.Content {
			if one = follow(one); one != nil && one.Kind == yaml.MappingNode {
				all = append(all, one)
			}
		}
		return all
	}
	return nil
}
