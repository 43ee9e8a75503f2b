package console

import (
	"io/fs"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// The pages load nothing from elsewhere, and what they load is there. cli's TestConsole looks at them in a
// browser.
func TestPagesAreWhole(t *testing.T) {
	h := Handler()
	elsewhere := regexp.MustCompile(`(?:https?:)?//[\w.]+\.\w+`)
	asks := regexp.MustCompile(`(?:href|src)="([^"#]+)"|from "\./([^"]+)"`)
	err := fs.WalkDir(pages, "pages", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := pages.ReadFile(path)
		if err != nil {
			return err
		}
		for _, url := range elsewhere.FindAllString(string(text), -1) {
			if url != "http://www.w3.org" { // a name, not an address
				t.Errorf("%s asks %s", path, url)
			}
		}
		for _, m := range asks.FindAllStringSubmatch(string(text), -1) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/"+m[1]+m[2], nil))
			if w.Code != 200 || w.Body.Len() == 0 {
				t.Errorf("%s asks for %s%s: %d", path, m[1], m[2], w.Code)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestHandler(t *testing.T) {
	for _, tt := range []struct {
		method, path, kind string
		code               int
	}{
		{"GET", "/", "text/html; charset=utf-8", 200},
		{"HEAD", "/app.js", "text/javascript; charset=utf-8", 200},
		{"GET", "/style.css", "text/css; charset=utf-8", 200},
		{"GET", "/nothing", "text/plain; charset=utf-8", 404},
		{"POST", "/", "text/plain; charset=utf-8", 405},
	} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.code || w.Header().Get("Content-Type") != tt.kind {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, w.Code, w.Header().Get("Content-Type"), tt.code, tt.kind)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s %s has the policy %q", tt.method, tt.path, csp)
		}
	}
}
