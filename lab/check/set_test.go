package check

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// adding are requests to a set: most add, some list.
func adding(t *rapid.T, faults bool) []*request {
	all := plan{runs: 3, clients: 3, each: 6, keys: 6, methods: []string{"PUT", "PUT", "GET"}, faults: faults}.draw(t)
	for _, r := range all {
		if r.Method == "GET" {
			r.Key, r.Path = "", "/c"
		}
	}
	return all
}

func TestRightSetIsNeverAccused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := adding(t, true)
		set := map[string]bool{}
		if full := rapid.Bool().Draw(t, "not empty"); full {
			set["older"], set["k1"] = true, true
		}
		unknown := len(set) > 0 || rapid.Bool().Draw(t, "unknown start")
		for _, r := range inOrderOfEffect(all) {
			if r.Method == "PUT" {
				set[r.Key] = true
			} else if body, err := json.Marshal(sortedKeys(set)); err == nil {
				r.answer(string(body))
			}
		}
		if a := judged(Set, Options{Unknown: unknown}, all).Verdict(); a.Verdict == Wrong {
			dump(t, all)
			t.Fatalf("a right set: %+v", a)
		}
	})
}

func TestSetFindsExactlyWhatIsWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := adding(t, false)
		for i, r := range all { // every thing once, so that what is lost stays lost
			if r.Method == "PUT" {
				r.Key = fmt.Sprint("k", i)
			}
		}
		set := map[string]bool{}
		var lost, garbage int64
		for _, r := range inOrderOfEffect(all) {
			switch {
			case r.Method == "GET":
				body, _ := json.Marshal(sortedKeys(set))
				r.answer(string(body))
			case rapid.IntRange(0, 4).Draw(t, "lost") == 0:
				lost++
			default:
				set[r.Key] = true
			}
		}
		if rapid.Bool().Draw(t, "garbage") {
			set["nobody added this"], garbage = true, 1
		}
		end := &request{run: 3, effect: math.MaxInt64}
		end.Method, end.Path, end.Status = "GET", "/c", 200
		body, _ := json.Marshal(sortedKeys(set))
		end.answer(string(body))
		c := judged(Set, Options{}, append(all, end))
		var sum tally
		c.j.fold(&sum)
		if sum.lost != lost || sum.garbage != garbage || sum.stale != 0 || sum.wrong != lost+garbage {
			dump(t, all)
			t.Fatalf("want %d lost, %d garbage; have %+v", lost, garbage, sum)
		}
	})
}

func TestSetWords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		lines   []string
		verdict string
		wrong   int64
		text    string
		example string
	}{
		{"right", []string{"1 0-1 PUT a = x", "1 2-3 GET - = a"}, Right, 0, "", ""},
		{"a timeout took place", []string{"1 0-1 PUT a = timeout", "1 2-3 GET - = a"}, Right, 0, "1 add without an answer took place", ""},
		{"refused and there", []string{"1 0-1 PUT a = refused", "1 2-3 GET - = a"}, Wrong, 1,
			"1 thing in lists that nobody added", `GET /c answered a list with "a", which nobody added at 0s`},
		{"missing for a while", []string{"1 0-1 PUT a = x", "1 2-3 GET - = b", "1 2-4 PUT b = x", "1 5-6 GET - = a,b"}, Wrong, 1,
			"1 acknowledged add missing for a while", `GET /c answered a list without "a", which was added before at 0s`},
		{"lost", []string{"1 0-1 PUT a = x", "1 2-3 PUT b = x", "1 4-5 GET - = b"}, Wrong, 1,
			"1 of 2 acknowledged adds lost", `GET /c answered a list without "a", which was added before at 0s`},
		{"too early", []string{"1 0-1 GET - = a", "1 2-3 PUT a = x"}, Wrong, 1,
			"1 thing in lists before they were added", `GET /c answered a list with "a", before it was added at 0s`},
		{"removed", []string{"1 0-1 PUT a = x", "1 2-3 DELETE a = x", "1 4-5 GET - = b", "1 4-5 PUT b = x"}, Right, 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := script(t, tt.lines...)
			for i := range run {
				if run[i].Method == "GET" {
					run[i].Key, run[i].Path = "", "/c"
				}
			}
			c := New(Set, Options{})
			c.Add(run)
			a := c.Verdict()
			if a.Verdict != tt.verdict || a.Wrong != tt.wrong || a.Text != tt.text || a.Example != tt.example {
				t.Errorf("got  %s, %d wrong, %q, %q\nwant %s, %d wrong, %q, %q", a.Verdict, a.Wrong, a.Text, a.Example, tt.verdict, tt.wrong, tt.text, tt.example)
			}
		})
	}
}
