package wasm

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/driver"
	"servent/system"
)

// last starts the Go reactor, and waits until it is compiled.
func last(t testing.TB, limits system.Limits, ways ...driver.Way) (*instance, *log) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	module, err := lasting()
	if err != nil {
		t.Fatal(err)
	}
	i, said := start(t, module, limits, ways...)
	inst := i.(*instance)
	for end := time.Now().Add(time.Minute); ; {
		if !interpreted(inst) {
			return inst, said
		}
		if time.Now().After(end) {
			t.Fatalf("not compiled after a minute; log %s", said)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func text(h http.Handler, method, target, body string) string {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-User", "ada")
	w := ask(h, r)
	return fmt.Sprintf("%d %s", w.Code, w.Body)
}

// What is not compiled yet answers all the same, by the interpreter, and changes over while it is called.
func TestInterpretedUntilCompiled(t *testing.T) {
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	module, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	i, said := start(t, module, system.Limits{})
	ready, inst := time.Since(began), i.(*instance)
	if !interpreted(inst) {
		t.Skip("the compiler was quicker than the patience")
	}
	for end := time.Now().Add(time.Minute); ; {
		r := httptest.NewRequest("GET", "/a", nil)
		if w := ask(i.Endpoint().Handler, r); w.Code != http.StatusAccepted {
			t.Fatalf("answer %d %q", w.Code, w.Body)
		}
		if strings.Contains(said.String(), "compiled in") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not compiled after a minute: %s", said)
		}
	}
	st, err := i.Stats(t.Context())
	if err != nil || st.Interpreted == 0 || st.Interpreted > st.Calls {
		t.Errorf("Stats() = %+v, %v; want some interpreted calls", st, err)
	}
	if w := ask(i.Endpoint().Handler, httptest.NewRequest("GET", "/b", nil)); w.Code != http.StatusAccepted {
		t.Errorf("answer %d once it is compiled", w.Code)
	}
	t.Logf("ready after %v; %s", ready, strings.TrimSpace(said.String()))
}

// An instance that is stopped while the compiler works leaves nothing behind.
func TestStoppedBeforeCompiled(t *testing.T) {
	if testing.Short() {
		t.Skip("compiling a Go module takes seconds")
	}
	module, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Cache: t.TempDir()}).Prepare(t.Context(), artifact(t, module))
	if err != nil {
		t.Fatal(err)
	}
	i, err := p.Start(t.Context(), driver.Spec{Instance: "f/1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := i.Stop(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	select {
	case <-p.(*prepared).done:
	default:
		t.Error("the compiler goes on")
	}
}

func TestReactor(t *testing.T) {
	i, said := last(t, system.Limits{Concurrency: 1, Resources: system.Resources{Memory: 32 << 20}, Fuel: 2e9, Timeout: time.Minute})
	h := i.Endpoint().Handler
	for n := 1; n <= 3; n++ { // by the same instance
		if got, want := text(h, "POST", "/a?x=1", "some text"), fmt.Sprintf("200 POST /a x=1 ada hello n=%d body=some text\n", n); got != want {
			t.Errorf("answer %q, want %q", got, want)
		}
	}
	r := httptest.NewRequest("GET", "/a", nil)
	r.Header["X_user"] = []string{"eve"} // has the variable's name, too
	r.Header.Set("X-User", "ada")
	if w := ask(h, r); !strings.Contains(w.Body.String(), " ada ") {
		t.Errorf("answer %q to X_User: eve, want ada", w.Body)
	}
	if got := text(h, "GET", "/a%00HTTP_X_USER%00eve", ""); !strings.HasPrefix(got, "400 ") {
		t.Errorf("answer %q to a path with a zero byte, want 400", got)
	}
	if !strings.Contains(said.String(), "info: count 3\n") {
		t.Errorf("log %q, want what it logged", said)
	}
	for _, tt := range []struct{ path, status string }{{"/panic", "502"}, {"/loop", "502"}, {"/grow", "502"}} {
		if got := text(h, "GET", tt.path, ""); !strings.HasPrefix(got, tt.status) {
			t.Errorf("%s: answer %.200q, want %s", tt.path, got, tt.status)
		}
		// What went wrong is thrown away, and the next begins anew.
		if got := text(h, "GET", "/b", ""); !strings.Contains(got, "n=1 ") {
			t.Errorf("after %s: answer %q, want that of a new instance", tt.path, got)
		}
	}
	st, err := i.Stats(t.Context())
	if err != nil || st.Idle != 1 || st.Made < 4 {
		t.Errorf("Stats() = %+v, %v; want one idle instance of at least four", st, err)
	}
}

// Each call of an instance that lives on has a budget of its own.
func TestReactorsBudget(t *testing.T) {
	ok := "Content-Type: text/plain\n\nok"
	h, _ := begin(t, reactor(ok, append(loop(10_000), say(1)...)...), system.Limits{Fuel: 60_000, Concurrency: 1})
	for n := range 10 {
		if w := ask(h, newRequest()); w.Code != 200 {
			t.Fatalf("call %d: %d %s, want a budget for each", n, w.Code, w.Body)
		}
	}
	h, _ = begin(t, reactor(ok, append(loop(10_000), say(1)...)...), system.Limits{Fuel: 40_000, Concurrency: 1})
	for n := range 3 {
		if w := ask(h, newRequest()); w.Code != 502 {
			t.Fatalf("call %d: %d, want 502: what one call leaves is not the next one's", n, w.Code)
		}
	}
}

// There are as many instances as calls at a time, and those that idle go, but for the last.
func TestPool(t *testing.T) {
	ok := "Content-Type: text/plain\n\nok"
	i, _ := start(t, reactor(ok, append(loop(300_000), say(1)...)...), system.Limits{Concurrency: 4})
	inst := i.(*instance)
	inst.calls.idleAfter = 50 * time.Millisecond
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				ask(i.Endpoint().Handler, newRequest())
			}
		})
	}
	all.Wait()
	st, err := i.Stats(t.Context())
	if err != nil || st.Idle > 4 || st.Made < 1 {
		t.Errorf("Stats() = %+v, %v; want at most 4 idle", st, err)
	}
	for end := time.Now().Add(30 * time.Second); ; {
		if st, _ = i.Stats(t.Context()); st.Idle == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d idle instances stay, want the last alone", st.Idle)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Services are called if they are named, and no other; a database keeps what it is given.
func TestHostCalls(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-From", r.Host)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	}))
	defer other.Close()
	var mu sync.Mutex
	keys := map[string]string{}
	db := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		k := r.URL.EscapedPath()
		switch _, ok := keys[k]; {
		case r.Method == "PUT":
			b, _ := io.ReadAll(r.Body)
			keys[k] = string(b)
			w.WriteHeader(http.StatusCreated)
		case !ok:
			http.NotFound(w, r)
		case r.Method == "DELETE":
			delete(keys, k)
		default:
			io.WriteString(w, keys[k])
		}
	}))
	defer db.Close()
	at := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	i, said := last(t, system.Limits{Timeout: 3 * time.Second}, driver.Way{Name: "other", To: at(other)},
		driver.Way{Name: "db", To: at(db), Builtin: "kv"}, driver.Way{Name: "gone", To: "127.0.0.1:1"})
	h := i.Endpoint().Handler
	for _, tt := range []struct{ method, target, body, want string }{
		{"POST", "/call?url=http://other/a%3Fx=1", "hi", "418 POST /a?x=1 hi"},
		{"GET", "/call?url=http://other:80/b", "", "418 GET /b "},
		{"GET", "/call?url=http://another/", "", `500 -1 f/1 may not call "another": name it in depends_on`},
		{"GET", "/call?url=" + other.URL, "", "500 -1 f/1 may not call"},
		{"GET", "/call?url=http://gone/", "", "500 -3 gone: dial tcp"},
		{"GET", "/kv?db=db&key=a/b", "", `200 -4 db has no key "a/b"`},
		{"PUT", "/kv?db=db&key=a/b", strings.Repeat("value", 1000), "200 0 "},
		{"GET", "/kv?db=db&key=a/b", "", "200 5000 " + strings.Repeat("value", 1000)},
		{"DELETE", "/kv?db=db&key=a/b", "", "200 0 "},
		{"GET", "/kv?db=db&key=a/b", "", "200 -4 "},
		{"GET", "/kv?db=other&key=a", "", "200 -2 other is no key-value database"},
		{"GET", "/kv?db=another&key=a", "", "200 -1 "},
		{"GET", "/call?url=http://other/slow", "", "504 "},
		{"GET", "/after", "", "200 GET /after"},
	} {
		if got := text(h, tt.method, tt.target, tt.body); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s %s: answer %.200q, want %.200q; log %.300s", tt.method, tt.target, got, tt.want, said)
		}
	}
	if !strings.Contains(said.String(), "may not call") {
		t.Errorf("log %q, want a word of what was denied", said)
	}
}

// BenchmarkWarm is a call of the Go reactor: SCGI read by net/http/cgi.
func BenchmarkWarm(b *testing.B) {
	i, _ := last(b, system.Limits{})
	for b.Loop() {
		if w := ask(i.Endpoint().Handler, newRequest()); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

func TestNetstring(t *testing.T) {
	got := string(netstring([][2]string{{"REQUEST_METHOD", "GET"}, {"CONTENT_LENGTH", "9"}}, 0))
	if want := "43:CONTENT_LENGTH\x000\x00SCGI\x001\x00REQUEST_METHOD\x00GET\x00,"; got != want {
		t.Errorf("netstring() = %q, want %q", got, want)
	}
}

func interpreted(i *instance) bool {
	i.calls.mu.Lock()
	defer i.calls.mu.Unlock()
	return i.calls.place.engine.key.interpreted
}
