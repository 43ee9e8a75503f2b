package counter

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func ask(c *Counter, method, path string) (int, string) {
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestCounter(t *testing.T) {
	c := New()
	for _, tt := range []struct { // in this order, on one counter
		method, path string
		code         int
		body         string
	}{
		{"GET", "/c/a", 200, "0"},
		{"POST", "/c/a", 200, "1"},
		{"POST", "/c/a", 200, "2"},
		{"GET", "/c/a", 200, "2"},
		{"GET", "/c/b", 200, "0"},
		{"POST", "/c/a%2Fb", 200, "1"}, // an escaped slash is part of the name
		{"GET", "/c/a", 200, "2"},
		{"GET", "/_export/a", 200, "2"},
		{"GET", "/_export/never", http.StatusNotFound, "404 page not found"},
		{"PUT", "/_import/never", http.StatusBadRequest, "want a number: EOF"},
		{"PUT", "/c/a", http.StatusMethodNotAllowed, "Method Not Allowed"},
		{"POST", "/c/", http.StatusNotFound, "404 page not found"},
		{"POST", "/c/" + strings.Repeat("x", 201), http.StatusBadRequest, "a name has at most 200 bytes, this one has 201"},
		{"GET", "/", 200, "POST /c/NAME counts, GET /c/NAME reads"},
	} {
		if code, body := ask(c, tt.method, tt.path); code != tt.code || body != tt.body {
			t.Errorf("%s %.20s = %d %q, want %d %q", tt.method, tt.path, code, body, tt.code, tt.body)
		}
	}
}

func TestFullCounterStillCountsWhatItKnows(t *testing.T) {
	c := New()
	c.room = 1
	ask(c, "POST", "/c/7")
	if code, body := ask(c, "POST", "/c/new"); code != http.StatusInsufficientStorage {
		t.Errorf("POST of a further name = %d %q, want %d", code, body, http.StatusInsufficientStorage)
	}
	if code, body := ask(c, "POST", "/c/7"); code != 200 || body != "2" {
		t.Errorf("POST of a known name = %d %q, want 200 2", code, body)
	}
}

func TestNoIncrementIsLost(t *testing.T) {
	const clients, each = 8, 500
	c := New()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				ask(c, "POST", "/c/a")
			}
		})
	}
	wg.Wait()
	if _, body := ask(c, "GET", "/c/a"); body != fmt.Sprint(clients*each) {
		t.Errorf("after %d increments the number is %s", clients*each, body)
	}
}
