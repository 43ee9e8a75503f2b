package l7

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/driver"
	"servent/meter"
	"servent/route"
	"servent/system"
)

func TestLocalAndRemoteLookTheSame(t *testing.T) {
	f := newFleet(t, 2)
	f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Program", "yes")
		w.Header().Set("Server-Timing", "db;dur=3")
		w.Header().Set("Servent-Refused", "a lie")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
	}))
	c := client(t)
	answers := map[string]string{}
	for node, hops := range map[system.NodeID]string{"node-1": "1", "node-2": "0"} {
		for _, method := range []string{"GET", "POST"} {
			res, body := ask(t, c, method, f.door(node)+"/a%2Fb//c?x=1&y;z", strings.NewReader("hello"))
			timing := res.Header.Values("Server-Timing")
			want := regexp.MustCompile(`^node;desc="node-2", instance;desc="api/1", why;desc="policy", hops;desc="` + hops + `", total;dur=\d+\.\d$`)
			if len(timing) != 2 || timing[0] != "db;dur=3" || !want.MatchString(timing[1]) {
				t.Errorf("%s at %s: Server-Timing %q, want the program's and %s", method, node, timing, want)
			}
			for _, name := range []string{"Server-Timing", "Date"} {
				res.Header.Del(name)
			}
			body = regexp.MustCompile(`127.0.0.1:\d+`).ReplaceAllString(body, "DOOR")
			got := fmt.Sprint(res.StatusCode, res.Header, body)
			if was, ok := answers[method]; ok && was != got {
				t.Errorf("%s differs:\n%s\n%s", method, was, got)
			}
			answers[method] = got
			if !strings.Contains(got, method+" DOOR /a%2Fb//c?x=1&y;z hello") || res.StatusCode != http.StatusTeapot || strings.Contains(got, "Servent") {
				t.Errorf("%s at %s: %s", method, node, got)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	f := newFleet(t, 2)
	var mu sync.Mutex
	var got http.Header
	f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = r.Header.Clone()
		mu.Unlock()
		h := w.Header()
		h.Set("Connection", "X-Mine")
		h.Set("X-Mine", "not yours")
		h.Set("Keep-Alive", "timeout=9")
		h.Set("X-End", "to end")
	}))
	door := f.door("node-1")
	res, _ := ask(t, client(t), "GET", door, nil, "Connection: X-Secret, close", "X-Secret: 1", "Te: trailers, deflate", "Proxy-Authorization: x",
		"Keep-Alive: 1", "Servent-Instance: api/9", "Servent-Anything: x", "X-End: to end", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "Forwarded: for=192.0.2.7")
	mu.Lock()
	defer mu.Unlock()
	host := strings.TrimPrefix(door, "http://")
	want := http.Header{"X-End": {"to end"}, "Te": {"trailers"}, "X-Forwarded-For": {"192.0.2.7, 127.0.0.1"}, "X-Forwarded-Host": {host}, "X-Forwarded-Proto": {"https"},
		"Forwarded": {`for=192.0.2.7, for=127.0.0.1;host="` + host + `";proto=http`}, "User-Agent": {"Go-http-client/1.1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the program got (-want +got):\n%s", diff)
	}
	for _, name := range []string{"Keep-Alive", "X-Mine", "Servent-Instance"} {
		if res.Header.Get(name) != "" {
			t.Errorf("the client got %s: %s", name, res.Header.Get(name))
		}
	}
	if res.Header.Get("X-End") != "to end" {
		t.Error("an end-to-end header was lost")
	}
}

func TestForwardedIsNotBelievedFromOutside(t *testing.T) {
	table := &route.Table{Trust: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	for _, tt := range []struct{ remote, want, node string }{
		{"198.51.100.9:99", "192.0.2.7, 198.51.100.9", "198.51.100.9"},
		{"203.0.113.5:99", "203.0.113.5", "203.0.113.5"},
		{"[2001:db8::1]:99", "2001:db8::1", `"[2001:db8::1]"`},
		{"127.0.0.1:99", "192.0.2.7, 127.0.0.1", "127.0.0.1"},
		{"@", "@", "unknown"},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Host: `a"b`, Header: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "Forwarded": {"for=x"}}}
		h := onward(r, true, table)
		if got := h.Get("X-Forwarded-For"); got != tt.want {
			t.Errorf("from %s: X-Forwarded-For %q, want %q", tt.remote, got, tt.want)
		}
		if got, want := h.Get("Forwarded"), fmt.Sprintf(`for=%s;host="a\"b";proto=http`, tt.node); !strings.HasSuffix(got, want) {
			t.Errorf("from %s: Forwarded %q, want …%q", tt.remote, got, want)
		}
	}
}

// For plain requests the answer is that of httputil.ReverseProxy, plus Server-Timing.
func TestSameAsReverseProxy(t *testing.T) {
	f := newFleet(t, 2)
	p := f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := w.Header()
		h["Date"] = nil
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			h.Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/big":
			h.Set("Content-Length", fmt.Sprint(3*replay))
			_, _ = w.Write(make([]byte, 3*replay))
		case "/chunked":
			_, _ = w.Write(make([]byte, 5000))
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(make([]byte, 2*replay))
		case "/cookies":
			h.Add("Set-Cookie", "a=1")
			h.Add("Set-Cookie", "b=2")
		case "/500":
			http.Error(w, "no", http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, "%s %s %q %q %q %d", r.Method, r.RequestURI, r.Header["X-A"], r.Header["Accept-Encoding"], body, r.ContentLength)
		}
	}))
	target, err := url.Parse("http://" + p.addr)
	if err != nil {
		t.Fatal(err)
	}
	judge := f.open("node-1", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}})
	doors := map[string]string{"remote": f.door("node-1"), "local": f.door("node-2")}
	c := client(t)
	for _, path := range []string{"/", "/a%20b/%2F?q=%7a&r", "/204", "/304", "/redirect", "/big", "/chunked", "/cookies", "/500"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} {
			send := func(base string) string {
				var body io.Reader
				if method == "POST" || method == "PUT" {
					body = strings.NewReader("some body")
				}
				res, got := ask(t, c, method, base+path, body, "X-A: 1", "X-A: 2", "Accept-Encoding: gzip")
				if len(got) > 100 {
					got = fmt.Sprint(len(got), " bytes")
				}
				timing := res.Header.Get("Server-Timing")
				res.Header.Del("Server-Timing")
				res.Header.Del("Date")
				if (timing == "") != (base == judge) {
					t.Errorf("%s %s: Server-Timing %q", method, base+path, timing)
				}
				return fmt.Sprint(res.StatusCode, res.Header, got)
			}
			want := send(judge)
			for name, door := range doors {
				if got := send(door); got != want {
					t.Errorf("%s %s, %s:\ngot  %s\nwant %s", method, path, name, got, want)
				}
			}
		}
	}
}

func TestWeb(t *testing.T) {
	f := newFleet(t, 1)
	f.run("node-1", 1, text("from api"))
	web := f.open("node-1", f.nodes["node-1"].sw.Web())
	c := client(t)
	res, body := ask(t, c, "GET", web+"/", nil)
	if res.StatusCode != http.StatusNotFound || !strings.Contains(body, "this system has no routes") {
		t.Errorf("without routes: %d %s", res.StatusCode, body)
	}
	f.change(func() {
		f.web = []route.Web{{Host: "shop.example.org", Path: "/api/", Prefix: true, Service: "api"}, {Path: "/gone", Service: "gone"}}
	})
	if res, body := ask(t, c, "GET", web+"/api/x", nil); res.StatusCode != http.StatusOK || body != "from api" {
		t.Errorf("GET /api/x: %d %s", res.StatusCode, body)
	}
	for accept, want := range map[string]string{"*/*": "\n  shop.example.org/api/*  api\n", "text/html": `<a href="/gone"><code>/gone</code></a>`} {
		res, body := ask(t, c, "GET", web+"/api/../<script>", nil, "Accept: "+accept)
		if res.StatusCode != http.StatusNotFound || !strings.Contains(body, want) || strings.Contains(body, "<script>") {
			t.Errorf("404 for %s: %d\n%s\nwant …%s…", accept, res.StatusCode, body, want)
		}
	}
	if res, body := ask(t, c, "GET", web+"/gone", nil); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "does not name it") {
		t.Errorf("GET /gone: %d %s", res.StatusCode, body)
	}
	f.nodes["node-1"].table.Store(nil)
	if res, body := ask(t, c, "GET", web+"/api/", nil); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "node-1 has no plan yet") {
		t.Errorf("without a table: %d %s", res.StatusCode, body)
	}
	if res, _ := ask(t, c, "CONNECT", f.door("node-1"), nil); res.StatusCode != http.StatusNotImplemented {
		t.Errorf("CONNECT: %d, want 501", res.StatusCode)
	}
}

// A token goes round: each instance sends to the next, and a gap is closed.
func TestToOneInstance(t *testing.T) {
	f := newFleet(t, 2, func(o *Options) { o.Hold = 30 * time.Millisecond })
	for n := 1; n <= 3; n++ {
		f.run(system.NodeID(fmt.Sprintf("node-%d", 1+n%2)), n, text(fmt.Sprint("api/", n)))
	}
	sw := f.nodes["node-1"].sw
	peer2 := f.open("node-1", sw.To(func(t *route.Table) (route.Instance, bool) { return t.Instance("api/2") }))
	next2 := f.open("node-1", sw.To(func(t *route.Table) (route.Instance, bool) { return t.Next("api/2") }))
	next3 := f.open("node-1", sw.To(func(t *route.Table) (route.Instance, bool) { return t.Next("api/3") }))
	c := client(t)
	for door, want := range map[string]string{peer2: "api/2", next2: "api/3", next3: "api/1"} {
		for range 4 {
			if _, got := ask(t, c, "POST", door, nil); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	f.change(func() { svc := f.service("api"); svc.Instances = svc.Instances[:2] })
	if _, got := ask(t, c, "GET", next2, nil); got != "api/1" {
		t.Errorf("after api/3 is gone, the next of api/2 is %q, want api/1", got)
	}
	f.change(func() { svc := f.service("api"); svc.Instances = svc.Instances[:1]; svc.Coming = true })
	res, body := ask(t, c, "GET", peer2, nil)
	if want := "servent: no instance of api can answer: api/2 is not ready; waited 30ms for it\nnext: servent explain api\n"; res.StatusCode != http.StatusServiceUnavailable || body != want {
		t.Errorf("api/2 is gone: %d %q, want 503 %q", res.StatusCode, body, want)
	}
}

func TestPeerServesOnlyWhatIsHere(t *testing.T) {
	f := newFleet(t, 2)
	p := f.run("node-2", 1, text("x"))
	for _, tt := range []struct {
		name     string
		header   []string
		status   int
		refused  string
		instance bool
	}{
		{"here", []string{"Servent-Instance: api/1"}, 200, "", true},
		{"elsewhere: never sent on", []string{"Servent-Instance: api/2"}, 421, "it does not run here", false},
		{"no name", nil, 400, "", false},
		{"bad name", []string{"Servent-Instance: api"}, 400, "", false},
		{"two names", []string{"Servent-Instance: api/1", "Servent-Instance: api/1"}, 400, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := p.hits.Load()
			res, body := ask(t, client(t), "POST", f.nodes["node-2"].peer.URL, strings.NewReader("x"), tt.header...)
			if res.StatusCode != tt.status || res.Header.Get("Servent-Refused") != tt.refused || res.Header.Get("Server-Timing") != "" {
				t.Errorf("got %d, %v, %q, want %d, refused %q", res.StatusCode, res.Header, body, tt.status, tt.refused)
			}
			if reached := p.hits.Load() > before; reached != tt.instance {
				t.Errorf("reached the instance: %v, want %v", reached, tt.instance)
			}
		})
	}
}

func TestInsideHandlers(t *testing.T) {
	f := newFleet(t, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("oh")
		case "/late":
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			panic("oh")
		case "/empty":
		default:
			w.Header().Set("Servent-Broken", "a lie")
			fmt.Fprintf(w, "%s %s", r.Method, r.URL)
		}
	})
	f.place("node-2", 1, driver.Endpoint{Handler: handler})
	c := client(t)
	for _, node := range []system.NodeID{"node-1", "node-2"} {
		door := f.door(node)
		if res, body := ask(t, c, "GET", door+"/a?b", nil); body != "GET /a?b" || !strings.Contains(res.Header.Get("Server-Timing"), `"api/1"`) {
			t.Errorf("at %s: %q, %v", node, body, res.Header)
		}
		if res, _ := ask(t, c, "GET", door+"/empty", nil); res.StatusCode != 200 || res.Header.Get("Server-Timing") == "" {
			t.Errorf("an empty answer at %s: %d, %v", node, res.StatusCode, res.Header)
		}
		if res, body := ask(t, c, "POST", door+"/panic", nil); res.StatusCode != 502 || !strings.Contains(body, "panicked: oh") {
			t.Errorf("a panic at %s: %d %q, want 502 and why", node, res.StatusCode, body)
		}
		if res, err := c.Get(door + "/late"); err == nil {
			if _, err := io.ReadAll(res.Body); err == nil && res.StatusCode == 200 {
				t.Errorf("a panic in mid-answer at %s: ended cleanly", node)
			}
			res.Body.Close()
		}
	}
}

func TestMeter(t *testing.T) {
	f := newFleet(t, 2, func(o *Options) { o.Hold = time.Millisecond })
	f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/500" {
			w.WriteHeader(500)
		}
		_, _ = io.WriteString(w, "four")
	}))
	door, c := f.door("node-1"), client(t)
	ask(t, c, "POST", door, strings.NewReader("in"))
	ask(t, c, "GET", door+"/500", nil)
	f.change(func() { svc := f.service("api"); svc.Instances, svc.Coming, svc.Why = nil, true, "api/1 is starting" })
	ask(t, c, "GET", door, nil)
	rows := f.nodes["node-1"].meter.Snapshot()
	for i := range rows {
		if got, want := rows[i].Latency.Count(), rows[i].Requests; got != want {
			t.Errorf("%d latencies of %d requests", got, want)
		}
		rows[i].Latency = nil
	}
	want := []meter.Row{{Service: "api", Held: 1, Refused: 1}, {Service: "api", Instance: "api/1", Requests: 2, Errors: 1, In: 2, Out: 8}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("node-1 (-want +got):\n%s", diff)
	}
	if rows := f.nodes["node-2"].meter.Snapshot(); len(rows) > 0 {
		t.Errorf("node-2 counted %v: a request is counted where it enters", rows)
	}
}

func TestSpread(t *testing.T) {
	for _, policy := range route.Policies {
		f := newFleet(t, 3)
		var programs []*program
		for n := 1; n <= 3; n++ {
			programs = append(programs, f.run(system.NodeID(fmt.Sprintf("node-%d", n)), n, text("x")))
		}
		f.change(func() { f.service("api").Switch.Policy = policy })
		door, c := f.door("node-1"), client(t)
		for range 60 {
			ask(t, c, "GET", door, nil)
		}
		var hits []int64
		for _, p := range programs {
			hits = append(hits, p.hits.Load())
		}
		if policy == "roundrobin" && !slices.Equal(hits, []int64{20, 20, 20}) || policy == "random" && slices.Min(hits) == 0 {
			t.Errorf("%s: %v of 60", policy, hits)
		}
	}
}
