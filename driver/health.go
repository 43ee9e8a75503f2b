package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"servent/system"
)

// Defaults of a check, and how fast a starting instance is probed.
const (
	defaultInterval = 2 * time.Second
	defaultTimeout  = 2 * time.Second
	defaultRetries  = 3
	fastProbe       = 20 * time.Millisecond
	slowProbe       = 250 * time.Millisecond
	defaultPatience = time.Minute // until we say that it never became healthy
)

// check asks an instance whether it is well.
type check func(ctx context.Context) error

// pace is how often a check runs and how its failures count.
type pace struct {
	first    time.Duration // between the first probes
	interval time.Duration // once it was healthy
	timeout  time.Duration // of one check
	patience time.Duration // until we say that it never became healthy
	retries  int           // failures in a row until a healthy one is unhealthy
}

func newPace(h *system.Health) pace {
	p := pace{first: fastProbe, interval: h.Interval, timeout: h.Timeout, retries: h.Retries}
	if p.interval <= 0 {
		p.interval = defaultInterval
	}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	if p.retries <= 0 {
		p.retries = defaultRetries
	}
	if len(h.Command) > 0 {
		p.first = slowProbe // a command is a process each time
	}
	// Compose: failures within start_period do not count, and the first success ends it. Before its
	// first success an instance is starting anyway; so the period only makes us more patient.
	p.patience = max(defaultPatience, h.StartPeriod)
	return p
}

// declared is what the user's file says of an instance's health, or its software's own words where the file has
// none. As in Compose, a healthcheck without a test changes the times of the image's.
func declared(said system.Health, inst Instance) system.Health {
	d, ok := inst.(Declarer)
	if !ok || said.Disabled || said.HTTP != "" || said.TCP || len(said.Command) > 0 {
		return said
	}
	h := d.Declared()
	if len(h.Command) == 0 {
		return said
	}
	h.Interval, h.Timeout = cmp.Or(said.Interval, h.Interval), cmp.Or(said.Timeout, h.Timeout)
	h.Retries, h.StartPeriod = cmp.Or(said.Retries, h.Retries), cmp.Or(said.StartPeriod, h.StartPeriod)
	return h
}

// newCheck picks the check that the user's file declares, or the one that suits the instance. It is nil
// when there is nothing to ask.
func newCheck(h *system.Health, inst Instance) check {
	end := inst.Endpoint()
	command := shell(h.Command)
	checker, knows := inst.(Checker)
	switch {
	case h.Disabled, len(h.Command) > 0 && h.Command[0] == "NONE":
		return nil
	case len(command) > 0:
		return func(ctx context.Context) error { return inst.Exec(ctx, command) }
	case h.HTTP != "" && end.Handler != nil:
		return func(ctx context.Context) error { return askHandler(ctx, end.Handler, h.HTTP) }
	case h.HTTP != "":
		return func(ctx context.Context) error { return askHTTP(ctx, end, h.HTTP) }
	case knows && !h.TCP:
		return checker.Check
	case end.Handler != nil:
		return nil // it is there as long as we are
	default:
		return func(ctx context.Context) error { return askTCP(ctx, end) }
	}
}

// shell turns Compose's forms of a command into arguments: CMD is dropped, CMD-SHELL becomes a shell.
func shell(command []string) []string {
	if len(command) == 0 {
		return nil
	}
	switch command[0] {
	case "CMD":
		return command[1:]
	case "CMD-SHELL":
		if runtime.GOOS == "windows" {
			return append([]string{"cmd", "/C"}, command[1:]...)
		}
		return append([]string{"/bin/sh", "-c"}, command[1:]...)
	}
	return command
}

// probe sends the result of every check until ctx ends: fast until the first success, then at its pace.
func probe(ctx context.Context, ask check, every pace, results chan<- error) {
	wait, healthy, begin := every.first, false, time.Now()
	for {
		bound, cancel := context.WithTimeout(ctx, every.timeout)
		err := ask(bound)
		if err != nil && bound.Err() != nil {
			err = fmt.Errorf("no answer within %v", every.timeout)
		}
		cancel()
		select {
		case results <- err:
		case <-ctx.Done():
			return
		}
		healthy = healthy || err == nil
		pause := wait
		if healthy || time.Since(begin) > every.patience {
			pause = every.interval
		}
		if !sleep(ctx, pause) {
			return
		}
		wait = min(wait*3/2, slowProbe)
	}
}

func askTCP(ctx context.Context, end Endpoint) error {
	conn, err := end.Connect(ctx)
	if err != nil {
		return steady(err)
	}
	return conn.Close()
}

// steady takes our own port, another one each time, out of a network error, so that the same failure
// has the same words.
func steady(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		return fmt.Errorf("%s %s %s: %w", op.Op, op.Net, op.Addr, op.Err)
	}
	return err
}

// asker opens a connection a question, so that an instance that accepts no more is found out, and
// follows no redirect: a 3xx is an answer.
var asker = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil, DialContext: dialEndpoint},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// asked is the key of the endpoint among the values of a question's context.
type asked struct{}

func dialEndpoint(ctx context.Context, _, address string) (net.Conn, error) {
	if end, ok := ctx.Value(asked{}).(Endpoint); ok {
		return end.Connect(ctx)
	}
	return Endpoint{Address: address}.Connect(ctx)
}

func askHTTP(ctx context.Context, end Endpoint, path string) error {
	req, err := newProbe(context.WithValue(ctx, asked{}, end), "http://"+end.Address, path)
	if err != nil {
		return err
	}
	res, err := asker.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the method and the address, which every caller knows
		}
		return fmt.Errorf("GET %s: %w", path, steady(err))
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // a polite end; what it says is nothing to us
	return judge(path, res.StatusCode)
}

func askHandler(ctx context.Context, h http.Handler, path string) error {
	req, err := newProbe(ctx, "http://inside", path)
	if err != nil {
		return err
	}
	req.RequestURI = req.URL.RequestURI()
	req.RemoteAddr = "127.0.0.1:0"
	answer := &blank{header: http.Header{}}
	h.ServeHTTP(answer, req)
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	return judge(path, answer.status)
}

func newProbe(ctx context.Context, base, path string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", path, err)
	}
	req.Header.Set("User-Agent", "servent-health")
	return req, nil
}

func judge(path string, status int) error {
	if status < 200 || status > 399 {
		return fmt.Errorf("GET %s answers %d, want 2xx or 3xx", path, status)
	}
	return nil
}

// blank is the answer that nobody reads.
type blank struct {
	header http.Header
	status int
}

func (b *blank) Header() http.Header { return b.header }

func (b *blank) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	return len(p), nil
}

func (b *blank) WriteHeader(status int) {
	if b.status == 0 && status >= 200 { // 1xx comes before the answer
		b.status = status
	}
}
