package l7

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/route"
	"servent/system"
)

var shared = []byte("a secret that all nodes of a test share")

// sticky is a fleet of two nodes that share a secret, with three instances that say who they are.
func sticky(t *testing.T, word string) (*fleet, []*program) {
	f := newFleet(t, 2, func(o *Options) { o.Secret = shared })
	var programs []*program
	for n := 1; n <= 3; n++ {
		programs = append(programs, f.run(system.NodeID(fmt.Sprintf("node-%d", 1+n%2)), n, text(fmt.Sprint(n))))
	}
	f.change(func() { f.service("api").Switch = system.Switch{Policy: "roundrobin", Sticky: word} })
	return f, programs
}

// given is the cookie that an answer sets, or "".
func given(res *http.Response) string {
	for _, c := range res.Cookies() {
		if c.Name == "servent-api" {
			return c.Value
		}
	}
	return ""
}

func TestCookieSticks(t *testing.T) {
	f, programs := sticky(t, "cookie")
	doors, c := []string{f.door("node-1"), f.door("node-2")}, client(t)
	res, first := ask(t, c, "GET", doors[0], nil)
	header, cookie := res.Header.Get("Set-Cookie"), given(res)
	for _, want := range []string{"Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(header, want) {
			t.Errorf("Set-Cookie: %s, want %s", header, want)
		}
	}
	for _, not := range []string{"Expires", "Max-Age", "Domain", "node"} {
		if strings.Contains(header, not) {
			t.Errorf("Set-Cookie: %s, want no %s", header, not)
		}
	}
	if got := res.Header.Get("Cache-Control"); got != `no-cache="set-cookie"` {
		t.Errorf("Cache-Control: %s, want that no cache hands the cookie to others", got)
	}
	if !strings.Contains(res.Header.Get("Server-Timing"), `why;desc="policy"`) {
		t.Errorf("Server-Timing: %s, want the policy", res.Header.Get("Server-Timing"))
	}
	for i := range 12 {
		res, got := ask(t, c, "GET", doors[i%2], nil, "Cookie: other=1; servent-api="+cookie)
		if got != first || given(res) != "" || !strings.Contains(res.Header.Get("Server-Timing"), `why;desc="sticky"`) {
			t.Fatalf("request %d: instance %s, cookie %q, %s; want %s, none, sticky", i, got, given(res), res.Header.Get("Server-Timing"), first)
		}
	}
	// The instance dies: another one takes the client, once.
	programs[first[0]-'1'].kill()
	res, second := ask(t, c, "GET", doors[0], nil, "Cookie: servent-api="+cookie)
	moved := given(res)
	if second == first || moved == "" || !strings.Contains(res.Header.Get("Server-Timing"), `why;desc="retry"`) {
		t.Fatalf("after a death: instance %s, cookie %q, %s; want another one, a cookie, retry", second, moved, res.Header.Get("Server-Timing"))
	}
	for i := range 6 {
		if res, got := ask(t, c, "GET", doors[i%2], nil, "Cookie: servent-api="+moved); got != second || given(res) != "" {
			t.Errorf("moved again: instance %s, cookie %q, want %s and none", got, given(res), second)
		}
	}
}

// What nobody here signed for this service, lately, is as good as no cookie.
func TestCookiesThatDoNotCount(t *testing.T) {
	f, _ := sticky(t, "cookie")
	door, c, now := f.door("node-1"), client(t), hours(time.Now())
	good := writeSession(shared, "api", "api/2", now)
	for _, tt := range []struct {
		name, value string
		counts      bool
		renewed     bool
	}{
		{"good", good, true, false},
		{"a day old", writeSession(shared, "api", "api/2", now-sessionRenew), true, true},
		{"nearly a week old", writeSession(shared, "api", "api/2", now-sessionLife+1), true, true},
		{"a week old", writeSession(shared, "api", "api/2", now-sessionLife), false, true},
		{"of a clock a little ahead", writeSession(shared, "api", "api/2", now+sessionSkew), true, false},
		{"of the future", writeSession(shared, "api", "api/2", now+sessionSkew+2), false, true},
		{"of another secret", writeSession([]byte("another"), "api", "api/2", now), false, true},
		{"of another service", writeSession(shared, "web", "web/2", now), false, true},
		{"of an instance that is gone", writeSession(shared, "api", "api/9", now), false, true},
		{"another number", "1" + good[1:], false, true},
		{"without signature", good[:strings.LastIndex(good, ".")+1], false, true},
		{"cut short", good[:len(good)-1], false, true},
		{"empty", "", false, true},
		{"rubbish", "....", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]bool{}
			for range 3 { // round robin: without a cookie that counts each request goes elsewhere
				res, answer := ask(t, c, "GET", door, nil, "Cookie: servent-api="+tt.value)
				got[answer] = true
				if (given(res) != "") != tt.renewed && (!tt.renewed || answer != "2") {
					t.Errorf("a new cookie %q, want one: %v", given(res), tt.renewed)
				}
			}
			if want := map[bool]int{true: 1, false: 3}[tt.counts]; len(got) != want || tt.counts && !got["2"] {
				t.Errorf("answers of %v, want counts %v", slices.Sorted(maps.Keys(got)), tt.counts)
			}
		})
	}
	// The first of several that counts.
	if _, got := ask(t, c, "GET", door, nil, "Cookie: servent-api=x; servent-api="+good); got != "2" {
		t.Errorf("behind a bad one of the same name: instance %s, want 2", got)
	}
}

// A suspicion moves nobody, and neither does draining, for as long as the instance runs.
func TestSessionsOutlastDraining(t *testing.T) {
	f, _ := sticky(t, "cookie")
	door, c := f.door("node-1"), client(t)
	cookie := "Cookie: servent-api=" + writeSession(shared, "api", "api/2", hours(time.Now()))
	n := f.nodes["node-1"]
	n.sw.loads.Suspect("api/2", time.Now(), n.table.Load())
	if _, got := ask(t, c, "GET", door, nil, cookie); got != "2" {
		t.Errorf("while it is suspect: instance %s, want 2", got)
	}
	f.change(func() {
		svc := f.service("api")
		i := slices.IndexFunc(svc.Instances, func(in route.Instance) bool { return in.ID == "api/2" })
		svc.Leaving = []route.Instance{svc.Instances[i]}
		svc.Leaving[0].Local = true
		svc.Instances = slices.Delete(slices.Clone(svc.Instances), i, i+1)
	})
	for range 4 {
		if _, got := ask(t, c, "GET", door, nil, cookie); got != "2" {
			t.Errorf("while it drains: instance %s, want 2", got)
		}
		if _, got := ask(t, c, "GET", door, nil); got == "2" {
			t.Error("one that drains got a new client")
		}
	}
	f.change(func() { f.service("api").Leaving = nil })
	if res, got := ask(t, c, "GET", door, nil, cookie); got == "2" || given(res) == "" {
		t.Errorf("when it is gone: instance %s, cookie %q; want another one and a cookie for it", got, given(res))
	}
}

func TestStickyByKeyAndSource(t *testing.T) {
	rule, err := route.ParseKey("header:X-User")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		sticky, policy string
		byKey          bool // else by where the request comes from, which is one place here
		without        int  // instances that answer requests without a key
	}{
		{"key", "roundrobin", true, 3},
		{"source", "roundrobin", false, 1},
		{"none", "hash", true, 1}, // one request at a time: nobody is full
		{"none", "maglev", true, 1},
	} {
		t.Run(tt.sticky+"/"+tt.policy, func(t *testing.T) {
			f, programs := sticky(t, tt.sticky)
			f.change(func() { svc := f.service("api"); svc.Key, svc.Switch.Policy = rule, tt.policy })
			doors, c := []string{f.door("node-1"), f.door("node-2")}, client(t)
			owner, used := map[string]string{}, map[string]bool{}
			all := func() (moved []string) {
				for i := range 24 {
					user := fmt.Sprint("user-", i/2)
					res, got := ask(t, c, "GET", doors[i%2], nil, "X-User: "+user)
					if given(res) != "" {
						t.Error("a cookie was set")
					}
					if was := owner[user]; was != "" && was != got {
						moved = append(moved, was)
					}
					owner[user], used[got] = got, true
				}
				return moved
			}
			if moved := all(); len(moved) > 0 {
				t.Errorf("the doors of two nodes disagree: %v", moved)
			}
			if want := map[bool]int{true: 3, false: 1}[tt.byKey]; len(used) != want {
				t.Errorf("12 users are with %v, want %d instances", used, want)
			}
			without := map[string]bool{}
			for range 6 {
				_, got := ask(t, c, "GET", doors[0], nil)
				without[got] = true
			}
			if len(without) != tt.without {
				t.Errorf("requests without key went to %v, want %d instances", without, tt.without)
			}
			dead := owner["user-0"]
			programs[dead[0]-'1'].kill()
			f.change(func() {
				svc := f.service("api")
				svc.Instances = slices.DeleteFunc(slices.Clone(svc.Instances), func(in route.Instance) bool { return string(in.ID) == "api/"+dead })
			})
			for _, was := range all() {
				if was != dead && tt.policy != "maglev" {
					t.Errorf("a user moved from %s though %s died", was, dead)
				}
			}
		})
	}
}

// The value says the number, the hour and nothing else; no two say the same.
func TestSessionText(t *testing.T) {
	seen := map[string]string{}
	for _, service := range []system.ServiceName{"a", "ab", "a.b"} {
		for n := range 3 {
			for _, made := range []int64{0, 1, 12, 500000} {
				id := system.Instance(service, n+1)
				value := writeSession(shared, service, id, made)
				if !strings.HasPrefix(value, fmt.Sprintf("%d.%d.", n+1, made)) {
					t.Errorf("%s at %d: %s", id, made, value)
				}
				mac := value[strings.LastIndex(value, ".")+1:]
				if other := seen[mac]; other != "" {
					t.Errorf("%s and %s have one signature", other, value)
				}
				seen[mac] = string(service) + " " + value
				if got, at, ok := readSession(shared, service, value); got != id || at != made || !ok {
					t.Errorf("read %q: %s, %d, %v", value, got, at, ok)
				}
			}
		}
	}
	if got := writeSession(shared, "a", "rubbish", 0); got != "" {
		t.Errorf("of no instance: %q", got)
	}
}

func FuzzSession(f *testing.F) {
	f.Add("api", writeSession(shared, "api", "api/2", 500000))
	f.Add("api", "2.500000.")
	f.Add("", "-1.-1.AAAA")
	f.Fuzz(func(t *testing.T, service, value string) {
		id, made, ok := readSession(shared, system.ServiceName(service), value)
		if !ok {
			return
		}
		if again := writeSession(shared, system.ServiceName(service), id, made); again != value {
			t.Errorf("%q counts for %s and was never written", value, id)
		}
	})
}
