// Package accesslog reads the access log of a web server as requests that can be sent again: when, which
// method, which path. It takes the combined and the common format of Apache and nginx, and JSON lines; each line
// may be either. What a line says of the client, the answer and the browser is not read. Start at [Read].
package accesslog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"servent/lab/load"
)

// Options of [Read]. The zero value takes GET and HEAD.
type Options struct {
	Name   string // of the file, for errors
	Unsafe bool   // take all methods: PUT, POST, DELETE, … change what they reach
}

// Log is what was read.
type Log struct {
	Requests []load.Recorded // in the order of their moments, the first at 0
	Skipped  int             // requests with methods that were not taken
	Bad      int             // lines that are no request
	Mistakes []string        // the first of them: access.log:7: want …
}

const (
	requestsMost = 1_000_000 // what is read is held: some 100 bytes each
	lineMost     = 64 << 10  // bytes
	mistakesMost = 3         // that are told
)

// entry is one line.
type entry struct {
	at           time.Time
	whole        bool // its time has no fraction of a second
	method, path string
}

// Read reads a log to its end. Lines that are no request are counted, and the first of them named; it fails when
// no request is left, or there are more than a million. Servers write a line when the answer is done, and most
// with the second alone: so the requests are put in the order of their moments, and those of one whole second
// are spread over it evenly.
func Read(r io.Reader, o Options) (*Log, error) { return read(r, o, requestsMost) }

func read(r io.Reader, o Options, most int) (*Log, error) {
	var all []entry
	log := &Log{}
	lines := lines{rd: bufio.NewReaderSize(r, lineMost)}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		var e entry
		if err == nil {
			if len(line) == 0 {
				continue
			}
			e, err = parse(line)
		} else if !errors.Is(err, errLong) {
			return nil, fmt.Errorf("read %s: %w", o.Name, err)
		}
		switch {
		case err != nil:
			if log.Bad++; len(log.Mistakes) < mistakesMost {
				log.Mistakes = append(log.Mistakes, fmt.Sprintf("%s:%d: %v", o.Name, lines.number, err))
			}
		case !o.Unsafe && e.method != "GET" && e.method != "HEAD":
			log.Skipped++
		case len(all) == most:
			return nil, fmt.Errorf("%s: more than %d requests: cut a part out", o.Name, most)
		default:
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		err := fmt.Errorf("%s: no request to send: %d skipped for their method, %d lines are no request", o.Name, log.Skipped, log.Bad)
		if log.Bad > 0 {
			err = fmt.Errorf("%w, the first: %s", err, log.Mistakes[0])
		}
		return log, err
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	spread(all)
	first := all[0].at
	for _, e := range all {
		log.Requests = append(log.Requests, load.Recorded{At: e.at.Sub(first), Method: e.method, Path: e.path})
	}
	return log, nil
}

// spread puts the requests of one second, if that is all that is known, at even distances into it. They are
// sorted.
func spread(all []entry) {
	for i := 0; i < len(all); {
		n := 1
		for all[i].whole && i+n < len(all) && all[i+n].whole && all[i+n].at.Equal(all[i].at) {
			n++
		}
		for k := range n {
			all[i+k].at = all[i+k].at.Add(time.Duration(k) * time.Second / time.Duration(n))
		}
		i += n
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) }) // where the precision is mixed
}

// errLong: a line is too long to be a request.
var errLong = fmt.Errorf("the line is longer than %d bytes", lineMost)

// lines cuts a log at its ends of lines.
type lines struct {
	rd     *bufio.Reader
	number int
}

// next is the next line without its end, valid until the one after. Of one that is too long the rest is
// skipped.
func (l *lines) next() ([]byte, error) {
	line, err := l.rd.ReadSlice('\n')
	l.number++
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.rd.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, errLong
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return nil, err
	}
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line, nil
}
