package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// three nodes that were started here.
func troubled(t *testing.T) *stage {
	s := newStage(t)
	s.machines = []NodeState{{Node: "node-2", State: "up"}, {Node: "node-1", State: "up"}, {Node: "node-10", State: "up"}}
	return s
}

func TestTroubleIsChecked(t *testing.T) {
	for _, tt := range []struct {
		body string
		code int
		want string // in the answer
	}{
		{`{"kind":"kill","node":"node-2"}`, 200, `{"id":1,"kind":"kill","node":"node-2","begins":`},
		{`{"kind":"kill","node":"node-2","for":1000000000,"after":5}`, 200, `"after":5,"for":1000000000`},
		{`{"kind":"pause","node":"node-2"}`, 200, `"for":10000000000`},
		{`{"kind":"cut","node":"node-2"}`, 200, `"for":10000000000`},
		{`{"kind":"cut","node":"node-2","peer":"node-1","one_way":true}`, 200, `"peer":"node-1","one_way":true`},
		{`{"kind":"slow","node":"node-2","latency":100,"jitter":100,"rate":1}`, 200, `"latency":100,"jitter":100,"rate":1`},
		{`{"kind":"slow","node":"node-2","rate":1000}`, 200, `"rate":1000`},
		{`{"kind":"kil","node":"node-2"}`, 400, `want one of kill, pause, cut, slow, have \"kil\" (did you mean \"kill\"?)`},
		{`{"kind":"kill"}`, 404, `no node \"\"; the nodes are node-1, node-2, node-10`},
		{`{"kind":"kill","node":"nod-2"}`, 404, `no node \"nod-2\" (did you mean \"node-2\"?); the nodes are node-1, node-2, node-10`},
		{`{"kind":"cut","node":"node-2","peer":"x"}`, 404, `no node \"x\"; the nodes are`},
		{`{"kind":"cut","node":"node-2","peer":"node-2"}`, 400, `node-2 cannot be parted from itself`},
		{`{"kind":"kill","node":"node-2","peer":"node-1"}`, 400, `kill takes one node`},
		{`{"kind":"pause","node":"node-2","one_way":true}`, 400, `pause takes one node`},
		{`{"kind":"cut","node":"node-2","latency":5}`, 400, `cut has no latency, jitter or rate; slow has`},
		{`{"kind":"slow","node":"node-2"}`, 400, `slow: want a latency or a rate`},
		{`{"kind":"slow","node":"node-2","latency":5,"jitter":6}`, 400, `jitter: want at most the latency, 5ns, have 6ns`},
		{`{"kind":"slow","node":"node-2","rate":-1}`, 400, `rate: want bits a second from 0, have -1`},
		{`{"kind":"cut","node":"node-2","for":-1}`, 400, `for: want 0s…24h0m0s, have -1ns`},
		{`{"kind":"cut","node":"node-2","after":90000000000000}`, 400, `after: want 0s…24h0m0s, have 25h0m0s`},
		{`{"kind":"cut","node":"node-2","fro":1}`, 400, `unknown field \"fro\"`},
		{`{"id":7,"kind":"cut","node":"node-2"}`, 400, `unknown field \"id\"`},
		{``, 400, `read the fault`},
	} {
		code, body := call(troubled(t).Handler(), http.MethodPost, "/v1/fault", tt.body)
		if code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s = %d %s, want %d %s", tt.body, code, body, tt.code, tt.want)
		}
	}
	s := troubled(t)
	s.machines = s.machines[:1]
	if code, body := call(s.Handler(), http.MethodPost, "/v1/fault", `{"kind":"cut","node":"node-2"}`); code != 400 || !strings.Contains(body, "is the only node") {
		t.Errorf("cut of the only node = %d %s", code, body)
	}
	s.Door.Machines = nil
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if code, body := call(s.Handler(), method, "/v1/fault", `{"kind":"kill","node":"node-2"}`); code != 409 || !strings.Contains(body, "not this machine's own") {
			t.Errorf("%s on a fleet = %d %s", method, code, body)
		}
	}
}

func TestHealChooses(t *testing.T) {
	h := troubled(t).Handler()
	all := []string{
		`{"kind":"cut","node":"node-1","peer":"node-2"}`, // 1
		`{"kind":"pause","node":"node-2"}`,
		`{"kind":"pause","node":"node-10"}`,
		`{"kind":"slow","node":"node-1","latency":1}`,
		`{"kind":"kill","node":"node-1"}`,
	}
	for _, b := range all {
		if code, body := call(h, http.MethodPost, "/v1/fault", b); code != 200 {
			t.Fatalf("%s = %d %s", b, code, body)
		}
	}
	ids := func(method, path string) (out []int) {
		t.Helper()
		code, body := call(h, method, path, "")
		var fs []Fault
		if err := json.Unmarshal([]byte(body), &fs); err != nil || code != 200 || fs == nil {
			t.Fatalf("%s %s = %d %s", method, path, code, body)
		}
		for _, f := range fs {
			out = append(out, f.ID)
		}
		return out
	}
	for _, step := range []struct {
		method, path string
		want         []int
	}{
		{http.MethodGet, "/v1/fault", []int{1, 2, 3, 4, 5}},
		{http.MethodDelete, "/v1/fault?what=3", []int{3}},
		{http.MethodDelete, "/v1/fault?what=node-2", []int{1, 2}},
		{http.MethodDelete, "/v1/fault?what=node-2", nil},
		{http.MethodGet, "/v1/fault", []int{4, 5}},
		{http.MethodDelete, "/v1/fault", []int{4, 5}},
		{http.MethodDelete, "/v1/fault", nil},
		{http.MethodGet, "/v1/fault", nil},
	} {
		if got := ids(step.method, step.path); !slices.Equal(got, step.want) {
			t.Errorf("%s %s = %v, want %v", step.method, step.path, got, step.want)
		}
	}
	for path, want := range map[string]string{"/v1/fault?what=3": "no fault 3", "/v1/fault?what=": "no node", "/v1/fault?what=node2": `did you mean \"node-2\"?`} {
		if code, body := call(h, http.MethodDelete, path, ""); code != 404 || !strings.Contains(body, want) {
			t.Errorf("DELETE %s = %d %s, want 404 %s", path, code, body, want)
		}
	}
}

func TestTroubleSaysWhatItDoes(t *testing.T) {
	for want, tr := range map[string]Trouble{
		"kill a":                    {Kind: FaultKill, Node: "a", For: time.Second},
		"pause a":                   {Kind: FaultPause, Node: "a"},
		"cut a ↔ b":                 {Kind: FaultCut, Node: "a", Peer: "b"},
		"cut a → all others":        {Kind: FaultCut, Node: "a", OneWay: true},
		"slow a ↔ b +1s ±10ms":      {Kind: FaultSlow, Node: "a", Peer: "b", Latency: time.Second, Jitter: 10 * time.Millisecond},
		"slow a ↔ all others 1Mbit": {Kind: FaultSlow, Node: "a", Rate: 1e6},
		"slow a → b 1.5kbit":        {Kind: FaultSlow, Node: "a", Peer: "b", OneWay: true, Rate: 1500},
		"slow a → b 2Gbit":          {Kind: FaultSlow, Node: "a", Peer: "b", OneWay: true, Rate: 2e9},
		"slow a → b 9bit":           {Kind: FaultSlow, Node: "a", Peer: "b", OneWay: true, Rate: 9},
	} {
		if got := tr.String(); got != want {
			t.Errorf("%+v is %q, want %q", tr, got, want)
		}
	}
}
