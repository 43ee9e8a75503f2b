package check

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"servent/lab/load"
)

var counts = []string{"POST", "POST", "GET"}

func TestRightCounterIsNeverAccused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := plan{runs: 3, clients: 4, each: 6, keys: 2, methods: counts, faults: true}
		all := p.draw(t)
		count(all)
		unknown := rapid.Bool().Draw(t, "unknown start")
		if a := judged(Counter, Options{Unknown: unknown}, all).Verdict(); a.Verdict == Wrong {
			dump(t, all)
			t.Fatalf("a right counter: %+v", a)
		}
	})
}

// A start that is not known is no reason to accuse, however high it is.
func TestRightCounterFromAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 3, clients: 4, each: 6, keys: 1, methods: counts, faults: true}.draw(t)
		count(all)
		start := rapid.IntRange(0, 5).Draw(t, "start")
		for _, r := range all {
			if n, ok := numberIn(r.Body); ok {
				r.Body = fmt.Append(nil, n+int64(start))
			}
		}
		if a := judged(Counter, Options{Unknown: true}, all).Verdict(); a.Verdict == Wrong {
			dump(t, all)
			t.Fatalf("a right counter from %d: %+v", start, a)
		}
	})
}

// The counting rules are exact: they find wrong what porcupine finds wrong, and nothing else.
func TestCounterAgreesWithPorcupine(t *testing.T) {
	wrong, right := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := plan{runs: 1, clients: 4, each: 5, keys: 1, methods: counts, faults: true}
		all := p.draw(t)
		count(all)
		for _, r := range all {
			if n, ok := numberIn(r.Body); ok && rapid.IntRange(0, 9).Draw(t, "bend") == 0 {
				r.Body = fmt.Append(nil, max(0, n+int64(rapid.IntRange(-2, 2).Draw(t, "by"))))
			}
		}
		want := legalCount(all, 1)
		a := judged(Counter, Options{}, all).Verdict()
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

// Over several runs nothing that porcupine accepts is accused.
func TestCounterOverRunsIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := plan{runs: 3, clients: 2, each: 4, keys: 1, methods: counts, faults: true}.draw(t)
		count(all)
		for _, r := range all {
			if n, ok := numberIn(r.Body); ok && rapid.IntRange(0, 19).Draw(t, "bend") == 0 {
				r.Body = fmt.Append(nil, max(0, n+int64(rapid.IntRange(-1, 1).Draw(t, "by"))))
			}
		}
		if a := judged(Counter, Options{}, all).Verdict(); a.Verdict == Wrong && legalCount(all, 1) {
			dump(t, all)
			t.Fatalf("porcupine finds it right, have %+v", a)
		}
	})
}

// bad runs a counter that does one thing wrong to the chosen increments.
func bad(t *rapid.T, all []*request, do func(r *request, n map[string]int) string) (chosen int64) {
	numbers := map[string]int{}
	for _, r := range inOrderOfEffect(all) {
		if r.Method == "POST" && rapid.IntRange(0, 4).Draw(t, "chosen") == 0 {
			chosen++
			r.answer(do(r, numbers))
			continue
		}
		if r.Method == "POST" {
			numbers[r.Key]++
		}
		r.answer(fmt.Sprint(numbers[r.Key]))
	}
	return chosen
}

func TestCounterFindsExactlyWhatIsWrong(t *testing.T) {
	find := func(name string, do func(r *request, n map[string]int) string, found func(t tally) int64) {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				all := plan{runs: 2, clients: 3, each: 6, keys: 2, methods: counts}.draw(t)
				for k := range 2 { // every key ends with an increment, behind all others
					r := &request{run: 2, effect: 2 * runLength}
					r.Method, r.Key, r.Path, r.Status, r.Done, r.N = "POST", fmt.Sprint("k", k+1), "/c", 200, 5, len(all)
					all = append(all, r)
				}
				closed := all[len(all)-2:]
				chosen := bad(t, all[:len(all)-2], do)
				state := map[string]int{}
				for _, r := range inOrderOfEffect(all[:len(all)-2]) {
					if n, ok := numberIn(r.Body); ok {
						state[r.Key] = int(n)
						if r.Method == "POST" && name == "lost" && r.Value == "lost" {
							state[r.Key]--
						}
					}
				}
				for _, r := range closed {
					r.answer(fmt.Sprint(state[r.Key] + 1))
				}
				c := judged(Counter, Options{}, all)
				var sum tally
				c.j.fold(&sum)
				if got := found(sum); got != chosen || (c.Verdict().Verdict == Wrong) != (chosen > 0) {
					dump(t, all)
					t.Fatalf("found %d of %d: %+v", got, chosen, c.Verdict())
				}
			})
		})
	}
	find("lost", func(r *request, n map[string]int) string { // acknowledged and not kept
		r.Value = "lost"
		return fmt.Sprint(n[r.Key] + 1)
	}, func(t tally) int64 { return t.lost })
	find("doubled", func(r *request, n map[string]int) string { // as by a switch that tries again
		n[r.Key] += 2
		return fmt.Sprint(n[r.Key])
	}, func(t tally) int64 { return t.twice })
}

func TestStaleNumbersAreCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lines []load.Record
		n, stale := 0, int64(0)
		for i := range 30 {
			r := load.Record{Method: "POST", Key: "a", Path: "/c/a", Status: 200, Sent: runLength * 2 * dur(i), Done: runLength*2*dur(i) + 1}
			if i > 2 && rapid.Bool().Draw(t, "read") {
				r.Method = "GET"
				old := rapid.IntRange(0, 1).Draw(t, "old")
				stale += int64(old)
				r.Body = fmt.Append(nil, n-old)
			} else {
				n++
				r.Body = fmt.Append(nil, n)
			}
			lines = append(lines, r)
		}
		lines = append(lines, load.Record{Method: "GET", Key: "a", Status: 200, Sent: 1 << 40, Done: 1 << 41, Body: fmt.Append(nil, n)})
		c := New(Counter, Options{})
		c.Add(lines)
		if a := c.Verdict(); a.Wrong != stale {
			t.Fatalf("%d stale answers, have %+v", stale, a)
		}
	})
}

func TestCopiesThatCountForThemselves(t *testing.T) {
	copies := []map[string]int{{}, {}, {}}
	var run []load.Record
	for i := range 300 {
		c := i * 7 % 3
		key := fmt.Sprint("k", i%5)
		copies[c][key]++
		run = append(run, load.Record{N: i, Method: "POST", Key: key, Path: "/c/" + key, Status: 200, Sent: dur(3 * i), Done: dur(3*i + 2),
			Instance: fmt.Sprint("counter/", c+1), Body: fmt.Appendf(nil, "%d\n", copies[c][key])})
	}
	c := New(Counter, Options{})
	c.Add(run)
	a := c.Verdict()
	if want := "200 of 300 increments lost: every copy counts for itself"; a.Verdict != Wrong || a.Text != want || a.Wrong != 200 || a.Checked != 300 {
		t.Errorf("got %+v, want %q", a, want)
	}
	if !strings.HasPrefix(a.Example, "POST /c/k") || !strings.Contains(a.Example, "a number that another increment was answered with") {
		t.Errorf("example: %s", a.Example)
	}
	for i := range run { // the same numbers, mixed over the copies
		run[i].Instance = fmt.Sprint("counter/", i%2)
	}
	c = New(Counter, Options{})
	c.Add(run)
	if a, want := c.Verdict(), "200 of 300 increments lost: numbers were given twice"; a.Text != want {
		t.Errorf("got %q, want %q", a.Text, want)
	}
}

func TestCounterWords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		lines   []string
		verdict string
		wrong   int64
		text    string
		example string
	}{
		{"right", []string{"1 0-1 POST a = 1", "2 2-3 POST a = 2", "1 2-4 GET a = 1"}, Right, 0, "", ""},
		{"a timeout may have counted", []string{"1 0-1 POST a = timeout", "1 2-3 POST a = 2"}, Right, 0, "", ""},
		{"a timeout may count late", []string{"1 0-1 POST a = timeout", "1 2-3 POST a = 1", "1 4-5 POST a = 3"}, Right, 0, "", ""},
		{"a refused connection counts nothing", []string{"1 0-1 POST a = refused", "1 2-3 POST a = 2"}, Wrong, 1,
			"1 of 1 increment carried out twice", "POST /c/a answered 2, though at most 1 increment had begun at 0s"},
		{"back to nothing", []string{"1 0-1 POST a = 1", "1 2-3 POST a = 2", "1 4-5 GET a = 0"}, Wrong, 2,
			"2 of 2 increments lost: the number is lower than what was acknowledged", "GET /c/a answered 0, though 2 was answered before the request began at 0s"},
		{"404 is nothing", []string{"1 0-1 GET a = 404", "1 2-3 POST a = 1"}, Right, 0, "", ""},
		{"no number at all", []string{"1 0-1 POST a = ok", "1 2-3 GET a = fine"}, Unchecked, 0, "no answer holds a number that counts", ""},
		{"some without a number", []string{"1 0-1 POST a = 1", "1 2-3 POST a = oops", "1 4-5 POST a = 3"}, Wrong, 1,
			"1 of 3 answers without a number", `POST /c/a answered "oops", which holds no number at 0s`},
		{"increments without a number", []string{"1 0-1 POST a = ok", "1 2-3 POST a = ok", "1 4-5 GET a = 1"}, Wrong, 1,
			"1 of 2 increments lost: the number is lower than what was acknowledged", "GET /c/a answered 1, though 2 increments were acknowledged before the request began at 0s"},
		{"over TCP", []string{"1 0-1 TCP a = :1", "2 2-3 TCP a = :2", "2 2-3 TCP b = :1"}, Right, 0, "", ""},
		{"wrong over TCP", []string{"1 0-1 TCP a = :1", "2 2-3 TCP a = :1"}, Wrong, 1, "1 of 2 increments lost: numbers were given twice",
			"TCP a answered 1, a number that another increment was answered with at 0s"},
		{"numbers that do not count", []string{"1 0-1 POST a = 71823", "1 2-3 POST a = 99812"}, Unchecked, 0, "no answer holds a number that counts", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(Counter, Options{})
			c.Add(script(t, tt.lines...))
			a := c.Verdict()
			if a.Verdict != tt.verdict || a.Wrong != tt.wrong || a.Text != tt.text || a.Example != tt.example {
				t.Errorf("got  %s, %d wrong, %q, %q\nwant %s, %d wrong, %q, %q", a.Verdict, a.Wrong, a.Text, a.Example, tt.verdict, tt.wrong, tt.text, tt.example)
			}
		})
	}
}

func TestRestartForgetsTheNumberAndKeepsTheVerdict(t *testing.T) {
	c := New(Counter, Options{})
	c.Add(script(t, "1 0-1 POST a = 1", "1 2-3 POST a = 1"))
	c.Restart()
	c.Add(script(t, "1 0-1 POST a = 1", "1 2-3 POST a = 2"))
	d := New(Counter, Options{})
	d.Add(script(t, "1 0-1 POST a = 2"))
	for range 2 { // asking changes nothing
		if a := c.Verdict(); a.Wrong != 1 || a.Checked != 4 {
			t.Errorf("got %+v, want 1 wrong of 4", a)
		}
		if a := Sum(c, d); a.Wrong != 2 || a.Checked != 5 || a.Text != "1 of 5 increments lost: numbers were given twice; 1 of 5 increments carried out twice" {
			t.Errorf("got %+v, want 2 wrong of 5", a)
		}
	}
}
