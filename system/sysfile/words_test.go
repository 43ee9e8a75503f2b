package sysfile

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		format string
		good   []string
		bad    []string
	}{
		{"servent-duration", []string{"0s", "1h30m", "1.5s"}, []string{"", "2", "-1s", "1 s", "1d"}},
		{"servent-size", []string{"0", "64M", "1.5g", "2GiB", "10kb"}, []string{"", "-1", "M", "1x", "1 2"}},
		{"servent-count", []string{"0", "12"}, []string{"", "-1", "1.5", "1e3", "many"}},
		{"servent-amount", []string{"0", "1.5", "5e8"}, []string{"", "-1", "inf", "NaN", "1e999"}},
		{"servent-bool", []string{"true", "false"}, []string{"", "yes", "1", "True"}},
		{"servent-rate", []string{"200/s", "0.5/s", "1e3 /s"}, []string{"200", "0/s", "-1/s", "/s", "5/m"}},
		{"servent-bits", []string{"50Mbit", "1 Gbit/s", "9600bit", "56.6kbit"}, []string{"50MB", "bit", "0bit", "-1Mbit", "9e99Tbit"}},
		{"servent-share", []string{"0", "1", "0.5", "70%", "0.1 %"}, []string{"101%", "1.1", "-1%", "%", "half"}},
		{"servent-price", []string{"5", "5 EUR/month", "0.02 USD/hour"}, []string{"5 EUR", "5 eur/month", "EUR", "5 EUR/year", "1.2.3"}},
		{"servent-route", []string{"/", "/*", "/a/b", "h/*", "a.b-c.org/x/*"}, []string{"", "h", "h:80/x", "/a*", "/*/a", "http://h/", "/a b", "/a?b", "-h/x", "/{key}"}},
		{"servent-path", []string{"/", "/healthz?deep=1"}, []string{"", "healthz", "/a b", "/a#b"}},
		{"servent-origin", []string{"http://h", "https://h:1/base"}, []string{"", "h:80", "ftp://h", "http://", "http://:80", "http://h?q", "http://u:p@h"}},
		{"servent-key", []string{"/{key}", "/a/{key}/*", "header:X-A", "cookie:sid", "query:id", "json:a.b", "source"}, []string{"", "/", "/a", "/{key}x", "/{key}/{key}", "/*/{key}", "header:", "header:a b", "json:a..b", "body:x", "query:a=b", "{key}"}},
		{"servent-request-key", []string{"GET /e/{key}", "PUT /i?k={key}"}, []string{"GET /e", "get /{key}", "GET {key}", "GET /{key}/{key}", "GET /{k}/{key}"}},
		{"servent-open", []string{"5/s", "1..50/s"}, []string{"5", "50..5/s", "0..5/s", "1..2..3/s", "../s"}},
		{"servent-closed", []string{"1", "1..64"}, []string{"0", "64..1", "a", "1.."}},
		{"servent-keys", []string{"zipf 0.99 of 1e5", "uniform of 10"}, []string{"zipf of 5", "uniform", "uniform of 0", "uniform of 1.5", "zipf 1.2.3 of 5"}},
		{"servent-survive", []string{"1 node", "2 sites"}, []string{"0 nodes", "node", "1 rack"}},
		{"servent-line", []string{"./a", "a 'b c' \"d\""}, []string{"", "  ", "a | b", "a > b", "a 'b", "a; b"}},
		{"servent-constraint", []string{"node.id==a", "node.labels.x != y", "node.hostname == n", "node.role == edge"}, []string{"node.id=a", "node.id==", "node.os == x", "node.role == manager", "node.labels. == x", "a==b==c", ""}},
		{"servent-spread", []string{"site", "node.site", "node.labels.rack"}, []string{"", "rack", "node.labels."}},
		{"compose-duration", []string{"1m30s", "1d"}, []string{"", "5", "-1s"}},
		{"compose-count", []string{"-1", "0", "5"}, []string{"-2", "x"}},
		{"compose-published", []string{"", "0", "80", "80-90"}, []string{"x", "70000", "90-80", "80-"}},
		{"compose-target", []string{"1", "65535"}, []string{"0", "65536", ""}},
		{"compose-port", []string{"80", "8080:80", "127.0.0.1::80", "1-3:1-3/udp"}, []string{"x:80", "80/sctp", "1-3:1-2", ""}},
		{"compose-restart", []string{"no", "always", "on-failure:3", "unless-stopped"}, []string{"", "never", "always:3", "on-failure:x"}},
		{"compose-signal", []string{"SIGTERM", "INT", "9", "SIGRTMIN+1"}, []string{"", "stop", "SIG_1", "100"}},
	} {
		for _, s := range tt.good {
			if err := formats[tt.format](s); err != nil {
				t.Errorf("%s: %q is refused: %v", tt.format, s, err)
			}
		}
		for _, s := range tt.bad {
			if formats[tt.format](s) == nil {
				t.Errorf("%s: %q is accepted", tt.format, s)
			}
		}
	}
}

func TestWordsHaveUnits(t *testing.T) {
	if got, err := bits("50Mbit"); got != 50_000_000 || err != nil {
		t.Errorf("bits(50Mbit) = %d, %v, want 50e6 a second", got, err)
	}
	if got, err := size("64M"); got != 64<<20 || err != nil {
		t.Errorf("size(64M) = %d, %v, want 64 MiB", got, err)
	}
	if got, err := share("70%"); got != 0.7 || err != nil {
		t.Errorf("share(70%%) = %v, %v, want 0.7", got, err)
	}
	if got, err := composeDuration("2d"); got != 48*time.Hour || err != nil {
		t.Errorf("composeDuration(2d) = %v, %v, want 48h", got, err)
	}
	if got, err := route("Shop.Example.org/a/*"); got != (system.Route{Host: "shop.example.org", Path: "/a/*"}) || err != nil {
		t.Errorf("route() = %+v, %v", got, err)
	}
	if got, err := constraint(" node.hostname!=n1 "); got != (system.Constraint{Attribute: "node.id", Not: true, Value: "n1"}) || err != nil {
		t.Errorf("constraint() = %+v, %v", got, err)
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
		if got := nearest(tt.have, tt.words); got != tt.want {
			t.Errorf("nearest(%q, %v) = %q, want %q", tt.have, tt.words, got, tt.want)
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
