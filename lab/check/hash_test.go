package check

import (
	"fmt"
	"hash/fnv"
	"testing"

	"pgregory.net/rapid"

	"servent/lab/load"
)

func page(path, instance, body string, status int) load.Record {
	h := fnv.New64a()
	_, _ = h.Write([]byte(body))
	return load.Record{Method: "GET", Path: path, Instance: instance, Body: []byte(body), Hash: h.Sum64(), Status: status}
}

func TestHashFindsExactlyTheAnswersThatDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New(Hash, Options{})
		var differ int64
		for run := range 3 {
			var all []load.Record
			for i := range rapid.IntRange(0, 30).Draw(t, "requests") {
				path := fmt.Sprint("/p", rapid.IntRange(1, 3).Draw(t, "path"))
				r := page(path, fmt.Sprint("web/", rapid.IntRange(1, 3).Draw(t, "copy")), "the page "+path, 200)
				switch rapid.IntRange(0, 40).Draw(t, "fault") {
				case 0:
					r = page(path, r.Instance, "", 502)
				case 1:
					r.Err = "timeout"
				case 2:
					if run > 0 || i > 20 { // not the first of its path
						known := false
						for _, o := range all {
							known = known || o.Path == path && o.Err == "" && o.Status == 200
						}
						if known {
							r = page(path, "web/9", "something else", 200)
							differ++
						}
					}
				}
				r.Sent = dur(i)
				all = append(all, r)
			}
			c.Add(all)
		}
		if a := c.Verdict(); a.Wrong != differ {
			t.Fatalf("%d answers differ, have %+v", differ, a)
		}
	})
}

func TestHashWords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		run     []load.Record
		verdict string
		text    string
		example string
	}{
		{"one answer", []load.Record{page("/", "web/1", "hello", 200), page("/", "web/2", "hello", 200)}, Right, "", ""},
		{"404 is an answer, too", []load.Record{page("/x", "web/1", "no", 404), page("/x", "web/2", "no", 404)}, Right, "", ""},
		{"copies differ", []load.Record{page("/", "web/1", "hello", 200), page("/", "web/2", "hallo", 200)}, Wrong,
			"1 of 2 answers unlike the first of the same request", `GET / answered "hallo" at 0s (web/2), where GET / answered "hello" at 0s (web/1)`},
		{"there and not there", []load.Record{page("/", "web/1", "hello", 200), page("/", "web/2", "", 404)}, Wrong,
			"1 of 2 answers unlike the first of the same request", `GET / answered 404 at 0s (web/2), where GET / answered "hello" at 0s (web/1)`},
		{"a clock", []load.Record{page("/", "web/1", "1s", 200), page("/", "web/1", "2s", 200), page("/", "web/1", "3s", 200)}, Unchecked,
			"the answers change by themselves: one instance gave 2 answers unlike the one before", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(Hash, Options{})
			c.Add(tt.run)
			if a := c.Verdict(); a.Verdict != tt.verdict || a.Text != tt.text || a.Example != tt.example {
				t.Errorf("got  %s, %q, %q\nwant %s, %q, %q", a.Verdict, a.Text, a.Example, tt.verdict, tt.text, tt.example)
			}
		})
	}
}
