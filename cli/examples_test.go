package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
	"servent/examples/address"
	"servent/system"
)

// example is a system that init wrote, not yet running.
func example(t *testing.T, name string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	if out, err := w.run("init", name); err != nil {
		t.Fatalf("init %s: %v\n%s", name, err, out)
	}
	w.dir = filepath.Join(w.dir, name)
	return w
}

// free is a port that nobody listens on: the examples' own may be in use where the tests run.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// have skips the test when a tool is missing; on CI it fails, so that nothing is left untested there in silence.
func have(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		} else if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed, and CI must test with it: %v", tool, err)
		}
		t.Skipf("%s is not installed", tool)
	}
}

// published is where a service is reached from outside; the web door's URLs end without a slash.
func (w *world) published(service system.ServiceName) string {
	w.t.Helper()
	for _, p := range w.state().Published {
		if p.Service == service {
			_, at, _ := strings.Cut(p.URL, "://")
			return strings.TrimSuffix(at, "/")
		}
	}
	w.t.Fatalf("%s is not published", service)
	return ""
}

// pids are the processes of a service's instances.
func (w *world) pids(service system.ServiceName) map[int]system.InstanceID {
	w.t.Helper()
	pids := map[int]system.InstanceID{}
	for _, in := range w.ps() {
		if in.Service == service && in.Pid != 0 {
			pids[in.Pid] = in.Instance
		}
	}
	return pids
}

// murder ends a process as kill -9 does.
func murder(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// said is what came of an HTTP request: its status and its body.
func said(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// talk is a connection to increment, as nc holds one.
type talk struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, at string) *talk {
	t.Helper()
	conn, err := net.DialTimeout("tcp", at, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &talk{conn, bufio.NewReader(conn)}
}

// next sends a number and wants the number plus one.
func (c *talk) next(n int) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // of a closed connection the write tells
	if _, err := fmt.Fprintln(c, n); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if want := fmt.Sprintln(n + 1); err == nil && line != want {
		err = fmt.Errorf("%d is answered with %q, want %q", n, line, want)
	}
	return err
}

// A connection stays with its instance: the death of one breaks its connections, and no others.
func TestIncrement(t *testing.T) {
	t.Parallel()
	w := example(t, "increment")
	w.write("port.yaml", fmt.Sprintf("services: {increment: {ports: !override [\"%s:7007\"], x-servent: {scale: {min: 3}}}}\n", free(t)))
	w.up("-f", "compose.yaml", "-f", "port.yaml")
	at := w.published("increment")
	var all []*talk
	for n := range 30 {
		all = append(all, dial(t, at))
		if err := all[n].next(n); err != nil {
			t.Fatal(err)
		}
	}
	pids := w.pids("increment")
	if len(pids) != 3 {
		t.Fatalf("instances = %v, want 3", pids)
	}
	var killed []int
	broken := map[*talk]bool{}
	for pid, id := range pids {
		if len(killed) == 2 {
			break
		}
		murder(t, pid)
		killed = append(killed, pid)
		lost := 0
		var wg sync.WaitGroup
		errs := make([]error, len(all))
		for i, c := range all {
			if !broken[c] {
				wg.Go(func() { errs[i] = c.next(i) })
			}
		}
		wg.Wait()
		for i, c := range all {
			if errs[i] != nil {
				broken[c] = true
				lost++
			}
		}
		if lost == 0 || lost > 25 {
			t.Errorf("%d of %d connections broke with %s, want some: it had its share", lost, len(all), id)
		}
		w.until("three ready again", 20*time.Second, func(s admin.State) bool {
			return s.Settled && !slices.ContainsFunc(s.Instances, func(in admin.InstanceState) bool { return slices.Contains(killed, in.Pid) })
		})
	}
	if len(broken) == len(all) {
		t.Error("every connection broke, want those of the third instance to go on")
	}
	for _, c := range all {
		c.Close()
	}
	w.languages(at)
}

// languages swaps the program for the same one in every language, while it runs.
func (w *world) languages(at string) {
	w.write("two.yaml", "services: {increment: {x-servent: {scale: {min: 2}}}}\n")
	for _, tt := range []struct {
		language string
		tools    []string
	}{{"python", []string{"python3"}}, {"go", []string{"go"}}, {"c", []string{"cc"}}, {"erlang", []string{"erlc", "escript"}}} {
		w.t.Run(tt.language, func(t *testing.T) {
			if testing.Short() {
				t.Skip("a rolling update of its own")
			}
			have(t, tt.tools...)
			before := w.pids("increment")
			if out, err := w.run("up", "-d", "-f", "compose.yaml", "-f", "compose."+tt.language+".yaml", "-f", "port.yaml", "-f", "two.yaml"); err != nil {
				t.Fatalf("up: %v\n%s\n%s", err, out, w.logs())
			}
			after := w.pids("increment")
			for pid := range after {
				if before[pid] != "" {
					t.Errorf("process %d of before runs still", pid)
				}
			}
			if len(after) != 2 {
				t.Errorf("instances = %v, want 2", after)
			}
			for n := range 10 {
				c := dial(t, at)
				for k := range 3 {
					if err := c.next(n + k); err != nil {
						t.Error(err)
					}
				}
				c.Close()
			}
		})
	}
}

// One instance counts right; two count each for itself, and what is counted is lost with an instance.
func TestCounter(t *testing.T) {
	w := example(t, "counter")
	w.up()
	url := "http://" + w.published("counter") + "/c/a"
	for want := 1; want <= 3; want++ {
		if code, got := said(t, "POST", url); code != 200 || got != fmt.Sprint(want) {
			t.Errorf("POST = %d %s, want %d", code, got, want)
		}
	}
	if code, got := said(t, "GET", url); code != 200 || got != "3" {
		t.Errorf("GET = %d %s, want 3", code, got)
	}
	for pid := range w.pids("counter") {
		murder(t, pid)
		w.until("ready again", 20*time.Second, func(s admin.State) bool { return s.Settled && s.Instances[0].Pid != pid })
	}
	if _, got := said(t, "GET", url); got != "0" {
		t.Errorf("GET after the instance died = %s, want 0: its memory is gone", got)
	}

	text, err := os.ReadFile(filepath.Join(w.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "architecture: single", "architecture: replicated", 1)
	if lines := strings.Count(string(text), "\n"); lines > 12 || edited == string(text) {
		t.Fatalf("compose.yaml: %d lines, want at most 12, with architecture: single\n%s", lines, text)
	}
	w.write("compose.yaml", edited)
	if out, err := w.run("up", "-d"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	url = "http://" + w.published("counter") + "/c/b"
	var mu sync.Mutex
	var wg sync.WaitGroup
	highest, twice, seen := 0, 0, map[string]bool{}
	for range 40 { // at once, as the README does
		wg.Go(func() {
			code, got := said(t, "POST", url)
			mu.Lock()
			defer mu.Unlock()
			var n int
			if _, err := fmt.Sscan(got, &n); err != nil || code != 200 {
				t.Errorf("POST = %d %s", code, got)
			}
			highest = max(highest, n)
			if seen[got] {
				twice++
			}
			seen[got] = true
		})
	}
	wg.Wait()
	if highest == 40 || twice == 0 {
		t.Errorf("40 POSTs to two instances counted to %d, %d numbers came twice; want a wrong count: each counts for itself", highest, twice)
	}
}

// What a time-out does to a call, at the door of a running system.
func TestAddress(t *testing.T) {
	t.Parallel()
	w := example(t, "address")
	w.write("port.yaml", fmt.Sprintf("services: {address: {ports: !override [\"%s:7008\"]}}\n", free(t)))
	w.up("-f", "compose.yaml", "-f", "port.yaml")
	at := w.published("address")
	call := func(program []string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program[0], append(append(program[1:], "--server", at), args...)...)
		cmd.Dir = w.dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	stub := []string{program, "example", "address-client", "--timeout", "10s"}
	if out, err := call(stub, "insert", "ada", "10.0.0.1:80"); err != nil {
		t.Fatalf("insert: %v\n%s", err, out)
	}
	if out, err := call(stub, "lookup", "ada"); err != nil || out != "10.0.0.1:80\n" {
		t.Errorf("lookup = %q, %v, want 10.0.0.1:80", out, err)
	}
	t.Run("python", func(t *testing.T) {
		have(t, "python3")
		if out, err := call([]string{"python3", "address.py", "--timeout", "10"}, "lookup", "ada"); err != nil || out != "10.0.0.1:80\n" {
			t.Errorf("lookup = %q, %v, want 10.0.0.1:80", out, err)
		}
	})

	if testing.Short() {
		return // what follows waits for time-outs
	}
	if out, err := w.run("up", "-d", "-f", "compose.yaml", "-f", "compose.slow.yaml", "-f", "port.yaml"); err != nil {
		t.Fatalf("up slow: %v\n%s", err, out)
	}
	client := func(s address.Semantics) *address.Client { return &address.Client{Address: at, Semantics: s} }
	// In this order: every second answer is late, the first one too. lookup may be asked twice.
	for _, tt := range []struct {
		semantics address.Semantics
		name      string
		unknown   bool
		copies    int
	}{{address.AtLeastOnce, "bob", false, 2}, {address.AtMostOnce, "ada", false, 1}, {address.Maybe, "eve", true, 1}} {
		err := client(tt.semantics).Insert(t.Context(), tt.name, "10.0.0.2:80")
		if tt.unknown != address.Unknown(err) || !tt.unknown && err != nil {
			t.Errorf("%s insert %s = %v, want an unknown outcome: %v", tt.semantics, tt.name, err, tt.unknown)
		}
		got, err := client(address.AtLeastOnce).Lookup(t.Context(), tt.name)
		if err != nil || len(got) < tt.copies || tt.semantics == address.AtMostOnce && len(got) > 1 {
			t.Errorf("%s: the book has %v, %v, want %s %d times", tt.semantics, got, err, tt.name, tt.copies)
		}
	}
	if err := client(address.AtMostOnce).Stop(t.Context()); err != nil && !address.Unknown(err) {
		t.Errorf("stop: %v", err)
	}
	w.until("done", 20*time.Second, func(s admin.State) bool { return len(s.Instances) == 1 && s.Instances[0].State == system.StateDone })
	if err := client(address.Maybe).Stop(t.Context()); err == nil {
		t.Error("the second stop was answered; the server has ended")
	}
}

// A token goes round by SERVENT_NEXT, and the ring heals.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := example(t, "tokens")
	w.up()
	url := "http://" + w.published("tokens")
	round := func(members int) error {
		code, body := said(t, "POST", url+"/start?rounds=5")
		var got struct{ Members, N int }
		if err := json.Unmarshal([]byte(body), &got); code != 200 || err != nil || got.Members != members || got.N != 5*members {
			return fmt.Errorf("start = %d %s, want 5 rounds of %d members", code, body, members)
		}
		return nil
	}
	if err := round(4); err != nil {
		t.Fatal(err)
	}
	for pid, id := range w.pids("tokens") {
		murder(t, pid)
		took := w.heals(20*time.Second, func() error { return round(4) })
		t.Logf("%s killed: round again %v later", id, took)
		break
	}
	if testing.Short() {
		return
	}
	if out, err := w.run("scale", "tokens=6"); err != nil { // no member is told, and all find out
		t.Fatalf("scale: %v\n%s", err, out)
	}
	if err := round(6); err != nil {
		t.Error(err)
	}
	have(t, "python3")
	if out, err := w.run("up", "-d", "-f", "compose.yaml", "-f", "compose.python.yaml"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, w.logs())
	}
	if err := round(4); err != nil {
		t.Errorf("in Python: %v", err)
	}
}

// heals waits until something works again.
func (w *world) heals(within time.Duration, works func() error) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		err := works()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > within {
			w.t.Fatalf("not well after %v: %v\n%s", took, err, w.logs())
		}
		<-time.After(50 * time.Millisecond)
	}
}

// through is an answer of the shop, which names the tiers that it came through.
type through struct {
	Door, Api, Data string
	Products        []struct{ Name string }
	Orders          []order
	Placed          struct {
		Order    order
		Repeated bool
	}
	Error string
}

type order struct {
	ID  int64
	Key string
}

// shop asks the api tier.
func shop(ctx context.Context, method, url, key, body string) (through, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return through{}, 0, err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return through{}, 0, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	var a through
	if err == nil {
		if err = json.Unmarshal(said, &a); err != nil {
			err = fmt.Errorf("%s: %s", resp.Status, said)
		}
	}
	return a, resp.StatusCode, err
}

// ordered are the keys of all orders, newest first, each with its number.
func ordered(t *testing.T, url string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for before := int64(1 << 62); ; {
		a, status, err := shop(t.Context(), "GET", fmt.Sprintf("%s/api/orders?before=%d", url, before), "", "")
		if err != nil || status != 200 {
			t.Fatalf("orders = %d %+v, %v", status, a, err)
		}
		if len(a.Orders) == 0 {
			return all
		}
		for _, o := range a.Orders {
			if all[o.Key] != 0 {
				t.Errorf("order %s is there twice: %d and %d", o.Key, all[o.Key], o.ID)
			}
			all[o.Key], before = o.ID, o.ID
		}
	}
}

// Three tiers, and the other database.
func TestShop(t *testing.T) {
	t.Parallel()
	have(t, "go")
	w := example(t, "shop")
	w.up()
	url := "http://" + w.published("web")
	if page := fetch(t, url+"/"); !strings.Contains(page, `src="shop.js"`) || !strings.Contains(fetch(t, url+"/shop.js"), "Idempotency-Key") {
		t.Errorf("the page is not the shop's:\n%s", page)
	}
	if list := fetch(t, url+"/api/"); !strings.Contains(list, "POST /api/orders") {
		t.Errorf("GET /api/ = %s, want what there is", list)
	}
	sells := func(t *testing.T, data string) {
		t.Helper()
		a, status, err := shop(t.Context(), "GET", url+"/api/products", "", "")
		if err != nil || status != 200 || len(a.Products) != 6 {
			t.Fatalf("products = %d %+v, %v, want 6", status, a, err)
		}
		if "http://"+a.Door != url || !strings.HasPrefix(a.Api, "api/") || !strings.HasPrefix(a.Data, "data/1 on node-") || !strings.Contains(a.Data, data) {
			t.Errorf("came through door %q, api %q, data %q; want %s and an instance of each tier, %s", a.Door, a.Api, a.Data, url, data)
		}
		first, status, err := shop(t.Context(), "POST", url+"/api/orders", "mine", `{"product": 1, "quantity": 2}`)
		if err != nil || status != 201 || first.Placed.Repeated {
			t.Errorf("order = %d %+v, %v, want 201", status, first, err)
		}
		again, status, err := shop(t.Context(), "POST", url+"/api/orders", "mine", `{"product": 1, "quantity": 2}`)
		if err != nil || status != 200 || !again.Placed.Repeated || again.Placed.Order != first.Placed.Order {
			t.Errorf("the same order again = %d %+v, %v, want 200 and that it is there already", status, again, err)
		}
		if all := ordered(t, url); len(all) != 1 || all["mine"] == 0 {
			t.Errorf("orders = %v, want one", all)
		}
	}
	sells(t, "")
	t.Run("PostgreSQL", func(t *testing.T) {
		if testing.Short() {
			t.Skip("makes a database")
		}
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
			have(t, "postgres")
		}
		if out, err := w.run("up", "-d", "-f", "compose.yaml", "-f", "compose.postgres.yaml"); err != nil {
			t.Fatalf("up: %v\n%s\n%s", err, out, w.logs())
		}
		sells(t, "PostgreSQL")
	})
}
