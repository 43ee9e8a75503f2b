package notation

import (
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

// all are the readers of this package by name.
var all = map[string]func(string) (any, error){
	"address":    any1(Address),
	"amount":     any1(Amount),
	"arrivals":   any1(Arrivals),
	"bits":       any1(Bits),
	"clients":    any1(Clients),
	"command":    any1(CommandLine),
	"constraint": any1(Constraint),
	"count":      any1(Count),
	"duration":   any1(Duration),
	"key":        any1(Key),
	"keyrequest": any1(KeyRequest),
	"keys":       any1(Keys),
	"loss":       any1(Loss),
	"origin":     any1(Origin),
	"path":       any1(Path),
	"price":      any1(Price),
	"protocol":   any1(Protocol),
	"published":  any1(Published),
	"rate":       any1(Rate),
	"request":    any1(Request),
	"restart":    any1(Restart),
	"route":      any1(Route),
	"share":      any1(Share),
	"signal":     any1(Signal),
	"size":       any1(Size),
	"spread":     any1(Spread),
	"target":     any1(Target),
	"text":       any1(Text),
	"truth":      any1(Truth),
}

func any1[T any](read func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return read(s) }
}

func TestAcceptsAndRefuses(t *testing.T) {
	tested := map[string]bool{}
	for _, tt := range []struct {
		name      string
		good, bad []string
	}{
		{"duration", []string{"0", "0s", "1h30m", "1.5s"}, []string{"", "2", "-1s", "1 s", "1d"}},
		{"size", []string{"0", "64M", "1.5g", "2GiB", "10kb"}, []string{"", "-1", "M", "1x", "1 2"}},
		{"count", []string{"0", "12"}, []string{"", "-1", "1.5", "1e3", "many"}},
		{"amount", []string{"0", "1.5", "5e8"}, []string{"", "-1", "inf", "NaN", "1e999"}},
		{"truth", []string{"true", "false"}, []string{"", "yes", "1", "True"}},
		{"text", []string{"a", " a b "}, []string{"", " \t", "a\x00b"}},
		{"rate", []string{"200/s", "0.5/s", "1e3 /s"}, []string{"200", "0/s", "-1/s", "/s", "5/m"}},
		{"bits", []string{"50Mbit", "1 Gbit/s", "9600bit", "56.6kbit"}, []string{"50MB", "bit", "0bit", "-1Mbit", "9e99Tbit"}},
		{"share", []string{"0", "1", "0.5", "70%", "0.1 %"}, []string{"101%", "1.1", "-1%", "%", "half"}},
		{"price", []string{"5", "5 EUR/month", "0.02 USD/hour"}, []string{"5 EUR", "5 eur/month", "EUR", "5 EUR/year", "1.2.3"}},
		{"route", []string{"/", "/*", "/a/b", "h/*", "a.b-c.org/x/*"}, []string{"", "h", "h:80/x", "/a*", "/*/a", "http://h/", "/a b", "/a?b", "-h/x", "/{key}"}},
		{"path", []string{"/", "/healthz?deep=1"}, []string{"", "healthz", "/a b", "/a#b"}},
		{"origin", []string{"http://h", "https://h:1/base"}, []string{"", "h:80", "ftp://h", "http://", "http://:80", "http://h?q", "http://u:p@h"}},
		{"key", []string{"/{key}", "/a/{key}/*", "header:X-A", "cookie:sid", "query:id", "json:a.b", "source"}, []string{"", "/", "/a", "/{key}x", "/{key}/{key}", "/*/{key}", "/{key}/a b", "header:", "header:a b", "json:a..b", "body:x", "query:a=b", "{key}"}},
		{"request", []string{"GET /", "PUT /a/{key}?v=1"}, []string{"GET", "get /", "GET /{k}", "GET /*", "BREW /pot"}},
		{"keyrequest", []string{"GET /e/{key}", "PUT /i?k={key}"}, []string{"GET /e", "get /{key}", "GET {key}", "GET /{key}/{key}", "GET /{k}/{key}"}},
		{"arrivals", []string{"5/s", "1..50/s"}, []string{"5", "50..5/s", "0..5/s", "1..2..3/s", "../s"}},
		{"clients", []string{"1", "1..64"}, []string{"0", "64..1", "a", "1.."}},
		{"keys", []string{"zipf 0.99 of 1e5", "uniform of 10"}, []string{"zipf of 5", "uniform", "uniform of 0", "uniform of 1.5", "zipf 1.2.3 of 5"}},
		{"loss", []string{"1 node", "2 sites"}, []string{"0 nodes", "node", "1 rack"}},
		{"command", []string{"./a", "a 'b c' \"d\"", `a\ b`, `'C:\a' x`, `"it's" x`}, []string{"", "  ", "a\x00b", "a | b", "a > b", "a 'b", "a; b", `C:\bin\api.exe`, `"C:\bin"`, `"it's" .\a`}},
		{"constraint", []string{"node.id==a", "node.labels.x != y", "node.hostname == n", "node.role == edge"}, []string{"node.id=a", "node.id==", "node.os == x", "node.role == manager", "node.labels. == x", "a==b==c", ""}},
		{"spread", []string{"site", "node.site", "node.labels.rack"}, []string{"", "rack", "node.labels."}},
		{"address", []string{"", "127.0.0.1", "::1"}, []string{"here", "127.0.0.1:80", "1.2.3"}},
		{"published", []string{"", "0", "80", "80-90"}, []string{"x", "70000", "90-80", "80-"}},
		{"target", []string{"1", "65535"}, []string{"0", "65536", ""}},
		{"protocol", []string{"tcp", "udp"}, []string{"", "sctp", "TCP"}},
		{"restart", []string{"no", "always", "on-failure:3", "unless-stopped"}, []string{"", "never", "always:3", "on-failure:x"}},
		{"signal", []string{"SIGTERM", "INT", "9", "SIGRTMIN+1"}, []string{"", "stop", "SIG_1", "100"}},
	} {
		tested[tt.name] = true
		for _, s := range tt.good {
			if _, err := all[tt.name](s); err != nil {
				t.Errorf("%s: %q is refused: %v", tt.name, s, err)
			}
		}
		for _, s := range tt.bad {
			if v, err := all[tt.name](s); err == nil {
				t.Errorf("%s: %q is read as %v, want a refusal", tt.name, s, v)
			}
		}
	}
	for name := range all {
		if !tested[name] {
			t.Errorf("%s has no case", name)
		}
	}
}

func TestReadsUnits(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       any
	}{
		{"duration", "1m30s", 90 * time.Second},
		{"bits", "50Mbit", int64(50_000_000)},
		{"size", "64M", int64(64 << 20)},
		{"share", "70%", 0.7},
		{"rate", "0.5/s", 0.5},
		{"price", "5 EUR/month", system.Price{Amount: 5, Currency: "EUR", Per: "month"}},
		{"route", "Shop.Example.org/a/*", system.Route{Host: "shop.example.org", Path: "/a/*"}},
		{"constraint", " node.hostname!=n1 ", system.Constraint{Attribute: "node.id", Not: true, Value: "n1"}},
		{"spread", "node.site", "site"},
		{"restart", "on-failure:3", system.Restart{Condition: "on-failure", Max: 3}},
		{"published", "80-90", 80},
		{"address", "::1", netip.IPv6Loopback()},
		{"command", `a 'b c' "d e" f\ g`, []string{"a", "b c", "d e", "f g"}},
		{"command", `'C:\a b\c.exe' x`, []string{`C:\a b\c.exe`, "x"}},
	} {
		if got, err := all[tt.name](tt.text); !reflect.DeepEqual(got, tt.want) || err != nil {
			t.Errorf("%s(%q) = %#v, %v, want %#v", tt.name, tt.text, got, err, tt.want)
		}
	}
}

func TestSaysWhatIsMissing(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"duration", "2", `want a duration like 100ms, 2s or 1h, have "2": the unit is missing`},
		{"origin", "localhost:9000", `want the address of an HTTP server like http://127.0.0.1:9000, have "localhost:9000": http:// or https:// is missing`},
		{"route", "shop.example.org", `want a route like shop.example.org/api/* or /api/*, have "shop.example.org": a path is missing, shop.example.org/* is all of a host`},
		{"command", `.\api.exe`, `want a command line like ./bin/api --flag, have ".\\api.exe": as in a shell, \ only hides the next letter; write / instead, or a list: ['.\bin\api.exe', --flag]`},
		{"command", "a | b", `want one command without a shell's '|', have "a | b"; for a shell write [sh, -c, "…"]`},
		{"constraint", "node.role == nod", `want one of server, node, edge as node.role, have "nod" (did you mean "node"?)`},
	} {
		if _, err := all[tt.name](tt.text); err == nil || err.Error() != tt.want {
			t.Errorf("%s(%q) = %v, want %s", tt.name, tt.text, err, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct {
		have  string
		words []string
		want  string
	}{
		{"rign", []string{"single", "ring"}, "ring"},
		{"Ring", []string{"ring"}, "ring"},
		{"start-period", []string{"start_period"}, "start_period"},
		{"enviroment", []string{"entrypoint", "environment"}, "environment"},
		{"b", []string{"a"}, ""},
		{"xyz", []string{"ring", "chord"}, ""},
		{"ring", []string{"ring"}, ""},
		{"", []string{"a", "ab"}, ""},
	} {
		if got := Nearest(tt.have, tt.words); got != tt.want {
			t.Errorf("Nearest(%q, %v) = %q, want %q", tt.have, tt.words, got, tt.want)
		}
	}
}

func TestSlipsIsADistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-c]{0,6}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := slips(a, b)
		if d != slips(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
			t.Errorf("slips(%q, %q) = %d", a, b, d)
		}
	})
}

// Every reader either returns something of its kind or says what it wants and what it found.
func FuzzNotation(f *testing.F) {
	for _, s := range []string{"", "2s", "64M", "50Mbit", "70%", "5 EUR/month", "a.b/c/*", "/a/{key}/*", "GET /{key}", "1..5/s",
		"zipf 1 of 9", `a\b 'c`, "node.labels.x != y", "on-failure:3", "80-90", "127.0.0.1", "http://h:1/", "\xff", "1e308%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, read := range all {
			v, err := read(s)
			if err != nil {
				if msg := err.Error(); !strings.HasPrefix(msg, "want ") || !strings.Contains(msg, ", have ") {
					t.Errorf("%s(%q): %q does not say what is wanted and found", name, s, msg)
				}
				continue
			}
			sane := true
			switch v := v.(type) {
			case time.Duration:
				sane = v >= 0
			case int:
				sane = v >= 0
			case int64:
				sane = v >= 0
			case float64:
				sane = v >= 0 && !math.IsInf(v, 0) && (name != "share" || v <= 1)
			case system.Route:
				again, err := Route(v.Host + v.Path)
				sane = err == nil && again == v && strings.HasPrefix(v.Path, "/")
			case system.Constraint:
				op := " == "
				if v.Not {
					op = " != "
				}
				again, err := Constraint(v.Attribute + op + v.Value)
				sane = err == nil && again == v
			case []string:
				sane = len(v) > 0
			}
			if !sane {
				t.Errorf("%s(%q) = %#v", name, s, v)
			}
		}
	})
}
