package driver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

// site answers with the status that the path says.
func site(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ok":
	case "/made":
		w.WriteHeader(http.StatusCreated)
	case "/moved":
		http.Redirect(w, r, "/broken", http.StatusFound)
	case "/early":
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	case "/host":
		if r.Host == "" || r.UserAgent() != "servent-health" || r.URL.RawQuery != "deep=1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	case "/slow":
		<-r.Context().Done()
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

type addressed struct {
	*fakeInstance
	address string
}

func (a addressed) Endpoint() Endpoint { return Endpoint{Address: a.address} }

func TestHTTPCheck(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(site))
	defer server.Close()
	outside := addressed{&fakeInstance{sick: errIll}, strings.TrimPrefix(server.URL, "http://")}
	inside := handlerInstance{&fakeInstance{sick: errIll}, http.HandlerFunc(site)}
	for _, tt := range []struct{ path, want string }{
		{"/ok", ""},
		{"/made", ""},
		{"/moved", ""},
		{"/host?deep=1", ""},
		{"/broken", "GET /broken answers 500, want 2xx or 3xx"},
		{"/early", "GET /early answers 418, want 2xx or 3xx"},
		{"/%zz", `check "/%zz"`},
	} {
		for name, inst := range map[string]Instance{"address": outside, "handler": inside} {
			t.Run(name+tt.path, func(t *testing.T) {
				err := newCheck(&system.Health{HTTP: tt.path}, inst)(t.Context())
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("check = %v, want %q", err, tt.want)
				}
			})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := newCheck(&system.Health{HTTP: "/slow"}, outside)(ctx); err == nil {
		t.Error("a check without an answer = nil, want an error")
	}
}

func TestChecksOfAClosedPortHaveSteadyWords(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inst := addressed{&fakeInstance{}, ln.Addr().String()}
	tcp := newCheck(&system.Health{TCP: true}, inst)
	if err := tcp(t.Context()); err != nil {
		t.Errorf("check of an open port = %v", err)
	}
	ln.Close()
	for _, h := range []system.Health{{TCP: true}, {HTTP: "/ok"}} {
		ask := newCheck(&h, inst)
		first, second := ask(t.Context()), ask(t.Context())
		if first == nil || second == nil || first.Error() != second.Error() || !strings.Contains(first.Error(), "refused") {
			t.Errorf("checks of a closed port = %v, then %v, want the same refusal", first, second)
		}
	}
}

// plain hides that the fake knows a check of its own.
type plain struct{ Instance }

func TestWhichCheck(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	open := ln.Addr().String()
	ill := func() *fakeInstance { return &fakeInstance{sick: errIll} }
	for _, tt := range []struct {
		name   string
		health system.Health
		inst   Instance
		want   error
		none   bool
	}{
		{"default asks the instance that knows", system.Health{}, addressed{ill(), open}, errIll, false},
		{"default is a connection", system.Health{}, plain{addressed{ill(), open}}, nil, false},
		{"a connection when asked for", system.Health{TCP: true}, addressed{ill(), open}, nil, false},
		{"a handler is always there", system.Health{}, plain{handlerInstance{ill(), http.NotFoundHandler()}}, nil, true},
		{"a command", system.Health{Command: []string{"CMD", "true"}}, addressed{ill(), open}, errIll, false},
		{"disabled", system.Health{Disabled: true, HTTP: "/"}, addressed{ill(), open}, nil, true},
		{"an empty command is none", system.Health{Command: []string{"CMD"}}, plain{addressed{ill(), open}}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask := newCheck(&tt.health, tt.inst)
			if (ask == nil) != tt.none {
				t.Fatalf("no check = %v, want %v", ask == nil, tt.none)
			}
			if ask == nil {
				return
			}
			if err := ask(t.Context()); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("check = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCommandForms(t *testing.T) {
	want := []string{"/bin/sh", "-c", "curl -f x || exit 1"}
	if runtime.GOOS == "windows" {
		want = []string{"cmd", "/C", "curl -f x || exit 1"}
	}
	for _, tt := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"CMD", "pg_isready", "-q"}, []string{"pg_isready", "-q"}},
		{[]string{"pg_isready", "-q"}, []string{"pg_isready", "-q"}},
		{[]string{"CMD-SHELL", "curl -f x || exit 1"}, want},
	} {
		if diff := cmp.Diff(tt.want, shell(tt.in)); diff != "" {
			t.Errorf("shell(%q): %s", tt.in, diff)
		}
	}
}

func TestPace(t *testing.T) {
	got := newPace(&system.Health{})
	want := pace{fastProbe, 2 * time.Second, 2 * time.Second, time.Minute, 3}
	if got != want {
		t.Errorf("default pace = %v, want %v", got, want)
	}
	got = newPace(&system.Health{Command: []string{"x"}, Interval: 7, Timeout: 8, Retries: 9, StartPeriod: time.Hour})
	want = pace{slowProbe, 7, 8, time.Hour, 9}
	if got != want {
		t.Errorf("pace = %v, want %v", got, want)
	}
}
