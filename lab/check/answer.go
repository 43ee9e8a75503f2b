package check

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/lab/load"
)

// bodyBytes is how much of an answer a record keeps. A body of this length may go on.
const bodyBytes = 256

// overTCP is the method of what has none. Who asks for a counter says that every request counts.
const overTCP = "TCP"

// outcome of a request that was to change something.
type outcome int

const (
	sure  outcome = iota // an answer says that it was done
	maybe                // nobody knows
	never                // it was refused
)

// outcomeOf says whether a request took place. A connection that was refused carried nothing. An error of
// the server (RFC 9110 §15.6) may come from a switch whose server died in the middle, and 408 from one that
// waited in vain; the other errors of a client (§15.5) are said before anything is done.
func outcomeOf(r *load.Record) outcome {
	switch {
	case r.Err == "refused":
		return never
	case r.Err != "", r.Status >= 500, r.Status == http.StatusRequestTimeout, r.Status > 0 && r.Status < 200:
		return maybe
	case r.Status >= 400:
		return never
	}
	return sure
}

// passing are states of an answer that say something about the service's state of the moment.
var passing = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusMisdirectedRequest}

// answered says that the record holds an answer that can be judged.
func answered(r *load.Record) bool {
	return r.Err == "" && r.Status < 500 && (r.Status == 0 || r.Status >= 200) && !slices.Contains(passing, r.Status)
}

// absent says that the answer is "there is no such thing".
func absent(r *load.Record) bool {
	return r.Status == http.StatusNotFound || r.Status == http.StatusGone || r.Status == http.StatusNoContent
}

// fine says that the answer has a body worth reading. The status of a line protocol is 0.
func fine(r *load.Record) bool {
	return r.Err == "" && (r.Status == 0 || r.Status >= 200 && r.Status < 300)
}

// points says that the answer sends the client elsewhere. Where is in its body, too, if a service wants its
// redirections to be judged.
func points(r *load.Record) bool {
	return r.Err == "" && r.Status > http.StatusMultipleChoices && r.Status < 400 && r.Status != http.StatusNotModified
}

// keyOf names what a request is about.
func keyOf(r *load.Record) string {
	if r.Key != "" {
		return r.Key
	}
	return r.Path
}

// numberIn finds the one whole number of an answer: the text is one, a JSON document has one, or one under
// a name that says so, or a text has one in it.
func numberIn(body []byte) (int64, bool) {
	body = bytes.TrimSpace(body)
	if n, err := strconv.ParseInt(string(body), 10, 64); err == nil {
		return n, true
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var doc any
	if dec.Decode(&doc) == nil && !dec.More() {
		switch doc := doc.(type) {
		case json.Number, string:
			return whole(doc)
		case map[string]any:
			for _, name := range []string{"n", "value", "count", "counter", "number"} {
				if n, ok := whole(doc[name]); ok {
					return n, true
				}
			}
			found, n := 0, int64(0)
			for _, v := range doc {
				if one, ok := whole(v); ok {
					found, n = found+1, one
				}
			}
			if found == 1 {
				return n, true
			}
		}
		return 0, false
	}
	words := strings.FieldsFunc(string(body), func(r rune) bool { return r != '-' && (r < '0' || r > '9') })
	words = slices.DeleteFunc(words, func(w string) bool { return strings.Trim(w, "-") == "" })
	if len(words) != 1 {
		return 0, false
	}
	if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
		return n, true
	}
	return 0, false
}

func whole(v any) (int64, bool) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	default:
		return 0, false
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
		return n, true
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), true // 12.0
	}
	return 0, false
}

// plain is what a value and the answer that gives it back have in common: blanks around it and the JSON
// that it may be wrapped in do not count. Only what a record can hold of a long one is looked at.
func plain(text string) string {
	text = strings.TrimSpace(text[:min(len(text), bodyBytes)])
	if text == "" || text[0] != '"' && text[0] != '{' {
		return text
	}
	var doc any
	if json.Unmarshal([]byte(text), &doc) != nil {
		return text
	}
	if m, ok := doc.(map[string]any); ok {
		for _, name := range []string{"value", "v", "data"} {
			if s, ok := m[name].(string); ok {
				return s
			}
		}
	}
	if s, ok := doc.(string); ok {
		return s
	}
	return text
}

// listIn reads the elements of an answer: a JSON list, an object with one list in it, or lines or words
// with commas between them. whole is false for an answer that may go on beyond what was recorded.
func listIn(body []byte) (all []string, whole bool) {
	whole = len(body) != bodyBytes
	text := strings.TrimSpace(string(body))
	var doc any
	if text != "" && json.Unmarshal([]byte(text), &doc) == nil {
		if m, ok := doc.(map[string]any); ok {
			var lists []any
			for _, v := range m {
				if list, ok := v.([]any); ok {
					lists = append(lists, list)
				}
			}
			if len(lists) == 1 {
				doc = lists[0]
			}
		}
		switch doc := doc.(type) {
		case []any:
			all = []string{}
			for _, one := range doc {
				all = append(all, element(one))
			}
			return all, true
		case nil:
			return []string{}, true
		}
	}
	if !whole { // the last one may be cut, too
		text = text[:max(strings.LastIndexAny(text, ",\n"), 0)]
	}
	text = strings.TrimLeft(text, "[")
	for _, one := range strings.FieldsFunc(strings.TrimRight(text, "]"), func(r rune) bool { return r == '\n' || r == ',' }) {
		if one = plain(one); one != "" {
			all = append(all, one)
		}
	}
	return all, whole
}

func element(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case map[string]any:
		for _, name := range []string{"key", "id", "name", "value"} {
			if s, ok := v[name].(string); ok {
				return s
			}
		}
	}
	text, _ := json.Marshal(v) // it came from JSON
	return string(text)
}

// said is an answer in words: POST /c/a answered 7 at 1.204s.
func said(r *load.Record, what string) string {
	from := ""
	if r.Instance != "" {
		from = " (" + r.Instance + ")"
	}
	return fmt.Sprintf("%s %s answered %s at %s%s", r.Method, cmp.Or(r.Path, r.Key), what, at(r.Done), from)
}

func at(d time.Duration) string { return d.Round(time.Millisecond).String() }

// quote shortens a value for a sentence.
func quote(s string) string {
	if r := []rune(s); len(r) > 24 {
		s = string(r[:23]) + "…"
	}
	return strconv.Quote(s)
}
