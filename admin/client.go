package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"servent/placement"
	"servent/system"
)

var (
	// ErrNotRunning: nobody answers at the door.
	ErrNotRunning = errors.New("nothing runs here")
	// ErrEnded: the system went while it was watched.
	ErrEnded = errors.New("the system ended")
)

// Client speaks to a [Door].
type Client struct {
	base string
	http *http.Client
	auth string
	away func(error) error // what to say when nobody answers; nil: [ErrNotRunning]
}

// Dial makes a client of a door on a unix socket (socket not empty) or on a loopback port with a token.
func Dial(socket, url, token string) *Client {
	if socket == "" {
		return &Client{base: strings.TrimSuffix(url, "/"), http: &http.Client{Transport: &http.Transport{}}, auth: "Bearer " + token} // no proxy
	}
	return &Client{base: "http://localhost", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Over makes a client of a door that answers below a URL, over a transport that knows who answers. away makes the error of nobody answering
// one that says who does not.
func Over(rt http.RoundTripper, base string, away func(error) error) *Client {
	return &Client{base: base, http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, away: away}
}

// State returns the system as it is.
func (c *Client) State(ctx context.Context) (s State, err error) {
	return s, c.do(ctx, http.MethodGet, "/v1/state", nil, &s)
}

// Watch calls each at every change until it fails, ctx ends (its error), or the system does ([ErrEnded]).
func (c *Client) Watch(ctx context.Context, each func(State) error) error {
	return ended(lines(ctx, c, "/v1/watch", each))
}

// Want makes a system what is wanted. After it, no state is of what was wanted before.
func (c *Client) Want(ctx context.Context, sys *system.System) error {
	return c.do(ctx, http.MethodPut, "/v1/wanted", sys, nil)
}

// Stop ends the system; with volumes also its data.
func (c *Client) Stop(ctx context.Context, volumes bool) error {
	return c.do(ctx, http.MethodDelete, "/v1/wanted?volumes="+strconv.FormatBool(volumes), nil, nil)
}

// Scale sets numbers of instances.
func (c *Client) Scale(ctx context.Context, counts map[system.ServiceName]int) error {
	return c.do(ctx, http.MethodPost, "/v1/scale", counts, nil)
}

// Restart restarts a service, without a failed request, or a node.
func (c *Client) Restart(ctx context.Context, what string) error {
	return c.do(ctx, http.MethodPost, "/v1/restart?what="+url.QueryEscape(what), nil, nil)
}

// Plan says what would change if the system were wanted.
func (c *Client) Plan(ctx context.Context, sys *system.System) (ls []placement.Line, err error) {
	return ls, c.do(ctx, http.MethodPost, "/v1/plan", sys, &ls)
}

// Explain says why things are where they are; of a service with a key also whose that is.
func (c *Client) Explain(ctx context.Context, what string, key ...string) (e Explanation, err error) {
	q := url.Values{"what": {what}, "key": key}
	return e, c.do(ctx, http.MethodGet, "/v1/explain?"+q.Encode(), nil, &e)
}

// Events calls each with what happened, oldest first; with follow until each fails, ctx ends (its error),
// or the system does ([ErrEnded]).
func (c *Client) Events(ctx context.Context, follow bool, each func(system.Event) error) error {
	err := lines(ctx, c, "/v1/events?follow="+strconv.FormatBool(follow), each)
	if follow {
		err = ended(err)
	}
	return err
}

// Logs calls each with the lines that programs wrote; with q.Follow until each fails, ctx ends (its
// error), or the system does ([ErrEnded]).
func (c *Client) Logs(ctx context.Context, q LogQuery, each func(LogLine) error) error {
	err := lines(ctx, c, fmt.Sprintf("/v1/logs?of=%s&tail=%d&follow=%t", url.QueryEscape(q.Of), q.Tail, q.Follow), each)
	if q.Follow {
		err = ended(err)
	}
	return err
}

// ended is the error of an answer that goes on: it never ends well by itself.
func ended(err error) error {
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return &system.Hint{Err: ErrEnded, Next: "servent up"}
	}
	return err
}

// Meter returns what the nodes counted.
func (c *Client) Meter(ctx context.Context) (m []NodeMeter, err error) {
	return m, c.do(ctx, http.MethodGet, "/v1/meter", nil, &m)
}

// Trouble makes a fault. Unless it is to begin later, it is there when Trouble returns.
func (c *Client) Trouble(ctx context.Context, t Trouble) (f Fault, err error) {
	return f, c.do(ctx, http.MethodPost, "/v1/fault", t, &f)
}

// Faults are those that are or will be, the oldest first.
func (c *Client) Faults(ctx context.Context) (fs []Fault, err error) {
	return fs, c.do(ctx, http.MethodGet, "/v1/fault", nil, &fs)
}

// Heal ends faults, and returns them: one by its number, all of a node by its name; all there are when
// what is empty.
func (c *Client) Heal(ctx context.Context, what string) (fs []Fault, err error) {
	path := "/v1/fault"
	if what != "" {
		path += "?what=" + url.QueryEscape(what)
	}
	return fs, c.do(ctx, http.MethodDelete, path, nil, &fs)
}

// History is what was wanted, the oldest first.
func (c *Client) History(ctx context.Context) (rs []Revision, err error) {
	return rs, c.do(ctx, http.MethodGet, "/v1/history", nil, &rs)
}

// Rollback makes a system that was wanted what is wanted; of 0 the one before the last.
func (c *Client) Rollback(ctx context.Context, n int) error {
	return c.do(ctx, http.MethodPost, "/v1/rollback?to="+strconv.Itoa(n), nil, nil)
}

// Drain has a node emptied, and gives it nothing new, until Uncordon.
func (c *Client) Drain(ctx context.Context, node system.NodeID) error {
	return c.do(ctx, http.MethodPost, "/v1/drain?node="+url.QueryEscape(string(node)), nil, nil)
}

// Uncordon lets a node get instances again.
func (c *Client) Uncordon(ctx context.Context, node system.NodeID) error {
	return c.do(ctx, http.MethodDelete, "/v1/drain?node="+url.QueryEscape(string(node)), nil, nil)
}

// Token makes a token that lets one machine join.
func (c *Client) Token(ctx context.Context, role string, ttl time.Duration) (t Token, err error) {
	return t, c.do(ctx, http.MethodPost, "/v1/token?role="+url.QueryEscape(role)+"&ttl="+ttl.String(), nil, &t)
}

// Label changes a member's labels; an empty value removes one.
func (c *Client) Label(ctx context.Context, node system.NodeID, labels map[string]string) error {
	return c.do(ctx, http.MethodPost, "/v1/label?node="+url.QueryEscape(string(node)), labels, nil)
}

// Remove puts a member out of its fleet.
func (c *Client) Remove(ctx context.Context, node system.NodeID) error {
	return c.do(ctx, http.MethodDelete, "/v1/node?node="+url.QueryEscape(string(node)), nil, nil)
}

// Audit calls each with who did what, the last so many acts, oldest first; 0: all that are kept.
func (c *Client) Audit(ctx context.Context, last int, each func(system.Act) error) error {
	return lines(ctx, c, "/v1/audit?last="+strconv.Itoa(last), each)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if c.auth != "" {
		req.Header.Set("Authorization", c.auth)
	}
	resp, err := c.http.Do(req)
	if c.away != nil && err != nil && ctx.Err() == nil {
		return nil, c.away(err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f Failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	err = errors.New(f.Error)
	if f.Next != "" {
		err = &system.Hint{Err: err, Next: f.Next}
	}
	return nil, err
}

// lines reads an answer of one JSON document a line.
func lines[T any](ctx context.Context, c *Client, path string, each func(T) error) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var v T
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
