package inside

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"servent/driver"
	"servent/system"
)

func originOf(url string) driver.Artifact {
	return driver.Artifact{Software: system.Software{Kind: system.Origin, From: url}}
}

// mirror answers with what it was asked.
func mirror(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "X-Hop")
	w.Header().Set("X-Hop", "1")
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("X-Target", r.Method+" "+r.URL.RequestURI())
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Te", "X-Mine", "X-Drop"} {
		w.Header().Set("Got-"+name, strings.Join(r.Header[name], "|"))
	}
	w.WriteHeader(http.StatusAccepted)
	io.Copy(w, r.Body)
}

func TestOrigin(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(mirror))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, tt := range []struct{ from, target, want string }{
		{"", "/", "/"},
		{"/", "/x?a=1&b=2", "/x?a=1&b=2"},
		{"/base", "/x/", "/base/x/"},
		{"/base/", "/x", "/base/x"},
		{"/base", "/", "/base/"},
		{"", "/a%2Fb", "/a%2Fb"},
	} {
		i := begin(t, Origin(), originOf(server.URL+tt.from))
		r := httptest.NewRequest("PUT", "http://shop.example.org"+tt.target, strings.NewReader("some body"))
		r.RemoteAddr = "10.1.2.3:4"
		r.Header.Set("Connection", "X-Drop")
		r.Header.Set("X-Drop", "1")
		r.Header.Set("X-Mine", "1")
		w := httptest.NewRecorder()
		i.Endpoint().Handler.ServeHTTP(w, r)
		h := w.Header()
		if w.Code != 202 || w.Body.String() != "some body" || h.Get("X-Target") != "PUT "+tt.want || h.Get("X-Host") != host ||
			h.Get("X-Hop") != "" || h.Get("Got-X-Drop") != "" || h.Get("Got-X-Mine") != "1" ||
			h.Get("Got-X-Forwarded-For") != "10.1.2.3" || h.Get("Got-X-Forwarded-Host") != "shop.example.org" || h.Get("Got-X-Forwarded-Proto") != "http" {
			t.Errorf("%q + %q = %d %q %v, want %q", tt.from, tt.target, w.Code, w.Body, h, tt.want)
		}
		// What the door said of the client stays.
		r.Header.Set("X-Forwarded-For", "198.51.100.7")
		r.Header.Set("X-Forwarded-Host", "outer.example.org")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Body = io.NopCloser(strings.NewReader("some body"))
		w = httptest.NewRecorder()
		i.Endpoint().Handler.ServeHTTP(w, r)
		if h := w.Header(); h.Get("Got-X-Forwarded-For") != "198.51.100.7, 10.1.2.3" || h.Get("Got-X-Forwarded-Host") != "outer.example.org" ||
			h.Get("Got-X-Forwarded-Proto") != "https" {
			t.Errorf("headers = %v", h)
		}
	}
}

func TestOriginStreams(t *testing.T) {
	next := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		http.NewResponseController(w).Flush()
		<-next
		io.WriteString(w, "second")
	}))
	defer server.Close()
	door := httptest.NewServer(begin(t, Origin(), originOf(server.URL)).Endpoint().Handler)
	defer door.Close()
	res, err := http.Get(door.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != "first" {
		t.Errorf("the first piece = %q, %v", b, err)
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "second" {
		t.Errorf("the rest = %q, %v", rest, err)
	}
}

func TestOriginThatIsNotThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	i := begin(t, Origin(), originOf(url))
	if err := i.(driver.Checker).Check(t.Context()); err != nil {
		t.Errorf("Check() of an origin that listens = %v", err)
	}
	ln.Close()
	if err := i.(driver.Checker).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "origin "+url) {
		t.Errorf("Check() = %v, want an error with the origin", err)
	}
	res := call(i, "GET", "/")
	if got := body(t, res); res.StatusCode != 502 || !strings.HasPrefix(got, "origin "+url+": ") || !strings.Contains(got, "refused") {
		t.Errorf("answer = %d %q, want 502 with the reason", res.StatusCode, got)
	}
}

func TestOriginThatIsSlow(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	p, err := Origin().Prepare(t.Context(), originOf(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	i, err := p.Start(t.Context(), driver.Spec{Instance: "media/1", Limits: system.Limits{Timeout: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	if res := call(i, "GET", "/"); res.StatusCode != 502 {
		t.Errorf("answer after the timeout = %d, want 502", res.StatusCode)
	}
	if err := i.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
}
