package accesslog

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"servent/lab/load"
)

func TestLines(t *testing.T) {
	at := time.Date(2026, 11, 25, 22, 31, 36, 0, time.UTC)
	half := at.Add(500 * time.Millisecond)
	for _, tt := range []struct {
		line         string
		at           time.Time
		method, path string
	}{
		{`::1 - - [25/Nov/2026:22:31:36 +0000] "GET /a?b=c HTTP/1.1" 200 512 "-" "curl/8"`, at, "GET", "/a?b=c"},
		{`h - ann [25/Nov/2026:23:31:36 +0100] "HEAD / HTTP/2.0" 200 0`, at, "HEAD", "/"},
		{`shop.org:80 10.0.0.1 - - [25/Nov/2026:22:31:36 +0000] "POST /buy HTTP/1.1" 201 9 "http://x/[y]" "a \"b\" c"`, at, "POST", "/buy"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET /a\"b\\c\x41 HTTP/1.1" 200 1`, at, "GET", `/a"b\cA`},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET http://shop.org/x?y HTTP/1.1" 200 1`, at, "GET", "/x?y"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET http://shop.org HTTP/1.1" 200 1`, at, "GET", "/"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET http://shop.org?q HTTP/1.1" 200 1`, at, "GET", "/?q"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET /old" 200 1`, at, "GET", "/old"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET /to?u=http://x/y HTTP/1.1" 200 1`, at, "GET", "/to?u=http://x/y"},
		{`h - - [25/Nov/2026:22:31:36 +0000] "GET /a#b HTTP/1.1" 200 1`, at, "GET", "/a"},
		{`{"time":"2026-11-25T22:31:36.5Z","method":"GET","uri":"/a"}`, half, "GET", "/a"},
		{`  {"ts":1795645896.5,"method":"GET","path":"/a","status":500}`, half, "GET", "/a"},
		{`{"ts":"1795645896.5","method":"GET","path":"/a"}`, half, "GET", "/a"},
		{`{"timestamp":1795645896,"method":"GET","url":"https://h/a"}`, at, "GET", "/a"},
		{`{"@timestamp":1795645896500,"method":"GET","url":"/a"}`, half, "GET", "/a"},
		{`{"msec":1795645896500000,"request_method":"GET","request_uri":"/a"}`, half, "GET", "/a"},
		{`{"msec":1795645896500000000,"request_method":"GET","request_uri":"/a"}`, half, "GET", "/a"},
		{`{"time_local":"25/Nov/2026:22:31:36 +0000","request":"GET /a HTTP/1.1"}`, at, "GET", "/a"},
		{`{"time":null,"ts":1795645896,"request":{"method":"GET","host":"h","uri":"/a"},"status":200}`, at, "GET", "/a"}, // Caddy
		{`{"StartUTC":"2026-11-25T22:31:36.5Z","RequestMethod":"GET","RequestPath":"/a"}`, half, "GET", "/a"},            // Traefik
		{`{"time":"2026-11-25T23:31:36.5+0100","method":"GET","path":"/a"}`, half, "GET", "/a"},
	} {
		e, err := parse([]byte(tt.line))
		if err != nil || !e.at.Equal(tt.at) || e.method != tt.method || e.path != tt.path {
			t.Errorf("%s\n got %v %s %s, %v\nwant %v %s %s", tt.line, e.at.UTC(), e.method, e.path, err, tt.at, tt.method, tt.path)
		}
	}
	for line, want := range map[string]string{
		`nothing of it`: "want a time in brackets",
		`h - - [25/Nov/2026:22:31:36] "GET / HTTP/1.1"`:                      "want a time like",
		`h - - [25/Nov/2026:22:31:36 +0000] GET /`:                           "want a request in quotes",
		`h - - [25/Nov/2026:22:31:36 +0000] "GET / HTTP/1.1`:                 "want a request in quotes",
		`h - - [25/Nov/2026:22:31:36 +0000] "\x16\x03\x01" 400`:              "want a request like",
		`h - - [25/Nov/2026:22:31:36 +0000] "-" 400 0`:                       "want a request like",
		`h - - [25/Nov/2026:22:31:36 +0000] "OPTIONS * HTTP/1.1"`:            "want a path",
		`h - - [25/Nov/2026:22:31:36 +0000] "get / HTTP/1.1"`:                "want a method",
		`h - - [25/Nov/2026:22:31:36 +0000] "GET /a\x0d\x0aHost:x HTTP/1.1"`: "want a path",
		`{"time":`:                               "want a JSON object",
		`{}`:                                     "want a time, in one of time, ts",
		`{"time":true,"method":"GET","uri":"/"}`: "want a time like",
		`{"time":"soon","method":"GET","uri":"/"}`:   "want a time like",
		`{"time":-1,"method":"GET","uri":"/"}`:       "want a time like",
		`{"time":1,"uri":"/"}`:                       "want a method, in one of",
		`{"time":1,"method":"GET"}`:                  "want a path, in one of",
		`{"time":1,"method":1,"uri":"/"}`:            "want texts",
		`{"time":1,"request":{"method":"GET"}}`:      "want a path, in one of",
		`{"time":1,"method":"GET","uri":"no path"}`:  "want a path",
		`{"time":1,"method":"GET","uri":"/a b"}`:     "want a path",
		`{"time":1,"method":"GET / HTTP","uri":"/"}`: "want a method",
	} {
		if e, err := parse([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %+v, %v\nwant an error with %q", line, e, err, want)
		}
	}
}

// line is one of the combined format, so many seconds after the first.
func line(second int, request string) string {
	return fmt.Sprintf(`h - - [25/Nov/2026:22:31:%02d +0000] "%s HTTP/1.1" 200 1 "-" "-"`, second, request)
}

func rec(at time.Duration, method, path string) load.Recorded {
	return load.Recorded{At: at, Method: method, Path: path}
}

func TestRead(t *testing.T) {
	text := strings.Join([]string{line(3, "GET /late"), line(1, "GET /a"), "", "junk", line(1, "HEAD /b"), line(1, "POST /c"), "more junk\r", line(1, "GET /d"),
		strings.Repeat("x", 3*lineMost), line(1, "DELETE /e"), "{}", "{", line(2, "GET /f")}, "\n")
	log, err := Read(strings.NewReader(text), Options{Name: "access.log"})
	if err != nil {
		t.Fatal(err)
	}
	third := time.Second / 3
	want := []load.Recorded{rec(0, "GET", "/a"), rec(third, "HEAD", "/b"), rec(2*time.Second/3, "GET", "/d"), rec(time.Second, "GET", "/f"), rec(2*time.Second, "GET", "/late")}
	if !slices.Equal(log.Requests, want) {
		t.Errorf("Requests = %v\nwant %v", log.Requests, want)
	}
	if log.Skipped != 2 || log.Bad != 5 || len(log.Mistakes) != 3 {
		t.Errorf("%d skipped, %d bad, %d told; want 2, 5, 3", log.Skipped, log.Bad, len(log.Mistakes))
	}
	for i, prefix := range []string{"access.log:4: want", "access.log:7: want", "access.log:9: the line is longer than 65536 bytes"} {
		if !strings.HasPrefix(log.Mistakes[i], prefix) {
			t.Errorf("mistake %d is %q, want %s…", i, log.Mistakes[i], prefix)
		}
	}
	if log, err = Read(strings.NewReader(text), Options{Unsafe: true}); err != nil || len(log.Requests) != 7 || log.Skipped != 0 {
		t.Errorf("unsafe: %+v, %v; want all 7", log, err)
	}
}

// A time with a fraction is taken as it is.
func TestFractionsStay(t *testing.T) {
	log, err := Read(strings.NewReader(`{"ts":100.25,"method":"GET","uri":"/a"}`+"\n"+`{"ts":100.25,"method":"GET","uri":"/b"}`+"\n"+`{"ts":100,"method":"GET","uri":"/c"}`), Options{})
	want := []load.Recorded{rec(0, "GET", "/c"), rec(250*time.Millisecond, "GET", "/a"), rec(250*time.Millisecond, "GET", "/b")}
	if err != nil || !slices.Equal(log.Requests, want) {
		t.Errorf("Read = %v, %v\nwant %v", log, err, want)
	}
}

func TestReadRefuses(t *testing.T) {
	if log, err := Read(strings.NewReader("junk\n"+line(1, "PUT /a")), Options{Name: "a.log"}); err == nil || !strings.HasPrefix(err.Error(), "a.log: no request to send: 1 skipped for their method, 1 lines are no request, the first: a.log:1: want") || log.Bad != 1 {
		t.Errorf("nothing to send: %+v, %v", log, err)
	}
	broken := errors.New("broken")
	if _, err := Read(io.MultiReader(strings.NewReader(line(1, "GET /a")+"\n"), iotest.ErrReader(broken)), Options{Name: "a.log"}); !errors.Is(err, broken) {
		t.Errorf("a reader's error became %v", err)
	}
	three := strings.Repeat(line(1, "GET /a")+"\n", 3)
	if _, err := read(strings.NewReader(three), Options{Name: "a.log"}, 2); err == nil || !strings.Contains(err.Error(), "more than 2 requests") {
		t.Errorf("more than may be held: %v", err)
	}
}

// Whatever the bytes, every line is a request, skipped, bad or empty; and every request can be sent.
func FuzzRead(f *testing.F) {
	for _, s := range []string{line(1, "GET /a"), line(1, `GET /\x41\"`), `{"ts":1.5,"method":"GET","uri":"/a"}`, `{"time":"2026-11-25T22:31:36Z","request":{"method":"GET","uri":"/a"}}`,
		`{"ts":1795645896500000000,"request":"GET http://h/ HTTP/1.1"}`, "junk\r\n\n\x00"} {
		f.Add([]byte(s))
		f.Add([]byte(s + "\n" + line(0, "POST /b")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := Read(strings.NewReader(string(b)), Options{Name: "f"})
		if log == nil {
			t.Fatalf("Read(%q) = nil, %v", b, err)
		}
		if lines := strings.Count(string(b), "\n") + 1; len(log.Requests)+log.Skipped+log.Bad > lines {
			t.Errorf("%d lines gave %d requests, %d skipped and %d bad", lines, len(log.Requests), log.Skipped, log.Bad)
		}
		last := time.Duration(0)
		for _, r := range log.Requests {
			if r.At < last || r.Method != "GET" && r.Method != "HEAD" || !strings.HasPrefix(r.Path, "/") || strings.ContainsAny(r.Path, " \r\n\x00#") {
				t.Errorf("%q gave %+v after %v", b, r, last)
			}
			last = r.At
		}
	})
}
