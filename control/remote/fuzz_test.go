package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

func as(role identity.Role) func(*http.Request) (identity.ID, bool) {
	return func(*http.Request) (identity.ID, bool) {
		return identity.ID{Cluster: "test", Role: role, Node: "n1"}, role != ""
	}
}

// ask sends bytes to a handler, as anything that holds a certificate may.
func ask(store control.Store, role identity.Role, method, path, body string) *httptest.ResponseRecorder {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if strings.HasSuffix(path, "/watch") {
		time.AfterFunc(20*time.Millisecond, cancel)
	}
	w := httptest.NewRecorder()
	remote.Handler(store, as(role), remote.Bounds{}).ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
	return w
}

func TestBadCalls(t *testing.T) {
	large := `{"prefix":"` + strings.Repeat("x", 8<<10) + `"}`
	for _, tt := range []struct {
		name, method, path, body string
		role                     identity.Role
		status                   int
		code                     string
	}{
		{"no name", "POST", "range", `{}`, "", 403, "denied"},
		{"unknown role", "POST", "range", `{}`, "guest", 403, "denied"},
		{"unknown role's lease", "POST", "grant", `{"ttl_ms":5000}`, "guest", 403, "denied"},
		{"no JSON", "POST", "range", `<xml>`, identity.Node, 400, "bad"},
		{"nothing", "POST", "commit", ``, identity.Node, 400, "bad"},
		{"half", "POST", "commit", `{"ops":[{"key":"a"`, identity.Server, 400, "bad"},
		{"two", "POST", "range", `{}{}`, identity.Node, 400, "bad"},
		{"wrong type", "POST", "renew", `{"lease":"x"}`, identity.Node, 400, "bad"},
		{"beyond int64", "POST", "renew", `{"lease":1e30}`, identity.Node, 400, "bad"},
		{"long", "POST", "range", large, identity.Node, 413, "too-large"},
		{"very long", "POST", "commit", `{"ops":[{"key":"` + strings.Repeat("k", 3<<20) + `"}]}`, identity.Server, 413, "too-large"},
		{"value", "POST", "commit", `{"ops":[{"key":"k","value":"` + strings.Repeat("AAAA", 30<<10) + `"}]}`, identity.Server, 413, "too-large"},
		{"no key", "POST", "commit", `{"ops":[{}]}`, identity.Server, 400, "bad"},
		{"short lease", "POST", "grant", `{"ttl_ms":1}`, identity.Node, 400, "bad"},
		{"endless lease", "POST", "grant", `{"ttl_ms":9223372036854775807}`, identity.Node, 400, "bad"},
		{"lost lease", "POST", "renew", `{"lease":77}`, identity.Node, 404, "lease-lost"},
		{"watch from before", "POST", "watch", `{"from":-1}`, identity.Node, 400, "bad"},
		{"not a watch's JSON", "POST", "watch", `[`, identity.Node, 400, "bad"},
		{"another's", "POST", "commit", `{"ops":[{"key":"plan/meta","delete":true}]}`, identity.Node, 403, "denied"},
		{"reading verb", "GET", "range", ``, identity.Server, 405, ""},
		{"no call", "POST", "drop", `{}`, identity.Server, 404, ""},
	} {
		w := ask(memory.New(), tt.role, tt.method, "/v1/control/"+tt.path, tt.body)
		var got struct{ Code, Error string }
		if tt.code != "" {
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Error == "" {
				t.Errorf("%s: answer %q: %v, want a code and words", tt.name, w.Body, err)
			}
		}
		if w.Code != tt.status || got.Code != tt.code {
			t.Errorf("%s: %d %s (%s), want %d %s", tt.name, w.Code, got.Code, got.Error, tt.status, tt.code)
		}
	}
}

// FuzzHandler: no bytes break the server, and a node changes nothing but its own report.
func FuzzHandler(f *testing.F) {
	for _, call := range []string{"range", "commit", "grant", "renew", "revoke", "watch"} {
		for _, body := range []string{`{}`, `{"prefix":"plan/"}`, `{"ops":[{"key":"seen/n1","value":"e30=","lease":1}]}`, `{"conds":[{"key":"plan/meta","created":2}]}`,
			`{"ttl_ms":5000}`, `{"lease":1}`, `{"prefix":"","from":2}`, `[`, `null`, "\xff", `{"ops":[{"key":"plan/meta","delete":true}]}`} {
			f.Add(call, body)
		}
	}
	f.Fuzz(func(t *testing.T, call, body string) {
		switch call {
		case "range", "commit", "grant", "renew", "revoke", "watch":
		default:
			t.Skip()
		}
		store := memory.New()
		put(t, store, "plan/meta", "1")
		put(t, store, "secret", "1")
		w := ask(store, identity.Node, "POST", "/v1/control/"+call, body)
		switch w.Code {
		case 200, 400, 403, 404, 410, 413:
		default:
			t.Errorf("%s %q: %d %s", call, body, w.Code, w.Body)
		}
		for line := range bytes.Lines(w.Body.Bytes()) {
			if !json.Valid(line) {
				t.Errorf("%s %q: answer %q", call, body, line)
			}
		}
		if bytes.Contains(w.Body.Bytes(), []byte(`"key":"secret"`)) {
			t.Errorf("%s %q shows what a node may not see: %s", call, body, w.Body)
		}
		kvs, _, err := store.Range(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range kvs {
			if kv.Key != "seen/n1" && !strings.HasPrefix(kv.Key, "lease/") && (kv.Modified > 3 || string(kv.Value) != "1") {
				t.Errorf("%s %q changed %s", call, body, kv.Key)
			}
		}
	})
}

// canned answers every call with the same bytes, once; then no server answers.
type canned struct {
	body string
	done bool
}

func (c *canned) RoundTrip(*http.Request) (*http.Response, error) {
	if c.done {
		return nil, io.ErrClosedPipe
	}
	c.done = true
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(c.body))}, nil
}

// FuzzWatchLines: whatever a server says, a watch gives rising revisions or fails.
func FuzzWatchLines(f *testing.F) {
	for _, seed := range []string{
		`{"rev":4}` + "\n" + `{"batch":{"rev":5,"changes":[{"kv":{"key":"k","value":"eA=="}}]}}` + "\n",
		`{"batch":{"rev":5}}` + "\n" + `{"batch":{"rev":5}}` + "\n" + `{"rev":3}` + "\n",
		`{"error":{"code":"compacted","error":"gone"}}` + "\n",
		`{"error":{"code":"new","error":"?"}}` + "\n", `{`, "\n\n", `{"batch":{"rev":-9223372036854775808}}`, `{"rev":9223372036854775807}` + "\n{}\n",
	} {
		f.Add(seed, int64(5))
		f.Add(seed, int64(0))
	}
	f.Fuzz(func(t *testing.T, body string, from int64) {
		s := remote.New(remote.Options{
			Servers:   func() []system.NodeID { return []system.NodeID{"s1"} },
			Transport: &canned{body: body},
			Silence:   time.Nanosecond,
		})
		last := control.Rev(0)
		err := s.Watch(t.Context(), "", control.Rev(max(from, 0)), func(b control.Batch) error {
			if b.Rev <= last || b.Rev < control.Rev(from) {
				t.Errorf("%q from %d: revision %d after %d", body, from, b.Rev, last)
			}
			last = b.Rev
			return nil
		})
		if err == nil {
			t.Errorf("%q: Watch = nil, want an error: no server answers", body)
		}
	})
}
