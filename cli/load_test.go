package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"servent/lab/result"
)

// asked is a server that remembers what it was asked.
type asked struct {
	*httptest.Server
	mu   sync.Mutex // guards what follows
	what []string   // GET /a?b Name body
	came chan struct{}
}

// remember starts a server; a header X-Test is remembered, too, and /bad is answered by 500.
func remember(t *testing.T, secure bool) *asked {
	t.Helper()
	a := &asked{came: make(chan struct{}, 1<<16)}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.what = append(a.what, strings.TrimSpace(strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("X-Test"), string(body)}, " ")))
		a.mu.Unlock()
		a.came <- struct{}{}
		if strings.HasPrefix(r.RequestURI, "/bad") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	a.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		a.StartTLS()
	} else {
		a.Start()
	}
	t.Cleanup(a.Close)
	return a
}

// heard is what the server was asked, sorted.
func (a *asked) heard() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(slices.Values(a.what))
}

func (a *asked) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.what = nil
}

// loads runs servent load and returns its exit code and what it wrote.
func loads(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"load"}, args...)...)
	var out, story bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &story
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), story.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, out.String(), story.String()
}

func loadJSON(t *testing.T, args ...string) *result.Load {
	t.Helper()
	code, out, story := loads(t, append(args, "--json")...)
	var r result.Load
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("%v: exit %d, %v\n%s\n%s", args, code, err, out, story)
	}
	return &r
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	a := remember(t, false)
	code, out, story := loads(t, a.URL+"/x?y=1", "--rate", "50/s", "-n", "25")
	if code != 0 || !strings.Contains(story, a.URL+": open loop, 50/s, 25 requests; GET /x?y=1\n") {
		t.Errorf("exit %d, stderr %q", code, story)
	}
	for _, want := range []string{a.URL + " · open loop, 50/s, 25 requests; GET /x?y=1\n", "asked           25  50.0/s\n", "not sent         0\n", "p99.9", "from when each request was due"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got := a.heard(); len(got) != 25 || got[0] != "GET /x?y=1" {
		t.Errorf("the server heard %q", got)
	}
	r := loadJSON(t, a.URL, "--clients", "3", "-n", "30", "--think", "1ms", "--seed", "9")
	if r.Version != 1 || r.Requests != 30 || r.Errors != 0 || r.Clients != 3 || r.ThinkMS != 1 || r.Offered != 0 || r.Seed != 9 || r.Load != "closed loop, 3 clients thinking 1ms, 30 requests; GET /" {
		t.Errorf("%+v", r)
	}
	if r = loadJSON(t, a.URL, "--open", "10..90/s", "--for", "1s", "--poisson"); r.Requests < 20 || r.Seconds != 1 || r.Load != "open loop, 10..90/s at random moments for 1s; GET /" {
		t.Errorf("a climb: %+v", r)
	}
}

func TestLoadOfMix(t *testing.T) {
	a := remember(t, false)
	r := loadJSON(t, a.URL, "--clients", "2", "-n", "40", "--mix", "GET /a/{key}=3,PUT /a/{key}=1", "--keys", "sequential of 2", "-H", "X-Test: {key}", "--body", "@"+file(t, "body", "hello {key}"))
	if r.Load != "closed loop, 2 clients, 40 requests; GET /a/{key} 3, PUT /a/{key} 1; keys: sequential of 2" {
		t.Errorf("in words: %s", r.Load)
	}
	heard := slices.Compact(a.heard())
	if want := []string{"GET /a/k000000 k000000", "GET /a/k000001 k000001", "PUT /a/k000000 k000000 hello k000000", "PUT /a/k000001 k000001 hello k000001"}; !slices.Equal(heard, want) {
		t.Errorf("the server heard %q, want %q", heard, want)
	}
	a.forget()
	if r = loadJSON(t, a.URL+"/{key}", "-n", "3", "--rate", "100/s", "--body", "b"); r.Load != "open loop, 100/s, 3 requests; POST /{key}; keys: uniform of 1000" || !strings.HasPrefix(a.heard()[0], "POST /k00") {
		t.Errorf("a body: %s, the server heard %q", r.Load, a.heard())
	}
}

func TestLoadThatFails(t *testing.T) {
	t.Parallel()
	a := remember(t, false)
	code, out, story := loads(t, a.URL+"/bad", "-n", "5")
	if code != 1 || !strings.Contains(out, "status 500 × 5") || !strings.HasSuffix(story, "servent: no request succeeded\nnext: curl -v "+a.URL+"/bad\n") {
		t.Errorf("exit %d\n%s\n%s", code, out, story)
	}
	if _, _, story = loads(t, a.URL+"/bad/{key}?a&b", "-n", "1"); !strings.HasSuffix(story, "next: curl -v '"+a.URL+"/bad/k000000?a&b'\n") {
		t.Errorf("what to try next:\n%s", story)
	}
	a.Close()
	if code, out, story = loads(t, a.URL, "-n", "5"); code != 1 || out != "" || !strings.Contains(story, "cannot be reached") || !strings.Contains(story, "next: curl -v "+a.URL+"/\n") {
		t.Errorf("nobody listens: exit %d\n%s\n%s", code, out, story)
	}
}

func TestLoadIsMisused(t *testing.T) {
	log := file(t, "a.log", "{}\n")
	for _, tt := range []struct{ args, want string }{
		{"", "accepts 1 arg"},
		{"127.0.0.1:80", "next: servent load http://127.0.0.1:80"},
		{"ftp://h", "want a URL like"},
		{"http://", "want a URL like"},
		{"http://h:0", "want a port"},
		{"http://u:p@h", "list of processes"},
		{"tcp://h", "want tcp://HOST:PORT"},
		{"tcp://h:1/x", "want tcp://HOST:PORT"},
		{"http://h/a{k}", "want a request like"},
		{"http://h --rate 1e6/s", "--rate: want 100000/s at most"},
		{"http://h --rate 5", "--rate: want arrivals like"},
		{"http://h --rate 1..5/s", "a rate that climbs is --open"},
		{"http://h --clients 0", "--clients: want 1 to 10000"},
		{"http://h --clients 1e5", "invalid argument"},
		{"http://h --for 2h", "--for: want 1ms to 1h"},
		{"http://h --for -1s", "--for: want 1ms to 1h"},
		{"http://h -n 0", "--requests: want 1 to 1e8"},
		{"http://h -n 1000000 --rate 1/s", "take more than an hour"},
		{"http://h --timeout 2m", "--timeout: want 1ms to 1m"},
		{"http://h --clients 1 --think 1h", "--think: want 0 to 10m"},
		{"http://h --think 1s", "--think is for --clients alone"},
		{"http://h --rate 5/s --clients 3", "--rate and --clients: want one of them"},
		{"http://h --send x", "--send is for tcp:// alone"},
		{"http://h --speed 2x", "--speed is for --replay alone"},
		{"http://h --cacert x", "--cacert is for https:// alone"},
		{"tcp://h:1 --mix x", "--mix is for"},
		{"tcp://h:1 --send \\q", "--send: want"},
		{"tcp://h:1 --expect soon", "--expect: want"},
		{"http://h/x --mix x", "put it into the mix"},
		{"http://h --mix x", "--mix: want a request like"},
		{"http://h --keys 7", "--keys: no request has a {key}"},
		{"http://h/{key} --keys x", "--keys: want keys like"},
		{"http://h -H x", "want a header like"},
		{"http://h --replay " + log + " --speed 0x", "--speed: want 0.01x to 1000x"},
		{"http://h/x --replay " + log, "want the URL without one"},
		{"http://h --replay " + log + " --keys 7", "which a log has not"},
		{"https://h --cacert " + log, "no certificate in PEM"},
	} {
		if code, out, story := loads(t, strings.Fields(tt.args)...); code != 2 || out != "" || !strings.Contains(story, tt.want) || !strings.Contains(story, "\nnext: servent load") {
			t.Errorf("load %s: exit %d, want 2, with %q and what to try next\n%s%s", tt.args, code, tt.want, out, story)
		}
	}
	for _, args := range []string{"http://h --replay /nowhere", "https://h --cacert /nowhere", "http://h --body @/nowhere", "http://h --replay " + log} {
		if code, _, story := loads(t, strings.Fields(args)...); code != 1 || !strings.HasPrefix(story, "servent: ") {
			t.Errorf("load %s: exit %d, want 1\n%s", args, code, story)
		}
	}
}

func TestLoadOverTLS(t *testing.T) {
	a := remember(t, true)
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})))
	if r := loadJSON(t, a.URL, "-n", "10", "--cacert", ca); r.Requests != 10 || r.Errors != 0 {
		t.Errorf("%+v", r)
	}
	if code, out, story := loads(t, a.URL, "-n", "10"); code != 1 || out != "" || !strings.Contains(story, "certificate signed by unknown authority") {
		t.Errorf("nobody trusted: exit %d\n%s\n%s", code, out, story)
	}
	if got := a.heard(); len(got) != 10 {
		t.Errorf("the server heard %d requests, want 10", len(got))
	}
}

func TestLoadOverTCP(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "you said %s\n", s.Text())
				}
			}()
		}
	}()
	r := loadJSON(t, "tcp://"+ln.Addr().String(), "--send", `hello {n}\n`, "--expect", "line", "-n", "10", "--clients", "2")
	if r.Requests != 10 || r.Errors != 0 || r.Sent != 10*8 || r.Received != 10*17 || r.Load != `closed loop, 2 clients, 10 requests; TCP: send "hello {n}\n", expect line` {
		t.Errorf("%+v", r)
	}
}

const accessLog = `::1 - - [25/Nov/2026:22:31:36 +0000] "GET /a HTTP/1.1" 200 1 "-" "-"
oops
{"time":"2026-11-25T22:31:36.9Z","method":"HEAD","uri":"/b"}
{"time":"2026-11-25T22:31:37.5Z","request":{"method":"POST","uri":"/c"}}
{}
`

func TestLoadReplays(t *testing.T) {
	t.Parallel()
	a := remember(t, false)
	name := file(t, "access.log", accessLog)
	code, out, story := loads(t, a.URL, "--replay", name)
	for _, want := range []string{"note: " + name + ":2: want a time in brackets", "note: " + name + ":5: want a time, in one of", a.URL + ": replay of " + name + ", 2 requests in 900ms\n"} {
		if !strings.Contains(story, want) {
			t.Errorf("no %q in\n%s", want, story)
		}
	}
	if code != 0 || !strings.Contains(out, "2 requests, 1 skipped for their method, 2 lines bad") {
		t.Errorf("exit %d\n%s", code, out)
	}
	r := loadJSON(t, a.URL, "--replay", name, "--speed", "2x", "--unsafe", "--body", "hello")
	if r.Requests != 3 || r.Seconds != 0.75 || r.Replay == nil || r.Replay.Requests != 3 || r.Replay.Skipped != 0 || r.Replay.Bad != 2 || r.Replay.Speed != 2 || len(r.Replay.Mistakes) != 2 {
		t.Errorf("%+v %+v", r, r.Replay)
	}
	if got, want := a.heard(), []string{"GET /a", "GET /a", "HEAD /b", "HEAD /b", "POST /c  hello"}; !slices.Equal(got, want) {
		t.Errorf("the server heard %q, want %q", got, want)
	}
}

// Ctrl-C ends a load, and what was measured is shown as a part.
func TestLoadIsInterrupted(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted there")
	}
	a := remember(t, false)
	cmd := exec.CommandContext(t.Context(), program, "load", a.URL, "--rate", "100/s", "--for", "1m")
	var out, story bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &story
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		<-a.came
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
	if !ok || exit.ExitCode() != 1 || !strings.HasSuffix(story.String(), "stopped\n") || !strings.Contains(out.String(), "PARTIAL: interrupted after ") || !strings.Contains(out.String(), " of 1m0s\n") || !strings.Contains(out.String(), "p99.9") {
		t.Errorf("%v\n%s\n%s", exit, out.String(), story.String())
	}
}

// docs/load.md shows every field of the JSON.
func TestLoadJSONIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/load.md")
	if err != nil {
		t.Fatal(err)
	}
	p := part{leftOut: []string{"example", "partial"}}
	if p.example, err = documents([]byte(sample.FindStringSubmatch(string(text))[1])); err != nil {
		t.Fatal(err)
	}
	a := remember(t, false)
	_, out, _ := loads(t, a.URL+"/bad", "-n", "3", "--json")
	if err := p.compare([]byte(strings.Replace(out, `"bins": []`, `"bins": [{"us": 1, "n": 1}]`, 1))); err != nil {
		t.Error(err)
	}
	if _, out, _ = loads(t, a.URL, "-n", "3", "--json"); p.compare([]byte(out)) != nil {
		t.Error(p.compare([]byte(out)))
	}
}
