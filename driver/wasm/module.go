package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// counter is the name by which a rewritten module exports what is left of its budget, so that each call of one that
// lives on begins with its own.
const counter = "servent:fuel"

// Sections of a module, WebAssembly Core Specification 2.0 §5.5.
const (
	customSection   = 0
	typeSection     = 1
	importSection   = 2
	functionSection = 3
	tableSection    = 4
	memorySection   = 5
	globalSection   = 6
	exportSection   = 7
	startSection    = 8
	elementSection  = 9
	codeSection     = 10
	dataSection     = 11
	countSection    = 12 // of data segments; stands before the code
)

var (
	errNotWasm = errors.New("not a WebAssembly module")
	errShort   = errors.New("it ends too early")
	errNumber  = errors.New("a number is too long")
	errMany    = errors.New("it is too large")
)

// What a module may have, so that a small file takes little of the node's memory before any limit of its own holds. Parameters,
// results and locals are what engines have agreed on (wasmparser, limits.rs); the rest is near that, or below.
const (
	mostOf     = 1 << 20 // functions, types, segments, entries of one, …
	mostParams = 1000    // and as many results of a function
	mostLocals = 50_000  // of a function
	mostFrames = 1 << 24 // local variables of all functions
	mostTables = 1 << 20 // entries of all tables
)

// reader takes a module apart. The first error sticks, and whatever is read after it is zero.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
		r.at = len(r.b)
	}
}

func (r *reader) done() bool { return r.at >= len(r.b) }

func (r *reader) byte() byte {
	if r.done() {
		r.fail(errShort)
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b)-r.at {
		r.fail(errShort)
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

// u32 reads an unsigned number, §5.2.2.
func (r *reader) u32() uint32 {
	var x uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if x > 0xffffffff {
				r.fail(errNumber)
			}
			return uint32(x)
		}
	}
	r.fail(errNumber)
	return 0
}

// skip passes over a signed number of so many bytes at the most.
func (r *reader) skip(most int) {
	for range most {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail(errNumber)
}

// bytes reads a length and what it counts: a name or a section.
func (r *reader) bytes() []byte { return r.take(int(r.u32())) }

// count reads how many entries a vector has; each takes a byte at least, so a lie shows at once.
func (r *reader) count() int {
	n := int(r.u32())
	switch {
	case n > len(r.b)-r.at:
		r.fail(errShort)
	case n > mostOf:
		r.fail(fmt.Errorf("%w: %d of something, want at most %d", errMany, n, mostOf))
	default:
		return n
	}
	return 0
}

func number(out []byte, x uint32) []byte { return binary.AppendUvarint(out, uint64(x)) }

// signed writes a signed number, §5.2.2.
func signed(out []byte, x int64) []byte {
	for {
		b := byte(x & 0x7f)
		x >>= 7
		if x == 0 && b&0x40 == 0 || x == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func section(out []byte, id byte, body []byte) []byte {
	out = append(out, id)
	out = number(out, uint32(len(body)))
	return append(out, body...)
}

// meter is a module on its way to one that counts.
type meter struct {
	params   []int // of every function type; -1: another kind of type
	types    []int // of the functions that the module defines, indices into params
	imported int   // functions: those behind them move up by one
	globals  int   // imported and defined: the counter's index
	refuel   uint32
	frames   uint64 // local variables so far
	out      []byte
}

// Meter rewrites a module so that it counts the instructions it runs, down from a budget, and asks the host
// for more when it has used it up: import "servent" "fuel" takes what is left, below zero, and returns the
// new budget, or does not return. It asks at every loop's head and every function's entry, and charges every
// run of instructions without a branch before it begins, so that no instruction is free: memory.fill and
// its like cost one for every eight bytes. The module does what it did before. The counter is exported as "servent:fuel".
//
// The error says what is wrong with a module that cannot be read; one that is wrong in other ways shows when
// it is compiled.
func Meter(module []byte) ([]byte, error) {
	if !bytes.HasPrefix(module, []byte("\x00asm")) {
		return nil, errNotWasm
	}
	if !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, fmt.Errorf("%w of version 1: components and later versions are not run", errNotWasm)
	}
	m := &meter{out: append([]byte(nil), module[:8]...)}
	if err := m.survey(module[8:]); err != nil {
		return nil, err
	}
	r := &reader{b: module[8:]}
	last := byte(0)
	for !r.done() {
		id := r.byte()
		body := r.bytes()
		if r.err != nil {
			return nil, r.err
		}
		if id != customSection {
			m.before(last, id)
			last = id
		}
		if err := m.section(id, body); err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
	}
	m.before(last, dataSection+2)
	return m.out, nil
}

// order of sections is by number, but for the count of data segments, which stands before the code.
func order(id byte) int {
	switch {
	case id == countSection:
		return 2*codeSection - 1
	default:
		return 2 * int(id)
	}
}

// before writes the sections that the module lacks and the counter needs, where they would stand.
func (m *meter) before(last, next byte) {
	for _, id := range []byte{typeSection, importSection, globalSection, exportSection} {
		if order(last) < order(id) && order(id) < order(next) {
			_ = m.section(id, []byte{0}) // an empty one cannot be wrong
		}
	}
}

// survey reads what must be known before anything is written.
func (m *meter) survey(body []byte) error {
	r := &reader{b: body}
	for !r.done() && r.err == nil {
		id := r.byte()
		s := &reader{b: r.bytes()}
		switch id {
		case typeSection:
			for range s.count() {
				m.params = append(m.params, functionType(s))
			}
		case importSection:
			for range s.count() {
				switch entry(s) {
				case 0:
					m.imported++
				case 3:
					m.globals++
				}
			}
		case functionSection:
			for range s.count() {
				m.types = append(m.types, int(s.u32()))
			}
		case memorySection:
			for range s.count() {
				limits(s)
			}
		case dataSection:
			for range s.count() {
				m.segment(s)
			}
		case customSection, tableSection, exportSection, startSection, elementSection, codeSection, countSection:
		case globalSection:
			m.globals += s.count()
		default:
			s.fail(errors.New("it is unknown"))
		}
		if s.err != nil {
			return fmt.Errorf("section %d: %w", id, s.err)
		}
	}
	m.refuel = uint32(m.imported)
	return r.err
}

// functionType reads a type and returns how many parameters it has.
func functionType(r *reader) int {
	if r.byte() != 0x60 {
		r.fail(errors.New("a type that is no function's"))
		return -1
	}
	params, results := len(r.bytes()), len(r.bytes())
	if max(params, results) > mostParams {
		r.fail(fmt.Errorf("%w: a function of %d parameters and %d results, want at most %d", errMany, params, results, mostParams))
	}
	return params
}

// entry reads an import and returns its kind: 0 function, 1 table, 2 memory, 3 global.
func entry(r *reader) byte {
	r.bytes()
	r.bytes()
	kind := r.byte()
	switch kind {
	case 0:
		r.u32()
	case 1:
		r.byte()
		limits(r)
	case 2:
		limits(r)
	case 3:
		r.take(2)
	default:
		r.fail(fmt.Errorf("an import of an unknown kind, %d", kind))
	}
	return kind
}

func limits(r *reader) {
	flag := r.byte()
	r.u32()
	if flag&1 != 0 { // and a most
		r.u32()
	}
}

// section writes a section as it must be after the import of the host's function.
func (m *meter) section(id byte, body []byte) error {
	r := &reader{b: body}
	var out []byte
	switch id {
	case customSection:
		return m.custom(body)
	case typeSection:
		out = number(out, r.u32()+1)
		out = append(out, body[r.at:]...)
		out = append(out, 0x60, 1, i64, 1, i64)
	case importSection:
		out = number(out, r.u32()+1)
		out = append(out, body[r.at:]...)
		out = append(out, "\x07servent\x04fuel\x00"...)
		out = number(out, uint32(len(m.params)))
	case tableSection:
		n := r.count()
		out = number(out, uint32(n))
		room := mostTables
		for range n {
			out = m.table(out, r, mostTables/n, &room)
		}
	case globalSection:
		n := r.count()
		out = number(out, uint32(n)+1)
		for range n {
			out = append(out, r.take(2)...)
			out = m.expression(out, r)
		}
		out = append(out, i64, 1, 0x42, 0, 0x0b) // mutable, i64.const 0
	case exportSection:
		n := r.count()
		out = number(out, uint32(n)+1)
		for range n {
			name := r.bytes()
			if string(name) == counter {
				return fmt.Errorf("exports %s, which is not for modules", counter)
			}
			out = append(number(out, uint32(len(name))), name...)
			kind, index := r.byte(), r.u32()
			if kind == 0 {
				index = m.moved(index)
			}
			out = number(append(out, kind), index)
		}
		out = append(append(number(out, uint32(len(counter))), counter...), 3)
		out = number(out, uint32(m.globals))
	case startSection:
		out = number(out, m.moved(r.u32()))
	case elementSection:
		n := r.count()
		out = number(out, uint32(n))
		for range n {
			out = m.element(out, r)
		}
	case codeSection:
		n := r.count()
		if n != len(m.types) {
			return fmt.Errorf("%d bodies of %d functions", n, len(m.types))
		}
		out = number(out, uint32(n))
		for i := range n {
			f := m.function(&reader{b: r.bytes()}, m.types[i])
			if f.err != nil {
				return fmt.Errorf("function %d: %w", i, f.err)
			}
			out = append(number(out, uint32(len(f.out))), f.out...)
		}
	default:
		out = body
		r.at = len(body)
	}
	if r.err != nil {
		return r.err
	}
	m.out = section(m.out, id, out)
	return nil
}

// table copies a table's type, and gives it a most: memory's bound does not hold for tables.
func (m *meter) table(out []byte, r *reader, share int, room *int) []byte {
	out = append(out, r.byte())
	flag := r.byte()
	least, most := r.u32(), uint32(mostTables)
	if flag > 1 {
		r.fail(fmt.Errorf("a table of an unknown kind, %d", flag))
	}
	if flag == 1 {
		most = r.u32()
	}
	if *room -= int(least); *room < 0 {
		r.fail(fmt.Errorf("%w: tables of more than %d entries", errMany, mostTables))
	}
	if most >= least { // else it is wrong, and stays so
		most = min(most, max(least, uint32(share)))
	}
	return number(number(append(out, 1), least), most)
}

// segment passes over a data segment, §5.5.14.
func (m *meter) segment(r *reader) {
	switch kind := r.u32(); kind {
	case 2:
		r.u32()
		fallthrough
	case 0:
		m.expression(nil, r)
	case 1:
	default:
		r.fail(fmt.Errorf("a data segment of an unknown kind, %d", kind))
	}
	r.bytes()
}

// moved is a function's index behind the new import.
func (m *meter) moved(index uint32) uint32 {
	if index >= m.refuel {
		return index + 1
	}
	return index
}

// expression copies a constant expression, §3.3.7.
func (m *meter) expression(out []byte, r *reader) []byte {
	for r.err == nil {
		from := r.at
		op, _ := instruction(r)
		out = m.copied(out, r, from, op)
		if op == opEnd {
			break
		}
	}
	return out
}

// element copies a segment of functions, §5.5.12.
func (m *meter) element(out []byte, r *reader) []byte {
	kind := r.u32()
	if kind > 7 {
		r.fail(fmt.Errorf("an element segment of an unknown kind, %d", kind))
		return out
	}
	out = number(out, kind)
	if kind&1 == 0 { // active: it says where it goes
		if kind&2 != 0 {
			out = number(out, r.u32())
		}
		out = m.expression(out, r)
	}
	if kind&3 != 0 {
		out = append(out, r.byte()) // of what type
	}
	n := r.count()
	out = number(out, uint32(n))
	for range n {
		if kind&4 != 0 {
			out = m.expression(out, r)
		} else {
			out = number(out, m.moved(r.u32()))
		}
	}
	return out
}

// custom keeps the names of functions and drops what speaks of places in the code, which move.
func (m *meter) custom(body []byte) error {
	r := &reader{b: body}
	switch name := string(r.bytes()); name {
	case "name":
		out := append([]byte(nil), body[:r.at]...)
		for !r.done() {
			id := r.byte()
			sub := &reader{b: r.bytes()}
			if id != 1 || r.err != nil {
				continue
			}
			n := sub.count()
			names := number(nil, uint32(n))
			for range n {
				names = number(names, m.moved(sub.u32()))
				text := sub.bytes()
				names = append(number(names, uint32(len(text))), text...)
			}
			if sub.err == nil {
				out = section(out, 1, names)
			}
		}
		m.out = section(m.out, customSection, out)
	case "go:buildid", "producers":
		m.out = section(m.out, customSection, body)
	}
	return nil // what is wrong in a custom section is nobody's concern, §5.5.3
}
