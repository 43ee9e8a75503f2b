package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// KeyRule finds the key of a request, as the file's key says where it stands. Make it with [ParseKey].
type KeyRule struct {
	Any  bool // a request without key may go to any instance; else it is refused
	text string
	kind string   // path, header, query, cookie, json, source
	of   string   // name of the header, parameter or cookie
	path []string // segments of the path, or members of the JSON body
	rest bool     // the path may go on
}

// ErrNoKey: the request has no key where the rule looks for one.
var ErrNoKey = errors.New("no key")

// maxKey is the longest key: longer ones are no keys but payloads.
const maxKey = 4 << 10

// ParseKey reads a key template: /carts/{key}/*, header:X-User, query:id, cookie:sid, json:user.id or
// source. Package notation checks what a user writes; here it is only taken apart.
func ParseKey(template string) (KeyRule, error) {
	r := KeyRule{text: template}
	if strings.HasPrefix(template, "/") {
		r.kind, r.path = "path", strings.Split(template[1:], "/")
		if n := len(r.path) - 1; r.path[n] == "*" {
			r.path, r.rest = r.path[:n], true
		}
		return r, nil
	}
	r.kind, r.of, _ = strings.Cut(template, ":")
	switch {
	case r.kind == "source":
	case r.of == "":
		return r, fmt.Errorf("key %q: want a template like /carts/{key}/*", template)
	case r.kind == "json":
		r.path = strings.Split(r.of, ".")
	case r.kind != "header" && r.kind != "query" && r.kind != "cookie":
		return r, fmt.Errorf("key %q: want a template like /carts/{key}/*", template)
	}
	return r, nil
}

// String is the template.
func (r KeyRule) String() string { return r.text }

// Body says that the key stands in the request's body, which must be read first.
func (r KeyRule) Body() bool { return r.kind == "json" }

// Source says that the key is where a request comes from.
func (r KeyRule) Source() bool { return r.kind == "source" }

// Find returns the key of a request. body is that of a rule for which [KeyRule.Body] holds; source is
// the host that the request comes from. The error wraps [ErrNoKey] and says where it was looked for.
func (r KeyRule) Find(req *http.Request, body []byte, source string) (Key, error) {
	key, err := r.find(req, body, source)
	switch {
	case err != nil:
		return "", err
	case key == "":
		return "", fmt.Errorf("%w: %s is empty", ErrNoKey, r.where())
	case len(key) > maxKey:
		return "", fmt.Errorf("%w: %s is longer than %d bytes", ErrNoKey, r.where(), maxKey)
	}
	return Key(key), nil
}

func (r KeyRule) find(req *http.Request, body []byte, source string) (string, error) {
	switch r.kind {
	case "path":
		return r.inPath(req.URL)
	case "header":
		return once(r, req.Header.Values(r.of))
	case "query":
		q, err := url.ParseQuery(req.URL.RawQuery)
		if err != nil {
			return "", fmt.Errorf("%w: the query cannot be read: %w", ErrNoKey, err)
		}
		return once(r, q[r.of])
	case "cookie":
		var values []string
		for _, c := range req.CookiesNamed(r.of) {
			values = append(values, c.Value)
		}
		return once(r, values)
	case "json":
		return r.inJSON(body)
	default:
		return source, nil
	}
}

// once refuses what stands there twice: two programs would read two different keys.
func once(r KeyRule, values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", fmt.Errorf("%w: the request has no %s", ErrNoKey, r.where())
	case 1:
		return values[0], nil
	}
	return "", fmt.Errorf("%w: the request has %s %d times", ErrNoKey, r.where(), len(values))
}

// inPath matches segment by segment in the escaped path, so that a slash inside a key (%2F) stays in it.
func (r KeyRule) inPath(u *url.URL) (string, error) {
	key, segments := "", strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if len(segments) < len(r.path) || len(segments) > len(r.path) && !r.rest {
		return "", fmt.Errorf("%w: want a path like %s, have %s", ErrNoKey, r.text, u.EscapedPath())
	}
	for i, want := range r.path {
		have, err := url.PathUnescape(segments[i])
		switch {
		case err != nil: // net/url has checked it
			return "", fmt.Errorf("%w: %w", ErrNoKey, err)
		case want == "{key}":
			key = have
		case have != want:
			return "", fmt.Errorf("%w: want a path like %s, have %s", ErrNoKey, r.text, u.EscapedPath())
		}
	}
	return key, nil
}

// inJSON follows members of objects to a string, number or truth value.
func (r KeyRule) inJSON(body []byte) (string, error) {
	var at any
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	if err := dec.Decode(&at); err != nil {
		return "", fmt.Errorf("%w: the body is not JSON: %w", ErrNoKey, err)
	}
	for _, name := range r.path {
		m, ok := at.(map[string]any)
		if !ok {
			return "", fmt.Errorf("%w: the body has no %s", ErrNoKey, r.of)
		}
		if at, ok = m[name]; !ok {
			return "", fmt.Errorf("%w: the body has no %s", ErrNoKey, r.of)
		}
	}
	switch v := at.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", fmt.Errorf("%w: %s in the body is no text or number", ErrNoKey, r.of)
}

func (r KeyRule) where() string {
	switch r.kind {
	case "path":
		return "{key} in " + r.text
	case "json":
		return r.of + " in the body"
	case "query":
		return "?" + r.of + "="
	}
	return r.kind + " " + r.of
}
