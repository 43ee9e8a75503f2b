package route

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"servent/system"
)

func TestKeyRule(t *testing.T) {
	for _, tt := range []struct {
		template, target, header, body string
		want                           string // "" means none
	}{
		{"/c/{key}", "/c/a", "", "", "a"},
		{"/c/{key}", "/c/a%2Fb", "", "", "a/b"},
		{"/c/{key}", "/c/a%20b", "", "", "a b"},
		{"/c/{key}", "/c/", "", "", ""},
		{"/c/{key}", "/c/a/b", "", "", ""},
		{"/c/{key}", "/d/a", "", "", ""},
		{"/c/{key}/*", "/c/a", "", "", "a"},
		{"/c/{key}/*", "/c/a/b/c", "", "", "a"},
		{"/c/{key}/items", "/c/a/items", "", "", "a"},
		{"/c/{key}/items", "/c/a", "", "", ""},
		{"/{key}", "/a?b=c", "", "", "a"},
		{"header:X-User", "/", "X-User: me", "", "me"},
		{"header:X-User", "/", "", "", ""},
		{"query:id", "/?id=7", "", "", "7"},
		{"query:id", "/?id=a%20b", "", "", "a b"},
		{"query:id", "/?id=7&id=8", "", "", ""},
		{"query:id", "/?id=%zz", "", "", ""},
		{"cookie:sid", "/", "Cookie: other=1; sid=xyz", "", "xyz"},
		{"cookie:sid", "/", "Cookie: sid=1; sid=2", "", ""},
		{"json:user.id", "/", "", `{"user":{"id":"u1"}}`, "u1"},
		{"json:user.id", "/", "", `{"user":{"id":12345678901234567890}}`, "12345678901234567890"},
		{"json:user.id", "/", "", `{"user":7}`, ""},
		{"json:user.id", "/", "", `not json`, ""},
		{"json:user.id", "/", "", `{"user":{"id":null}}`, ""},
		{"source", "/", "", "", "192.0.2.1"},
		{"/c/{key}", "/c/" + strings.Repeat("a", maxKey+1), "", "", ""},
	} {
		rule, err := ParseKey(tt.template)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", tt.target, nil)
		if name, value, ok := strings.Cut(tt.header, ": "); ok {
			r.Header.Set(name, value)
		}
		got, err := rule.Find(r, []byte(tt.body), "192.0.2.1")
		if string(got) != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrNoKey) {
			t.Errorf("%s in %.60s %s %s: %q, %v; want %q", tt.template, tt.target, tt.header, tt.body, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "header:", "nonsense:x", "header"} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) = nil, want an error", bad)
		}
	}
}

// No request makes a rule panic, and a key that is found is never empty nor too long.
func FuzzKeyRule(f *testing.F) {
	for _, s := range []string{"/c/{key}", "/c/{key}/*", "header:X-User", "query:id", "cookie:sid", "json:user.id", "source"} {
		f.Add(s, "/c/a%2Fb", "id=7;&%", "sid=1; a", `{"user":{"id":1e400}}`)
	}
	f.Fuzz(func(t *testing.T, template, path, query, header, body string) {
		rule, err := ParseKey(template)
		u, uerr := url.Parse(path)
		if err != nil || uerr != nil {
			t.Skip()
		}
		u.RawQuery = query
		r := &http.Request{URL: u, Header: http.Header{"Cookie": {header}, "X-User": {header}}}
		key, err := rule.Find(r, []byte(body), header)
		if err == nil && (key == "" || len(key) > maxKey) {
			t.Errorf("found the key %q", key)
		}
	})
}

func TestPartitionsAreEven(t *testing.T) {
	n := map[int]int{}
	for i := range 200_000 {
		p := Partition(Key("key-" + string(rune('a'+i%26)) + strings.Repeat("x", i%7) + time.Duration(i).String()))
		if p < 0 || p >= system.Partitions {
			t.Fatalf("Partition = %d", p)
		}
		n[p/256]++
	}
	for part, count := range n { // 16 parts, 12,500 each; a deviation of 5σ is 540
		if count < 11_960 || count > 13_040 {
			t.Errorf("part %d has %d of 200,000 keys, want about 12,500", part, count)
		}
	}
}

func TestBuildDividesKeys(t *testing.T) {
	parts := &system.Parts{Instances: []system.InstanceID{"cart/1", "cart/2"}, Owner: make([]int, system.Partitions)}
	for p := range parts.Owner {
		parts.Owner[p] = p % 2
	}
	svc := system.Service{Name: "cart", Architecture: system.Partitioned, Key: "/c/{key}"}
	plan := &system.Plan{Generation: 7, Services: []system.Deployment{{Service: svc, Parts: parts, Assignments: []system.Assignment{
		{Instance: "cart/1", Node: "node-1", Goal: system.GoalRun},
		{Instance: "cart/2", Node: "node-2", Goal: system.GoalWait, Waits: "waiting for node-2, which holds its data"},
	}}}}
	seen := []system.Seen{{Node: "node-1", Instances: []system.InstanceSeen{{Instance: "cart/1", State: system.StateReady}}}}
	table := Build(plan, seen, "node-1")
	to := table.Door("cart")
	var one, two Key
	for i := 0; one == "" || two == ""; i++ {
		key := Key(time.Duration(i).String())
		if Partition(key)%2 == 0 {
			one = key
		} else {
			two = key
		}
	}
	at, err := to.Locator.Locate(t.Context(), one)
	if got := table.Owner(to, at); err != nil || len(got.Among) != 1 || got.Among[0].ID != "cart/1" || at.Epoch != 7 {
		t.Errorf("owner of the first key = %+v, %v", got, err)
	}
	at, err = to.Locator.Locate(t.Context(), two)
	if got := table.Owner(to, at); err != nil || len(got.Among) != 0 || got.Coming || !strings.Contains(got.Why, "waiting for node-2") {
		t.Errorf("owner of the second key = %+v, %v; want nobody, and why", got, err)
	}
	for _, tt := range []struct {
		id    system.InstanceID
		epoch uint64
		want  string
	}{{"cart/1", 7, ""}, {"cart/2", 7, "cart/1 owns the key"}, {"cart/2", 8, ErrBehind.Error()}} {
		got := ""
		if err := to.Locator.Owns(one, tt.id, tt.epoch); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Owns(%s, %d) = %q, want %q", tt.id, tt.epoch, got, tt.want)
		}
	}
}
