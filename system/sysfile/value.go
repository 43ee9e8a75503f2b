package sysfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"servent/system"
)

// value is a value of the merged model and where it is. The zero raw means that the key is absent.
type value struct {
	f   *file
	at  path
	raw any
}

func (v value) given() bool { return v.raw != nil }

// key goes one key deeper, also below what is absent.
func (v value) key(name string) value {
	m, _ := v.raw.(map[string]any)
	return value{v.f, v.at.key(name), m[name]}
}

// keys of a mapping, sorted.
func (v value) keys() []string {
	m, _ := v.raw.(map[string]any)
	return slices.Sorted(maps.Keys(m))
}

// items of a list; a single value is a list of one.
func (v value) items() []value {
	switch raw := v.raw.(type) {
	case nil:
		return nil
	case []any:
		all := make([]value, len(raw))
		for i, one := range raw {
			all[i] = value{v.f, v.at.item(i), one}
		}
		return all
	}
	return []value{v}
}

// texts are the words of a list or of one value.
func (v value) texts() []string {
	var all []string
	for _, one := range v.items() {
		all = append(all, one.text())
	}
	return all
}

func (v value) text() string { return text(v.raw) }

// text writes a plain value as the user did, as near as YAML remembers.
func text(raw any) string {
	switch raw := raw.(type) {
	case nil:
		return ""
	case string:
		return raw
	case float64:
		return strconv.FormatFloat(raw, 'f', -1, 64)
	}
	return fmt.Sprint(raw)
}

// wrong reports a mistake at the value, or at the nearest key above it.
func (v value) wrong(format string, args ...any) {
	v.f.found.problem(v.f.pos(v.at), v.at, format, args...)
}

// read parses a value; one that is absent is zero, one that is wrong is reported and zero.
func read[T any](v value, parse func(string) (T, error)) (t T) {
	if !v.given() {
		return t
	}
	t, err := parse(v.text())
	if err != nil && !v.f.found.said(err.Error()) { // the walk has said it, of a file that Compose reads itself
		v.wrong("%s", err)
	}
	return t
}

// pos of the value that won at p, or of the nearest key above it.
func (f *file) pos(p path) system.Pos {
	found, _ := spots(f.main, p)
	if len(found) == 0 {
		return f.main[0].pos(nil)
	}
	return found[len(found)-1].pos()
}

// keyPos is the place of a key itself, even when its value is plain.
func (f *file) keyPos(p path) system.Pos {
	found, depth := spots(f.main, p)
	if last := len(found) - 1; depth == len(p) && last >= 0 && found[last].key != nil {
		return found[last].src.pos(found[last].key)
	}
	return f.pos(p)
}

// exact says that a path is in the file as it stands.
func (f *file) exact(p path) bool {
	_, depth := spots(f.main, p)
	return depth == len(p)
}
