package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"servent/lab/load"
)

// request is one request in a world of tests: what it does, and when it does it.
type request struct {
	load.Record
	run    int
	effect time.Duration // on one clock for all runs; math.MaxInt64: never
}

const runLength = 1000 // of one clock; longer than any run

func (r *request) from() time.Duration  { return r.Sent + time.Duration(r.run)*runLength }
func (r *request) until() time.Duration { return r.Done + time.Duration(r.run)*runLength }

// plan is what is random about a world.
type plan struct {
	runs, clients, each, keys int
	methods                   []string
	faults                    bool // timeouts and refused connections
	same                      bool // values may be written twice
}

// draw makes requests by clients that each wait for an answer, and moments at which they take place.
func (p plan) draw(t *rapid.T) []*request {
	var all []*request
	for run := range p.runs {
		for client := range p.clients {
			now := time.Duration(0)
			for range rapid.IntRange(0, p.each).Draw(t, "requests") {
				now += time.Duration(rapid.IntRange(0, 3).Draw(t, "pause"))
				r := &request{run: run}
				r.N, r.Client, r.Sent = len(all), client, now
				now += time.Duration(rapid.IntRange(0, 6).Draw(t, "takes"))
				r.Done = now
				r.Method = rapid.SampledFrom(p.methods).Draw(t, "method")
				r.Key = fmt.Sprint("k", rapid.IntRange(1, p.keys).Draw(t, "key"))
				r.Path = "/c/" + r.Key
				r.Status = 200
				if r.Method == "PUT" {
					n := r.N
					if p.same {
						n = rapid.IntRange(1, 3).Draw(t, "value")
					}
					r.Value = fmt.Sprint("v", n)
				}
				r.effect = r.from() + time.Duration(rapid.IntRange(0, int(r.Done-r.Sent)).Draw(t, "effect"))
				if p.faults {
					switch rapid.IntRange(0, 9).Draw(t, "fault") {
					case 0:
						r.Err, r.effect, r.Status = "refused", math.MaxInt64, 0
					case 1: // takes place in time, later, in another run, or never
						r.Err, r.Status = "timeout", 0
						r.effect = rapid.SampledFrom([]time.Duration{r.effect, r.from() + 20, r.from() + 2*runLength, math.MaxInt64}).Draw(t, "later")
					case 2:
						r.Status = 502
					}
				}
				all = append(all, r)
			}
		}
	}
	return all
}

// inOrderOfEffect lists what takes place.
func inOrderOfEffect(all []*request) []*request {
	done := slices.DeleteFunc(slices.Clone(all), func(r *request) bool { return r.effect == math.MaxInt64 })
	slices.SortStableFunc(done, func(a, b *request) int { return cmp.Compare(a.effect, b.effect) })
	return done
}

// count runs a right counter.
func count(all []*request) {
	numbers := map[string]int{}
	for _, r := range inOrderOfEffect(all) {
		if r.Method == "POST" {
			numbers[r.Key]++
		}
		r.answer(fmt.Sprintln(numbers[r.Key]))
	}
}

func (r *request) answer(text string) {
	if r.Err == "" && r.Status == 200 {
		r.Body = []byte(text)
	}
}

// keep runs a right store.
func keep(all []*request) {
	values := map[string]string{}
	for _, r := range inOrderOfEffect(all) {
		switch v, ok := values[r.Key]; {
		case r.Method == "PUT":
			values[r.Key] = r.Value
		case r.Method == "DELETE":
			delete(values, r.Key)
			if !ok && r.Status == 200 {
				r.Status = 404
			}
		case !ok && r.Status == 200:
			r.Status = 404
		default:
			r.answer(v)
		}
	}
}

// runs are the records, run by run.
func runs(all []*request) [][]load.Record {
	var out [][]load.Record
	for _, r := range all {
		for len(out) <= r.run {
			out = append(out, nil)
		}
		out[r.run] = append(out[r.run], r.Record)
	}
	return out
}

func judged(kind Kind, o Options, all []*request) *Checker {
	o.Budget = -1
	c := New(kind, o)
	for _, run := range runs(all) {
		c.Add(run)
	}
	return c
}

// operations are a history of all runs for porcupine, key by key.
func operations(all []*request, key string) []porcupine.Operation {
	var ops []porcupine.Operation
	for _, r := range all {
		how := outcomeOf(&r.Record)
		read := r.Method == "GET"
		if r.Key != key || read && (r.Err != "" || r.Status >= 500) || !read && how == never && r.Status != 404 {
			continue
		}
		until := int64(r.until())
		if !read && how == maybe {
			until = math.MaxInt64
		}
		ops = append(ops, porcupine.Operation{ClientId: r.N, Input: r, Call: int64(r.from()), Return: until})
	}
	return ops
}

// legalCount asks porcupine whether the numbers are those of a counter.
func legalCount(all []*request, keys int) bool {
	return legal(all, keys, porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, in, _ any) (bool, any) {
			n, r := state.(int64), in.(*request)
			if r.Method == "POST" {
				n++
			}
			got, ok := numberIn(r.Body)
			return !ok || got == n, n
		},
	})
}

// legalValues asks porcupine whether the values are those of a store.
func legalValues(all []*request, keys int) bool {
	return legal(all, keys, porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, in, _ any) (bool, any) {
			switch r := in.(*request); {
			case r.Method == "PUT":
				return true, r.Value
			case r.Method == "DELETE":
				return true, ""
			case r.Status == 404:
				return state == "", state
			default:
				return state == string(r.Body), state
			}
		},
	})
}

func legal(all []*request, keys int, m porcupine.Model) bool {
	for k := range keys {
		if !porcupine.CheckOperations(m, operations(all, fmt.Sprint("k", k+1))) {
			return false
		}
	}
	return true
}

// print writes a history, for a test that failed.
func dump(t *rapid.T, all []*request) {
	for _, r := range all {
		t.Logf("run %d client %d: %d–%d %s %s %q → %d %s %q (effect %d)", r.run, r.Client, r.from(), r.until(), r.Method, r.Key, r.Value, r.Status, r.Err, r.Body, r.effect)
	}
}

// script makes records of words like "c1 0-2 POST a = 1"; >1 is a redirection to 1.
func script(t *testing.T, lines ...string) []load.Record {
	t.Helper()
	var all []load.Record
	for i, line := range lines {
		r := load.Record{N: i, Status: 200}
		var from, to int
		var body string
		n, err := fmt.Sscanf(line, "%d %d-%d %s %s = %s", &r.Client, &from, &to, &r.Method, &r.Key, &body)
		if err != nil {
			t.Fatalf("%q: %v after %d words", line, err, n)
		}
		r.Sent, r.Done, r.Path = time.Duration(from), time.Duration(to), "/c/"+r.Key
		switch {
		case body == "404":
			r.Status = 404
		case body == "timeout" || body == "refused":
			r.Err, r.Status = body, 0
		case r.Method == overTCP:
			r.Path = ""
		case body[0] == '>':
			r.Status, body = 302, body[1:]
		case r.Method == "PUT":
			r.Value = body
		}
		r.Body = []byte(body)
		all = append(all, r)
	}
	return all
}

func dur(n int) time.Duration { return time.Duration(n) }
