package inside

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"servent/driver"
	"servent/system"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func filesOf(dir string) driver.Artifact {
	return driver.Artifact{Dir: dir, Software: system.Software{Kind: system.Files}}
}

func begin(t testing.TB, d driver.Driver, a driver.Artifact) driver.Instance {
	t.Helper()
	p, err := d.Prepare(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	i, err := p.Start(t.Context(), driver.Spec{Instance: "web/1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	return i
}

func call(i driver.Instance, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	w := httptest.NewRecorder()
	i.Endpoint().Handler.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	outside := folder(t, map[string]string{"secret": "hidden words"})
	dir := folder(t, map[string]string{
		"index.html": "<h1>home</h1>", "a b.txt": "spaced", "app.js": "x", "data": "plain words", "docs/index.html": "docs",
		"empty/file": "", ".env": "hidden words", ".git/config": "hidden words", ".well-known/security.txt": "mail us", "docs/.well-known/x": "hidden words",
		"page.HTML": "upper",
	})
	if runtime.GOOS != "windows" {
		for name, to := range map[string]string{"out": filepath.Join(outside, "secret"), "up": "../" + filepath.Base(outside) + "/secret",
			"outdir": outside, "in": "app.js"} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	i := begin(t, Files(), filesOf(dir))
	for _, tt := range []struct {
		method, target string
		status         int
		kind, body     string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "<h1>home</h1>"},
		{"GET", "", 200, "text/html; charset=utf-8", "<h1>home</h1>"},
		{"HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"GET", "/index.html", 200, "text/html; charset=utf-8", "<h1>home</h1>"},
		{"GET", "/page.HTML", 200, "text/html; charset=utf-8", "upper"},
		{"GET", "/a b.txt", 200, "text/plain; charset=utf-8", "spaced"},
		{"GET", "/app.js?v=2", 200, "text/javascript; charset=utf-8", "x"},
		{"GET", "/data", 200, "text/plain; charset=utf-8", "plain words"},
		{"GET", "/docs/", 200, "text/html; charset=utf-8", "docs"},
		{"GET", "/docs/../app.js", 200, "text/javascript; charset=utf-8", "x"},
		{"GET", "/.well-known/security.txt", 200, "text/plain; charset=utf-8", "mail us"},
		{"GET", "/docs", 301, "", ""},
		{"GET", "/empty/", 404, "", "no such file"},
		{"GET", "/nowhere", 404, "", "no such file: /nowhere"},
		{"GET", "/app.js/", 404, "", "no such file"},
		{"GET", "/app.js/x", 404, "", "no such file"},
		{"GET", "/.env", 404, "", "no such file"},
		{"GET", "/.git/config", 404, "", "no such file"},
		{"GET", "/docs/.well-known/x", 404, "", "no such file"},
		{"GET", "/../" + filepath.Base(outside) + "/secret", 404, "", "no such file"},
		{"GET", "/docs/../../" + filepath.Base(outside) + "/secret", 404, "", "no such file"},
		{"GET", "/..\\secret", 404, "", "no such file"},
		{"GET", "/app.js\x00", 404, "", "no such file"},
		{"GET", "/out", 404, "", "no such file"},
		{"GET", "/up", 404, "", "no such file"},
		{"GET", "/outdir/secret", 404, "", "no such file"},
		{"POST", "/", 405, "", "GET or HEAD"},
		{"DELETE", "/app.js", 405, "", "GET or HEAD"},
	} {
		res := call(i, tt.method, tt.target)
		got := body(t, res)
		exact := tt.status == 200
		if res.StatusCode != tt.status || exact && got != tt.body || !strings.Contains(got, tt.body) || strings.Contains(got, "hidden words") ||
			tt.kind != "" && res.Header.Get("Content-Type") != tt.kind {
			t.Errorf("%s %q = %d %q %q, want %d %q %q", tt.method, tt.target, res.StatusCode, res.Header.Get("Content-Type"), got, tt.status, tt.kind, tt.body)
		}
	}
	if runtime.GOOS != "windows" {
		if res := call(i, "GET", "/in"); body(t, res) != "x" {
			t.Error("a link within the folder is not followed")
		}
	}
	if to := call(i, "GET", "/docs?x=1").Header.Get("Location"); to != "./docs/?x=1" {
		t.Errorf("Location = %q, want ./docs/?x=1", to)
	}
	if st, err := i.Stats(t.Context()); err != nil || st.Calls == 0 {
		t.Errorf("Stats() = %+v, %v, want calls", st, err)
	}
}

func TestFilesBelowTheBundle(t *testing.T) {
	dir := folder(t, map[string]string{"public/a.txt": "below", "a.txt": "beside"})
	for from, want := range map[string]string{"./public": "below", "public/": "below", "": "beside", "./dist": "beside", "../x": "beside"} {
		a := filesOf(dir)
		a.Software.From = from
		if got := body(t, call(begin(t, Files(), a), "GET", "/a.txt")); got != want {
			t.Errorf("files: %q serves %q, want %q", from, got, want)
		}
	}
}

func TestValidators(t *testing.T) {
	big := strings.Repeat("0123456789", 500_000)
	dir := folder(t, map[string]string{"a.txt": "0123456789", "same.txt": "0123456789", "big": big, "big2": big})
	bundled := filesOf(dir)
	bundled.Software.Digest = "sha256:1"
	for name, a := range map[string]driver.Artifact{"folder": filesOf(dir), "bundle": bundled} {
		t.Run(name, func(t *testing.T) {
			i := begin(t, Files(), a)
			first := call(i, "GET", "/a.txt")
			tag := first.Header.Get("Etag")
			if !strings.HasPrefix(tag, `"`) || tag != call(i, "GET", "/same.txt").Header.Get("Etag") {
				t.Errorf("tag = %s, want a strong one of the content", tag)
			}
			if tag != call(begin(t, Files(), a), "GET", "/a.txt").Header.Get("Etag") {
				t.Error("another instance has another tag")
			}
			if big, big2 := call(i, "HEAD", "/big").Header.Get("Etag"), call(i, "HEAD", "/big2").Header.Get("Etag"); big == "" ||
				name == "bundle" && big == big2 {
				t.Errorf("tags of large files = %s, %s", big, big2)
			}
			if modified := first.Header.Get("Last-Modified"); (modified == "") != (name == "bundle") {
				t.Errorf("Last-Modified = %q", modified)
			}
			for _, tt := range []struct {
				header []string
				status int
				body   string
			}{
				{[]string{"If-None-Match", tag}, 304, ""},
				{[]string{"If-None-Match", `"x", ` + tag}, 304, ""},
				{[]string{"If-None-Match", `"x"`}, 200, "0123456789"},
				{[]string{"If-Match", `"x"`}, 412, ""},
				{[]string{"Range", "bytes=2-4"}, 206, "234"},
				{[]string{"Range", "bytes=-3"}, 206, "789"},
				{[]string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234"},
				{[]string{"Range", "bytes=2-4", "If-Range", `"x"`}, 200, "0123456789"},
				{[]string{"Range", "bytes=20-"}, 416, "invalid range: failed to overlap\n"},
			} {
				res := call(i, "GET", "/a.txt", tt.header...)
				if got := body(t, res); res.StatusCode != tt.status || got != tt.body {
					t.Errorf("%v = %d %q, want %d %q", tt.header, res.StatusCode, got, tt.status, tt.body)
				}
			}
		})
	}
	// A file that changes has another tag.
	i := begin(t, Files(), filesOf(dir))
	before := call(i, "HEAD", "/a.txt").Header.Get("Etag")
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("other words"), 0o600); err != nil {
		t.Fatal(err)
	}
	if after := call(i, "HEAD", "/a.txt").Header.Get("Etag"); after == before {
		t.Error("a changed file has the old tag")
	}
}

func TestFilesCheck(t *testing.T) {
	i := begin(t, Files(), filesOf(t.TempDir()))
	if err := i.(driver.Checker).Check(t.Context()); err != nil {
		t.Errorf("Check() = %v", err)
	}
	i.Stop(t.Context(), 0)
	if err := i.(driver.Checker).Check(t.Context()); err == nil {
		t.Error("Check() of a stopped instance = nil, want an error")
	}
}

// FuzzPaths: no path leads out of the folder or to a hidden file.
func FuzzPaths(f *testing.F) {
	top := f.TempDir()
	dir := filepath.Join(top, "in", "www")
	os.MkdirAll(filepath.Join(dir, ".hidden"), 0o700)
	for _, path := range []string{"secret", "in/secret", "in/www/.secret", "in/www/.hidden/secret"} {
		if err := os.WriteFile(filepath.Join(top, path), []byte("the secret"), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	i := begin(f, Files(), filesOf(dir))
	for _, seed := range []string{"/../secret", "/.secret", "//.hidden/secret", "/.hidden/./secret", "/x/../../secret", "..", "/..\\secret", "/\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		res := call(i, "GET", path)
		if got := body(t, res); strings.Contains(got, "the secret") && res.StatusCode == 200 {
			t.Errorf("GET %q = %q", path, got)
		}
	})
}
