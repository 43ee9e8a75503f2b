//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"

	"servent/driver"
	"servent/driver/wasm"
	"servent/system"
)

const crowd = 2000 // idle instances

// idle measures in a process of its own what instances take that wait for a call: it starts a crowd of them, calls each once, and
// prints the bytes resident before and after, and the most there ever were.
func idle(file string) error {
	ctx := context.Background()
	p, err := wasm.New(wasm.Options{}).Prepare(ctx, driver.Artifact{Software: system.Software{Kind: system.Wasm, From: filepath.Base(file)}, Dir: filepath.Dir(file)})
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	before := memory("VmRSS")
	for n := range crowd {
		i, err := p.Start(ctx, driver.Spec{Instance: system.Instance("fn", n+1)})
		if err != nil {
			return err
		}
		w := httptest.NewRecorder()
		i.Endpoint().Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if st, err := i.Stats(ctx); w.Code != http.StatusOK || err != nil || st.Idle != 1 {
			return fmt.Errorf("instance %d: answer %d, %+v, %w", n+1, w.Code, st, err)
		}
		kept = append(kept, i)
	}
	debug.FreeOSMemory()
	fmt.Println(before, memory("VmRSS"), memory("VmHWM"))
	return nil
}

var kept []driver.Instance // until they are measured

// memory reads bytes of /proc/self/status; 0 where there is none.
func memory(field string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}
