package address

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Semantics is what a stub promises when it gets no answer: how often was the call done?
type Semantics string

const (
	// AtMostOnce tries again under the same request ID: the server knows it and repeats its answer. With
	// an answer the call was done exactly once; without one, once or not at all. A server that lost its
	// memory between two tries breaks the promise.
	AtMostOnce Semantics = "at-most-once"
	// AtLeastOnce tries again as if for the first time: with an answer the call was done once or more.
	// Good for calls that may be done twice, such as lookup; an insert leaves its address there twice.
	AtLeastOnce Semantics = "at-least-once"
	// Maybe tries once: without an answer the caller must find out by itself.
	Maybe Semantics = "maybe"
)

const pause = 100 * time.Millisecond // after the first try that found nobody; doubled after each, up to 3.2s

// Client is the stub. Each call opens a connection of its own; a Client may be used by many goroutines.
type Client struct {
	Address   string        // host:port of the server
	Semantics Semantics     // empty means AtMostOnce
	Timeout   time.Duration // of one try; 0 means 1s
	Retries   int           // tries after the first; 0 means 2, negative none

	// Dial opens a connection; nil means TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Insert adds an address to a name. When [Unknown] says so of its error, it may have been added.
func (c *Client) Insert(ctx context.Context, name, address string) error {
	_, err := c.call(ctx, request{Call: "insert", Name: name, Address: address})
	return err
}

// Delete removes a name and returns the addresses that it had, or ErrMissing.
func (c *Client) Delete(ctx context.Context, name string) ([]string, error) {
	return c.call(ctx, request{Call: "delete", Name: name})
}

// Lookup returns a name's addresses in the order of their insertion, or ErrMissing.
func (c *Client) Lookup(ctx context.Context, name string) ([]string, error) {
	return c.call(ctx, request{Call: "lookup", Name: name})
}

// Stop ends the server. Tried again after it was done it finds nobody, and says ErrTimeout or ErrLost all the same.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.call(ctx, request{Call: "stop"})
	return err
}

// call tries until there is an answer. The error of a call that was perhaps done stays, whatever later
// tries say: "not reached" of the second does not mean that the first did nothing.
func (c *Client) call(ctx context.Context, req request) ([]string, error) {
	tries := 3
	switch {
	case c.Semantics == Maybe || c.Retries < 0:
		tries = 1
	case c.Retries > 0:
		tries = 1 + c.Retries
	}
	var worst error
	for i := range tries {
		if worst != nil && ctx.Err() != nil {
			break
		}
		if i == 0 || c.Semantics == AtLeastOnce {
			req.ID = rand.Text()
		}
		rep, err := c.try(ctx, req)
		if err == nil {
			if err := rep.err(); err != nil {
				return nil, fmt.Errorf("%s: %w", req, err)
			}
			return rep.Addresses, nil
		}
		if worst == nil || !Unknown(worst) {
			worst = err
		}
		if i == tries-1 || !errors.Is(err, ErrUnreachable) {
			continue // a time-out has waited long enough
		}
		select {
		case <-time.After(pause << min(i, 5)):
		case <-ctx.Done():
		}
	}
	return nil, fmt.Errorf("%s at %s: %w", req, c.Address, worst)
}

// try sends req once and waits for its reply.
func (c *Client) try(ctx context.Context, req request) (*reply, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	conn, err := dial(ctx, c.Address)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	defer conn.Close()
	release := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer release()

	// From here on the request may be on its way: whatever happens, it may have been done.
	if err := writeLine(conn, req); err != nil {
		return nil, unanswered(err)
	}
	in := lines(conn)
	for in.Scan() {
		rep := &reply{}
		if err := json.Unmarshal(in.Bytes(), rep); err != nil {
			return nil, unanswered(err)
		}
		if rep.ID == req.ID || rep.ID == "" && rep.Error != "" { // a refused line has no ID
			return rep, nil
		}
	}
	return nil, unanswered(in.Err())
}

// unanswered tells the two ways apart in which an answer can fail to come.
func unanswered(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	case err == nil:
		err = io.EOF
	}
	return fmt.Errorf("%w (%w)", ErrLost, err)
}
