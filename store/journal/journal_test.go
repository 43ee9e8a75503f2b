package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, file string) *Journal {
	t.Helper()
	j, err := Open(file, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What was appended is there in order after the file was opened again, and runs that did not end are known.
func TestJournal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j")
	j := open(t, file)
	for _, run := range []string{"a", "a1", "b"} { // one name begins with another
		got, err := j.Begin(run, "key "+run, []byte("begin "+run))
		if must(t, err); got != run {
			t.Errorf("began %s, want %s", got, run)
		}
	}
	if got, err := j.Begin("c", "key b", []byte("again")); err != nil || got != "b" {
		t.Errorf("a key that began b began %s, %v", got, err)
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if err := j.Append("b", fmt.Appendf(nil, "%02d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, j.End("a", []byte("end a")))
	must(t, j.Close())
	j = open(t, file)
	if got, err := j.Entries("a"); err != nil || fmt.Sprintf("%s", got) != "[begin a end a]" {
		t.Errorf("entries %s, %v", got, err)
	}
	if got, err := j.Entries("b"); err != nil || len(got) != 51 || string(got[0]) != "begin b" {
		t.Errorf("%d entries, %v", len(got), err)
	}
	if got, err := j.Open(); err != nil || !slices.Equal(got, []string{"a1", "b"}) {
		t.Errorf("open: %v, %v", got, err)
	}
	if got, err := j.Last(2); err != nil || !slices.Equal(got, []string{"b", "a1"}) {
		t.Errorf("last: %v, %v", got, err)
	}
	if _, err := j.Entries("c"); !errors.Is(err, ErrNoRun) {
		t.Errorf("entries of nothing: %v", err)
	}
	if err := j.Append("c", nil); !errors.Is(err, ErrNoRun) {
		t.Errorf("append to nothing: %v", err)
	}
	if _, err := Open(file, 20*time.Millisecond); err == nil {
		t.Error("one file was opened twice")
	}
}

// Old runs that ended are forgotten with their keys; those that are open stay.
func TestTrim(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j"))
	for i := range 10 {
		run := fmt.Sprintf("r%d", i)
		_, err := j.Begin(run, run, []byte("begin"))
		must(t, err)
		if i != 2 {
			must(t, j.End(run, []byte("end")))
		}
	}
	if n, err := j.Trim(4, 100); err != nil || n != 5 {
		t.Errorf("trimmed %d, %v; want the six oldest but the open one", n, err)
	}
	if got, _ := j.Last(100); !slices.Equal(got, []string{"r9", "r8", "r7", "r6", "r2"}) {
		t.Errorf("left: %v", got)
	}
	if _, err := j.Entries("r0"); !errors.Is(err, ErrNoRun) {
		t.Errorf("entries of a forgotten run: %v", err)
	}
	if got, err := j.Begin("s", "r0", []byte("begin")); err != nil || got != "s" {
		t.Errorf("a forgotten key began %s, %v", got, err)
	}
}
