package examples

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// need returns a program's path. Without it the test is skipped, on CI it fails: nothing is left untested there in silence.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not installed, and CI must test with it: %v", program, err)
	default:
		t.Skipf("%s is not installed", program)
	}
	return ""
}

// build runs a compiler.
func build(t *testing.T, args ...string) {
	t.Helper()
	need(t, args[0])
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// start runs a program until the test ends and returns where it listens. It ends by SIGTERM; how is for
// the program to choose, if only it does.
func start(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	cmd := exec.Command(need(t, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT=0")
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for in := bufio.NewScanner(said); in.Scan(); {
			t.Logf("%s: %s", filepath.Base(args[0]), in.Text())
			if _, where, ok := strings.Cut(in.Text(), "listening on "); ok {
				at <- where
			}
		}
		cmd.Wait() // ended by a signal: not nil, and what was to be
	}()
	t.Cleanup(func() {
		kill := time.AfterFunc(20*time.Second, func() {
			t.Errorf("%v does not end by SIGTERM", args)
			cmd.Process.Kill()
		})
		defer kill.Stop()
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	select {
	case where := <-at:
		return where
	case <-ended:
		t.Fatalf("%v ended before it listened", args)
	case <-time.After(time.Minute):
		t.Fatalf("%v does not listen", args)
	}
	return ""
}

// inside runs a program of the binary until the test ends, and returns where it listens.
func inside(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	env = maps.Clone(env)
	if env == nil {
		env = map[string]string{}
	}
	env["HOST"], env["PORT"] = "127.0.0.1", "0"
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := surroundings{func(k string) string { return env[k] }, in, in}.run(ctx, args[0], args[1:])
		in.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%v: %v", args, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	go io.Copy(io.Discard, out) // ends when the program does
	_, where, _ := strings.Cut(strings.TrimSpace(line), "listening on ")
	return where
}

// One protocol, five programs, one of them in two server models.
func TestIncrement(t *testing.T) {
	for name, run := range map[string]func(t *testing.T) string{
		"inside": func(t *testing.T) string { return inside(t, nil, "increment") },
		"go": func(t *testing.T) string {
			program := filepath.Join(t.TempDir(), "increment")
			build(t, "go", "build", "-o", program, "./increment/cmd/increment")
			return start(t, nil, program)
		},
		"c": func(t *testing.T) string {
			program := filepath.Join(t.TempDir(), "increment")
			build(t, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, "increment/c/increment.c")
			return start(t, nil, program)
		},
		"python":            func(t *testing.T) string { return start(t, nil, "python3", "increment/python/increment.py") },
		"python, by events": func(t *testing.T) string { return start(t, nil, "python3", "increment/python/increment.py", "fsm") },
		"erlang": func(t *testing.T) string {
			dir := t.TempDir()
			build(t, "erlc", "-Wall", "-Werror", "-o", dir, "increment/erlang/increment.erl")
			return start(t, nil, "escript", filepath.Join(dir, "increment.beam"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			speak(t, run(t))
		})
	}
}

// A client that says nothing holds up nobody, but where there is one thread that waits for it.
func TestIncrementModels(t *testing.T) {
	for model, waits := range map[string]bool{"threads": false, "fsm": false, "one": true} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			where := start(t, nil, "python3", "increment/python/increment.py", model)
			quiet := dial(t, where)
			fmt.Fprintln(quiet, "1")
			if got := answers(t, quiet, 1); got[0] != "2" {
				t.Fatalf("the first client has %q, want 2", got[0])
			}
			second := dial(t, where)
			fmt.Fprintln(second, "41")
			if waits {
				second.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				if n, err := second.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("the second client has %d bytes, %v, while the first is there", n, err)
				}
				second.SetReadDeadline(time.Time{})
				quiet.Close()
			}
			if got := answers(t, second, 1); got[0] != "42" {
				t.Errorf("the second client has %q, want 42", got[0])
			}
		})
	}
	if out, err := exec.Command(need(t, "python3"), "increment/python/increment.py", "two").CombinedOutput(); err == nil || !strings.Contains(string(out), "want one of threads, one, fsm, have 'two'") {
		t.Errorf("an unknown model: %v: %s", err, out)
	}
}

func speak(t *testing.T, where string) {
	const malformed = "error want a whole number below 9223372036854775807"
	for _, tt := range []struct{ name, line, want string }{
		{"plain", "41", "42"},
		{"zero", "0", "1"},
		{"below zero", "-1", "0"},
		{"minus zero", "-0", "1"},
		{"leading zeros", "0041", "42"},
		{"telnet", "7\r", "8"},
		{"greatest", "9223372036854775806", "9223372036854775807"},
		{"too great", "9223372036854775807", malformed},
		{"far too great", "99999999999999999999", malformed},
		{"least", "-9223372036854775808", "-9223372036854775807"},
		{"too small", "-9223372036854775809", malformed},
		{"longest line", strings.Repeat("0", 62) + "1", "2"},
		{"one longer", strings.Repeat("0", 63) + "1", malformed},
		{"far longer", strings.Repeat("1", 5000), malformed},
		{"empty", "", malformed},
		{"word", "one", malformed},
		{"plus", "+1", malformed},
		{"blank before", " 1", malformed},
		{"blank after", "1 ", malformed},
		{"two numbers", "1 2", malformed},
		{"underscore", "1_0", malformed},
		{"hexadecimal", "0x10", malformed},
		{"point", "1.5", malformed},
		{"minus alone", "-", malformed},
		{"two minus", "--1", malformed},
		{"minus behind", "1-", malformed},
		{"other digits", "١", malformed},
		{"NUL", "1\x002", malformed},
		{"return alone", "\r", malformed},
		{"two returns", "1\r\r", malformed},
		{"after all that", "1", "2"}, // a malformed line ends nothing
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := converse(t, where, tt.line+"\n1\n", 2); got[0] != tt.want || got[1] != "2" {
				t.Errorf("%q and 1 are answered with %q, want %q and 2", tt.line, got, tt.want)
			}
		})
	}

	t.Run("a byte at a time", func(t *testing.T) {
		conn := dial(t, where)
		for _, b := range []byte("12\n34") {
			if _, err := conn.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if got := answers(t, conn, 1); got[0] != "13" {
			t.Errorf("have %q, want 13", got[0])
		}
	})
	t.Run("half a line is no line", func(t *testing.T) {
		conn := dial(t, where)
		fmt.Fprint(conn, "1\n2")
		conn.(*net.TCPConn).CloseWrite()
		said, err := io.ReadAll(conn)
		if err != nil || string(said) != "2\n" {
			t.Errorf("have %q, %v, want 2 and the end", said, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		quiet := dial(t, where) // holds up nobody
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				conn := dial(t, where)
				for n := range 50 {
					fmt.Fprintln(conn, i*1000+n)
				}
				for n, got := range answers(t, conn, 50) {
					if want := fmt.Sprint(i*1000 + n + 1); got != want {
						t.Errorf("client %d has %s, want %s", i, got, want)
					}
				}
			})
		}
		wg.Wait()
		fmt.Fprintln(quiet, "1")
		if got := answers(t, quiet, 1); got[0] != "2" {
			t.Errorf("the quiet client has %q, want 2", got[0])
		}
	})
}

func dial(t *testing.T, where string) net.Conn {
	conn, err := net.Dial("tcp", where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// answers reads n lines.
func answers(t *testing.T, conn net.Conn, n int) []string {
	in, lines := bufio.NewReader(conn), make([]string, n)
	for i := range lines {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Errorf("answer %d: %q, %v", i, line, err)
		}
		lines[i] = strings.TrimSuffix(line, "\n")
	}
	return lines
}

func converse(t *testing.T, where, text string, n int) []string {
	conn := dial(t, where)
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return answers(t, conn, n)
}

// A ring of doors: each leads to one member, as the doors of Servent do; a door without member answers 503.
type ring struct {
	doors   []*httptest.Server
	members []url.URL // guarded by mu
	mu      sync.Mutex
}

func newRing(t *testing.T, n int) *ring {
	r := &ring{members: make([]url.URL, n)}
	for i := range n {
		door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			to := r.members[i]
			r.mu.Unlock()
			if to.Host == "" {
				http.Error(w, "no instance", http.StatusServiceUnavailable)
				return
			}
			// The whole body first: else a quick answer closes it under the proxy, which is still looking for its end.
			body, err := io.ReadAll(req.Body)
			if err != nil {
				t.Errorf("door %d: %v", i, err)
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			httputil.NewSingleHostReverseProxy(&to).ServeHTTP(w, req)
		}))
		t.Cleanup(door.Close)
		r.doors = append(r.doors, door)
	}
	return r
}

// env is what member i is told of the ring.
func (r *ring) env(i int) map[string]string {
	return map[string]string{
		"SERVENT_INSTANCE": fmt.Sprintf("tokens/%d", i+1),
		"SERVENT_NEXT":     r.doors[(i+1)%len(r.doors)].URL,
	}
}

// lead sets where door i leads; an empty address is nowhere.
func (r *ring) lead(i int, where string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[i] = url.URL{Scheme: "http", Host: where}
}

func TestTokens(t *testing.T) {
	programs := map[string]func(t *testing.T, env map[string]string) string{
		"inside": func(t *testing.T, env map[string]string) string { return inside(t, env, "tokens") },
		"python": func(t *testing.T, env map[string]string) string { return start(t, env, "python3", "tokens/tokens.py") },
		"go": func(t *testing.T, env map[string]string) string {
			program := filepath.Join(t.TempDir(), "tokens")
			build(t, "go", "build", "-o", program, "./tokens/cmd/tokens")
			return start(t, env, program)
		},
	}
	for _, kinds := range [][]string{
		{"inside"}, // alone: its next member is itself
		{"inside", "inside", "inside", "inside"},
		{"python", "python", "python"},
		{"inside", "python", "go"}, // one ring of all
	} {
		t.Run(strings.Join(kinds, " "), func(t *testing.T) {
			r := newRing(t, len(kinds))
			for i, kind := range kinds {
				r.lead(i, programs[kind](t, r.env(i)))
			}
			passRound(t, r)
		})
	}
}

func passRound(t *testing.T, r *ring) {
	n := len(r.doors)
	for i, door := range r.doors { // whoever starts it
		status, body := request(t, "POST", door.URL+"/start?rounds=5", "")
		var got struct {
			Home               string
			Members, Rounds, N int
			Ms                 *float64
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Ms == nil ||
			got.Members != n || got.Rounds != 5 || got.N != 5*n || got.Home != fmt.Sprintf("tokens/%d", i+1) {
			t.Errorf("start at member %d = %d %s, want 5 rounds and %d passes, timed", i+1, status, body, 5*n)
		}
	}
	for i, door := range r.doors { // each start came by five times
		status, body := request(t, "GET", door.URL+"/", "")
		var got struct {
			Instance, Next string
			Passed         int
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Passed != 5*n || got.Next != r.doors[(i+1)%n].URL {
			t.Errorf("member %d = %d %s, want %d passes", i+1, status, body, 5*n)
		}
	}
	for i, door := range r.doors {
		if status, body := request(t, "GET", door.URL+"/length", ""); status != 200 || strings.TrimSpace(body) != fmt.Sprint(n) {
			t.Errorf("length at member %d = %d %s, want %d", i+1, status, body, n)
		}
	}
	for _, tt := range []struct{ path, body string }{
		{"/start", ""}, {"/start?rounds=0", ""}, {"/start?rounds=x", ""}, {"/start?rounds=1001", ""},
		{"/token", "{"}, {"/token", `{}`}, {"/token", `{"home": "", "rounds": 1, "n": 1}`}, {"/token", `{"home": "a", "rounds": 0, "n": 1}`},
		{"/token", `{"home": "a", "rounds": 1, "n": 0}`}, {"/token", `{"home": "a", "rounds": 1, "n": 1001}`},
	} {
		if status, body := request(t, "POST", r.doors[0].URL+tt.path, tt.body); status != 400 || !strings.Contains(body, "want") {
			t.Errorf("POST %s %s = %d %s, want 400 and what is right", tt.path, tt.body, status, body)
		}
	}
	// A token whose home is gone does not go round for ever.
	if status, body := request(t, "POST", r.doors[0].URL+"/token", `{"home": "gone", "rounds": 3, "n": 990}`); status != 502 || !strings.Contains(body, "1000 times, 3 rounds") {
		t.Errorf("token without a home = %d %s, want 502 and why it ended", status, body)
	}
	if n == 1 {
		return
	}
	r.lead(n-1, "") // the last member is dead: its door has no instance
	status, body := request(t, "POST", r.doors[0].URL+"/start?rounds=1", "")
	if status != 502 || !strings.Contains(body, fmt.Sprintf("tokens/%d", n-1)) {
		t.Errorf("start in a broken ring = %d %s, want 502 and the name of the member that noticed", status, body)
	}
}

func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return 0, ""
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	return resp.StatusCode, string(said)
}

// Two stubs, one server: what the Go one inserts the Python one finds, and each semantics does to the
// book what it says, when the first answer comes too late.
func TestAddressStubs(t *testing.T) {
	stub := map[string]func(t *testing.T, server string, args ...string) (string, error){
		"go": func(t *testing.T, server string, args ...string) (string, error) {
			var out bytes.Buffer
			err := Run(t.Context(), "address-client", append([]string{"--server", server}, args...), &out, t.Output())
			return out.String(), err
		},
		"python": func(t *testing.T, server string, args ...string) (string, error) {
			cmd := exec.CommandContext(t.Context(), need(t, "python3"), append([]string{"address/address.py", "--server", server}, args...)...)
			var said bytes.Buffer
			cmd.Stderr = &said
			out, err := cmd.Output()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, said.String())
			}
			return string(out), err
		},
	}
	for name, call := range stub {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := map[string]string{"go": "500ms", "python": "0.5"}[name]
			patience := map[string]string{"go": "1m", "python": "60"}[name]
			for _, tt := range []struct {
				semantics, delay, timeout string
				fails                     string
				copies                    int
				atLeast                   bool // more of them, on a slow machine
			}{
				{"maybe", "1h", timeout, "nobody knows|may have been done", 1, false},
				{"at-least-once", "1h", timeout, "", 2, true},
				{"at-most-once", "1500ms", timeout, "", 1, false},
				{"at-most-once", "0s", patience, "", 1, false},
			} {
				t.Run(tt.semantics+" "+tt.delay, func(t *testing.T) {
					server := inside(t, nil, "address", "--delay", tt.delay, "--every", "2")
					_, err := call(t, server, "--semantics", tt.semantics, "--timeout", tt.timeout, "--retries", "20", "insert", "ada", "10.0.0.1:80")
					switch {
					case tt.fails == "" && err != nil:
						t.Errorf("insert: %v", err)
					case tt.fails != "":
						a, b, _ := strings.Cut(tt.fails, "|")
						if err == nil || !strings.Contains(err.Error(), a) && !strings.Contains(err.Error(), b) {
							t.Errorf("insert: %v, want %s", err, tt.fails)
						}
					}
					// Asked under at-least-once, so that a late answer is asked for anew; lookup may be done twice.
					out, err := stub["go"](t, server, "--semantics", "at-least-once", "--timeout", "1s", "--retries", "20", "lookup", "ada")
					got := strings.Count(out, "10.0.0.1:80\n")
					if right := got == tt.copies || tt.atLeast && got > tt.copies; err != nil || !right {
						t.Errorf("the book has it %d times, %v, want %d", got, err, tt.copies)
					}
				})
			}
		})
		t.Run(name+" calls", func(t *testing.T) {
			t.Parallel()
			server := inside(t, nil, "address")
			timeout := map[string]string{"go": "1m", "python": "60"}[name]
			for _, tt := range []struct{ args, out, fails string }{
				{"lookup ada", "", "ada"},
				{"insert ada 10.0.0.1:80", "", ""},
				{"insert ada [::1]:80", "", ""},
				{"lookup ada", "10.0.0.1:80\n[::1]:80\n", ""},
				{"delete ada", "10.0.0.1:80\n[::1]:80\n", ""},
				{"delete ada", "", "ada"},
				{"stop", "", ""},
			} {
				out, err := call(t, server, append([]string{"--timeout", timeout, "--retries", "1"}, strings.Fields(tt.args)...)...)
				if out != tt.out || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%s = %q, %v, want %q, %q", tt.args, out, err, tt.out, tt.fails)
				}
			}
			if _, err := call(t, nobody(t), "--timeout", timeout, "--retries", "1", "lookup", "ada"); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("call of nobody: %v, want that the connection is refused", err)
			}
		})
	}
}

// nobody is an address at which nothing listens.
func nobody(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestCounterInside(t *testing.T) {
	at := "http://" + inside(t, nil, "counter")
	for want := 1; want <= 3; want++ {
		if status, body := request(t, "POST", at+"/c/a", ""); status != 200 || body != fmt.Sprintln(want) {
			t.Errorf("POST = %d %q, want %d", status, body, want)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	env := func(k string) string { return map[string]string{"HOST": "127.0.0.1", "PORT": "no-such-port"}[k] }
	for _, tt := range []struct {
		args  string
		usage bool
	}{
		{"", true}, {"shop", true}, {"counter --fast", true}, {"address --every 0", true}, {"address --no", true}, {"address-client lookup", true},
		{"counter", false}, // a port that is none
	} {
		program, args, _ := strings.Cut(tt.args, " ")
		err := surroundings{env, t.Output(), t.Output()}.run(t.Context(), program, strings.Fields(args))
		if err == nil || errors.Is(err, ErrUsage) != tt.usage {
			t.Errorf("example %s = %v, want wrong arguments: %v", tt.args, err, tt.usage)
		}
	}
}
