package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"servent/admin"
)

// askKV sends a request to a key-value database; header holds names and values by turns.
func askKV(t *testing.T, method, url, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// described is what Server-Timing says of a name, or nothing.
func described(timing, name string) string {
	_, rest, _ := strings.Cut(timing, name+`;desc="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// listed are the keys with a prefix.
func listed(t *testing.T, at, query string) (keys []string) {
	t.Helper()
	status, _, body := askKV(t, "GET", at+"/kv/?"+query, "")
	var page struct{ Keys []struct{ Key string } }
	if err := json.Unmarshal([]byte(body), &page); err != nil || status != 200 {
		t.Fatalf("list = %d %s", status, body)
	}
	for _, k := range page.Keys {
		keys = append(keys, k.Key)
	}
	return keys
}

const kvFile = `name: kv
services:
  db:
    x-servent:
      builtin: kv
      architecture: %s
      route: /*
x-servent:
  nodes: {node: {count: 3}}
`

// TestKV: the database as one instance: its API through the doors, and what is on its disk after its node was killed.
func TestKV(t *testing.T) {
	w := start(t, fmt.Sprintf(kvFile, "single"))
	at := "http://" + w.published("db")
	for _, key := range []string{"a", "users/1", "é ü"} {
		if status, _, body := askKV(t, "PUT", at+"/kv/"+url.PathEscape(key), "value of "+key); status != 201 {
			t.Fatalf("PUT %s = %d %s", key, status, body)
		}
	}
	status, h, body := askKV(t, "GET", at+"/kv/users%2F1", "")
	if status != 200 || body != "value of users/1" || h.Get("Etag") == "" {
		t.Errorf("GET = %d %s with tag %s", status, body, h.Get("Etag"))
	}
	if status, _, _ := askKV(t, "GET", at+"/kv/users%2F1", "", "If-None-Match", h.Get("Etag")); status != 304 {
		t.Errorf("GET of a known version = %d, want 304", status)
	}
	if status, _, _ := askKV(t, "PUT", at+"/kv/users%2F1", "new", "If-Match", h.Get("Etag")); status != 204 {
		t.Errorf("compare-and-set = %d, want 204", status)
	}
	if status, _, _ := askKV(t, "PUT", at+"/kv/users%2F1", "late", "If-Match", h.Get("Etag")); status != 412 {
		t.Errorf("compare-and-set on an old version = %d, want 412", status)
	}
	if got := listed(t, at, "prefix=users/"); len(got) != 1 || got[0] != "users/1" {
		t.Errorf("list = %q", got)
	}
	big := strings.Repeat("x", 1<<20)
	if status, _, said := askKV(t, "PUT", at+"/kv/big", big); status != 201 {
		t.Errorf("PUT of 1 MiB = %d %s", status, said)
	}
	if status, _, said := askKV(t, "PUT", at+"/kv/big", big+"x"); status != 413 {
		t.Errorf("PUT of more = %d %s, want 413", status, said)
	}
	if status, _, said := askKV(t, "POST", at+"/v1/store/write", "x"); status != 404 {
		t.Errorf("what only peers may ask is answered to a user: %d %s", status, said)
	}
	node := ""
	for _, in := range w.ps() {
		if in.Service == "db" {
			node = string(in.Node)
		}
	}
	for _, n := range w.state().Nodes {
		if string(n.Node) == node {
			murder(t, n.Pid)
		}
	}
	w.until("the database is back on its node", 40*time.Second, func(s admin.State) bool {
		status, _, body := askKV(t, "GET", at+"/kv/users%2F1", "")
		return status == 200 && body == "new"
	})
	if got := listed(t, at, ""); len(got) != 4 {
		t.Errorf("after the kill there are %q, want four keys", got)
	}
}

// TestKVDivided: keys divided, no key template written, each list whole.
func TestKVDivided(t *testing.T) {
	t.Parallel()
	t.Run("partitioned", func(t *testing.T) {
		divided(t, strings.Replace(fmt.Sprintf(kvFile, "partitioned"), "route:", "scale: {min: 3}\n      route:", 1))
	})
	t.Run("ring", func(t *testing.T) { divided(t, fmt.Sprintf(kvFile, "ring")) })
	t.Run("chord", func(t *testing.T) { divided(t, fmt.Sprintf(kvFile, "chord")) })
	t.Run("pastry", func(t *testing.T) { divided(t, fmt.Sprintf(kvFile, "pastry")) })
	t.Run("kademlia", func(t *testing.T) { divided(t, fmt.Sprintf(kvFile, "kademlia")) })
}

func divided(t *testing.T, file string) {
	w := start(t, file)
	at := "http://" + w.published("db")
	for i := range 60 {
		if status, _, body := askKV(t, "PUT", fmt.Sprintf("%s/kv/key%%2F%d", at, i), fmt.Sprint(i)); status != 201 {
			t.Fatalf("PUT %d = %d %s", i, status, body)
		}
	}
	for i := range 60 {
		status, h, body := askKV(t, "GET", fmt.Sprintf("%s/kv/key%%2F%d", at, i), "")
		if status != 200 || body != fmt.Sprint(i) {
			t.Fatalf("GET %d = %d %s", i, status, body)
		}
		if i%12 != 0 {
			continue
		}
		key := fmt.Sprintf("key/%d", i)
		said, err := w.run("explain", "db", key)
		by := described(h.Get("Server-Timing"), "instance")
		if err != nil || by == "" || !strings.Contains(said, key+" belongs to "+by+" on ") {
			t.Errorf("%s answered for %s; explain: %v\n%s", by, key, err, said)
		}
	}
	if got := listed(t, at, "limit=1000"); len(got) != 60 {
		t.Errorf("%d keys are listed, want 60", len(got))
	}
	if status, _, said := askKV(t, "PUT", at+"/kv/key%2F1", "x", "If-None-Match", "*"); status != 501 || !strings.Contains(said, "no compare-and-set") {
		t.Errorf("compare-and-set = %d %s, want 501", status, said)
	}
}

// The course's second exercise: one instance and divided keys answer right, copies that know nothing of one another
// do not.
func TestCompareStore(t *testing.T) {
	t.Parallel()
	w := example(t, "store")
	w.write("compose.yaml", strings.Replace(w.read("compose.yaml"), "uniform of 200", "uniform of 20", 1)) // so few requests must meet keys again
	r := compared(t, w, "--nodes", "1,2", "--repeats", "3", "--no-fault")
	if len(r.Variants) != 4 {
		t.Fatalf("%d variants, want single, replicated, partitioned and ring", len(r.Variants))
	}
	for _, v := range r.Variants {
		if (v.Answers.Verdict == "WRONG") != (v.Name == "replicated") || v.Answers.Checked == 0 || v.Answers.Checker != "kv" {
			t.Errorf("%s: answers %+v", v.Name, v.Answers)
		}
	}
}

// TestKVCopies: with three copies and one node killed every key is read and written; when the node is back it is
// brought up to date.
func TestKVCopies(t *testing.T) {
	t.Parallel()
	w := start(t, strings.Replace(fmt.Sprintf(kvFile, "partitioned"), "route:", "scale: {min: 3}\n      copies: 3\n      route:", 1))
	at := "http://" + w.published("db")
	put := func(key, value string, within time.Duration) {
		t.Helper()
		for end := time.Now().Add(within); ; { // a moment of 503 is allowed when a node dies
			status, _, said := askKV(t, "PUT", at+"/kv/"+key, value)
			if status/100 == 2 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("PUT %s = %d %s", key, status, said)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	for i := range 30 {
		put(fmt.Sprintf("k%d", i), "before", 20*time.Second) // the copies compare themselves first
	}
	var killed admin.NodeState
	for _, n := range w.state().Nodes {
		if n.Role == "node" {
			killed = n
		}
	}
	murder(t, killed.Pid)
	for i := range 30 {
		key := fmt.Sprintf("k%d", i)
		w.until(key+" is read without a node", 20*time.Second, func(admin.State) bool {
			status, _, body := askKV(t, "GET", at+"/kv/"+key, "")
			return status == 200 && body == "before"
		})
		put(key, "after", 20*time.Second)
	}
	w.until("the node is back", 40*time.Second, func(s admin.State) bool {
		for _, n := range s.Nodes {
			if n.Node == killed.Node && (!n.Runs() || n.Pid == killed.Pid) {
				return false
			}
		}
		return s.Settled
	})
	w.until("every key is right on all ways", 30*time.Second, func(admin.State) bool {
		for i := range 30 {
			if status, _, body := askKV(t, "GET", fmt.Sprintf("%s/kv/k%d", at, i), ""); status != 200 || body != "after" {
				return false
			}
		}
		return len(listed(t, at, "")) == 30
	})
}
