package split

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// together runs roles as services of one another and counts the requests to each.
type together struct {
	t     *testing.T
	env   map[string]string
	asked map[string]*atomic.Int64
}

// run makes a service of a role.
func (o *together) run(name, role string, more ...string) http.Handler {
	o.t.Helper()
	h, err := New(role, func(key string) string {
		if len(more) == 2 && key == more[0] {
			return more[1]
		}
		return o.env[key]
	})
	if err != nil {
		o.t.Fatal(err)
	}
	n := new(atomic.Int64)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); h.ServeHTTP(w, r) })
	door := httptest.NewServer(counted)
	o.t.Cleanup(door.Close)
	o.env[strings.ToUpper(name)+"_URL"], o.asked[name] = door.URL, n
	return counted
}

// splits are the application in all its forms: the front of each, and who was asked how often.
func splits(t *testing.T) map[string]func() (http.Handler, *together) {
	in := func(build func(o *together) http.Handler) func() (http.Handler, *together) {
		return func() (http.Handler, *together) {
			o := &together{t, map[string]string{}, map[string]*atomic.Int64{}}
			return build(o), o
		}
	}
	tiers := func(rules string) func() (http.Handler, *together) {
		return in(func(o *together) http.Handler {
			o.run("data", Data)
			o.run("middle", Middle)
			return o.run("front", Front, "RULES", rules)
		})
	}
	return map[string]func() (http.Handler, *together){
		"monolith": in(func(o *together) http.Handler { return o.run("front", All) }),
		"front":    tiers(Front), "middle": tiers(Middle), "data": tiers(Data),
		"services": in(func(o *together) http.Handler {
			o.run("data", Data)
			o.run("checks", Checks)
			o.run("prices", Prices)
			return o.run("front", Services)
		}),
	}
}

func ask(h http.Handler, method, path string) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
}

// However it is cut, the application gives the same answers.
func TestSameAnswers(t *testing.T) {
	for name, make := range splits(t) {
		t.Run(name, func(t *testing.T) {
			h, _ := make()
			for _, tt := range []struct{ method, path, want string }{ // in this order
				{"GET", "/orders/1", "200 there is no such order"},
				{"PUT", "/orders/1?item=lamp&quantity=2", "200 accepted: 2 lamp for 59.80"},
				{"PUT", "/orders/1?item=lamp&quantity=2", "200 accepted: 2 lamp for 59.80"},
				{"GET", "/orders/1", "200 accepted: 2 lamp for 59.80"},
				{"PUT", "/orders/1?item=chair&quantity=10", "200 accepted: 10 chair for 449.10"},
				{"PUT", "/orders/2?item=desk&quantity=4", "200 accepted: 4 desk for 796.00"},
				{"PUT", "/orders/1?item=lamp&quantity=0", "200 refused: quantity: want 1 to 10, have 0"},
				{"PUT", "/orders/3?item=lamp&quantity=many", "200 refused: quantity: want 1 to 10, have 0"},
				{"PUT", "/orders/3?item=lamp&quantity=11", "200 refused: quantity: want 1 to 10, have 11"},
				{"PUT", "/orders/3?quantity=1", "200 refused: item: want a name of 1 to 20 letters"},
				{"PUT", "/orders/3?item=sofa&quantity=1", `200 refused: item: there is no "sofa"`},
				{"PUT", "/orders/3?item=a%2Fb%3F&quantity=1", `200 refused: item: there is no "a/b?"`},
				{"GET", "/orders/1", "200 accepted: 10 chair for 449.10"},
				{"GET", "/orders/3", "200 there is no such order"},
				{"DELETE", "/orders/1", "405 Method Not Allowed"},
			} {
				if got := ask(h, tt.method, tt.path); got != tt.want {
					t.Errorf("%s %s = %s, want %s", tt.method, tt.path, got, tt.want)
				}
			}
		})
	}
}

// Where the rules are decides who is asked how often: of forty orders, every fourth does not keep them.
func TestLoadOfTiers(t *testing.T) {
	for name, want := range map[string]map[string]int64{
		"monolith": {"front": 40},
		"front":    {"front": 40, "middle": 31, "data": 31}, // the price once, then thirty rows
		"middle":   {"front": 40, "middle": 40, "data": 60}, // a price and a row each
		"data":     {"front": 40, "middle": 40, "data": 40},
		"services": {"front": 40, "checks": 40, "prices": 30, "data": 30},
	} {
		h, o := splits(t)[name]()
		for i := range 40 {
			ask(h, "PUT", fmt.Sprintf("/orders/%d?item=lamp&quantity=%d", i, i%4))
		}
		for tier, n := range o.asked {
			if n.Load() != want[tier] {
				t.Errorf("%s: %d requests to %s, want %d", name, n.Load(), tier, want[tier])
			}
		}
	}
}

// Who can speak to the data tier itself is bound by the rules that stand there, and by no others.
func TestWhoMustBeTrusted(t *testing.T) {
	h, err := New(Data, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("PUT", "/rows/1", strings.NewReader("accepted: 1000 desk for 0.01")))
	if got := ask(h, "GET", "/rows/1"); got != "200 accepted: 1000 desk for 0.01" {
		t.Errorf("GET = %s: the data tier is to believe what it is told", got)
	}
	if got := ask(h, "PUT", "/orders/1?item=desk&quantity=1000"); got != "200 refused: quantity: want 1 to 10, have 1000" {
		t.Errorf("PUT = %s, want a refusal", got)
	}
}

func TestBounds(t *testing.T) {
	rs := newRows()
	rs.room = 1
	for _, tt := range []struct {
		key, row string
		ok       bool
	}{{"a", "x", true}, {"b", "x", false}, {"a", "y", true}, {strings.Repeat("k", 201), "x", false}, {"a", strings.Repeat("r", 201), false}} {
		if err := rs.put(t.Context(), tt.key, tt.row); (err == nil) != tt.ok {
			t.Errorf("put(%.5s, %.5s) = %v, want it to be kept: %v", tt.key, tt.row, err, tt.ok)
		}
	}
	for _, bad := range []struct{ role, rules string }{{"back", ""}, {"", ""}, {Front, "client"}} {
		if _, err := New(bad.role, func(string) string { return bad.rules }); err == nil {
			t.Errorf("New(%q) with RULES=%q = nil, want an error", bad.role, bad.rules)
		}
	}
}

// A service that is away makes an answer an error, never a refusal or an order.
func TestAway(t *testing.T) {
	for _, role := range []string{Front, Middle, Services} {
		h, err := New(role, func(key string) string {
			if strings.HasSuffix(key, "_URL") {
				return "http://127.0.0.1:1"
			}
			return ""
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(h, "PUT", "/orders/1?item=lamp&quantity=1"); !strings.HasPrefix(got, "502 ") {
			t.Errorf("%s: PUT = %s, want 502", role, got)
		}
	}
}
