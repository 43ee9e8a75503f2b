package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"servent/system"
)

// spent runs a module and returns how many instructions it was charged for.
func spent(t testing.TB, module []byte) int64 {
	t.Helper()
	metered, err := Meter(module)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	used := int64(0)
	// Every check finds the counter below zero and is told so: what is left is what was used since.
	_, err = r.NewHostModuleBuilder("servent").NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		used -= int64(stack[0])
		stack[0] = 0
	}), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export("fuel").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.InstantiateWithConfig(ctx, metered, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return used
}

// loop runs some instructions so many times and asks once more at the end, so that all is counted.
func loop(times uint32, inside ...byte) []byte {
	out := signed([]byte{0x41}, int64(times))
	out = append(out, 0x21, 0, opLoop, empty) // local.set
	out = append(out, inside...)
	out = append(out, 0x20, 0, 0x41, 1, 0x6b, opLocalTee, 0, opBrIf, 0, opEnd) // local - 1, and again unless 0
	return append(out, opLoop, empty, opEnd)
}

func TestFuelIsWhatRan(t *testing.T) {
	const fixed = 4 + 1 // around the loop, and the loop that asks at the end
	for _, tt := range []struct {
		name string
		code []byte
		want int64
	}{
		{"nothing", nil, 1},
		{"a loop", loop(1000), fixed + 5*1000},
		{"a branch inside", loop(1000, 0x41, 1, opIf, empty, 0x01, 0x01, opElse, 0x01, opEnd), fixed + 9*1000},
		{"the other branch", loop(1000, 0x41, 0, opIf, empty, 0x01, 0x01, opElse, 0x01, opEnd), fixed + 8*1000},
		{"fill of 800 bytes", loop(10, 0x41, 0x80, 2, 0x41, 0, 0x41, 0xa0, 6, prefixBulk, 11, 0), fixed + 10*(9+100)},
		{"one page more", loop(3, 0x41, 1, opGrow, 0, 0x1a), fixed + 3*(8+1024)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := spent(t, code("", tt.code...)); got != tt.want {
				t.Errorf("charged %d instructions, want %d", got, tt.want)
			}
		})
	}
}

// What a call may use is given in slices, and all in all it is what the file says.
func TestBudget(t *testing.T) {
	b := &budget{ctx: t.Context(), left: 2_500_000, some: true}
	ctx := context.WithValue(t.Context(), budgetKey{}, b)
	given := int64(0)
	stack := []uint64{uint64(0)}
	defer func() {
		if recover() != errFuel || given != 2_500_000 {
			t.Errorf("given %d in all, want 2,500,000 and then none", given)
		}
	}()
	for range 100 {
		before := int64(stack[0])
		refuel(ctx, stack)
		given += int64(stack[0]) - before
		stack[0] = ^uint64(6) // used, and 7 beyond
	}
}

// FuzzMeter: whatever is a module stays one, and nothing else panics.
func FuzzMeter(f *testing.F) {
	f.Add(code("hello", say(1)...))
	f.Add(code("", loop(3, 0x41, 1, opIf, empty, 0x01, opElse, opEnd)...))
	f.Add(code("", 0x41, 0, 0x41, 0, 0x41, 9, prefixBulk, 10, 0, 0))
	for _, spec := range corpus(f) {
		f.Add(spec)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	f.Cleanup(func() { r.Close(ctx) })
	f.Fuzz(func(t *testing.T, module []byte) {
		metered, err := Meter(module)
		if err != nil && !errors.Is(err, errInstruction) {
			return // perhaps it says that it has more than there is: the engine would believe it, and take all memory
		}
		was, bad := r.CompileModule(ctx, module)
		if bad == nil {
			was.Close(ctx)
		}
		if err != nil {
			if bad == nil {
				t.Fatalf("a module that compiles is refused: %v", err)
			}
			return
		}
		is, worse := r.CompileModule(ctx, metered)
		if worse == nil {
			is.Close(ctx)
		}
		if bad == nil && worse != nil {
			t.Fatalf("it compiled, and does not any more: %v", worse)
		}
	})
}

// corpus are modules that a fuzzer has found worth keeping.
func corpus(t testing.TB) (out [][]byte) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// What counting costs in the tightest of loops, where it costs most. Compare with benchstat:
//
//	go test ./driver/wasm -run '^$' -bench Loop -count 10 | benchstat -col /counted -
func BenchmarkLoop(b *testing.B) {
	// A step of FNV-1a over four bytes, whose result is stored and read by the next: what a real loop does.
	hash := []byte{0x41, 8, 0x41, 8, 0x28, 2, 0, 0x20, 0, 0x73, 0x41, 0x93, 0x83, 0x80, 8, 0x6c, 0x36, 2, 0}
	module := code("", loop(4_000, hash...)...)
	metered, err := Meter(module)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range [][]byte{module, metered} {
		b.Run(map[bool]string{false: "counted=no", true: "counted=yes"}[len(m) > len(module)], func(b *testing.B) {
			ctx := b.Context()
			r := wazero.NewRuntime(ctx)
			defer r.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			_, err := r.NewHostModuleBuilder("servent").NewFunctionBuilder().WithGoFunction(api.GoFunc(refuel), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export("fuel").Instantiate(ctx)
			if err != nil {
				b.Fatal(err)
			}
			ctx = context.WithValue(ctx, budgetKey{}, &budget{ctx: ctx})
			instance, err := r.InstantiateWithConfig(ctx, m, wazero.NewModuleConfig().WithStartFunctions())
			if err != nil {
				b.Fatal(err)
			}
			start := instance.ExportedFunction("_start")
			for b.Loop() {
				if _, err := start.Call(ctx); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/round")
		})
	}
}

// BenchmarkCall is a whole call: an empty memory, the module's start, an answer.
func BenchmarkCall(b *testing.B) {
	h, _ := begin(b, code("Content-Type: text/plain\n\nhello", say(1)...), system.Limits{})
	r := newRequest()
	for b.Loop() {
		if w := ask(h, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, x := range []int64{0, 1, 63, 64, -1, -64, -65, 1 << 40, -1 << 40} {
		r := &reader{b: signed(nil, x)}
		if r.skip(10); r.err != nil || !r.done() {
			t.Errorf("signed(%d) is %x, not read whole", x, r.b)
		}
	}
	for _, x := range []uint32{0, 127, 128, 1 << 31, 1<<32 - 1} {
		r := &reader{b: number(nil, x)}
		if got := r.u32(); got != x || r.err != nil {
			t.Errorf("u32(number(%d)) = %d, %v", x, got, r.err)
		}
	}
	if r := (&reader{b: binary.AppendUvarint(nil, 1<<33)}); r.u32() != 0 && r.err == nil {
		t.Error("a number above 2^32 is read")
	}
}
