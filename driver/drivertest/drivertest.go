// Package drivertest is the conformance suite of drivers: what every engine must do alike, so that the
// supervisor above them need not know which it has. It tests no engine's own powers.
// Start at [Run].
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"servent/driver"
)

// Subject is a driver with what it can run.
type Subject struct {
	Driver driver.Driver
	Good   driver.Artifact                       // answers GET Path with 200 and Says, until it is stopped
	Ends   *driver.Artifact                      // ends by itself with exit 3; nil: the engine's instances never do
	Bad    map[string]driver.Artifact            // what Prepare must refuse with [driver.ErrArtifact], by reason
	Spec   func(t *testing.T, n int) driver.Spec // for the n-th instance of a test: a port and folder of its own
	Path   string
	Says   string
}

const patience = 15 * time.Second // on a busy machine

// Run runs the suite. Each part gets a driver of its own from make.
func Run(t *testing.T, make func(t *testing.T) Subject) {
	for name, part := range map[string]func(*testing.T, Subject){
		"probe":                  probe,
		"bad artifacts":          bad,
		"prepare twice":          twice,
		"life":                   life,
		"start outlives context": outlives,
		"kill and start again":   again,
		"two beside each other":  beside,
		"prepared is closed":     closed,
		"ends by itself":         ends,
		"commands":               commands,
	} {
		t.Run(name, func(t *testing.T) { part(t, make(t)) })
	}
}

func probe(t *testing.T, s Subject) {
	begin := time.Now()
	caps := s.Driver.Probe(t.Context())
	if !caps.OK && caps.Reason == "" {
		t.Error("the driver does not work here and gives no reason")
	}
	for what, why := range caps.Missing {
		if what == "" || why == "" {
			t.Errorf("missing %q because of %q: want both in words", what, why)
		}
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("Probe took %v", took)
	}
	if s.Driver.Name() == "" {
		t.Error("the driver has no name")
	}
}

func bad(t *testing.T, s Subject) {
	if len(s.Bad) == 0 {
		t.Fatal("no bad artifact is given")
	}
	for why, a := range s.Bad {
		if _, err := s.Driver.Prepare(t.Context(), a); !errors.Is(err, driver.ErrArtifact) {
			t.Errorf("%s: Prepare() = %v, want ErrArtifact", why, err)
		}
	}
}

func twice(t *testing.T, s Subject) {
	first, second := prepare(t, s, s.Good), prepare(t, s, s.Good)
	a, b := start(t, s, first, 1), start(t, s, second, 2)
	answers(t, s, a)
	answers(t, s, b)
}

func life(t *testing.T, s Subject) {
	i := start(t, s, prepare(t, s, s.Good), 1)
	end := i.Endpoint()
	if (end.Address == "") == (end.Handler == nil) {
		t.Errorf("endpoint = %+v, want an address or a handler", end)
	}
	if i.ID() == "" {
		t.Error("the instance has no ID")
	}
	answers(t, s, i)
	if st, err := i.Stats(t.Context()); err != nil || st.CPU < 0 || st.Memory < 0 || st.Pids == 0 && st.Calls == 0 {
		t.Errorf("Stats() = %+v, %v, want those of something that runs", st, err)
	}
	select {
	case exit := <-i.Wait():
		t.Fatalf("ended by itself: %v", exit)
	default:
	}
	for n := range 3 {
		if err := i.Stop(t.Context(), patience); err != nil {
			t.Fatalf("Stop number %d = %v", n+1, err)
		}
	}
	silent(t, s, i)
	waited(t, i)
	select {
	case exit := <-i.Wait():
		t.Errorf("a second exit: %v", exit)
	default:
	}
	if _, err := i.Stats(t.Context()); err == nil {
		t.Error("Stats() of a stopped instance = nil, want an error")
	}
}

func outlives(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	p := prepare(t, s, s.Good)
	i, err := p.Start(ctx, s.Spec(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	cancel()
	answers(t, s, i)
}

func again(t *testing.T, s Subject) {
	p, spec := prepare(t, s, s.Good), s.Spec(t, 1)
	for range 3 {
		i, err := p.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		answers(t, s, i)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no time to be polite
		if err := i.Stop(ctx, time.Hour); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		waited(t, i)
	}
}

func beside(t *testing.T, s Subject) {
	p := prepare(t, s, s.Good)
	a, b := start(t, s, p, 1), start(t, s, p, 2)
	answers(t, s, a)
	answers(t, s, b)
	if err := a.Stop(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	silent(t, s, a)
	answers(t, s, b)
}

func closed(t *testing.T, s Subject) {
	p, err := s.Driver.Prepare(t.Context(), s.Good)
	if err != nil {
		t.Fatal(err)
	}
	i := start(t, s, p, 1)
	if err := p.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	answers(t, s, i)
}

func ends(t *testing.T, s Subject) {
	if s.Ends == nil {
		t.Skip("instances of this engine never end by themselves")
	}
	i := start(t, s, prepare(t, s, *s.Ends), 1)
	if exit := waited(t, i); exit.Code != 3 || exit.OK() || exit.String() != "exit 3" {
		t.Errorf("exit = %+v, want exit 3", exit)
	}
	if err := i.Stop(t.Context(), time.Hour); err != nil {
		t.Errorf("Stop() after the end = %v", err)
	}
}

func commands(t *testing.T, s Subject) {
	i := start(t, s, prepare(t, s, s.Good), 1)
	if err := i.Exec(t.Context(), []string{"no such program"}); err == nil {
		t.Error("Exec of a program that is not there = nil, want an error")
	}
	if err := i.Exec(t.Context(), nil); err == nil {
		t.Error("Exec of nothing = nil, want an error")
	}
	answers(t, s, i)
}

func prepare(t *testing.T, s Subject, a driver.Artifact) driver.Prepared {
	t.Helper()
	p, err := s.Driver.Prepare(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func start(t *testing.T, s Subject, p driver.Prepared, n int) driver.Instance {
	t.Helper()
	i, err := p.Start(t.Context(), s.Spec(t, n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	return i
}

// Ask sends one GET to an endpoint.
func Ask(ctx context.Context, end driver.Endpoint, path string) (status int, body string, err error) {
	if end.Handler != nil {
		w := httptest.NewRecorder()
		end.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx))
		return w.Code, w.Body.String(), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+end.Address+path, nil)
	if err != nil {
		return 0, "", err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return end.Connect(ctx) }
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// answers waits until the instance answers as it should.
func answers(t *testing.T, s Subject, i driver.Instance) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := "nothing was asked"
	for {
		status, body, err := Ask(ctx, i.Endpoint(), s.Path)
		if err == nil && status == http.StatusOK && body == s.Says {
			return
		}
		if ctx.Err() == nil {
			last = fmt.Sprintf("%d %q %v", status, body, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no answer within %v; the last: %s", patience, last)
		}
	}
}

// silent wants that a stopped instance answers no more.
func silent(t *testing.T, s Subject, i driver.Instance) {
	t.Helper()
	if status, _, err := Ask(t.Context(), i.Endpoint(), s.Path); err == nil && status < 500 {
		t.Errorf("a stopped instance answers %d", status)
	}
}

func waited(t *testing.T, i driver.Instance) driver.Exit {
	t.Helper()
	select {
	case exit := <-i.Wait():
		return exit
	case <-time.After(patience):
		t.Fatalf("no exit within %v", patience)
		return driver.Exit{}
	}
}
