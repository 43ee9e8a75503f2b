package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/system"
)

// world is services that keep what they were asked, and a flow over them.
type world struct {
	t    *testing.T
	url  string
	dir  string
	flow *Flow
	stop func()

	mu     sync.Mutex
	asked  []string          // METHOD PATH BODY
	keys   map[string]string // by METHOD PATH
	answer func(method, path string, n int) (int, string)
	count  map[string]int
}

func newWorld(t *testing.T, answer func(method, path string, n int) (int, string)) *world {
	w := &world{t: t, dir: t.TempDir(), answer: answer, keys: map[string]string{}, count: map[string]int{}}
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(body))
		key := r.Method + " " + r.URL.Path
		w.mu.Lock()
		w.asked = append(w.asked, line)
		w.count[key]++
		n := w.count[key]
		if was, ok := w.keys[key]; ok && was != r.Header.Get("Idempotency-Key") {
			t.Errorf("%s came with the keys %s and %s", key, was, r.Header.Get("Idempotency-Key"))
		}
		w.keys[key] = r.Header.Get("Idempotency-Key")
		w.mu.Unlock()
		code, text := w.answer(r.Method, r.URL.Path, n)
		if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
			out.Header().Set("Content-Type", "application/json")
		}
		out.WriteHeader(code)
		io.WriteString(out, text)
	}))
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// open opens the flow, as a start of its instance does; end ends that.
func (w *world) open(steps ...system.Step) {
	w.t.Helper()
	f, err := Open(Options{Steps: steps, Dir: w.dir, URL: func(s system.ServiceName) string {
		if s == "nobody" {
			return ""
		}
		return w.url + "/" + string(s)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- f.Run(ctx) }()
	w.flow = f
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			w.t.Error(err)
		}
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
}

func (w *world) do(method, path, body string, headers ...string) (int, Shown) {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	out := httptest.NewRecorder()
	w.flow.ServeHTTP(out, r)
	var s Shown
	if err := json.Unmarshal(out.Body.Bytes(), &s); err != nil && !strings.HasSuffix(path, "/runs") {
		w.t.Errorf("%s %s: %q", method, path, out.Body)
	}
	return out.Code, s
}

func (w *world) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked)
}

func call(name, service, request string, more ...func(*system.Call)) system.Step {
	method, path, _ := strings.Cut(request, " ")
	c := &system.Call{Service: system.ServiceName(service), Method: method, Path: path, Timeout: 5 * time.Second, Tries: 3, Wait: time.Millisecond}
	for _, f := range more {
		f(c)
	}
	return system.Step{Name: name, Call: c}
}

func body(v any) func(*system.Call) { return func(c *system.Call) { c.Body = v } }

func undoing1(service, request string) func(*system.Call) {
	return func(c *system.Call) { c.Undo = call("", service, request).Call }
}

func ok(_, path string, _ int) (int, string) {
	return 200, fmt.Sprintf(`{"at": %q, "big": 9007199254740993}`, path)
}

// Steps see the input and earlier results; a result is the last step's, or what return says.
func TestSteps(t *testing.T) {
	w := newWorld(t, ok)
	w.open(
		call("stock", "stock", "POST /take/{input.item}", body(map[string]any{"n": "{input.n}", "who": "for {run}"})),
		system.Step{Name: "both", Branches: [][]system.Step{{call("a", "a", "GET /x")}, {call("b", "b", "GET /{stock.at}")}}},
		system.Step{Name: "all", Map: &system.Map{Over: "{input.list}", AtOnce: 2, Steps: []system.Step{call("one", "mail", "PUT /{item.to}/{index}")}}},
		system.Step{Choice: &system.Choice{On: "{input.kind}", When: map[string][]system.Step{"gold": {call("g", "gold", "POST /gift")}}, Else: []system.Step{{Fail: "no such kind"}}}},
		system.Step{Return: map[string]any{"first": "{all.0.at}", "big": "{stock.big}", "text": "{both.1.at}!"}},
		call("never", "never", "GET /"),
	)
	code, s := w.do("POST", "/order", `{"item": "a b", "n": 3, "list": [{"to": "x"}, {"to": "y"}], "kind": "gold"}`)
	if code != 200 || s.State != done {
		t.Fatalf("%d %+v", code, s)
	}
	if got, _ := json.Marshal(s.Value); string(got) != `{"big":9007199254740992,"first":"/mail/x/0","text":"/b//stock/take/a b!"}` {
		t.Errorf("value %s", got) // this test's decoder rounds the number
	}
	said := w.said()
	want := fmt.Sprintf(`POST /stock/take/a b {"n":3,"who":"for %s"}`, s.Run)
	if said[0] != want || !slices.Contains(said, "PUT /mail/y/1") || said[len(said)-1] != "POST /gold/gift" || len(said) != 6 {
		t.Errorf("asked %q, want first %q", said, want)
	}
	code, s = w.do("GET", "/order/runs/"+s.Run, "")
	if code != 200 || len(s.Steps) != 6 || s.Steps[0].Did != "done" || s.Steps[0].Tries != 1 || s.Ended.IsZero() {
		t.Errorf("%d %+v", code, s)
	}
}

// When a step fails for good, what was done is taken back, the last first; who was refused is not, who gave no clear answer is.
func TestTakesBack(t *testing.T) {
	w := newWorld(t, func(method, path string, n int) (int, string) {
		switch {
		case path == "/pay/charge":
			return 402, "no money"
		case path == "/slow/send":
			return 503, "later"
		case path == "/stock/untake" && n < 3:
			return 500, "try again"
		}
		return ok(method, path, n)
	})
	w.open(
		call("stock", "stock", "POST /take", undoing1("stock", "POST /untake")),
		call("seat", "seat", "POST /book", undoing1("seat", "DELETE {seat.at}")),
		system.Step{Branches: [][]system.Step{
			{call("pay", "pay", "POST /charge", undoing1("pay", "POST /refund"))},
		}},
	)
	code, s := w.do("POST", "/", `{}`)
	if code != 409 || s.State != failed || !strings.Contains(s.Error, "pay: 402 Payment Required no money") {
		t.Errorf("%d %+v", code, s)
	}
	if got := w.said(); fmt.Sprint(got[3:]) != "[DELETE /seat/seat/book POST /stock/untake POST /stock/untake POST /stock/untake]" {
		t.Errorf("taken back by %q", got)
	}
	w.stop()

	w.open(call("slow", "slow", "POST /send", undoing1("slow", "POST /unsend")))
	if code, s := w.do("POST", "/", `{}`); code != 409 || s.State != failed {
		t.Errorf("%d %+v", code, s)
	}
	if got := w.said(); fmt.Sprint(got[7:]) != "[POST /slow/send POST /slow/send POST /slow/send POST /slow/unsend]" {
		t.Errorf("one that may have been done: %q", got[7:])
	}
}

// What cannot be taken back is said.
func TestStuck(t *testing.T) {
	w := newWorld(t, func(method, path string, n int) (int, string) {
		if path == "/a/undo" {
			return 403, "never"
		}
		return ok(method, path, n)
	})
	w.open(call("a", "a", "POST /do", undoing1("a", "POST /undo")), call("b", "b", "POST /do", undoing1("b", "POST /undo")), system.Step{Fail: "because {input.why}"})
	code, s := w.do("POST", "/", `{"why": "so"}`)
	if code != 500 || s.State != stuck || s.Error != "because so; a is not taken back: 403 Forbidden never" {
		t.Errorf("%d %+v", code, s)
	}
	if got := w.said(); !slices.Contains(got, "POST /b/undo") {
		t.Errorf("asked %q", got)
	}
}

// A run whose instance ends goes on in the next life: no step that was kept is made again, the one that was under way is, by the same key, and of a
// flow that was changed meanwhile the old steps.
func TestGoesOn(t *testing.T) {
	hold := make(chan struct{})
	w := newWorld(t, func(method, path string, n int) (int, string) {
		if path == "/b/do" && n == 1 {
			<-hold
		}
		return ok(method, path, n)
	})
	defer close(hold)
	w.open(call("a", "a", "POST /do"), call("b", "b", "POST /do"), call("c", "c", "POST /do"))
	code, s := w.do("POST", "/", `{"n": 1}`, "Prefer", "respond-async", "Idempotency-Key", "k")
	if code != 202 || s.State != running {
		t.Fatalf("%d %+v", code, s)
	}
	for len(w.said()) < 2 {
		time.Sleep(time.Millisecond)
	}
	w.stop()
	w.open(call("z", "z", "POST /other"))
	code, s = w.do("POST", "/", `{"n": 1}`, "Idempotency-Key", "k")
	if code != 200 || s.State != done {
		t.Errorf("after the start: %d %+v", code, s)
	}
	if got := fmt.Sprint(w.said()); got != "[POST /a/do POST /b/do POST /b/do POST /c/do]" {
		t.Errorf("asked %s", got)
	}
	if code, _ := w.do("POST", "/", `{"n": 2}`, "Idempotency-Key", "k"); code != 422 {
		t.Errorf("one key, two bodies: %d", code)
	}
}

// A cancelled run waits for what is under way and takes it back.
func TestCancel(t *testing.T) {
	hold := make(chan struct{})
	w := newWorld(t, func(method, path string, n int) (int, string) {
		if path == "/a/do" {
			<-hold
		}
		return ok(method, path, n)
	})
	w.open(call("a", "a", "POST /do", undoing1("a", "POST /undo")), call("b", "b", "POST /do"))
	_, s := w.do("POST", "/", `{}`, "Prefer", "respond-async")
	for len(w.said()) < 1 {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(hold) })
	code, s := w.do("DELETE", "/runs/"+s.Run, "")
	if code != 200 || s.State != cancelled {
		t.Errorf("%d %+v", code, s)
	}
	if got := fmt.Sprint(w.said()); got != "[POST /a/do POST /a/undo]" {
		t.Errorf("asked %s", got)
	}
}

// In a failing set of branches none begins after the failure, and those under way are known and taken back.
func TestBranchesFail(t *testing.T) {
	w := newWorld(t, func(method, path string, n int) (int, string) {
		switch path {
		case "/bad/do":
			time.Sleep(20 * time.Millisecond)
			return 400, "bad"
		case "/long/do":
			time.Sleep(100 * time.Millisecond)
		}
		return ok(method, path, n)
	})
	w.open(system.Step{Branches: [][]system.Step{
		{call("long", "long", "POST /do", undoing1("long", "POST /undo")), call("never", "never", "POST /do")},
		{call("bad", "bad", "POST /do")},
	}})
	if code, s := w.do("POST", "/", `{}`); code != 409 || !strings.Contains(s.Error, "bad: 400") {
		t.Errorf("%d %+v", code, s)
	}
	if got := w.said(); !slices.Contains(got, "POST /long/undo") || slices.Contains(got, "POST /never/do") {
		t.Errorf("asked %q", got)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t, ok)
	w.open(call("a", "nobody", "POST /{input.x}"))
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		code               int
	}{
		{"PUT", "/", "", nil, 405}, {"POST", "/runs", "", nil, 405}, {"POST", "/", "{", []string{"Content-Type", "application/json"}, 400},
		{"POST", "/", strings.Repeat("x", MaxInput+1), nil, 413}, {"POST", "/", "", []string{"Prefer", "wait=x"}, 400},
		{"POST", "/", "", []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400}, {"GET", "/runs/none", "", nil, 404}, {"DELETE", "/runs/none", "", nil, 404},
		{"POST", "/", `{}`, nil, 409}, {"POST", "/", `{"x": 1}`, nil, 409}, {"GET", "/runs", "", nil, 200},
	} {
		if code, _ := w.do(tt.method, tt.path, tt.body, tt.headers...); code != tt.code {
			t.Errorf("%s %s %.20q: %d, want %d", tt.method, tt.path, tt.body, code, tt.code)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"what":"begin","steps":[{"call":{"service":"a","method":"GET","path":"/"}}]}`))
	f.Add([]byte(`{"what":"done","path":"0","value":{"a":[1]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEntry(b); err == nil {
			r := newRun(nil, "x", e)
			r.replay(e)
			r.shown(true)
		}
	})
}
