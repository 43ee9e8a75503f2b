package load

import "bytes"

// timing is what the nodes say of an answer in Server-Timing: who gave it, and how it was found.
type timing struct {
	said           bool
	node, instance []byte
	hops, lookup   int
}

// read takes the entries that are ours: node;desc="eu-1", instance;desc="cart/2", hops;desc="1". The header may
// stand several times, and a program may have entries of its own, durations for example: they are not ours.
func (t *timing) read(value []byte) {
	for len(value) > 0 {
		var entry []byte
		entry, value = cutQuoted(value, ',')
		name, params := cutQuoted(entry, ';')
		name = bytes.Trim(name, " \t")
		for len(params) > 0 {
			var param []byte
			param, params = cutQuoted(params, ';')
			word, desc, ok := bytes.Cut(bytes.Trim(param, " \t"), []byte("="))
			if !ok || !is(bytes.TrimRight(word, " \t"), "desc") {
				continue
			}
			t.set(name, bytes.TrimLeft(desc, " \t"))
		}
	}
}

func (t *timing) set(name, desc []byte) {
	n, number := digits(unquoted(nil, desc))
	switch {
	case is(name, "node"):
		t.node, t.said = unquoted(t.node[:0], desc), true
	case is(name, "instance"):
		t.instance = unquoted(t.instance[:0], desc)
	case is(name, "hops") && number:
		t.hops = int(min(n, 1<<20))
	case is(name, "lookup") && number:
		t.lookup = int(min(n, 1<<20))
	}
}

// cutQuoted cuts at the first separator outside quotes.
func cutQuoted(b []byte, sep byte) (before, after []byte) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '\\' && quoted:
			i++
		case b[i] == sep && !quoted:
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// unquoted appends a token or the inside of a quoted string: RFC 9110 §5.6.4.
func unquoted(to, b []byte) []byte {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return append(to, b...)
	}
	b = b[1 : len(b)-1]
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			i++
		}
		to = append(to, b[i])
	}
	return to
}
