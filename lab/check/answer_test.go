package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"servent/lab/load"
)

func TestNumberIn(t *testing.T) {
	for _, tt := range []struct {
		body string
		n    int64
		ok   bool
	}{
		{"7", 7, true},
		{"  7\r\n", 7, true},
		{"-3", -3, true},
		{`"7"`, 7, true},
		{"12.0", 12, true},
		{"12.5", 0, false},
		{`{"n":7}`, 7, true},
		{`{"value":"7","at":12}`, 7, true},
		{`{"a":7,"name":"x"}`, 7, true},
		{`{"a":7,"b":8}`, 0, false},
		{"the number is 7.", 7, true},
		{"3 of 4", 0, false},
		{"- none -", 0, false},
		{"", 0, false},
		{"ok", 0, false},
		{"[1]", 0, false},
		{"99999999999999999999", 0, false},
	} {
		if n, ok := numberIn([]byte(tt.body)); n != tt.n || ok != tt.ok {
			t.Errorf("numberIn(%q) = %d, %v, want %d, %v", tt.body, n, ok, tt.n, tt.ok)
		}
	}
}

func FuzzNumberIn(f *testing.F) {
	for _, s := range []string{"7", `{"n":7}`, "a 7", "1e3", `{"n":1e400}`, "-", "--7", "7 7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := numberIn([]byte(s))
		if again, same := numberIn([]byte(fmt.Sprint(n))); ok && (!same || again != n) {
			t.Errorf("numberIn(%q) = %d, which reads as %d, %v", s, n, again, same)
		}
	})
}

func TestPlain(t *testing.T) {
	long := strings.Repeat("x", 300)
	for text, want := range map[string]string{
		" a \n": "a", `"a"`: "a", `{"value":"a"}`: "a", `{"key":"k","data":"a"}`: "a", `{"a":1}`: `{"a":1}`, `"a`: `"a`, "": "",
		long: long[:256], long[:256]: long[:256],
	} {
		if got := plain(text); got != want {
			t.Errorf("plain(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestListIn(t *testing.T) {
	for _, tt := range []struct {
		body  string
		all   []string
		whole bool
	}{
		{`["a","b"]`, []string{"a", "b"}, true},
		{`{"items":[{"id":"a"},{"name":"b"}],"n":2}`, []string{"a", "b"}, true},
		{"[1, 2]", []string{"1", "2"}, true},
		{"a\nb\n", []string{"a", "b"}, true},
		{"a,b", []string{"a", "b"}, true},
		{"", nil, true},
		{"null", []string{}, true},
		{strings.Repeat("abc\n", 64), slices.Repeat([]string{"abc"}, 63), false},
		{"[" + strings.Repeat(`"abc",`, 42) + `"de`, slices.Repeat([]string{"abc"}, 42), false},
	} {
		if all, whole := listIn([]byte(tt.body)); !slices.Equal(all, tt.all) || whole != tt.whole {
			t.Errorf("listIn(%.20q) = %q, %v, want %q, %v", tt.body, all, whole, tt.all, tt.whole)
		}
	}
}

func FuzzListIn(f *testing.F) {
	for _, s := range []string{`["a"]`, "a\nb", `{"x":[1,{"id":"a"}]}`, "[", `[[]]`, "\"a\",\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		listIn([]byte(s)) // must not end the program
		plain(s)
		var list []string
		if json.Unmarshal([]byte(s), &list) == nil && list != nil {
			if got, _ := listIn([]byte(s)); !slices.Equal(got, list) {
				t.Errorf("listIn(%q) = %q, want %q", s, got, list)
			}
		}
	})
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		r    load.Record
		want outcome
	}{
		{load.Record{Status: 200}, sure},
		{load.Record{Status: 303}, sure},
		{load.Record{}, sure}, // a line protocol has no status
		{load.Record{Err: "refused"}, never},
		{load.Record{Err: "reset"}, maybe},
		{load.Record{Err: "cut", Status: 200}, maybe},
		{load.Record{Status: 502}, maybe},
		{load.Record{Status: 408}, maybe},
		{load.Record{Status: 400}, never},
		{load.Record{Status: 421}, never},
	} {
		if got := outcomeOf(&tt.r); got != tt.want {
			t.Errorf("outcomeOf(%d %s) = %d, want %d", tt.r.Status, tt.r.Err, got, tt.want)
		}
	}
}
