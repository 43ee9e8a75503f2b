package examples

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"servent/examples/tokens"
)

// By the relay a token meets the same members as in the ring, and every pass but those from and to the relay itself
// is two messages.
func TestRelay(t *testing.T) {
	const n = 4
	var relayed, passes atomic.Int64
	doors, members := make([]string, n), make([]*tokens.Member, n)
	for i := range n {
		door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/relay":
				relayed.Add(1)
			case "/token":
				passes.Add(1)
			}
			members[i].ServeHTTP(w, r)
		}))
		t.Cleanup(door.Close)
		doors[i] = door.URL
	}
	for i := range n {
		env := map[string]string{"WAY": "relay", "SERVENT_INSTANCE": fmt.Sprintf("tokens/%d", i+1), "SERVENT_SELF": doors[i],
			"SERVENT_PEERS": strings.Join(doors, ","), "SERVENT_NEXT": "http://127.0.0.1:1"} // nobody goes there
		var err error
		if members[i], err = tokens.New(func(key string) string { return env[key] }); err != nil {
			t.Fatal(err)
		}
	}
	for i, door := range doors {
		relayed.Store(0)
		passes.Store(0)
		if status, body := request(t, "GET", door+"/length", ""); status != 200 || strings.TrimSpace(body) != "4" {
			t.Errorf("length at member %d = %d %s, want 4", i+1, status, body)
		}
		if r, p := relayed.Load(), passes.Load(); r != n-1 || p != n-1 {
			t.Errorf("a round from member %d took %d messages to the relay and %d from it, want %d each", i+1, r, p, n-1)
		}
	}
	for i, door := range doors {
		if status, body := request(t, "GET", door+"/", ""); status != 200 || !strings.Contains(body, `"passed":4`) {
			t.Errorf("member %d = %d %s, want 4 passes", i+1, status, body)
		}
	}
	for _, path := range []string{"/relay", "/relay?to=4", "/relay?to=-1", "/relay?to=x"} {
		if status, body := request(t, "POST", doors[0]+path, `{"home": "a", "rounds": 1, "n": 1}`); status != 400 {
			t.Errorf("POST %s = %d %s, want 400", path, status, body)
		}
	}
	for _, env := range []map[string]string{{"WAY": "round"}, {"WAY": "relay", "SERVENT_SELF": "http://a", "SERVENT_PEERS": "http://b,http://c"}} {
		if _, err := tokens.New(func(key string) string { return env[key] }); err == nil {
			t.Errorf("New(%v) = nil, want an error", env)
		}
	}
}
