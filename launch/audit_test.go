package launch

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// What was done is all written down; refusals only as many as strangers may make, with their number, so that they wash nothing away.
func TestAuditFlood(t *testing.T) {
	clock := time.Unix(1e9, 0)
	a := &audit{file: filepath.Join(t.TempDir(), "audit.log"), log: slog.New(slog.DiscardHandler), now: func() time.Time { return clock }}
	for range 3 * refusedBurst {
		a.write(system.Act{What: "join", Who: "token x", From: "192.0.2.1:1", Why: "no"})
		a.write(system.Act{What: "token", Who: "admin door"})
	}
	acts, err := a.acts(0)
	if err != nil {
		t.Fatal(err)
	}
	done, refused, counted := 0, 0, 0
	for _, act := range acts {
		switch {
		case act.Why == "":
			done++
		case act.Who == severalMore:
			counted++
		default:
			refused++
		}
	}
	if done != 3*refusedBurst || refused != refusedBurst || counted == 0 {
		t.Errorf("written down: %d acts, %d refusals, %d words of others; want %d, %d, some", done, refused, counted, 3*refusedBurst, refusedBurst)
	}
	clock = clock.Add(refusedEvery)
	a.write(system.Act{What: "join", Why: "later"})
	if acts, err = a.acts(1); err != nil || len(acts) != 1 || acts[0].Why != "later" {
		t.Errorf("after a while: %v, %v", acts, err)
	}
}

// Whatever stands in the file, each of its lines is shown as one act, or the reading fails.
func FuzzReadActs(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-26T16:20:03Z","what":"join","who":"token x","from":"192.0.2.1:1","of":"b","why":"no"}` + "\n" + `{"time":"20`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		acts, err := readActs(path)
		lines := 0
		for range bytes.Lines(text) {
			lines++
		}
		if err == nil && len(acts) != lines {
			t.Errorf("%d acts of %d lines", len(acts), lines)
		}
	})
}

// The last acts are read across files; a line that the power cut off is shown as that.
func TestAuditRead(t *testing.T) {
	a := &audit{file: filepath.Join(t.TempDir(), "audit.log"), log: slog.New(slog.DiscardHandler)}
	if acts, err := a.acts(5); err != nil || len(acts) != 0 || acts == nil {
		t.Errorf("of nothing: %v, %v", acts, err)
	}
	pad := strings.Repeat("x", 1<<19)
	for i := range 40 { // 20 MiB: three files
		a.write(system.Act{What: "token", Of: pad, Who: string(rune('A' + i))})
	}
	if _, err := os.Stat(a.older(2)); err != nil {
		t.Errorf("the second file: %v", err)
	}
	acts, err := a.acts(0)
	if err != nil || len(acts) != 40 || acts[0].Who != "A" || acts[39].Who != string(rune('A'+39)) {
		t.Errorf("%d acts, %v", len(acts), err)
	}
	f, err := os.OpenFile(a.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteString(`{"time":"20` + "\n"); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write(system.Act{What: "leave"})
	if acts, err = a.acts(2); err != nil || len(acts) != 2 || acts[0].What != torn || acts[1].What != "leave" {
		t.Errorf("with a torn line: %v, %v", acts, err)
	}
}
