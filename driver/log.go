package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Streams of a [Line].
const (
	Stdout = "stdout"
	Stderr = "stderr"
	Own    = "servent" // what we say about the instance
)

const (
	maxText     = 16 << 10  // bytes of one line; a longer one comes in pieces
	keptLines   = 512       // in memory,
	keptBytes   = 512 << 10 // and no more than this
	waitingSize = 1 << 20   // bytes on their way to the disk; what is more is counted as lost
)

// Line is one line of an instance's output. Times within one log grow strictly.
type Line struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // stdout, stderr, servent
	Text   string    `json:"text"`
}

// LogOptions of a [Log]. The zero value works.
type LogOptions struct {
	Size  int64 // bytes of one file; 0 means 1 MiB
	Files int   // kept in all; 0 means 4
}

// Log keeps the output of one instance: the newest lines in memory, more of them in a few files that
// rotate. Writing never waits for the disk: a full or slow one costs lines in the files, which are
// counted and told once. Its files can be read by [ReadLog] without it.
type Log struct {
	path string
	opts LogOptions

	mu      sync.Mutex // guards what follows; never held while a file is touched
	lines   []Line     // the newest, oldest first
	bytes   int        // of their texts
	seq     int        // number of the line after the newest
	last    time.Time  // of the newest
	changed chan struct{}
	waiting []byte // records for the disk
	flushed chan struct{}
	lost    int // lines that never reached the disk
	broken  bool
	closed  bool

	// Of the one flush that runs.
	file *os.File
	size int64
	torn bool // the last record is incomplete
}

// OpenLog opens the log whose newest file is path, and reads what an earlier one left. The folder is
// made when it is missing. A file that cannot be opened is no error: it is tried again with every line.
func OpenLog(path string, opts LogOptions) (*Log, error) {
	if opts.Size <= 0 {
		opts.Size = 1 << 20
	}
	if opts.Files <= 0 {
		opts.Files = 4
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	old, err := ReadLog(path, keptLines)
	if err != nil {
		return nil, err
	}
	l := &Log{path: path, opts: opts, changed: make(chan struct{}), torn: true}
	for _, line := range old {
		l.keep(line)
	}
	return l, nil
}

// Stream returns the writer of one stream. It splits into lines; Close passes on an unfinished one. It
// never fails and is for one goroutine.
func (l *Log) Stream(name string) io.WriteCloser { return &splitter{log: l, stream: name} }

type splitter struct {
	log    *Log
	stream string
	rest   []byte // an unfinished line
}

func (w *splitter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, after, whole := bytes.Cut(p, []byte{'\n'})
		if room := maxText - len(w.rest); len(line) > room {
			line, after, whole = p[:room], p[room:], true
		}
		w.rest, p = append(w.rest, line...), after
		if whole {
			w.pass()
		}
	}
	return n, nil
}

func (w *splitter) pass() {
	w.log.Add(w.stream, string(bytes.TrimSuffix(w.rest, []byte{'\r'})))
	w.rest = w.rest[:0]
}

func (w *splitter) Close() error {
	if len(w.rest) > 0 {
		w.pass()
	}
	return nil
}

// Add appends one line.
func (l *Log) Add(stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(stream, text)
}

func (l *Log) add(stream, text string) {
	if l.closed {
		return
	}
	text = text[:min(len(text), maxText)]
	now := time.Now().Round(0) // wall clock, as it will be read back
	if !now.After(l.last) {
		now = l.last.Add(1) // so that a time names a line
	}
	line := Line{now, stream, text}
	l.keep(line)
	if len(l.waiting) > waitingSize {
		l.lost++
		return
	}
	l.waiting = appendRecord(l.waiting, line)
	if l.flushed == nil {
		l.flushed = make(chan struct{})
		go l.flush(l.flushed)
	}
}

// keep puts a line into memory and wakes those who follow.
func (l *Log) keep(line Line) {
	l.lines, l.bytes = append(l.lines, line), l.bytes+len(line.Text)
	for len(l.lines) > keptLines || l.bytes > keptBytes {
		l.bytes -= len(l.lines[0].Text)
		l.lines[0] = Line{}
		l.lines = l.lines[1:]
	}
	l.seq++
	l.last = line.Time
	close(l.changed)
	l.changed = make(chan struct{})
}

// flush writes what waits until nothing does. One runs at a time; [Log.Close] waits for it.
func (l *Log) flush(done chan struct{}) {
	for {
		l.mu.Lock()
		batch := l.waiting
		l.waiting = nil
		if len(batch) == 0 {
			l.flushed = nil
			close(done)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		lost, err := l.store(batch)
		l.mu.Lock()
		l.lost += lost
		switch {
		case err != nil && !l.broken:
			l.broken = true
			l.keep(Line{l.last.Add(1), Own, "output is no longer kept on disk: " + err.Error()})
		case err == nil:
			l.broken = false
		}
		l.mu.Unlock()
	}
}

// store appends records to the file and rotates it when it is full. It returns how many were lost.
func (l *Log) store(batch []byte) (lost int, err error) {
	for len(batch) > 0 {
		if err := l.ready(); err != nil {
			return bytes.Count(batch, []byte{'\n'}), err
		}
		part := batch
		if room := max(l.opts.Size-l.size, 0); int64(len(part)) > room {
			if cut := bytes.LastIndexByte(part[:room], '\n'); cut >= 0 {
				part = part[:cut+1]
			} else if l.size > 0 {
				if err := l.rotate(); err != nil {
					return bytes.Count(batch, []byte{'\n'}), err
				}
				continue
			} else { // one record is larger than a file
				part = part[:bytes.IndexByte(part, '\n')+1]
			}
		}
		n, err := l.file.Write(part)
		l.size += int64(n)
		if err != nil {
			l.torn = true
			return bytes.Count(batch[n:], []byte{'\n'}), fmt.Errorf("write log: %w", err)
		}
		batch = batch[len(part):]
	}
	return 0, nil
}

// ready opens the file and ends a record that was cut off.
func (l *Log) ready() error {
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			f.Close()
			return fmt.Errorf("open log: %w", err)
		}
		l.file, l.size = f, size
	}
	if l.torn && l.size > 0 {
		if _, err := l.file.Write([]byte{'\n'}); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
		l.size++
	}
	l.torn = false
	return nil
}

// rotate renames path → path.1 → path.2 …; the oldest goes.
func (l *Log) rotate() error {
	err := l.file.Close()
	l.file, l.size = nil, 0
	for n := l.opts.Files - 1; n >= 1 && err == nil; n-- {
		if err = os.Rename(numbered(l.path, n-1), numbered(l.path, n)); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if l.opts.Files == 1 && err == nil {
		err = os.Remove(l.path)
	}
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return nil
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}

// Lost says how many lines never reached the disk.
func (l *Log) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Close takes no more lines, waits until the disk has what it can take, and ends all [Log.Follow].
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.mu.Unlock()
	l.settle()
	l.mu.Lock()
	file := l.file
	l.file = nil
	l.mu.Unlock()
	if file == nil {
		return nil
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// settle waits until no flush runs.
func (l *Log) settle() {
	l.mu.Lock()
	flushed := l.flushed
	l.mu.Unlock()
	if flushed != nil {
		<-flushed
	}
}

// Tail returns the n newest lines, oldest first; a negative n means all that are kept. More than
// memory holds are read from the files.
func (l *Log) Tail(n int) []Line {
	lines, _ := l.tail(n)
	return lines
}

// tail also returns the number of the line after them.
func (l *Log) tail(n int) ([]Line, int) {
	l.mu.Lock()
	lines, seq := append([]Line(nil), l.lines...), l.seq
	l.mu.Unlock()
	if n >= 0 && n <= len(lines) {
		return lines[len(lines)-n:], seq
	}
	l.settle()
	stored, err := ReadLog(l.path, -1)
	if err != nil {
		stored = nil // memory is the answer; the disk's trouble was told
	}
	older := 0
	for older < len(stored) && (len(lines) == 0 || stored[older].Time.Before(lines[0].Time)) {
		older++
	}
	if seq == 0 {
		older = 0 // what came between our two looks is for those who follow
	}
	lines = append(stored[:older:older], lines...)
	if n >= 0 && n < len(lines) {
		lines = lines[len(lines)-n:]
	}
	return lines, seq
}

// Follow calls fn with the n newest lines (negative: all that are kept) and then with every new one,
// until ctx ends or the log is closed (nil), or fn fails (its error). Who is slower than the output
// misses lines; a line of stream servent says how many.
func (l *Log) Follow(ctx context.Context, n int, fn func(Line) error) error {
	lines, next := l.tail(n)
	for {
		for _, line := range lines {
			if ctx.Err() != nil {
				return nil
			}
			if err := fn(line); err != nil {
				return err
			}
		}
		var changed chan struct{}
		var closed bool
		lines, next, changed, closed = l.after(next)
		if len(lines) > 0 {
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// after returns the lines from number seq on, and what to wait for when there are none.
func (l *Log) after(seq int) (lines []Line, next int, changed chan struct{}, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.seq - len(l.lines)
	if missed := first - seq; missed > 0 {
		lines = append(lines, Line{l.lines[0].Time, Own, fmt.Sprintf("%d lines missed: the reader is slower than the output", missed)})
		seq = first
	}
	return append(lines, l.lines[seq-first:]...), l.seq, l.changed, l.closed
}

// lastWords is the newest line that says something since then, of stderr before stdout.
func (l *Log) lastWords(since time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := ""
	for i := len(l.lines) - 1; i >= 0 && !l.lines[i].Time.Before(since.Round(0)); i-- {
		line := l.lines[i]
		switch text := sentence(line.Text); {
		case text == "":
		case line.Stream == Stderr:
			return text
		case line.Stream == Stdout && said == "":
			said = text
		}
	}
	return said
}
