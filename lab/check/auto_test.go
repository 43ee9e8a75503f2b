package check

import (
	"slices"
	"strings"
	"testing"

	"servent/lab/load"
	"servent/system"
)

func TestAuto(t *testing.T) {
	for _, tt := range []struct {
		mix     string
		kind    Kind
		entries []int
		why     string
	}{
		{"POST /c/{key}, GET /c/{key}", Counter, []int{0, 1}, "POST /c/{key} is taken to count and to answer the number, GET to read it"},
		{"POST /c/{key}", Counter, []int{0}, "POST /c/{key} is taken to count and to answer the number"},
		{"GET /, POST /c/{key}", Counter, []int{1}, "POST /c/{key} is taken to count and to answer the number; the answers of 1 other request are not looked at"},
		{"PUT /kv/{key}, GET /kv/{key}, DELETE /kv/{key}", KV, []int{0, 1, 2}, "GET /kv/{key} must give back what PUT put there"},
		{"PUT /s/{key}, GET /s", Set, []int{0, 1}, "/s/{key} adds to what GET /s lists"},
		{"GET /a, GET /b/{key}, HEAD /a", Hash, nil, "the mix only reads: one request must have one answer, whoever gives it"},
		{"PUT /a/{key}, GET /b/{key}", None, []int{}, "the mix writes what it does not read back on the same path"},
		{"PATCH /a/{key}, PUT /a/{key}, GET /a/{key}", None, []int{}, "the mix writes what it does not read back on the same path"},
		{"hello", None, []int{}, `"hello" is no HTTP request: what its answer should be is not known`},
		{"", None, []int{}, "there are no requests"},
	} {
		var mix []system.MixEntry
		for _, r := range strings.Split(tt.mix, ", ") {
			if r != "" {
				mix = append(mix, system.MixEntry{Request: r, Weight: 1})
			}
		}
		c := Auto(mix)
		if c.Kind != tt.kind || !slices.Equal(c.Entries, tt.entries) || c.Why != tt.why {
			t.Errorf("Auto(%s) = %s %v, %q\nwant %s %v, %q", tt.mix, c.Kind, c.Entries, c.Why, tt.kind, tt.entries, tt.why)
		}
	}
}

// The checker of a choice looks at its entries alone, and one that checks nothing says why.
func TestChoiceMakesAChecker(t *testing.T) {
	c := Auto([]system.MixEntry{{Request: "GET /"}, {Request: "POST /c/{key}"}})
	k := New(c.Kind, c.Options())
	run := script(t, "1 0-1 POST a = 1", "1 2-3 GET a = 77")
	run[0].Entry = 1
	k.Add(run)
	if a := k.Verdict(); k.Kind() != Counter || a.Verdict != Right || a.Checked != 1 {
		t.Errorf("%s: got %+v, want 1 right answer", k.Kind(), a)
	}
	c = Auto(nil)
	k = New(c.Kind, c.Options())
	k.Add(run)
	if a := k.Verdict(); a.Verdict != Unchecked || a.Checker != "none" || a.Text != "there are no requests" {
		t.Errorf("got %+v, want nothing checked, and why", a)
	}
}

func TestLost(t *testing.T) {
	for _, tt := range []struct {
		name          string
		kind          Kind
		before, after []string
		want          Loss
	}{
		{"nothing written", KV, []string{"1 0-1 GET a = 404"}, nil, Loss{Share: -1, Text: "no keys were written"}},
		{"all there", KV, []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y"}, []string{"1 0-1 GET a = y"}, Loss{Keys: 1, Text: "none of 1 key"}},
		{"the older one", KV, []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y"}, []string{"1 0-1 GET a = x"}, Loss{Keys: 1, Lost: 1, Share: 1, Text: "all of 1 key",
			Example: `GET /c/a answered "x"; the last acknowledged write was PUT /c/a "y" at 0s at 0s`}},
		{"either of two at once", KV, []string{"1 0-5 PUT a = x", "2 1-4 PUT a = y"}, []string{"1 0-1 GET a = x"}, Loss{Keys: 1, Text: "none of 1 key"}},
		{"one that may have followed", KV, []string{"1 0-1 PUT a = x", "1 2-3 DELETE a = timeout"}, []string{"1 0-1 GET a = 404"}, Loss{Keys: 1, Text: "none of 1 key"}},
		{"a redirection to it", KV, []string{"1 0-1 PUT a = x", "1 0-1 PUT b = x"}, []string{"1 2-3 GET a = >x", "1 2-3 GET b = >login"},
			Loss{Keys: 1, Unread: 1, Text: "none of 1 key; no answer about 1 key"}},
		{"some gone, some silent", KV, []string{"1 0-1 PUT a = x", "1 2-3 PUT b = x", "1 2-3 PUT c = x", "1 2-3 PUT d = refused"},
			[]string{"1 0-1 GET a = x", "1 0-1 GET b = 404", "1 0-1 GET c = timeout", "1 0-1 GET d = 404"},
			Loss{Keys: 2, Lost: 1, Unread: 1, Share: 0.5, Text: "1 of 2 keys; no answer about 1 key",
				Example: `GET /c/b answered 404; the last acknowledged write was PUT /c/b "x" at 0s at 0s`}},
		{"all silent", KV, []string{"1 0-1 PUT a = x", "1 2-3 PUT b = x"}, []string{"1 0-1 GET a = timeout"}, Loss{Unread: 2, Share: -1, Text: "no answer about 2 keys"}},
		{"numbers in memory", Counter, []string{"1 0-1 POST a = 1", "1 2-3 POST a = 2", "1 4-5 POST a = 1", "1 0-1 POST b = 1"},
			[]string{"1 0-1 GET a = 1", "1 0-1 GET b = 1"}, Loss{Keys: 2, Lost: 1, Share: 0.5, Text: "1 of 2 keys",
				Example: "GET /c/a answered 1; 2 had been reached at 0s"}},
		{"counts without a number", Counter, []string{"1 0-1 POST a = ok", "1 2-3 POST a = ok"}, []string{"1 0-1 GET a = 1"},
			Loss{Keys: 1, Lost: 1, Share: 1, Text: "all of 1 key", Example: "GET /c/a answered 1; 2 had been reached at 0s"}},
		{"the last answer counts", Counter, []string{"1 0-1 POST a = 1"}, []string{"1 2-3 GET a = 1", "1 0-1 GET a = 404"}, Loss{Keys: 1, Text: "none of 1 key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Lost(tt.kind, Fault{Before: script(t, tt.before...), After: script(t, tt.after...)}); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// A number that began again at 0 was lost, even if it is higher by now.
func TestLostBegunAnew(t *testing.T) {
	f := Fault{At: 10,
		Before: script(t, "1 0-9 POST a = 5", "1 0-9 POST b = 5", "1 0-9 POST c = 2", "1 0-9 POST e = 3", "1 0-9 POST f = 3"),
		During: script(t, "1 4-5 POST b = 6", "1 20-21 POST a = 1", "1 30-31 POST a = 2", "1 20-21 POST b = 7", "1 9-12 POST e = 1", "1 20-21 POST f = 1"),
		After:  script(t, "1 0-9 GET a = 9", "1 0-9 GET b = 7", "1 0-9 GET c = 1", "1 0-9 GET d = 4", "1 0-9 GET e = 3")}
	got := Lost(Counter, f)
	// c is lower, a and f began anew; of f there is no other answer. e's answer was under way when the fault came.
	if got.Lost != 3 || got.Keys != 5 || got.Unread != 0 || got.Example != "POST /c/a answered 0; 5 had been reached at 0s" {
		t.Errorf("Lost = %+v, want a, c and f of 5", got)
	}
	f.At = 40
	if got := Lost(Counter, f); got.Lost != 1 || got.Unread != 1 {
		t.Errorf("with a later fault Lost = %+v, want c, and f unread", got)
	}
}

func BenchmarkCheckers(b *testing.B) {
	for _, kind := range []Kind{Counter, KV} {
		b.Run(string(kind), func(b *testing.B) {
			var run []load.Record
			state := map[string]string{}
			counts := map[string]int{}
			for i := range 20_000 {
				r := load.Record{N: i, Client: i % 16, Status: 200, Key: string(rune('a' + i*i%23)), Sent: dur(i), Done: dur(i + 5), Method: "GET"}
				switch {
				case kind == Counter:
					r.Method = "POST"
					counts[r.Key]++
					r.Body = []byte(number(int64(counts[r.Key])))
					r.Body = []byte(strings.ReplaceAll(string(r.Body), ",", ""))
				case i%7 == 0:
					r.Method, r.Value = "PUT", number(int64(i))
					state[r.Key] = r.Value
				case state[r.Key] == "":
					r.Status = 404
				default:
					r.Body = []byte(state[r.Key])
				}
				run = append(run, r)
			}
			for b.Loop() {
				c := New(kind, Options{Budget: -1})
				c.Add(run)
				if a := c.Verdict(); a.Verdict == Wrong {
					b.Fatalf("%+v", a)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(run)), "ns/answer")
		})
	}
}
