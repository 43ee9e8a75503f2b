package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/control"
	"servent/control/memory"
	"servent/meter"
	"servent/system"
)

// stage is a door with control in memory and machines and nodes that only say what they are told.
type stage struct {
	Door
	t  *testing.T
	mu sync.Mutex // guards what follows

	view     *control.View
	trouble  error
	changed  chan struct{}
	machines []NodeState
	did      []string // what the machines were asked
	lines    map[system.NodeID][]LogLine
	silent   map[system.NodeID]bool // asked, it says nothing
	lives    map[system.NodeID]life
	troubled []Fault
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, view: &control.View{}, changed: make(chan struct{}), lines: map[system.NodeID][]LogLine{}, silent: map[system.NodeID]bool{}}
	s.Door = Door{Cluster: control.Cluster{Store: memory.New()}, View: s.look, Changed: s.wait, Nodes: s, Context: "laptop", Machines: s,
		Console: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "page %s", r.URL.Path) })}
	return s
}

// run keeps the view what the store says.
func (s *stage) run() *stage {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Cluster.Follow(ctx, nil, func(v *control.View) error { s.show(v); return nil })
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *stage) show(v *control.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) look() (*control.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view, s.trouble
}

func (s *stage) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *stage) ask(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, what)
	return nil
}

func (s *stage) Apply(ctx context.Context, sys *system.System) error {
	if sys.Name == "taken" {
		return &system.Hint{Err: errors.New("port 80 is in use"), Next: "servent -C other down"}
	}
	_, err := s.Cluster.Want(ctx, sys)
	return err
}
func (s *stage) Nodes() []NodeState     { return s.machines }
func (s *stage) Published() []Published { return nil }
func (s *stage) CA() ([]byte, error)    { return []byte("ca"), nil }

func (s *stage) History() ([]Revision, error) {
	return []Revision{{N: 1, What: "first", Now: true}}, nil
}

func (s *stage) Revision(n int) (*system.System, error) {
	if n > 1 {
		return nil, fmt.Errorf("there is no revision %d", n)
	}
	return &system.System{Name: "before"}, nil
}

func (s *stage) Stop(volumes bool) { _ = s.ask(fmt.Sprint("stop, volumes ", volumes)) }
func (s *stage) Trouble(_ context.Context, t Trouble) (Fault, error) {
	f := Fault{ID: len(s.troubled) + 1, Trouble: t}
	s.troubled = append(s.troubled, f)
	return f, nil
}
func (s *stage) Faults() []Fault { return s.troubled }
func (s *stage) Heal(_ context.Context, which func(Fault) bool) (healed []Fault) {
	s.troubled = slices.DeleteFunc(s.troubled, func(f Fault) bool {
		if which(f) {
			healed = append(healed, f)
		}
		return which(f)
	})
	return healed
}
func (s *stage) RestartNode(_ context.Context, id system.NodeID) error {
	return s.ask("restart " + string(id))
}

func (s *stage) Meter(ctx context.Context, id system.NodeID) (NodeMeter, error) {
	if s.silent[id] {
		<-ctx.Done()
		return NodeMeter{}, fmt.Errorf("ask %s: %w", id, ctx.Err())
	}
	return NodeMeter{Node: id, Rows: []meter.Row{{Service: "api", Requests: 3}}}, nil
}

// wants puts a system into the store and waits until the view has it.
func (s *stage) wants(sys *system.System) {
	s.t.Helper()
	if _, err := s.Cluster.Want(s.t.Context(), sys); err != nil {
		s.t.Fatal(err)
	}
	if err := s.shown(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// call makes one request and returns status and body.
func call(h http.Handler, method, path, body string, header ...string) (int, string) {
	r := httptest.NewRequest(method, "http://127.0.0.1:1"+path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestGuard(t *testing.T) {
	h := newStage(t).Guarded("secret")
	const right = "Bearer secret"
	for _, tt := range []struct {
		name, method, path string
		header             []string
		code               int
		has                string
	}{
		{"a page needs no token", "GET", "/", nil, 200, "page /"},
		{"an answer does", "GET", "/v1/state", nil, 401, "servent console"},
		{"with it", "GET", "/v1/state", []string{"Authorization", right}, 200, `"context":"laptop"`},
		{"a wrong one", "GET", "/v1/state", []string{"Authorization", "Bearer secreT"}, 401, "token"},
		{"without Bearer", "GET", "/v1/state", []string{"Authorization", "secret"}, 401, "token"},
		{"in the query it does not count", "GET", "/v1/state?token=secret", nil, 401, "token"},
		{"an unclean path", "GET", "//v1/state", nil, 307, ""},
		{"a path that goes up", "GET", "/x/../v1/state", nil, 307, ""},
		{"an escaped slash", "GET", "/v1%2Fstate", nil, 200, "page /v1/state"},
		{"an escaped letter", "GET", "/%761/state", nil, 401, "token"},
		{"every method", "DELETE", "/v1/wanted", nil, 401, "token"},
		{"a preflight gets no leave", "OPTIONS", "/v1/wanted", []string{"Origin", "http://evil.example"}, 401, "token"},
		{"DNS rebinding", "GET", "/v1/state", []string{"Authorization", right, "Host", "evil.example"}, 421, "loopback only"},
		{"DNS rebinding of a page", "GET", "/", []string{"Host", "evil.example:80"}, 421, "loopback only"},
		{"no host", "GET", "/", []string{"Host", ""}, 421, "loopback only"},
		{"a host that begins like one", "GET", "/", []string{"Host", "localhost.evil.example"}, 421, "loopback only"},
		{"an address that is not loopback", "GET", "/", []string{"Host", "10.0.0.1:80"}, 421, "loopback only"},
		{"localhost", "GET", "/", []string{"Host", "localhost:80"}, 200, "page"},
		{"IPv6", "GET", "/", []string{"Host", "[::1]:80"}, 200, "page"},
		{"IPv6 without port", "GET", "/", []string{"Host", "[::1]"}, 200, "page"},
		{"another site's change, with the token", "POST", "/v1/restart?what=api", []string{"Authorization", right, "Sec-Fetch-Site", "cross-site"}, 403, "another origin"},
		{"another origin's change, with the token", "POST", "/v1/restart?what=api", []string{"Authorization", right, "Origin", "http://evil.example"}, 403, "another origin"},
		{"our page's change", "POST", "/v1/restart?what=api", []string{"Authorization", right, "Sec-Fetch-Site", "same-origin"}, 409, "servent up"},
		{"no such answer", "GET", "/v1/nothing", []string{"Authorization", right}, 404, "admin-api.md"},
		{"no such method", "POST", "/v1/state", []string{"Authorization", right}, 404, "POST /v1/state"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := call(h, tt.method, tt.path, "", tt.header...)
			if code != tt.code || !strings.Contains(body, tt.has) {
				t.Errorf("%s %s %q = %d %s, want %d with %q", tt.method, tt.path, tt.header, code, body, tt.code, tt.has)
			}
		})
	}
	if code, _ := call(newStage(t).Handler(), "GET", "/v1/state", "", "Host", "anything"); code != 200 {
		t.Errorf("on the unix socket: %d, want 200: who opens it is its owner", code)
	}
}

// Every failure is JSON with its reason, and, where there is one, the command to try.
func TestRefusals(t *testing.T) {
	s := newStage(t).run()
	s.wants(shop().Wanted)
	s.machines = []NodeState{{Node: "node-1", State: "up"}}
	h := s.Handler()
	for _, tt := range []struct {
		method, path, body string
		code               int
		err, next          string
	}{
		{"PUT", "/v1/wanted", `{`, 400, "read the system: unexpected EOF", ""},
		{"PUT", "/v1/wanted", `{}`, 400, "it has no name", ""},
		{"PUT", "/v1/wanted", `{"name":"a","replics":3}`, 400, `unknown field "replics"`, ""},
		{"PUT", "/v1/wanted", `{"name":"a"} {"name":"b"}`, 400, "want one JSON document", ""},
		{"PUT", "/v1/wanted", `{"name":"a","services":[{"name":"x"},{"name":"x"}]}`, 400, `have "x"`, ""},
		{"PUT", "/v1/wanted", `{"name":"` + strings.Repeat("a", maxSystem) + `"}`, 400, "too large", ""},
		{"PUT", "/v1/wanted", `{"name":"taken"}`, 409, "port 80 is in use", "servent -C other down"},
		{"DELETE", "/v1/wanted?volumes=yes!", ``, 400, `want true or false, have "yes!"`, ""},
		{"POST", "/v1/scale", `{"api":"two"}`, 400, `as {"api": 4}`, ""},
		{"POST", "/v1/scale", `null`, 400, `as {"api": 4}`, ""},
		{"POST", "/v1/scale", `{"web":2}`, 404, `nothing here is named "web"; the services are api, data`, "servent ps"},
		{"POST", "/v1/scale", `{"api":0}`, 409, "would serve nobody", "servent down"},
		{"POST", "/v1/scale", `{"api":1001}`, 409, "want 1…1000 instances, have 1001", ""},
		{"POST", "/v1/scale", `{"data":2}`, 409, "single decides the number", "servent explain data"},
		{"POST", "/v1/restart?what=nobody", ``, 404, `"nobody"`, "servent ps"},
		{"POST", "/v1/plan", `[]`, 400, "read the system", ""},
		{"GET", "/v1/explain?what=api&key=ada", ``, 409, "no keys that belong", "servent explain api"},
		{"GET", "/v1/explain?what=nobody", ``, 404, `"nobody"`, "servent ps"},
		{"GET", "/v1/explain", ``, 404, `named ""`, "servent ps"},
		{"GET", "/v1/events?follow=maybe", ``, 400, "follow: want true or false", ""},
		{"GET", "/v1/logs?tail=few", ``, 400, "tail: want a whole number", ""},
		{"GET", "/v1/logs?of=nobody", ``, 404, `"nobody"`, "servent ps"},
	} {
		t.Run(tt.method+" "+tt.path+" "+tt.body[:min(len(tt.body), 40)], func(t *testing.T) {
			code, body := call(h, tt.method, tt.path, tt.body)
			var f Failure
			if err := json.Unmarshal([]byte(body), &f); err != nil || code != tt.code || !strings.Contains(f.Error, tt.err) || f.Next != tt.next {
				t.Errorf("got %d %s, want %d with %q and next %q", code, body, tt.code, tt.err, tt.next)
			}
		})
	}
	if got, _ := s.Cluster.Read(t.Context()); !cmp.Equal(got.Wanted, shop().Wanted) {
		t.Errorf("a refused change changed something:\n%s", cmp.Diff(got.Wanted, shop().Wanted))
	}
}

// lost is a store that does not answer.
type lost struct{ control.Store }

func (lost) Range(context.Context, string) ([]control.KV, control.Rev, error) {
	return nil, 0, fmt.Errorf("read: %w", control.ErrUnavailable)
}

func TestControlAway(t *testing.T) {
	s := newStage(t)
	s.view, s.trouble = shop(), fmt.Errorf("watch: %w", control.ErrUnavailable)
	s.Cluster.Store = lost{memory.New()}
	if code, body := call(s.Handler(), "POST", "/v1/scale", `{"api":3}`); code != 503 || !strings.Contains(body, `"next":"servent ps"`) {
		t.Errorf("scale: %d %s, want 503 and what to try", code, body)
	}
	if st := s.State(); st.Settled || st.Control == "" || len(st.Instances) != 3 {
		t.Errorf("state: settled %v, control %q, %d instances; want the last that was seen, and why it is old", st.Settled, st.Control, len(st.Instances))
	}
}

func TestChanges(t *testing.T) {
	s := newStage(t).run()
	h := s.Handler()
	text, err := json.Marshal(shop().Wanted)
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path, body string) {
		t.Helper()
		if code, answer := call(h, method, path, body); code != 200 {
			t.Fatalf("%s %s = %d %s", method, path, code, answer)
		}
	}
	do("PUT", "/v1/wanted", string(text))
	if v, _ := s.look(); v.Wanted == nil {
		t.Error("after the answer to PUT the view is still of before")
	}
	do("POST", "/v1/scale", `{"api":4}`)
	do("POST", "/v1/restart?what=data", ``)
	v, _ := s.look()
	if got := v.Wanted.Service("api"); got.Replicas != 4 || got.Scale.Min != 4 || got.Scale.Max != 4 {
		t.Errorf("api scaled to %d, min %d, max %d, want 4", got.Replicas, got.Scale.Min, got.Scale.Max)
	}
	if got := v.Wanted.Service("data").Restarts; got != 1 {
		t.Errorf("data has %d restarts, want 1", got)
	}
	s.machines = []NodeState{{Node: "node-2", State: "up"}}
	do("POST", "/v1/restart?what=node-2", ``)
	do("DELETE", "/v1/wanted?volumes=true", ``)
	if want := []string{"restart node-2", "stop, volumes true"}; !slices.Equal(s.did, want) {
		t.Errorf("machines were asked %q, want %q", s.did, want)
	}
}

// Of changes at once, and right after one another, none is lost: each is made to what control has, not to
// the last view.
func TestNoChangeIsLost(t *testing.T) {
	s := newStage(t).run()
	s.wants(shop().Wanted)
	h := s.Handler()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { call(h, "POST", "/v1/restart?what=api", "") })
	}
	wg.Wait()
	if v, _ := s.look(); v.Wanted.Service("api").Restarts != 20 {
		t.Errorf("after 20 restarts at once: %d", v.Wanted.Service("api").Restarts)
	}
}

func TestPlanAndExplain(t *testing.T) {
	s := newStage(t)
	s.view = shop()
	s.view.Seen[0].Drivers, s.view.Seen[1].Drivers = map[string]string{"process": ""}, map[string]string{"process": ""}
	want := shop().Wanted
	want.Services[0].Replicas = 3
	text, _ := json.Marshal(want)
	if code, body := call(s.Handler(), "POST", "/v1/plan", string(text)); code != 200 || !strings.Contains(body, `"op":"+"`) || !strings.Contains(body, `"api/3"`) {
		t.Errorf("plan of one more: %d %s", code, body)
	}
	for what, instances := range map[string]int{"api": 2, "api/1": 1, "node-2": 2, "data": 1} {
		code, body := call(s.Handler(), "GET", "/v1/explain?what="+what, "")
		var e Explanation
		if err := json.Unmarshal([]byte(body), &e); err != nil || code != 200 || len(e.Choices) != instances {
			t.Errorf("explain %s: %d %s, want %d choices", what, code, body, instances)
		}
		if ofService := !strings.Contains(what, "/") && what != "node-2"; (e.Switched != "") != ofService {
			t.Errorf("explain %s: switched %q", what, e.Switched)
		}
	}
}

// A node that does not answer says so in its place and keeps nobody waiting for long.
func TestMeterAsksAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.view, s.silent["node-1"] = shop(), true
		began := time.Now()
		_, body := call(s.Handler(), "GET", "/v1/meter", "")
		if took := time.Since(began); took != meterFor {
			t.Errorf("it took %v, want %v", took, meterFor)
		}
		var got []NodeMeter
		if err := json.Unmarshal([]byte(body), &got); err != nil || len(got) != 2 {
			t.Fatalf("%s: %v", body, err)
		}
		if got[0].Node != "node-1" || got[0].Error == "" || got[0].Rows == nil || got[1].Error != "" || len(got[1].Rows) != 1 {
			t.Errorf("%+v: want an error of node-1 and one row of node-2", got)
		}
	})
}

// serve opens the door on a port and returns a client of it.
func (s *stage) serve() *Client {
	srv := httptest.NewServer(s.Guarded("secret"))
	s.t.Cleanup(srv.Close)
	s.t.Cleanup(srv.CloseClientConnections) // before Close, which waits for open answers
	return Dial("", srv.URL, "secret")
}

// Of a burst states may be skipped, never the last.
func TestWatchGivesTheLastOfABurst(t *testing.T) {
	s := newStage(t)
	s.view = shop()
	c := s.serve()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const last = 500
	got, states := int64(0), 0
	err := c.Watch(ctx, func(st State) error {
		if states++; states == 1 {
			go func() {
				for g := int64(8); g <= last; g++ {
					v := shop()
					v.Plan.Generation = g
					s.show(v)
				}
			}()
		}
		if got = st.Generation; got == last {
			return io.EOF
		}
		return nil
	})
	if !errors.Is(err, io.EOF) || got != last {
		t.Errorf("last state is of plan %d (%v), want %d", got, err, last)
	}
	if states > last/2 {
		t.Errorf("%d states of %d were sent: nothing holds a burst back", states, last)
	}
}

// Each event comes once: with the same time as another, and with an older one, of a conductor whose clock
// is behind, too.
func TestEventsComeOnce(t *testing.T) {
	s := newStage(t)
	event := func(second int, text string) system.Event {
		return system.Event{Time: t0.Add(time.Duration(second) * time.Second), Kind: "plan", Text: text}
	}
	views := [][]system.Event{
		{event(1, "a"), event(2, "b")},
		{event(1, "a"), event(2, "b"), event(2, "c")},
		{event(0, "d"), event(2, "b"), event(2, "c"), event(3, "e")}, // a was trimmed
		{event(0, "d"), event(2, "b"), event(2, "c"), event(3, "e"), event(4, "end")},
	}
	s.show(&control.View{Events: views[0]})
	c := s.serve()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	next := map[string]int{"b": 1, "c": 2, "e": 3}
	err := c.Events(ctx, true, func(e system.Event) error {
		got = append(got, e.Text)
		if i := next[e.Text]; i > 0 {
			s.show(&control.View{Events: views[i]})
		}
		if e.Text == "end" {
			return io.EOF
		}
		return nil
	})
	if want := []string{"a", "b", "c", "d", "e", "end"}; !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
		t.Errorf("events %q (%v), want %q", got, err, want)
	}
}

func TestClientErrors(t *testing.T) {
	s := newStage(t)
	srv := httptest.NewServer(s.Guarded("secret"))
	c := Dial("", srv.URL, "secret")
	err := c.Restart(t.Context(), "api")
	if err == nil || err.Error() != "nothing runs" || system.Next(err) != "servent up" {
		t.Errorf("a refusal: %v, next %q; want the door's own words", err, system.Next(err))
	}
	err = c.Watch(t.Context(), func(State) error { go srv.CloseClientConnections(); return nil })
	if !errors.Is(err, ErrEnded) || system.Next(err) == "" {
		t.Errorf("the system ends: %v, want ErrEnded with a next step", err)
	}
	srv.Close()
	if _, err := c.State(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v, want ErrNotRunning", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.State(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotRunning) {
		t.Errorf("given up: %v, want context.Canceled", err)
	}
}
