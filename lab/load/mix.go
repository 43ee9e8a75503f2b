package load

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"servent/system"
	"servent/system/notation"
)

// Entry is one kind of request of a mix.
type Entry struct {
	Method  string
	Path    string   // template, with the query if any: /carts/{key}
	Weight  float64  // how often, against the other entries; 0 is never, unless all are 0: then all are alike
	Body    string   // template; "" means {value} for PUT, POST and PATCH, and nothing for others
	Headers []string // templates: X-User: {key}
	Accept  []int    // statuses that are right besides 2xx and 3xx: 404 for a key that may be missing
}

// Templates know {key}, the request's key; {n}, its number; {value}, which no other request of the run has.

// ParseMix reads requests as a file or a command line has them: PUT /carts/{key}, or with a weight, GET
// /carts/{key}=95, one a word or several with commas between them. In a query, the first = of a pair belongs to
// it: GET /find?id={key}=95.
func ParseMix(words ...string) ([]Entry, error) {
	var all []Entry
	var wrong []error
	for _, w := range separate(words) {
		request, weight, err := splitWeight(w)
		if err == nil {
			_, err = notation.Request(request)
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		method, path, _ := strings.Cut(request, " ")
		all = append(all, Entry{Method: method, Path: path, Weight: weight})
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return all, weigh(all)
}

// separate cuts words at the commas that a further request follows: METHOD /path. No path has a space.
func separate(words []string) []string {
	var out []string
	for _, w := range words {
		start := 0
		for i := range len(w) {
			if w[i] != ',' {
				continue
			}
			method, path, _ := strings.Cut(strings.TrimSpace(w[i+1:]), " ")
			if token(method) && strings.HasPrefix(path, "/") {
				out = append(out, strings.TrimSpace(w[start:i]))
				start = i + 1
			}
		}
		out = append(out, strings.TrimSpace(w[start:]))
	}
	return out
}

// MixOf makes entries of the mix of a file.
func MixOf(mix []system.MixEntry) ([]Entry, error) {
	var all []Entry
	for _, m := range mix {
		if _, err := notation.Request(m.Request); err != nil {
			return nil, err
		}
		method, path, _ := strings.Cut(m.Request, " ")
		all = append(all, Entry{Method: method, Path: path, Weight: m.Weight})
	}
	return all, weigh(all)
}

// splitWeight cuts the weight off, 1 when there is none.
func splitWeight(s string) (string, float64, error) {
	at := strings.LastIndexByte(s, '=')
	if query := strings.IndexByte(s, '?'); at >= 0 && query >= 0 {
		pair := max(query, strings.LastIndexByte(s, '&'))
		if first := strings.IndexByte(s[pair:], '='); pair+first == at {
			at = -1
		}
	}
	if at < 0 {
		return s, 1, nil
	}
	weight, err := notation.Amount(strings.TrimSpace(s[at+1:]))
	if err != nil {
		return "", 0, fmt.Errorf("want a weight like 95 after the last =, have %q", s)
	}
	return strings.TrimSpace(s[:at]), weight, nil
}

// weigh refuses weights that say nothing.
func weigh(all []Entry) error {
	sum := 0.0
	for _, e := range all {
		sum += e.Weight
		if !(e.Weight >= 0) || math.IsInf(e.Weight, 0) {
			return fmt.Errorf("want a weight from 0, have %v for %s %s", e.Weight, e.Method, e.Path)
		}
	}
	if len(all) > 0 && sum == 0 {
		return errors.New("want some weight above 0")
	}
	return nil
}

// template is a text with places.
type template []piece

type piece struct {
	text  string
	place byte // 'k' key, 'n' number, 'v' value; 0 for text
}

var places = []struct {
	word  string
	place byte
}{{"{key}", 'k'}, {"{n}", 'n'}, {"{value}", 'v'}}

// parseTemplate never fails: braces around other words stand for themselves, as in JSON.
func parseTemplate(s string) template {
	var t template
	start := 0
	for i := 0; i < len(s); {
		hit := slices.IndexFunc(places, func(p struct {
			word  string
			place byte
		}) bool {
			return strings.HasPrefix(s[i:], p.word)
		})
		if hit < 0 {
			i++
			continue
		}
		if start < i {
			t = append(t, piece{text: s[start:i]})
		}
		t = append(t, piece{place: places[hit].place})
		i += len(places[hit].word)
		start = i
	}
	if start < len(s) {
		t = append(t, piece{text: s[start:]})
	}
	return t
}

func (t template) has(place byte) bool {
	return slices.ContainsFunc(t, func(p piece) bool { return p.place == place })
}

func (t template) append(b []byte, s *shot) []byte {
	for _, p := range t {
		switch p.place {
		case 0:
			b = append(b, p.text...)
		case 'k':
			b = append(b, s.key...)
		case 'n':
			b = strconv.AppendInt(b, int64(s.n), 10)
		case 'v':
			b = appendValue(b, s.seed, s.n)
		}
	}
	return b
}

// appendValue writes what no other request of this run writes, and a run of another seed hardly: v6b2c-17.
func appendValue(b []byte, seed uint64, n int) []byte {
	b = append(b, 'v')
	b = strconv.AppendUint(b, mix64(seed)>>48, 16)
	b = append(b, '-')
	return strconv.AppendInt(b, int64(n), 10)
}

// kind is an entry, ready to be sent.
type kind struct {
	Entry
	path, body template
	replayed   bool       // its path is the recorded request's
	head       []template // of header lines
	hasHost    bool       // among them
	hasType    bool
	keyed      bool
	writes     bool // it has a body
	safe       bool // RFC 9110 §9.2.1: asking again does no harm
}

func prepare(e Entry) (*kind, error) {
	k := &kind{Entry: e, path: parseTemplate(e.Path)}
	switch e.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		k.safe = true
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		k.writes = true
		if e.Body == "" {
			e.Body = "{value}"
		}
	}
	if e.Body != "" {
		k.writes, k.body = true, parseTemplate(e.Body)
	}
	if !token(e.Method) || e.Method == http.MethodConnect {
		return nil, fmt.Errorf("want a method like GET, have %q", e.Method)
	}
	if !sendable(e.Path) {
		return nil, fmt.Errorf("want a path like /carts/{key}, have %q", e.Path)
	}
	k.keyed = k.path.has('k') || k.body.has('k')
	for _, line := range e.Headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) || strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("want a header like X-User: {key}, have %q", line)
		}
		switch strings.ToLower(name) {
		case "connection", "content-length", "transfer-encoding", "expect", "upgrade", "trailer":
			return nil, fmt.Errorf("the header %s is the connection's own and cannot be set", name)
		}
		k.hasHost = k.hasHost || strings.EqualFold(name, "Host")
		k.hasType = k.hasType || strings.EqualFold(name, "Content-Type")
		t := parseTemplate(line)
		k.keyed = k.keyed || t.has('k')
		k.head = append(k.head, t)
	}
	return k, nil
}

// good says that a status is right.
func (k *kind) good(status int) bool {
	return status >= 200 && status < 400 || slices.Contains(k.Accept, status)
}

// token is RFC 9110 §5.6.2.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
