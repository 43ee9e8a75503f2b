package l7

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/driver"
)

// While an answer is slow the door reads what comes next, and answers it in its turn.
func TestReadsAhead(t *testing.T) {
	both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			time.Sleep(4 * watchAfter)
		}
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}), func(t *testing.T, _ *fleet, door string) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(door, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for _, rest := range []string{"1", strings.Repeat("2", 100), strings.Repeat("3", 100_000)} { // more than a buffer, too
			fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(2 * watchAfter)
			fmt.Fprint(conn, "PO")
			time.Sleep(watchAfter / 2)
			fmt.Fprintf(conn, "ST /next HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%sGET /last HTTP/1.1\r\nHost: x\r\n\r\n", len(rest), rest)
			for _, want := range []string{"/slow ", "/next " + rest, "/last "} {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
					t.Errorf("got %.20q, %v, want %.20q", got, err, want)
				}
			}
		}
	})
}

// What the client sends behind its request for another protocol, before it has an answer, is that protocol's.
func TestUpgradeWithEarlyBytes(t *testing.T) {
	both(t, echo, func(t *testing.T, _ *fleet, door string) {
		for _, early := range []string{"early ", strings.Repeat("e", 30_000)} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(door, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"+early)
			r := bufio.NewReader(conn)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
				t.Fatal(res, err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(r); err != nil || string(got) != "hello "+early+" bye" {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len("hello "+early+" bye"))
			}
		}
	})
}

// Long answers and requests arrive byte for byte, whichever way they take: spliced, copied, in chunks, from a file, on a connection that is kept.
func TestBigBodies(t *testing.T) {
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/known":
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data)
		case "/chunks":
			for p := data; len(p) > 0; p = p[min(len(p), 7777):] {
				_, _ = w.Write(p[:min(len(p), 7777)])
			}
		case "/file":
			http.ServeFile(w, r, file)
		case "/echo":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(body)
		}
	})
	test := func(t *testing.T, _ *fleet, door string) {
		c := client(t)
		for range 3 {
			for _, path := range []string{"/known", "/chunks", "/file", "/echo"} {
				method, body := "GET", io.Reader(nil)
				if path == "/echo" {
					method, body = "PUT", bytes.NewReader(data)
				}
				if res, got := ask(t, c, method, door+path, body); got != string(data) {
					t.Errorf("%s: %d, %d bytes that are not those of %d", path, res.StatusCode, len(got), len(data))
				}
			}
		}
	}
	both(t, h, test)
	t.Run("inside", func(t *testing.T) {
		f := newFleet(t, 1)
		f.place("node-1", 1, driver.Endpoint{Handler: h})
		test(t, f, f.door("node-1"))
	})
}

// What net/http's server does for a handler inside this process, the engine does: lengths, guessed types, refused bodies, dates.
func TestInsideAnswers(t *testing.T) {
	f := newFleet(t, 1)
	f.place("node-1", 1, driver.Endpoint{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/short":
			_, _ = io.WriteString(w, "<!doctype html>")
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("text ", 1000))
		case "/pieces":
			for range 300 {
				_, _ = io.WriteString(w, "<html> and more")
			}
		case "/typed":
			w.Header().Set("Content-Type", "a/b")
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "ok")
		case "/204":
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "x"); err != http.ErrBodyNotAllowed {
				panic(err)
			}
		case "/encoded":
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "x")
		case "/date":
			w.Header().Set("Date", "never")
		case "/twice":
			w.WriteHeader(201)
			w.WriteHeader(500)
		}
	})})
	door, c := f.door("node-1"), client(t)
	for path, want := range map[string]string{
		"/short":   `200 15 ["15"] ["text/html; charset=utf-8"] []`,
		"/long":    `200 5000 [] ["text/plain; charset=utf-8"] ["chunked"]`,
		"/pieces":  `200 4500 [] ["text/html; charset=utf-8"] ["chunked"]`,
		"/typed":   `200 2 ["2"] ["a/b"] []`,
		"/204":     `204 0 [] [] []`,
		"/encoded": `200 1 ["1"] [] []`,
		"/date":    `200 0 ["0"] [] []`,
		"/twice":   `201 0 ["0"] [] []`,
	} {
		res, body := ask(t, c, "GET", door+path, nil)
		got := fmt.Sprintf("%d %d %q %q %q", res.StatusCode, len(body), res.Header["Content-Length"], res.Header["Content-Type"], res.TransferEncoding)
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if date := res.Header["Date"]; len(date) != 1 || (date[0] == "never") != (path == "/date") {
			t.Errorf("%s: Date %q", path, date)
		}
	}
}

// A kept connection that the program has closed is not used, and a POST not lost by it.
func TestKeptConnectionsThatWereClosed(t *testing.T) {
	if reference {
		t.Skip("net/http may find out too late")
	}
	f := newFleet(t, 1)
	p := f.run("node-1", 1, text("ok"))
	door, c := f.door("node-1"), client(t)
	for range 20 {
		if res, body := ask(t, c, "POST", door, strings.NewReader("x")); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("%d %q", res.StatusCode, body)
		}
		p.mu.Lock()
		for conn := range p.open {
			conn.Close()
		}
		p.mu.Unlock()
	}
}

// curl understands what the door says, in every way that it has to ask.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("curl is not installed")
		}
		t.Skip("curl is not installed")
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789"), 200_000), 0o600); err != nil {
		t.Fatal(err)
	}
	both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Method, " ", n, " ", err)
	}), func(t *testing.T, _ *fleet, door string) {
		for _, tt := range []struct {
			args []string
			want string
		}{
			{nil, "GET 0 <nil>"},
			{[]string{"--http1.0"}, "GET 0 <nil>"},
			{[]string{"-T", big}, "PUT 2000000 <nil>"}, // asks first: Expect: 100-continue
			{[]string{"-T", big, "-H", "Transfer-Encoding: chunked"}, "PUT 2000000 <nil>"},
			{[]string{"-d", "abc"}, "POST 3 <nil>"},
			{[]string{"--http2", "-d", "abc"}, "POST 3 <nil>"}, // asks for an upgrade that nobody takes
		} {
			args := append([]string{"-sS", "--max-time", "30", door + "/"}, tt.args...)
			out, err := exec.CommandContext(t.Context(), curl, append(args, "--next", "-sS", "-d", "z", door+"/")...).CombinedOutput() // kept
			if want := tt.want + "POST 1 <nil>"; err != nil || string(out) != want {
				t.Errorf("curl %q: %v, %q, want %q", tt.args, err, out, want)
			}
		}
	})
}
