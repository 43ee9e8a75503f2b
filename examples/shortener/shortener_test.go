package shortener

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func said(w *httptest.ResponseRecorder) string { return strings.TrimSpace(w.Body.String()) }

func TestShortener(t *testing.T) {
	s := New("")
	for _, tt := range []struct { // in this order, on one shortener
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/s/a", "", 404, "404 page not found"},
		{"GET", "/s/a/visits", "", 200, "0"},
		{"PUT", "/s/a", "https://example.org/1", 200, "https://example.org/1"},
		{"GET", "/s/a", "", 302, "https://example.org/1"},
		{"GET", "/s/a", "", 302, "https://example.org/1"},
		{"PUT", "/s/a", " /manual/start\n", 200, "/manual/start"}, // of the same site
		{"GET", "/s/a", "", 302, "/manual/start"},
		{"GET", "/s/a/visits", "", 200, "3"},
		{"PUT", "/s/b", "javascript:alert(1)", 400, `want a link like https://example.org/a, have "javascript:alert(1)"`},
		{"PUT", "/s/b", "", 400, `want a link like https://example.org/a, have ""`},
		{"PUT", "/s/b", strings.Repeat("x", longest+1), 400, "want a link of at most 2000 bytes: http: request body too large"},
		{"PUT", "/s/" + strings.Repeat("n", 101), "/x", 400, "a name has at most 100 bytes"},
		{"GET", "/s/b", "", 404, "404 page not found"},
		{"POST", "/links", "no link://", 400, `want a link like https://example.org/a, have "no link://"`},
	} {
		w := ask(s, tt.method, tt.path, tt.body)
		if w.Code != tt.code || said(w) != tt.want || w.Code == 302 && w.Header().Get("Location") != tt.want {
			t.Errorf("%s %.20s = %d %q to %q, want %d %q", tt.method, tt.path, w.Code, said(w), w.Header().Get("Location"), tt.code, tt.want)
		}
	}
}

// One link has one name, two links have two, also when they would have the same.
func TestNames(t *testing.T) {
	s := New("")
	names := map[string]string{}
	for i := range 2 {
		for n := range 100 {
			link := fmt.Sprintf("https://example.org/%d", n)
			w := ask(s, "POST", "/links", link)
			if w.Code != http.StatusCreated || w.Header().Get("Location") != said(w) || len(said(w)) != len("/s/")+7 {
				t.Fatalf("POST %s = %d %q, want 201 and a name of seven", link, w.Code, said(w))
			}
			if old := names[said(w)]; old != link && (old != "" || i > 0) {
				t.Errorf("%s is named %s, as %q is", link, said(w), old)
			}
			names[said(w)] = link
		}
	}
	const link = "https://example.org/other"
	ask(s, "PUT", "/s/"+short(link, 0), "https://example.org/was-here-first")
	if w := ask(s, "POST", "/links", link); said(w) != "/s/"+short(link, 1) {
		t.Errorf("a link whose name is taken = %d %q, want its second name %s", w.Code, said(w), short(link, 1))
	}
	s.room = len(s.of)
	if w := ask(s, "POST", "/links", "https://example.org/more"); w.Code != http.StatusInsufficientStorage {
		t.Errorf("one more than there is room for = %d %q, want %d", w.Code, said(w), http.StatusInsufficientStorage)
	}
}

// Any instance makes a name, and its owner keeps it.
func TestMadeForAnother(t *testing.T) {
	owner := New("")
	door := httptest.NewServer(owner)
	defer door.Close()
	s := New(door.URL)
	const link = "https://example.org/far"
	ask(owner, "PUT", "/s/"+short(link, 0), "https://example.org/was-here-first")
	w := ask(s, "POST", "/links", link)
	if w.Code != http.StatusCreated || said(w) != "/s/"+short(link, 1) {
		t.Fatalf("POST = %d %q, want 201 and its second name", w.Code, said(w))
	}
	if got := ask(owner, "GET", said(w), ""); said(got) != link {
		t.Errorf("the owner leads to %q, want %s", said(got), link)
	}
	if got := ask(s, "GET", said(w), ""); got.Code != 404 {
		t.Errorf("who made the name answers %d, want 404: it owns nothing", got.Code)
	}
	owner.room = 0
	if w := ask(s, "POST", "/links", "https://example.org/more"); w.Code != http.StatusBadGateway || !strings.Contains(said(w), "no room") {
		t.Errorf("POST to a full owner = %d %q, want 502 and why", w.Code, said(w))
	}
}
