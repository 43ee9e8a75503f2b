package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"servent/driver"
	"servent/system"
)

// Origin is the driver of an HTTP server that runs elsewhere and is not ours to start: Software.From is
// its URL.
func Origin() driver.Driver { return originDriver{} }

type originDriver struct{}

func (originDriver) Name() string { return string(system.Origin) }

func (originDriver) Probe(context.Context) driver.Caps {
	return driver.Caps{OK: true, Limits: []string{"timeout"}, Move: driver.MoveWeak}
}

func (originDriver) Prepare(_ context.Context, a driver.Artifact) (driver.Prepared, error) {
	u, err := url.Parse(a.Software.From)
	switch {
	case a.Software.Kind != system.Origin:
		err = fmt.Errorf("want an origin, have %s", a.Software.Kind)
	case err != nil:
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		err = fmt.Errorf("want http://HOST[:PORT][/PATH] or https://…, have %q", a.Software.From)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		err = fmt.Errorf("want a URL without user, query and fragment, have %q", u.Redacted())
	}
	if err != nil {
		return nil, fmt.Errorf("prepare origin: %w: %w", err, driver.ErrArtifact)
	}
	return preparedOrigin{u}, nil
}

type preparedOrigin struct{ url *url.URL }

func (preparedOrigin) Close() error { return nil }

func (p preparedOrigin) Start(_ context.Context, s driver.Spec) (driver.Instance, error) {
	dial := &net.Dialer{Timeout: 5 * time.Second}
	pool := &http.Transport{
		DialContext:           dial.DialContext,
		Proxy:                 nil, // the file says where to
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: s.Limits.Timeout, // 0: none
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       p.rewrite,
		Transport:     pool,
		FlushInterval: -1, // what the origin sends in pieces arrives in pieces
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  p.fail,
	}
	address := p.url.Host
	if p.url.Port() == "" {
		address = net.JoinHostPort(p.url.Hostname(), map[string]string{"http": "80", "https": "443"}[p.url.Scheme])
	}
	check := func(ctx context.Context) error {
		conn, err := dial.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("origin %s: %w", p.url, err)
		}
		return conn.Close()
	}
	return driver.Host(string(s.Instance), proxy, check, pool.CloseIdleConnections), nil
}

// rewrite joins the paths, calls the origin by its own name, and says for whom. A door stands before us:
// what it said of the client stays.
func (p preparedOrigin) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(p.url)
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if said := r.In.Header[name]; len(said) > 0 {
			r.Out.Header[name] = said
		}
	}
}

// fail answers for an origin that does not.
func (p preparedOrigin) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(r.Context().Err(), context.Canceled) {
		err = errors.New("the call was broken off")
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.Error(w, fmt.Sprintf("origin %s: %v", p.url, err), http.StatusBadGateway)
}
