package wasm

import (
	"errors"
	"fmt"
)

var errInstruction = errors.New("an unknown instruction")

// Instructions that matter to a counter, WebAssembly Core Specification 2.0 §5.4.
const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opBrTable     = 0x0e
	opReturn      = 0x0f
	opCall        = 0x10
	opCallTable   = 0x11
	opLocalSet    = 0x21
	opLocalGet    = 0x20
	opLocalTee    = 0x22
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opGrow        = 0x40
	opI64Const    = 0x42
	opI64Less     = 0x53
	opI64Sub      = 0x7d
	opI64Left     = 0x86
	opI64Right    = 0x88
	opI64Extend   = 0xad // of an unsigned i32
	opRefFunc     = 0xd2
	prefixBulk    = 0xfc
	prefixVector  = 0xfd

	i32 = 0x7f // types
	i64 = 0x7e

	empty = 0x40 // type of a block
)

// body is a function on its way. While it runs the counter is in a local variable, which is a register in a tight loop; it is
// in the global one whenever another function runs.
type body struct {
	m     *meter
	out   []byte // finished
	run   []byte // since the last branch
	cost  int64  // of run
	entry bool   // the run begins a function or a loop: it asks for more when the budget is used up
	first bool   // it begins the function
	depth uint32 // blocks that are open
	left  uint32 // local variable: the counter
	size  uint32 // local variable: the length of a bulk instruction
	bulk  bool   // one was seen
	err   error
}

// function writes a function's body anew.
func (m *meter) function(r *reader, kind int) *body {
	f := &body{m: m, entry: true, first: true}
	if kind < 0 || kind >= len(m.params) {
		f.err = fmt.Errorf("of type %d, which the module does not have", kind)
		return f
	}
	groups := r.count()
	from, locals := r.at, uint64(m.params[kind])
	for range groups {
		locals += uint64(r.u32())
		r.byte()
	}
	if locals > mostLocals {
		r.fail(fmt.Errorf("%w: %d local variables, want at most %d", errMany, locals, mostLocals))
	}
	if m.frames += locals; m.frames > mostFrames {
		r.fail(fmt.Errorf("%w: functions of more than %d local variables", errMany, mostFrames))
	}
	declared := r.b[min(from, len(r.b)):r.at]
	f.left, f.size = uint32(locals), uint32(locals)+1
	for !r.done() {
		f.step(r)
	}
	f.flush()
	if f.err = r.err; f.err != nil {
		return f
	}
	groups++
	if f.bulk {
		groups++
	}
	head := append(number(nil, uint32(groups)), declared...)
	head = append(head, 1, i64)
	if f.bulk {
		head = append(head, 1, i32)
	}
	f.out = append(head, f.out...)
	return f
}

// step takes one instruction over.
func (f *body) step(r *reader) {
	from := r.at
	op, sub := instruction(r)
	if r.err != nil {
		return
	}
	f.length(op, sub)
	if f.leaves(op, &reader{b: r.b, at: from + 1}) {
		f.run = number(append(f.run, opLocalGet), f.left)
		f.run = number(append(f.run, opGlobalSet), uint32(f.m.globals))
	}
	f.run = f.m.copied(f.run, r, from, op)
	switch op {
	case opBlock, opLoop, opIf:
		f.depth++
	case opEnd:
		f.depth-- // the last one's is the function's own
	case opCall, opCallTable:
		f.run = number(append(f.run, opGlobalGet), uint32(f.m.globals))
		f.run = number(append(f.run, opLocalSet), f.left)
	}
	switch op {
	case opEnd, opElse:
		f.flush()
	case opLoop:
		f.cost++
		f.flush()
		f.entry = true
	case opIf, opBr, opBrIf, opBrTable, opReturn, opUnreachable:
		f.cost++
		f.flush()
	default:
		f.cost++
	}
}

// leaves says that another function runs after an instruction, or may; r stands behind its first byte.
func (f *body) leaves(op byte, r *reader) bool {
	switch op {
	case opCall, opCallTable, opReturn:
		return true
	case opEnd:
		return f.depth == 0
	case opBr, opBrIf:
		return r.u32() == f.depth
	case opBrTable:
		for range r.count() + 1 {
			if r.u32() == f.depth {
				return true
			}
		}
	}
	return false
}

// length charges an instruction whose work is the number on top of the stack: eight bytes or elements
// cost one, a page of new memory 1,024.
func (f *body) length(op byte, sub uint32) {
	shift, by := byte(opI64Right), int64(3)
	switch {
	case op == opGrow, op == prefixBulk && sub == 15:
		shift, by = opI64Left, 10
	case op == prefixBulk && (sub == 8 || sub == 10 || sub == 11 || sub == 12 || sub == 14 || sub == 17):
	default:
		return
	}
	f.bulk = true
	f.run = number(append(f.run, opLocalTee), f.size)
	f.run = number(append(f.run, opLocalGet), f.left)
	f.run = number(append(f.run, opLocalGet), f.size)
	f.run = append(f.run, opI64Extend)
	f.run = append(signed(append(f.run, opI64Const), by), shift, opI64Sub)
	f.run = number(append(f.run, opLocalSet), f.left)
}

// flush writes what a run costs, and the run.
func (f *body) flush() {
	if f.entry {
		f.cost = max(1, f.cost)
	}
	if f.cost > 0 {
		if f.first {
			f.out = number(append(f.out, opGlobalGet), uint32(f.m.globals))
		} else {
			f.out = number(append(f.out, opLocalGet), f.left)
		}
		f.out = append(signed(append(f.out, opI64Const), f.cost), opI64Sub)
		set := byte(opLocalSet)
		if f.entry {
			set = opLocalTee
		}
		f.out = number(append(f.out, set), f.left)
	}
	if f.entry {
		f.out = append(f.out, opI64Const, 0, opI64Less, opIf, empty)
		f.out = number(append(f.out, opLocalGet), f.left)
		f.out = number(append(f.out, opCall), f.m.refuel)
		f.out = number(append(f.out, opLocalSet), f.left)
		f.out = append(f.out, opEnd)
	}
	f.out = append(f.out, f.run...)
	f.run, f.cost, f.entry, f.first = f.run[:0], 0, false, false
}

// copied writes the instruction that the reader has just passed; what names a function names it anew.
func (m *meter) copied(out []byte, r *reader, from int, op byte) []byte {
	if r.err != nil {
		return out
	}
	if op == opCall || op == opRefFunc {
		index := (&reader{b: r.b, at: from + 1}).u32()
		return number(append(out, op), m.moved(index))
	}
	return append(out, r.b[from:r.at]...)
}

// instruction passes over one instruction. The second number tells those behind a prefix apart.
func instruction(r *reader) (op byte, sub uint32) {
	op = r.byte()
	switch {
	case op == opBlock, op == opLoop, op == opIf:
		r.skip(5)
	case op == opBr, op == opBrIf, op == opCall, op == opRefFunc, 0x20 <= op && op <= 0x26:
		r.u32()
	case op == opBrTable:
		for range r.count() + 1 {
			r.u32()
		}
	case op == opCallTable:
		r.u32()
		r.u32()
	case op == 0x1c: // select of a type
		r.bytes()
	case 0x28 <= op && op <= 0x3e: // loads and stores
		r.u32()
		r.u32()
	case op == 0x3f, op == opGrow, op == 0xd0: // memory.size, memory.grow, ref.null
		r.byte()
	case op == 0x41: // i32.const
		r.skip(5)
	case op == opI64Const:
		r.skip(10)
	case op == 0x43: // f32.const
		r.take(4)
	case op == 0x44: // f64.const
		r.take(8)
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == 0x1a, op == 0x1b, 0x45 <= op && op <= 0xc4, op == 0xd1:
	case op == prefixBulk:
		sub = r.u32()
		switch {
		case sub <= 7: // conversions that saturate
		case sub == 8, sub == 10, sub == 12, sub == 14:
			r.u32()
			r.u32()
		case sub <= 17:
			r.u32()
		default:
			r.fail(fmt.Errorf("%w: fc %d", errInstruction, sub))
		}
	case op == prefixVector:
		sub = r.u32()
		switch {
		case sub <= 11, sub == 92, sub == 93: // loads and stores
			r.u32()
			r.u32()
		case sub == 12, sub == 13: // v128.const, i8x16.shuffle
			r.take(16)
		case 21 <= sub && sub <= 34: // of one lane
			r.byte()
		case 84 <= sub && sub <= 91: // loads and stores of one lane
			r.u32()
			r.u32()
			r.byte()
		case sub > 255:
			r.fail(fmt.Errorf("%w: fd %d", errInstruction, sub))
		}
	default:
		r.fail(fmt.Errorf("%w: %#02x", errInstruction, op))
	}
	return op, sub
}
