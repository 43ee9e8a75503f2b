//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
	"servent/driver/wasm"
	"servent/system"
)

// attacks are bodies of a module's one function; 1 is the function itself.
var attacks = []struct {
	name   string
	body   []byte
	limits system.Limits
}{
	{"loops for ever, 100 ms a call", []byte{0x03, 0x40, 0x0c, 0, 0x0b}, system.Limits{Timeout: 100 * time.Millisecond}},
	{"loops for ever, 10⁷ instructions a call", []byte{0x03, 0x40, 0x0c, 0, 0x0b}, system.Limits{Fuel: 1e7}},
	{"recurses for ever", []byte{0x10, 1}, system.Limits{}},
	{"asks for all memory, 64 MiB at the most", []byte{0x03, 0x40, 0x41, 1, 0x40, 0, 0x1a, 0x0c, 0, 0x0b}, system.Limits{Fuel: 1e6, Resources: system.Resources{Memory: 64 << 20}}},
	{"floods its log", []byte{0x03, 0x40, 0x41, 2, 0x41, 0, 0x41, 1, 0x41, 0x38, 0x10, 0, 0x1a, 0x0c, 0, 0x0b}, system.Limits{Fuel: 1e5}},
}

const pressure = 4 // callers of a hostile module, all the time

// hostile has modules that take what they can called without a pause while a neighbour answers one client, and sets that beside the same
// client alone, in turns.
func hostile(d *wasm.Driver, dir string) error {
	at := func(name string, module []byte, l system.Limits) (http.Handler, error) {
		if err := os.WriteFile(filepath.Join(dir, name), module, 0o600); err != nil {
			return nil, err
		}
		p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Wasm, From: name}, Dir: dir})
		if err != nil {
			return nil, err
		}
		i, err := p.Start(context.Background(), driver.Spec{Instance: "fn/1", Limits: l})
		if err != nil {
			return nil, err
		}
		return i.Endpoint().Handler, nil
	}
	neighbour, err := at("neighbour.wasm", small("_start"), system.Limits{})
	if err != nil {
		return err
	}
	fair := min(1, float64(runtime.GOMAXPROCS(0))/(pressure+1))
	fmt.Printf("\n## Neighbours of hostile modules\n\nOne client of the smallest module, alone and while %d callers call a hostile one without a pause, in %d turns of %v: its rate as a share of that alone (median, least to greatest), of which %.0f %% would be a fair share of %d processors; and the 99th percentile of its calls (median of the turns, least to greatest).\n\n", pressure, rounds, each, 100*fair, runtime.GOMAXPROCS(0))
	fmt.Println("| a module that | share of its rate alone | of a fair share | p99 µs alone | p99 µs meanwhile | hostile calls ended by a bound |\n|---|---|---|---|---|---|")
	for n, a := range attacks {
		bad, err := at(fmt.Sprintf("hostile-%d.wasm", n), does(a.body), a.limits)
		if err != nil {
			return err
		}
		var shares, alone, meanwhile []float64
		var ended atomic.Int64
		for range rounds {
			was, p99 := load1(neighbour)
			alone = append(alone, p99)
			stop := make(chan struct{})
			var callers sync.WaitGroup
			for range pressure {
				callers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						w := httptest.NewRecorder()
						bad.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
						if w.Code >= 500 {
							ended.Add(1)
						}
					}
				})
			}
			rate, p99 := load1(neighbour)
			close(stop)
			callers.Wait()
			shares, meanwhile = append(shares, rate/was), append(meanwhile, p99)
		}
		share := middleOf(shares)
		fmt.Printf("| %s | %s | **%.2f** | %s | %s | %d |\n", a.name, spreadOf(shares, "%.2f"), share/fair, spreadOf(alone, "%.0f"), spreadOf(meanwhile, "%.0f"), ended.Load())
	}
	return nil
}

// load1 is one client for as long as a turn: its calls a second, and the 99th percentile in microseconds.
func load1(h http.Handler) (rate, p99 float64) {
	var took []time.Duration
	began := time.Now()
	for time.Since(began) < each {
		at := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code == http.StatusOK {
			took = append(took, time.Since(at))
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0, micro(each)
	}
	return float64(len(took)) / time.Since(began).Seconds(), micro(took[len(took)*99/100])
}

func middleOf(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return s[len(s)/2]
}

func spreadOf(all []float64, form string) string {
	s := slices.Sorted(slices.Values(all))
	return fmt.Sprintf(form+" ("+form+"–"+form+")", s[len(s)/2], s[0], s[len(s)-1])
}

// does is a module whose _start is a body; it may call fd_write as 0 and itself as 1.
func does(body []byte) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	code := append(append([]byte{0}, body...), 0x0b)
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0),
		section(2, slices.Concat([]byte{1, 22}, []byte("wasi_snapshot_preview1"), []byte{8}, []byte("fd_write"), []byte{0, 0})...),
		section(3, 1, 1),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2, 6}, []byte("memory"), []byte{2, 0, 6}, []byte("_start"), []byte{0, 1})...),
		section(10, append([]byte{1, byte(len(code))}, code...)...),
		section(11, 1, 0, 0x41, 0, 0x0b, 14, 8, 0, 0, 0, 6, 0, 0, 0, 'l', 'o', 'r', 'e', 'm', '\n'))
}
