package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func openLog(t *testing.T, path string, opts LogOptions) *Log {
	t.Helper()
	l, err := OpenLog(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func texts(lines []Line) []string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return all
}

func numbers(from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint("line ", i))
	}
	return all
}

func TestLinesAreSplit(t *testing.T) {
	long := strings.Repeat("x", maxText)
	for _, tt := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"one", []string{"a\n"}, []string{"a"}},
		{"in pieces", []string{"a", "b", "c\nd\n", "e"}, []string{"abc", "d", "e"}},
		{"empty lines", []string{"\n\na\n"}, []string{"", "", "a"}},
		{"carriage return", []string{"a\r\nb\rc\r\n"}, []string{"a", "b\rc"}},
		{"no text", []string{"\x00\xff\x1b[1m\n"}, []string{"\x00\xff\x1b[1m"}},
		{"long", []string{long + "yz\n"}, []string{long, "yz"}},
		{"long in pieces", []string{long[:10000], long[10000:] + long, "\n"}, []string{long, long}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.log")
			l := openLog(t, path, LogOptions{})
			w := l.Stream(Stdout)
			for _, s := range tt.writes {
				if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
					t.Fatalf("Write() = %d, %v", n, err)
				}
			}
			w.Close()
			if diff := cmp.Diff(tt.want, texts(l.Tail(-1))); diff != "" {
				t.Error("in memory: ", diff)
			}
			l.Close()
			stored, err := ReadLog(path, -1)
			if diff := cmp.Diff(tt.want, texts(stored)); diff != "" || err != nil {
				t.Error("on disk: ", err, diff)
			}
		})
	}
}

// TestSplitterAgainstStrings compares with strings.Split for every way to cut the output.
func TestSplitterAgainstStrings(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		l, err := OpenLog(filepath.Join(dir, "never", "a.log"), LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(filepath.Join(dir, "never"))
		defer l.Close()
		w, all := l.Stream(Stderr), ""
		for _, part := range rapid.SliceOf(rapid.StringMatching(`[ab\n]{0,5}`)).Draw(t, "writes") {
			w.Write([]byte(part))
			all += part
		}
		w.Close()
		want := strings.Split(strings.TrimSuffix(all, "\n"), "\n")
		if all == "" {
			want = nil
		}
		want = want[max(0, len(want)-keptLines):]
		if diff := cmp.Diff(want, texts(l.Tail(keptLines))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRotationKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	l := openLog(t, path, LogOptions{Size: 4 << 10, Files: 3})
	const n = 5000
	for i := range n {
		l.Add(Stdout, fmt.Sprint("line ", i))
		if i%50 == 0 {
			l.settle()
		}
	}
	l.settle()
	got := texts(l.Tail(-1))
	if diff := cmp.Diff(numbers(n-len(got), n), got); diff != "" {
		t.Errorf("Tail(-1) is not the end of what was written: %s", diff)
	}
	if l.Lost() != 0 {
		t.Errorf("%d lines lost", l.Lost())
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Size() > 4<<10 {
			t.Errorf("%s has %d bytes, want at most 4096", f.Name(), info.Size())
		}
	}
}

func TestTailReadsTheFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	l := openLog(t, path, LogOptions{})
	for i := range 2000 {
		l.Add(Stdout, fmt.Sprint("line ", i))
	}
	for _, n := range []int{0, 1, keptLines, keptLines + 1, 1999, 2000, 2001, -1} {
		want := numbers(max(0, 2000-n), 2000)
		if n < 0 {
			want = numbers(0, 2000)
		}
		if diff := cmp.Diff(want, texts(l.Tail(n))); diff != "" {
			t.Errorf("Tail(%d): %s", n, diff)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "a.log"), LogOptions{})
	text := strings.Repeat("x", 2*maxText)
	for range 200 {
		l.Add(Stdout, text)
	}
	if l.bytes > keptBytes || len(l.lines) != keptBytes/maxText {
		t.Errorf("%d bytes in %d lines, want at most %d", l.bytes, len(l.lines), keptBytes)
	}
}

func TestLogOutlivesItsNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "a.log")
	first := openLog(t, path, LogOptions{})
	first.Add(Stdout, "before")
	first.Add(Stderr, "trouble")
	want := first.Tail(-1)
	first.settle() // and no Close: the node was killed
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "2026-01-02T15:04") // in the middle of a line
	f.Close()

	got, err := ReadLog(path, -1)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	second := openLog(t, path, LogOptions{})
	second.Add(Stdout, "after")
	second.settle()
	if diff := cmp.Diff([]string{"before", "trouble", "after"}, texts(second.Tail(-1))); diff != "" {
		t.Error(diff)
	}
	stored, err := ReadLog(path, 2)
	if diff := cmp.Diff([]string{"trouble", "after"}, texts(stored)); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /dev/full")
	}
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	l := &Log{path: path, opts: LogOptions{Size: 1 << 20, Files: 4}, changed: make(chan struct{})}
	for i := range 100 {
		l.Add(Stdout, fmt.Sprint("line ", i))
		l.settle()
	}
	told := 0
	for _, line := range l.Tail(101) { // from memory: /dev/full has no end
		if line.Stream == Own && strings.Contains(line.Text, "no space left on device") {
			told++
		}
	}
	if told != 1 || l.Lost() != 100 {
		t.Errorf("told %d times that %d lines are lost, want once and 100", told, l.Lost())
	}
	// Room again.
	l.settle()
	l.file.Close()
	l.file = nil
	os.Remove(path)
	l.Add(Stdout, "again")
	l.Close()
	stored, err := ReadLog(path, -1)
	if diff := cmp.Diff([]string{"again"}, texts(stored)); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestASlowDiskIsNotWaitedFor(t *testing.T) {
	l := &Log{path: filepath.Join(t.TempDir(), "a.log"), opts: LogOptions{Size: 1 << 20, Files: 4}, changed: make(chan struct{})}
	l.flushed = make(chan struct{}) // a flush that hangs
	text := strings.Repeat("x", 10000)
	for range 300 {
		l.Add(Stdout, text)
	}
	if l.Lost() == 0 || len(l.waiting) > waitingSize+2*maxText {
		t.Errorf("%d lines lost, %d bytes wait; want a bound", l.Lost(), len(l.waiting))
	}
	if n := len(l.Tail(10)); n != 10 {
		t.Errorf("Tail(10) has %d lines", n)
	}
}

func TestFollow(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "a.log"), LogOptions{})
	for i := range 5 {
		l.Add(Stdout, fmt.Sprint("line ", i))
	}
	got := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(ctx, 2, func(line Line) error { got <- line.Text; return nil })
	}()
	for i := 3; i < 10; i++ {
		if i >= 5 {
			l.Add(Stderr, fmt.Sprint("line ", i))
		}
		if text, want := <-got, fmt.Sprint("line ", i); text != want {
			t.Errorf("followed %q, want %q", text, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Follow() = %v after its context ended, want nil", err)
	}
	stop := errors.New("enough")
	if err := l.Follow(t.Context(), 1, func(Line) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Follow() = %v, want the error of its function", err)
	}
	go func() { done <- l.Follow(t.Context(), 0, func(Line) error { return nil }) }()
	l.Close()
	if err := <-done; err != nil {
		t.Errorf("Follow() = %v after Close, want nil", err)
	}
}

func TestFollowCountsWhatItMisses(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "a.log"), LogOptions{})
	l.Add(Stdout, "line 0")
	var got []string
	err := l.Follow(t.Context(), 1, func(line Line) error {
		if len(got) == 0 { // slower than the output
			for i := range 3 * keptLines {
				l.Add(Stdout, fmt.Sprint("line ", i+1))
			}
			l.Close()
		}
		got = append(got, line.Text)
		return nil
	})
	want := append([]string{"line 0", fmt.Sprintf("%d lines missed: the reader is slower than the output", 2*keptLines)},
		numbers(2*keptLines+1, 3*keptLines+1)...)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestLastWords(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "a.log"), LogOptions{})
	l.Add(Stderr, "of an earlier life")
	since := time.Now()
	l.last = since
	if got := l.lastWords(since.Add(1)); got != "" {
		t.Errorf("lastWords() = %q, want none", got)
	}
	l.Add(Stdout, "hello")
	l.Add(Own, "started")
	if got := l.lastWords(since); got != "hello" {
		t.Errorf("lastWords() = %q, want hello", got)
	}
	l.Add(Stderr, "  no\x1b database "+strings.Repeat("x", 300))
	l.Add(Stderr, "")
	if got, want := l.lastWords(since), "no  database "+strings.Repeat("x", 187)+"…"; got != want {
		t.Errorf("lastWords() = %q, want %q", got, want)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("2026-01-02T15:04:05.000000001Z stdout hello world\n"))
	f.Add([]byte("2026-01-02T15:04:05Z stderr \n2026-01-02T15:04:06Z servent x"))
	f.Add([]byte("\x00\n\n 2026 stdout\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines := parseRecords(b)
		var again []byte
		for _, l := range lines {
			if len(l.Text) > maxText || strings.Contains(l.Text, "\n") {
				t.Fatalf("text of %d bytes: %.40q", len(l.Text), l.Text)
			}
			again = appendRecord(again, l)
		}
		if diff := cmp.Diff(lines, parseRecords(again)); diff != "" {
			t.Error(diff)
		}
	})
}
