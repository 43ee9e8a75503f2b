package cli

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/lab/accesslog"
	"servent/lab/load"
	"servent/lab/result"
	"servent/lab/trial"
	"servent/system"
	"servent/system/notation"
)

// Bounds of a load from one machine. What is above is a slip of the finger, or wants several machines.
const (
	rateMost     = 100_000 // requests a second
	clientsMost  = 10_000
	requestsMost = 100_000_000
	lengthMost   = time.Hour
	timeoutMost  = time.Minute // the longest latency that is told apart
	thinkMost    = 10 * time.Minute
	bodyMost     = 16 << 20 // bytes
	openMost     = 10_000   // requests of an open loop at once
)

// target is what a load is sent to.
type target struct {
	scheme, host, port string
	path               string // with the query, as it was typed: it may have a {key}; "" for none
	given              string // host as typed, with the port if it had one
}

// parseTarget reads http://HOST[:PORT][/PATH], https:// the same, or tcp://HOST:PORT.
func parseTarget(s string) (*target, error) {
	const want = "want a URL like http://127.0.0.1:8080/path, https://… or tcp://127.0.0.1:7000"
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return nil, &system.Hint{Err: fmt.Errorf("%s, have %q", want, s), Next: "servent load http://" + s}
	}
	t := &target{scheme: strings.ToLower(scheme), given: rest}
	if at := strings.IndexAny(rest, "/?#"); at >= 0 {
		t.given, t.path = rest[:at], rest[at:]
	}
	t.path, _, _ = strings.Cut(t.path, "#")
	if strings.HasPrefix(t.path, "?") {
		t.path = "/" + t.path
	}
	u, err := url.Parse("http://" + t.given)
	if err != nil || u.Hostname() == "" || u.Path != "" {
		return nil, fmt.Errorf("%s, have %q", want, s)
	}
	if u.User != nil {
		return nil, errors.New("a URL with a password is in the list of processes for all to see: use -H 'Authorization: …'")
	}
	t.host, t.port = u.Hostname(), u.Port()
	if n, err := strconv.Atoi(t.port); t.port != "" && (err != nil || n < 1 || n > 65535) {
		return nil, fmt.Errorf("want a port from 1 to 65535, have %q", t.port)
	}
	switch t.scheme {
	case "http":
		t.port = cmp.Or(t.port, "80")
	case "https":
		t.port = cmp.Or(t.port, "443")
	case "tcp":
		if t.port == "" || t.path != "" {
			return nil, fmt.Errorf("want tcp://HOST:PORT without a path, have %q", s)
		}
	default:
		return nil, fmt.Errorf("%s, have %q", want, s)
	}
	return t, nil
}

// base is the target without a path.
func (t *target) base() string { return t.scheme + "://" + t.given }

// trial makes a load of words, or says what is wrong with them: as misuse, but for files that cannot be read.
func (t *target) trial(o loadOptions, given func(string) bool) (trial.Options, error) {
	out := trial.Options{Target: t.base(), Version: Version}
	l := &out.Load
	if err := o.fit(t, given); err != nil {
		return out, misuse{err}
	}
	site := load.Site{Doors: func() []string { return []string{net.JoinHostPort(t.host, t.port)} }}
	if t.scheme == "https" {
		site.TLS = &tls.Config{ServerName: t.host}
		if o.cacert != "" {
			var err error
			if site.TLS.RootCAs, err = authorities(o.cacert); err != nil {
				return out, err
			}
		}
	}
	*l = load.Options{Sites: []load.Site{site}, Clients: o.clients, Think: o.think, Poisson: o.poisson, Timeout: o.timeout, Seed: o.seed, Count: o.requests}
	pace, err := o.pace(l, given)
	if err != nil {
		return out, misuse{err}
	}
	what := ""
	switch {
	case t.scheme == "tcp":
		what, err = o.overTCP(l)
	case o.replay != "":
		out.Replay, err = t.again(l, o, given)
	default:
		what, err = t.requests(l, o)
	}
	if err != nil {
		return out, err
	}
	if r := out.Replay; r != nil {
		pace = fmt.Sprintf("replay of %s, %s", r.File, count(r.Requests, "request"))
		if r.Speed != 1 {
			pace += fmt.Sprintf(", %gx as fast", r.Speed)
		}
		pace += " in " + o.lasts(l).String()
	}
	out.Words = pace + what
	if err := l.Check(); err != nil {
		return out, misuse{err}
	}
	return out, nil
}

// fit says which words do not go together, and which are absurd.
func (o *loadOptions) fit(t *target, given func(string) bool) error {
	var paces []string
	for _, flag := range []string{"rate", "open", "clients", "replay"} {
		if given(flag) {
			paces = append(paces, "--"+flag)
		}
	}
	alone := func(flag, with string, ok bool) error {
		if given(flag) && !ok {
			return fmt.Errorf("--%s is for %s alone", flag, with)
		}
		return nil
	}
	http := t.scheme != "tcp"
	var ranges []error
	within := func(flag string, ok bool, want, why string) {
		if given(flag) && !ok {
			ranges = append(ranges, fmt.Errorf("--%s: want %s: %s", flag, want, why))
		}
	}
	within("clients", o.clients >= 1 && o.clients <= clientsMost, "1 to 10000", "each is a connection, and one machine has no more to give")
	within("requests", o.requests >= 1 && o.requests <= requestsMost, "1 to 1e8", "more takes hours")
	within("for", o.length >= time.Millisecond && o.length <= lengthMost, "1ms to 1h", "a load without an end is a slip of the finger")
	within("timeout", o.timeout >= time.Millisecond && o.timeout <= timeoutMost, "1ms to 1m", "longer latencies are not told apart")
	within("think", o.think >= 0 && o.think <= thinkMost, "0 to 10m", "nobody would ask")
	if len(paces) > 1 {
		return fmt.Errorf("%s: want one of them: each says when requests are sent", strings.Join(paces, " and "))
	}
	return errors.Join(slices.Concat(ranges, []error{
		alone("think", "--clients", given("clients")),
		alone("poisson", "--rate and --open", !given("clients") && !given("replay")),
		alone("speed", "--replay", given("replay")),
		alone("unsafe", "--replay", given("replay")),
		alone("send", "tcp://", !http),
		alone("expect", "tcp://", !http),
		alone("cacert", "https://", t.scheme == "https"),
		alone("mix", "http:// and https:// without --replay", http && !given("replay")),
		alone("body", "http:// and https://", http),
		alone("header", "http:// and https://", http),
		alone("replay", "http:// and https://", http),
		alone("keys", "requests with a {key}, which a log has not", !given("replay")),
	})...)
}

// pace says when requests are sent, and puts it in words.
func (o *loadOptions) pace(l *load.Options, given func(string) bool) (string, error) {
	if given("for") || !given("requests") && !given("replay") || given("open") {
		l.Duration = o.length
	}
	ends := ""
	if l.Count > 0 {
		ends = ", " + count(l.Count, "request")
	}
	if l.Duration > 0 {
		ends += " for " + l.Duration.String()
	}
	if o.clients > 0 {
		words := "closed loop, " + count(o.clients, "client")
		if o.think > 0 {
			words += " thinking " + o.think.String()
		}
		return words + ends, nil
	}
	if o.replay != "" {
		return "", nil
	}
	words, flag := o.rate, "rate"
	if o.open != "" {
		words, flag = o.open, "open"
	}
	rate, err := load.ParseRate(words)
	if err != nil {
		return "", fmt.Errorf("--%s: %w", flag, err)
	}
	peak := max(rate.From, rate.To)
	switch {
	case flag == "rate" && rate.To != 0:
		return "", fmt.Errorf("--rate is steady, have %s: a rate that climbs is --open", words)
	case peak > rateMost:
		return "", fmt.Errorf("--%s: want 100000/s at most, have %s: one machine cannot send more at its moments", flag, words)
	case l.Duration == 0 && float64(l.Count)/rate.From > lengthMost.Seconds():
		return "", fmt.Errorf("%s at %s take more than an hour", count(l.Count, "request"), words)
	}
	l.Rate, l.Inflight = rate, inflight(peak)
	if o.poisson {
		words += " at random moments"
	}
	return "open loop, " + words + ends, nil
}

// inflight is how many requests may be open: two seconds' worth, within bounds.
func inflight(peak float64) int { return int(min(openMost, max(load.Inflight, 2*peak))) }

// lasts is how long a replay takes.
func (o *loadOptions) lasts(l *load.Options) time.Duration {
	d := time.Duration(float64(l.Replay[len(l.Replay)-1].At) / l.Speed)
	if l.Duration > 0 {
		d = min(d, l.Duration)
	}
	return d.Round(100 * time.Millisecond)
}

// overTCP is one exchange, again and again.
func (o *loadOptions) overTCP(l *load.Options) (string, error) {
	send, err := load.ParseSend(o.send)
	if err != nil {
		return "", misuse{fmt.Errorf("--send: %w", err)}
	}
	expect, err := load.ParseExpect(o.expect)
	if err != nil {
		return "", misuse{fmt.Errorf("--expect: %w", err)}
	}
	l.TCP = &load.TCP{Send: send, Expect: expect}
	keys, err := o.drawn(l, strings.Contains(send, "{key}"))
	return "; " + l.TCP.String() + keys, err
}

// drawn reads which keys are asked for.
func (o *loadOptions) drawn(l *load.Options, keyed bool) (words string, err error) {
	switch {
	case !keyed && o.keys != "":
		return "", misuse{errors.New("--keys: no request has a {key}")}
	case !keyed:
		return "", nil
	}
	if l.Keys, err = load.ParseKeys(cmp.Or(o.keys, "uniform of 1000")); err != nil {
		return "", misuse{fmt.Errorf("--keys: %w", err)}
	}
	return "; keys: " + l.Keys.String(), nil
}

// requests are those of the mix, else the URL's own.
func (t *target) requests(l *load.Options, o loadOptions) (string, error) {
	body, err := o.content()
	if err != nil {
		return "", err
	}
	words := o.mix
	switch {
	case len(words) > 0 && t.path != "" && t.path != "/":
		return "", misuse{fmt.Errorf("the URL has the path %s, and the mix has others: put it into the mix", t.path)}
	case len(words) == 0:
		method := "GET"
		if body != "" {
			method = "POST"
		}
		request := method + " " + cmp.Or(t.path, "/")
		if _, err := notation.Request(request); err != nil {
			return "", misuse{err}
		}
		l.Mix = []load.Entry{{Method: method, Path: cmp.Or(t.path, "/"), Weight: 1}}
	default:
		if l.Mix, err = load.ParseMix(words...); err != nil {
			return "", misuse{fmt.Errorf("--mix: %w", err)}
		}
	}
	keyed, all := false, []string{}
	for i := range l.Mix {
		m := &l.Mix[i]
		t.dress(m, body, o.headers)
		keyed = keyed || strings.Contains(m.Path+m.Body+strings.Join(m.Headers, ""), "{key}")
		word := m.Method + " " + m.Path
		if len(l.Mix) > 1 {
			word += " " + strconv.FormatFloat(m.Weight, 'g', -1, 64)
		}
		all = append(all, word)
	}
	keys, err := o.drawn(l, keyed)
	return "; " + strings.Join(all, ", ") + keys, err
}

// dress gives an entry the body, if its method has one, and the headers.
func (t *target) dress(m *load.Entry, body string, headers []string) {
	if slices.Contains([]string{"PUT", "POST", "PATCH"}, m.Method) {
		m.Body = body
	}
	m.Headers = slices.Clone(headers)
	if !slices.ContainsFunc(headers, func(h string) bool {
		name, _, _ := strings.Cut(h, ":")
		return strings.EqualFold(name, "Host")
	}) {
		m.Headers = append(m.Headers, "Host: "+t.given)
	}
}

// content is the body that was typed, or that of the file behind @.
func (o *loadOptions) content() (string, error) {
	name, file := strings.CutPrefix(o.body, "@")
	if !file {
		return o.body, nil
	}
	info, err := os.Stat(name)
	if err == nil && info.Size() > bodyMost {
		return "", misuse{fmt.Errorf("--body: want 16 MiB at most, %s has %d bytes", name, info.Size())}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("--body: %w", err)
	}
	return string(text), nil
}

// again reads the log whose requests are sent again.
func (t *target) again(l *load.Options, o loadOptions, given func(string) bool) (*result.Replay, error) {
	speed, err := notation.Amount(strings.TrimSuffix(o.speed, "x"))
	if err != nil || speed < 0.01 || speed > 1000 {
		return nil, misuse{fmt.Errorf("--speed: want 0.01x to 1000x, have %q", o.speed)}
	}
	if t.path != "" && t.path != "/" {
		return nil, misuse{fmt.Errorf("the URL has the path %s, and the log has others: want the URL without one", t.path)}
	}
	body, err := o.content()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(o.replay)
	if err != nil {
		return nil, fmt.Errorf("--replay: %w", err)
	}
	defer file.Close()
	log, err := accesslog.Read(file, accesslog.Options{Name: o.replay, Unsafe: o.unsafe})
	if err != nil {
		return nil, err
	}
	l.Replay, l.Speed, l.Inflight = log.Requests, speed, inflight(peak(log.Requests)*speed)
	for _, r := range l.Replay {
		if !slices.ContainsFunc(l.Mix, func(m load.Entry) bool { return m.Method == r.Method }) {
			m := load.Entry{Method: r.Method, Path: "/"}
			t.dress(&m, body, o.headers)
			l.Mix = append(l.Mix, m)
		}
	}
	switch long := time.Duration(float64(l.Replay[len(l.Replay)-1].At) / speed); {
	case peak(log.Requests)*speed > rateMost:
		return nil, misuse{fmt.Errorf("%s has %.0f requests in a second at %s: one machine cannot send more than 100000", o.replay, peak(log.Requests)*speed, o.speed)}
	case long > lengthMost && !given("for"):
		return nil, misuse{fmt.Errorf("%s takes %s at %s: want an hour at most, so --speed or --for", o.replay, long.Round(time.Second), o.speed)}
	}
	return &result.Replay{File: o.replay, Speed: speed, Requests: len(log.Requests), Skipped: log.Skipped, Bad: log.Bad, Mistakes: log.Mistakes}, nil
}

// peak is the greatest number of requests in a second of a log.
func peak(log []load.Recorded) float64 {
	most, first := 0, 0
	for i, r := range log {
		for r.At-log[first].At >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return float64(most)
}

// authorities reads the certificates that are trusted.
func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--cacert: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, misuse{fmt.Errorf("--cacert: no certificate in PEM in %s", file)}
	}
	return pool, nil
}
