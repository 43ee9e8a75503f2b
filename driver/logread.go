package driver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

// A record is one line of a log file: TIME STREAM TEXT, the time as RFC 3339 with nanoseconds in UTC.
// The text stands as the program wrote it; it holds no line feed.

func appendRecord(b []byte, line Line) []byte {
	b = line.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, line.Stream...)
	b = append(b, ' ')
	start := len(b)
	b = append(b, line.Text...)
	for i := start; i < len(b); i++ {
		if b[i] == '\n' {
			b[i] = ' ' // only our own lines could hold one
		}
	}
	return append(b, '\n')
}

// parseRecord reads a record without its line feed. What is no record is not ok: a crash of the machine
// may leave anything.
func parseRecord(b []byte) (line Line, ok bool) {
	stamp, rest, _ := bytes.Cut(b, []byte{' '})
	stream, text, found := bytes.Cut(rest, []byte{' '})
	if !found || len(text) > maxText {
		return Line{}, false
	}
	switch string(stream) {
	case Stdout, Stderr, Own:
	default:
		return Line{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Line{}, false
	}
	return Line{at.Local(), string(stream), string(text)}, true
}

// parseRecords reads the records of one file.
func parseRecords(b []byte) []Line {
	var lines []Line
	for record := range bytes.Lines(b) {
		if line, ok := parseRecord(bytes.TrimSuffix(record, []byte{'\n'})); ok {
			lines = append(lines, line)
		}
	}
	return lines
}

// ReadLog reads the n newest lines (negative: all) of the log whose newest file is path, oldest first.
// No file means no lines. It serves when the node that wrote them is gone.
func ReadLog(path string, n int) ([]Line, error) {
	var lines []Line
	for i, misses := 0, 0; misses < 2 && (n < 0 || len(lines) < n); i++ {
		b, err := os.ReadFile(numbered(path, i))
		if errors.Is(err, os.ErrNotExist) {
			misses++ // the log may be rotating: one file of the row is missing then
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		older := parseRecords(b)
		if len(lines) > 0 { // rotated between two looks: the same file twice
			older = slices.DeleteFunc(older, func(l Line) bool { return !l.Time.Before(lines[0].Time) })
		}
		lines = append(older, lines...)
	}
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return slices.Clip(lines), nil
}

// sentence makes a line of output fit into a sentence of ours: no control characters, not too long.
func sentence(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
	const most = 200
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
