package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/lab/load"
)

var storing = []string{"PUT", "PUT", "GET", "GET", "GET", "DELETE"}

func TestRightStoreIsNeverAccused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 3, clients: 4, each: 6, keys: 2, methods: storing, faults: true, same: rapid.Bool().Draw(t, "same values")}.draw(t)
		keep(all)
		if a := judged(KV, Options{Unknown: rapid.Bool().Draw(t, "unknown start")}, all).Verdict(); a.Verdict == Wrong {
			dump(t, all)
			t.Fatalf("a right store: %+v", a)
		}
	})
}

// A store that was filled before the first record is no reason to accuse.
func TestRightStoreThatWasFilledBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 3, clients: 4, each: 6, keys: 1, methods: storing, faults: true}.draw(t)
		first := &request{effect: -1}
		first.Method, first.Key, first.Value, first.Status = "PUT", "k1", "old", 200
		keep(append([]*request{first}, all...))
		if a := judged(KV, Options{Unknown: true}, all).Verdict(); a.Verdict == Wrong {
			dump(t, all)
			t.Fatalf("a right store: %+v", a)
		}
	})
}

func TestStoreAgreesWithPorcupine(t *testing.T) {
	wrong, right := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := plan{runs: 1, clients: 4, each: 6, keys: 1, methods: storing, faults: rapid.Bool().Draw(t, "faults"), same: rapid.Bool().Draw(t, "same values")}
		all := p.draw(t)
		keep(all)
		bend(t, all, 9)
		want := legalValues(all, 1)
		a := judged(KV, Options{}, all).Verdict()
		if a.Verdict == Wrong && want || a.Verdict == Right && !want {
			dump(t, all)
			t.Fatalf("porcupine says legal %v, have %+v", want, a)
		}
		if want {
			right++
		} else {
			wrong++
		}
	})
	if wrong == 0 || right == 0 {
		t.Errorf("%d wrong and %d right histories: the test shows nothing", wrong, right)
	}
}

// bend gives some reads the answer of another one, or none.
func bend(t *rapid.T, all []*request, rarely int) {
	var bodies [][]byte
	for _, r := range all {
		if r.Method == "GET" && r.Status == 200 {
			bodies = append(bodies, r.Body)
		}
	}
	for _, r := range all {
		if r.Method != "GET" || r.Err != "" || r.Status >= 500 || len(bodies) == 0 || rapid.IntRange(0, rarely).Draw(t, "bend") != 0 {
			continue
		}
		r.Status, r.Body = 200, rapid.SampledFrom(bodies).Draw(t, "answer")
		if rapid.IntRange(0, 3).Draw(t, "none") == 0 {
			r.Status, r.Body = 404, nil
		}
	}
}

// Over several runs, and in parts of a run, nothing that porcupine accepts as a whole is accused.
func TestStoreOverRunsIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 3, clients: 2, each: 5, keys: 1, methods: storing, faults: true, same: rapid.Bool().Draw(t, "same values")}.draw(t)
		keep(all)
		bend(t, all, 14)
		if a := judged(KV, Options{}, all).Verdict(); a.Verdict == Wrong && legalValues(all, 1) {
			dump(t, all)
			t.Fatalf("porcupine finds it right, have %+v", a)
		}
	})
}

// A long run is decided in parts. Without requests that may never take place that changes nothing.
func TestPartsAgreeWithTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 1, clients: 3, each: 70, keys: 1, methods: storing, same: true}.draw(t)
		keep(all)
		bend(t, all, 99)
		if got, want := judged(KV, Options{}, all).Verdict().Verdict == Wrong, !legalValues(all, 1); got != want {
			t.Fatalf("wrong: have %v, want %v", got, want)
		}
	})
}

func TestStoreFindsExactlyWhatIsWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var run []load.Record
		history := map[string][]string{}
		var garbage, stale int64
		add := func(method, key, value string, body string) {
			n := len(run)
			run = append(run, load.Record{N: n, Client: n, Method: method, Key: key, Path: "/c/" + key, Value: value, Status: 200,
				Sent: dur(3 * n), Done: dur(3*n + 2), Body: []byte(body)})
		}
		for i := range 60 {
			key := fmt.Sprint("k", rapid.IntRange(1, 4).Draw(t, "key"))
			old := history[key]
			switch {
			case len(old) < 2 || rapid.Bool().Draw(t, "write"):
				v := fmt.Sprint("v", i)
				history[key] = append(old, v)
				add("PUT", key, v, "")
			case rapid.IntRange(0, 5).Draw(t, "garbage") == 0:
				garbage++
				add("GET", key, "", "nobody wrote this")
			case rapid.IntRange(0, 5).Draw(t, "stale") == 0:
				stale++
				add("GET", key, "", old[rapid.IntRange(0, len(old)-2).Draw(t, "old")])
			default:
				add("GET", key, "", old[len(old)-1])
			}
		}
		var lost int64
		for key, values := range history {
			i := len(values) - 1
			if i > 0 && rapid.Bool().Draw(t, "lost") {
				i--
				lost++
				stale++
			}
			add("GET", key, "", values[i])
		}
		c := New(KV, Options{Budget: -1})
		c.Add(run)
		var sum tally
		c.j.fold(&sum)
		if sum.garbage != garbage || sum.stale != stale || sum.lost != lost || sum.wrong != garbage+stale {
			t.Fatalf("want %d garbage, %d stale, %d lost; have %+v", garbage, stale, lost, sum)
		}
	})
}

// Copies that hear of one another late: what a client is told depends on the copy that answers.
func TestGuaranteesOfLateCopies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		holds string
	}{
		{"linearizable", []string{"1 0-1 PUT a = x", "2 2-3 GET a = x"}, "linearizable"},
		{"another client is late", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y", "2 4-5 GET a = x", "2 6-7 GET a = y"},
			"read your writes, monotonic reads, monotonic writes, writes follow reads"},
		{"one's own write is not seen", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y", "1 4-5 GET a = x"},
			"monotonic reads, monotonic writes, writes follow reads"},
		{"never seen at all", []string{"1 0-1 PUT a = x", "1 2-3 GET a = 404"},
			"monotonic reads, monotonic writes, writes follow reads"},
		{"a client goes back in time", []string{"1 0-1 PUT a = x", "3 2-3 PUT a = y", "2 4-5 GET a = y", "2 6-7 GET a = x"},
			"read your writes, monotonic writes, writes follow reads"},
		{"one client's writes in another order", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y", "2 4-5 GET a = y", "2 6-7 GET a = x"},
			"read your writes, writes follow reads"},
		{"a write before what its writer had read", []string{"1 0-1 PUT a = x", "3 2-3 GET a = x", "3 4-5 PUT a = y", "2 6-7 GET a = y", "2 8-9 GET a = x"},
			"read your writes, monotonic writes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(KV, Options{Budget: -1})
			c.Add(script(t, tt.lines...))
			if a := c.Verdict(); a.Holds != tt.holds {
				t.Errorf("holds %q, want %q (%+v)", a.Holds, tt.holds, a)
			}
		})
	}
}

// Each client stays with one copy, and copies take the writes in one order: its own view never goes back.
func TestStickyClientsKeepTheirGuarantees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var run []load.Record
		var log []string          // what the first copy took, in order
		seen := []int{0, 0, 0, 0} // how much of it each client's copy has
		for i := range 60 {
			c := rapid.IntRange(0, 3).Draw(t, "client")
			r := load.Record{Client: c, Key: "a", Path: "/a", Instance: fmt.Sprint("s/", c), Sent: dur(3 * i), Done: dur(3*i + 1), Status: 200, Method: "GET"}
			if rapid.IntRange(0, 3).Draw(t, "write") == 0 {
				r.Method, r.Value = "PUT", fmt.Sprint("v", i)
				log = append(log, r.Value)
				seen[c] = len(log) // it has its own write, and all that was before
			} else if seen[c] = rapid.IntRange(seen[c], len(log)).Draw(t, "seen"); seen[c] == 0 {
				r.Status = 404
			} else {
				r.Body = []byte(log[seen[c]-1])
			}
			run = append(run, r)
		}
		c := New(KV, Options{Budget: -1})
		c.Add(run)
		if a := c.Verdict(); a.Holds != "linearizable" && a.Holds != guarantees(0).holds() {
			t.Fatalf("every guarantee holds, have %+v", a)
		}
	})
}

func TestStoreWords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		lines   []string
		verdict string
		wrong   int64
		text    string
		example string
	}{
		{"right", []string{"1 0-1 GET a = 404", "1 2-3 PUT a = x", "1 4-5 GET a = x", "1 6-7 DELETE a = 404", "1 8-9 GET a = 404"}, Right, 0, "", ""},
		{"lost", []string{"1 0-1 PUT a = x", "2 4-5 GET a = 404"}, Wrong, 1,
			"1 acknowledged write not in the last answers; 1 of 1 read older than a write before them; not linearizable on 1 of 1 key",
			`GET /c/a answered 404, though PUT /c/a "x" was complete before the request began at 0s`},
		{"garbage", []string{"1 0-1 PUT a = x", "2 2-3 GET a = x", "2 4-5 GET a = y"}, Wrong, 1,
			"1 of 2 values that nobody wrote; not linearizable on 1 of 1 key", `GET /c/a answered "y", which nobody wrote at 0s`},
		{"before its time", []string{"2 0-1 GET a = x", "1 2-3 PUT a = x"}, Wrong, 1,
			"1 of 1 value before they were written; not linearizable on 1 of 1 key", `GET /c/a answered "x", before it was written at 0s`},
		{"something else", []string{"1 0-1 PUT a = x", "2 2-3 GET a = stored", "2 4-5 GET a = stored"}, Unchecked, 0, "no answer holds what was written",
			`GET /c/a answered "stored", which nobody wrote at 0s`},
		{"redirections, one to a login", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y", "2 4-5 GET a = >y", "2 6-7 GET a = >login"}, Right, 0, "", ""},
		{"only redirections to a login", []string{"2 4-5 GET a = >login", "2 6-7 GET a = >login"}, Unchecked, 0, "", ""},
		{"an old redirection", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = y", "2 4-5 GET a = >x"}, Wrong, 1,
			"1 acknowledged write not in the last answers; 1 of 1 read older than a write before them; not linearizable on 1 of 1 key",
			`GET /c/a answered "x", though PUT /c/a "y" was complete before the request began at 0s`},
		{"a write without an answer shows late", []string{"1 0-1 PUT a = x", "1 2-3 PUT a = timeout", "2 4-5 GET a = x", "2 6-7 GET a = timeout"}, Right, 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := script(t, tt.lines...)
			for i := range run {
				if run[i].Err != "" && run[i].Method == "PUT" {
					run[i].Value = "timeout"
				} else if run[i].Err != "" {
					run[i].Err, run[i].Status = "", 200
				}
			}
			c := New(KV, Options{})
			c.Add(run)
			a := c.Verdict()
			if a.Verdict != tt.verdict || a.Wrong != tt.wrong || a.Text != tt.text || a.Example != tt.example {
				t.Errorf("got  %s, %d wrong, %q, %q\nwant %s, %d wrong, %q, %q", a.Verdict, a.Wrong, a.Text, a.Example, tt.verdict, tt.wrong, tt.text, tt.example)
			}
		})
	}
}

// What cannot be decided in time is said, and accuses no one.
func TestBudgetEnds(t *testing.T) {
	c := New(KV, Options{Budget: time.Nanosecond})
	c.Add(script(t, "1 0-1 PUT a = x", "2 2-3 GET a = x"))
	a := c.Verdict()
	if a.Verdict != Right || a.Text != "1 of 1 key not decided in time" || strings.Contains(a.Holds, "linearizable") {
		t.Errorf("got %+v", a)
	}
}

func TestStoreGoesOnFromRunToRun(t *testing.T) {
	c := New(KV, Options{})
	c.Add(script(t, "1 0-1 PUT a = x", "1 2-3 PUT a = y"))
	c.Add(script(t, "1 0-1 GET a = y"))
	if a := c.Verdict(); a.Verdict != Right {
		t.Errorf("got %+v, want right", a)
	}
	c.Add(script(t, "1 0-1 GET a = x"))
	if a := c.Verdict(); a.Wrong != 1 || !strings.Contains(a.Text, "1 of 2 reads older") {
		t.Errorf("got %+v, want 1 old read", a)
	}
	c.Restart()
	c.Add(script(t, "1 0-1 GET a = 404"))
	if a := c.Verdict(); a.Wrong != 1 {
		t.Errorf("got %+v, want no more wrong answers after a start with nothing", a)
	}
}
