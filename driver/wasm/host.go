package wasm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"servent/driver"
)

// What a host call returns instead of a length. The text of what went wrong is then there to take.
const (
	denied    = -1 // no such service, or not for this one
	malformed = -2 // what the module passed cannot be read
	failed    = -3 // no answer, or one that says no
	absent    = -4 // no such key
)

const (
	callCost = 1000     // instructions that a host call costs, and one more for every eight bytes
	mostPass = 8 << 20  // bytes that a module passes to a host call or takes from one
	mostLine = 16 << 10 // bytes of a line of log
)

var errPass = errors.New("it passed the host a place outside of its memory")

// host is what the host does for one instance of a service, beyond WASI: import module "servent".
type host struct {
	services map[string]driver.Way
	client   *http.Client
	say      func(format string, args ...any)
	self     string
}

func newHost(s driver.Spec, say func(string, ...any)) *host {
	h := &host{services: map[string]driver.Way{}, say: say, self: string(s.Instance), client: &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16, MaxConnsPerHost: 256},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, w := range s.Ways {
		h.services[w.Name] = w
	}
	return h
}

func (h *host) close() { h.client.CloseIdleConnections() }

// offer makes the import module. Whose host a call is for stands in its ctx: instances share a runtime.
func offer(ctx context.Context, r wazero.Runtime) error {
	const i = api.ValueTypeI32
	b := r.NewHostModuleBuilder("servent").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(refuel), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export("fuel")
	for _, f := range []struct {
		name string
		takes,
		gives int // numbers
		does func(h *host, c *hostCall) int
	}{
		{"log", 3, 0, (*host).log},
		{"call", 2, 1, (*host).call},
		{"take", 2, 1, (*host).take},
		{"kv_get", 4, 1, (*host).kvGet},
		{"kv_put", 6, 1, (*host).kvPut},
		{"kv_del", 4, 1, (*host).kvDel},
	} {
		run := func(ctx context.Context, m api.Module, stack []uint64) {
			b, ok := ctx.Value(budgetKey{}).(*budget)
			if !ok {
				panic(errGone)
			}
			b.spend(callCost)
			n := f.does(b.host, &hostCall{budget: b, memory: m.Memory(), stack: stack})
			if f.gives > 0 {
				stack[0] = api.EncodeI32(int32(n))
			}
			if err := b.ctx.Err(); err != nil {
				panic(late(err))
			}
		}
		takes := []api.ValueType{i, i, i, i, i, i}[:f.takes]
		b = b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(run), takes, []api.ValueType{i}[:f.gives]).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// hostCall is one call of a host function.
type hostCall struct {
	*budget
	memory api.Memory
	stack  []uint64
}

// passed returns the bytes that two arguments name, and charges for them. They are the module's memory: valid until it goes on.
func (c *hostCall) passed(at int) []byte {
	n := uint32(c.stack[at+1])
	if n > mostPass {
		panic(errPass)
	}
	if c.spend(int64(n) / 8); c.memory == nil {
		panic(errPass)
	}
	b, ok := c.memory.Read(uint32(c.stack[at]), n)
	if !ok {
		panic(errPass)
	}
	return b
}

// result leaves bytes to be taken.
func (c *hostCall) result(b []byte) int {
	c.rest = b
	return len(b)
}

// fails leaves a text to be taken.
func (c *hostCall) fails(code int, err error) int {
	c.rest = []byte(err.Error())
	return code
}

// log: level (0 debug, 1 info, 2 warn, 3 error), text.
func (h *host) log(c *hostCall) int {
	c.turn.pause()
	levels := []string{"debug", "info", "warn", "error"}
	text := c.passed(1)
	cut := ""
	if len(text) > mostLine {
		text, cut = text[:mostLine], " …"
	}
	h.say("%s: %s%s", levels[min(uint32(c.stack[0]), 3)], strings.ReplaceAll(strings.TrimRight(string(text), "\n"), "\n", " "), cut)
	return 0
}

// take: where, how many bytes at the most → how many it got; 0 at the end.
func (h *host) take(c *hostCall) int {
	n := min(len(c.rest), int(uint32(c.stack[1])))
	c.spend(int64(n) / 8)
	if c.memory == nil || !c.memory.Write(uint32(c.stack[0]), c.rest[:n]) {
		panic(errPass)
	}
	c.rest = c.rest[n:]
	return n
}

// call: an HTTP/1.1 request (RFC 9112) to http://SERVICE/… → how long the answer is, an HTTP/1.1 response. A request without
// Content-Length has what follows its header lines for a body.
func (h *host) call(c *hostCall) int {
	message := bytes.Clone(c.passed(0))
	in := bufio.NewReader(bytes.NewReader(message))
	r, err := http.ReadRequest(in)
	if err != nil {
		return c.fails(malformed, fmt.Errorf("want an HTTP/1.1 request, like GET http://cart/carts/ada HTTP/1.1, its header lines and an empty line: %w", err))
	}
	body := r.Body
	if r.ContentLength == 0 && r.Header.Get("Content-Length") == "" {
		body = io.NopCloser(in)
	}
	all, err := io.ReadAll(body)
	if err != nil {
		return c.fails(malformed, fmt.Errorf("the request's body: %w", err))
	}
	c.turn.pause()
	resp, code, err := h.ask(c.ctx, r.Host, r.Method, r.URL, r.Header, all)
	if err != nil {
		return c.fails(code, err)
	}
	var out bytes.Buffer
	if err := resp.Write(&out); err != nil {
		return c.fails(failed, err)
	}
	return c.result(out.Bytes())
}

// ask asks a service's door. The answer is whole: its body is in memory.
func (h *host) ask(ctx context.Context, name, method string, at *url.URL, header http.Header, body []byte) (*http.Response, int, error) {
	if service, _, err := net.SplitHostPort(name); err == nil {
		name = service
	}
	way, ok := h.services[name]
	if !ok {
		err := fmt.Errorf("%s may not call %q: name it in depends_on", h.self, name)
		h.say("%v", err)
		return nil, denied, err
	}
	where := *at
	where.Scheme, where.Host = "http", way.To
	r, err := http.NewRequestWithContext(ctx, method, where.String(), bytes.NewReader(body))
	if err != nil {
		return nil, malformed, err
	}
	for k, v := range header {
		switch k {
		case "Connection", "Transfer-Encoding", "Content-Length", "Te", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Expect":
		default:
			r.Header[k] = v
		}
	}
	r.Host = name
	resp, err := h.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, failed, fmt.Errorf("%s: %w", name, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, mostPass+1))
	switch {
	case err != nil:
		return nil, failed, fmt.Errorf("%s: %w", name, err)
	case len(got) > mostPass:
		return nil, failed, fmt.Errorf("%s answers with more than %d MiB", name, mostPass>>20)
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	if method != http.MethodHead {
		resp.ContentLength, resp.TransferEncoding = int64(len(got)), nil
	}
	return resp, 0, nil
}

// kv asks a key-value database for one key.
func (h *host) kv(c *hostCall, method string, value []byte) ([]byte, int, error) {
	name, key := string(c.passed(0)), string(c.passed(2))
	if way, ok := h.services[name]; ok && way.Builtin != "kv" {
		return nil, malformed, fmt.Errorf("%s is no key-value database: want a service with builtin: kv", name)
	}
	if key == "" {
		return nil, malformed, errors.New("want a key, have an empty one")
	}
	at := &url.URL{Path: "/kv/" + key, RawPath: "/kv/" + url.PathEscape(key)}
	c.turn.pause()
	resp, code, err := h.ask(c.ctx, name, method, at, nil, value)
	if err != nil {
		return nil, code, err
	}
	got, _ := io.ReadAll(resp.Body) // it is in memory
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, absent, fmt.Errorf("%s has no key %q", name, key)
	case resp.StatusCode >= 300:
		return nil, failed, fmt.Errorf("%s: %s: %s", name, resp.Status, strings.TrimSpace(string(got[:min(len(got), 500)])))
	}
	return got, 0, nil
}

// kvGet: service, key → how long the value is.
func (h *host) kvGet(c *hostCall) int {
	got, code, err := h.kv(c, http.MethodGet, nil)
	if err != nil {
		return c.fails(code, err)
	}
	return c.result(got)
}

// kvPut: service, key, value → 0.
func (h *host) kvPut(c *hostCall) int {
	if _, code, err := h.kv(c, http.MethodPut, bytes.Clone(c.passed(4))); err != nil {
		return c.fails(code, err)
	}
	return c.result(nil)
}

// kvDel: service, key → 0.
func (h *host) kvDel(c *hostCall) int {
	if _, code, err := h.kv(c, http.MethodDelete, nil); err != nil {
		return c.fails(code, err)
	}
	return c.result(nil)
}
