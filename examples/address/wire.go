// Package address is exercise 1 of the course: a server that keeps addresses by name, with insert,
// delete, lookup and stop, and a stub for its clients. A call looks like a function, but it can end in
// a way that no function knows: no answer in time, and so nobody knows whether it was done. [Semantics]
// lists what a stub can make of that. Start at [Client], then [Server].
package address

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// One request and one reply are one line of JSON each.
type (
	request struct {
		ID      string `json:"id"`   // the same for every try of one call, when the server shall notice
		Call    string `json:"call"` // insert, delete, lookup, stop
		Name    string `json:"name,omitempty"`
		Address string `json:"address,omitempty"` // of insert
	}
	reply struct {
		ID        string   `json:"id"`
		Addresses []string `json:"addresses,omitempty"` // found by lookup, removed by delete
		Error     string   `json:"error,omitempty"`     // missing, refused
		Detail    string   `json:"detail,omitempty"`    // in words
	}
)

const longest = 4096 // bytes of a line

// How a call can fail. The first two say what the caller must think of: see [Unknown].
var (
	ErrTimeout     = errors.New("no answer in time: it may have been done or not, or may be done yet")
	ErrLost        = errors.New("the connection broke before the answer: it may have been done or not")
	ErrUnreachable = errors.New("the server was not reached: nothing was done")
	ErrMissing     = errors.New("no such name")
	ErrRefused     = errors.New("refused")
)

// String is the call as an error names it.
func (r request) String() string { return strings.TrimSpace(r.Call + " " + r.Name) }

// Unknown says that after err nobody knows whether the call was done.
func Unknown(err error) bool { return errors.Is(err, ErrTimeout) || errors.Is(err, ErrLost) }

// err is the reply's error as the caller of a stub sees it.
func (r *reply) err() error {
	switch r.Error {
	case "":
		return nil
	case "missing":
		return fmt.Errorf("%w (%s)", ErrMissing, r.Detail)
	default:
		return fmt.Errorf("%w (%s)", ErrRefused, r.Detail)
	}
}

// lines reads lines of at most longest bytes.
func lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 512), longest)
	return s
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
