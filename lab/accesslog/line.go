package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parse reads one line of either format.
func parse(line []byte) (entry, error) {
	if trimmed := bytes.TrimLeft(line, " \t"); len(trimmed) > 0 && trimmed[0] == '{' {
		return parseJSON(trimmed)
	}
	return parseCombined(string(line))
}

// combinedTime is how Apache and nginx write a moment.
const combinedTime = "02/Jan/2006:15:04:05 -0700"

// parseCombined reads the combined or the common log format, of which only what is between [] and the first
// quotes counts (httpd.apache.org/docs/2.4/logs.html, nginx.org/en/docs/http/ngx_http_log_module.html):
//
//	::1 - ann [25/Nov/2026:22:31:36 +0000] "GET /a?b=c HTTP/1.1" 200 512 "-" "curl/8"
//
// A host name may stand before it, as in the formats with virtual hosts.
func parseCombined(line string) (entry, error) {
	_, rest, ok := strings.Cut(line, "[")
	moment, rest, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return entry{}, fmt.Errorf("want a time in brackets like [25/Nov/2026:22:31:36 +0000] or JSON, have %.60q", line)
	}
	at, err := time.Parse(combinedTime, moment)
	if err != nil {
		return entry{}, fmt.Errorf("want a time like [25/Nov/2026:22:31:36 +0000], have %.60q", moment)
	}
	request, ok := quoted(strings.TrimLeft(rest, " "))
	if !ok {
		return entry{}, fmt.Errorf(`want a request in quotes like "GET / HTTP/1.1" after the time, have %.60q`, rest)
	}
	method, path, err := requestLine(request)
	return entry{at: at, whole: at.Nanosecond() == 0, method: method, path: path}, err
}

// quoted is the inside of the quotes that s begins with, with what servers escape there put back: \" and \\ of
// both, \x22 of both, and no other.
func quoted(s string) (string, bool) {
	if s == "" || s[0] != '"' {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), true
		case s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x':
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 3
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", false
}

// requestLine reads GET /a HTTP/1.1, RFC 9112 §3; HTTP/0.9 had no version.
func requestLine(s string) (method, path string, err error) {
	words := strings.Split(s, " ")
	if len(words) != 2 && (len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/")) {
		return "", "", fmt.Errorf("want a request like GET / HTTP/1.1, have %.60q", s)
	}
	return request(words[0], words[1])
}

// request checks a method and a path, of which an absolute URL is cut to.
func request(method, path string) (string, string, error) {
	if method == "" || len(method) > 20 || strings.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return "", "", fmt.Errorf("want a method like GET, have %.60q", method)
	}
	if _, after, ok := strings.Cut(path, "://"); ok && !strings.HasPrefix(path, "/") {
		if at := strings.IndexAny(after, "/?"); at < 0 {
			path = "/"
		} else if path = after[at:]; path[0] == '?' {
			path = "/" + path
		}
	}
	path, _, _ = strings.Cut(path, "#")
	if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", "", fmt.Errorf("want a path like /a?b=c, have %.60q", path)
	}
	return method, path, nil
}

// The names that the fields of JSON lines have: those of Caddy, Traefik, nginx's variables, logstash and the
// common libraries. The first that is there counts; of the others nothing is read.
var (
	timeNames   = []string{"time", "ts", "timestamp", "@timestamp", "time_iso8601", "time_local", "msec", "StartUTC"}
	methodNames = []string{"method", "request_method", "RequestMethod", "http_method"}
	pathNames   = []string{"uri", "request_uri", "url", "path", "RequestPath"}
)

// parseJSON reads one JSON object. Method and path may stand in an object of their own, request, as Caddy has
// them; or request is the whole line, GET /a HTTP/1.1.
func parseJSON(line []byte) (entry, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return entry{}, fmt.Errorf("want a JSON object a line: %w", err)
	}
	raw, ok := first(fields, timeNames)
	if !ok {
		return entry{}, fmt.Errorf("want a time, in one of %s", strings.Join(timeNames, ", "))
	}
	at, err := moment(raw)
	if err != nil {
		return entry{}, err
	}
	e := entry{at: at, whole: at.Nanosecond() == 0}
	e.method, e.path, err = jsonRequest(fields)
	return e, err
}

func jsonRequest(fields map[string]json.RawMessage) (method, path string, err error) {
	raw, whole := fields["request"]
	var inner map[string]json.RawMessage
	if whole && json.Unmarshal(raw, &inner) == nil && inner != nil {
		fields, whole = inner, false
	}
	m, hasMethod := first(fields, methodNames)
	p, hasPath := first(fields, pathNames)
	var text string
	switch {
	case hasMethod && hasPath:
		if json.Unmarshal(m, &method) == nil && json.Unmarshal(p, &path) == nil {
			return request(method, path)
		}
		return "", "", fmt.Errorf("want texts as method and path, have %.30s and %.30s", m, p)
	case whole && json.Unmarshal(raw, &text) == nil:
		return requestLine(text)
	case !hasMethod:
		return "", "", fmt.Errorf("want a method, in one of %s", strings.Join(methodNames, ", "))
	}
	return "", "", fmt.Errorf("want a path, in one of %s", strings.Join(pathNames, ", "))
}

func first(fields map[string]json.RawMessage, names []string) (json.RawMessage, bool) {
	for _, n := range names {
		if raw, ok := fields[n]; ok && string(raw) != "null" {
			return raw, true
		}
	}
	return nil, false
}

// moment reads RFC 3339, the combined format's time, or a number since 1970: of seconds, or so large that it
// must be milli-, micro- or nanoseconds. The number may stand in quotes.
func moment(raw json.RawMessage) (time.Time, error) {
	text := string(raw)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(raw, &text); err != nil {
			return time.Time{}, fmt.Errorf("want a time: %w", err)
		}
		for _, layout := range []string{time.RFC3339Nano, combinedTime, "2006-01-02T15:04:05.999999999Z0700"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at, nil
			}
		}
	}
	at, err := epoch(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("want a time like 2026-11-25T22:31:36.5Z or seconds since 1970, have %.60q", text)
	}
	return at, nil
}

var errEpoch = errors.New("no time")

func epoch(text string) (time.Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil { // whole numbers exactly
		switch {
		case n < 0:
			return time.Time{}, errEpoch
		case n >= 1e17:
			return time.Unix(0, n), nil
		case n >= 1e14:
			return time.UnixMicro(n), nil
		case n >= 1e11:
			return time.UnixMilli(n), nil
		}
		return time.Unix(n, 0), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0) || f >= 1e20 {
		return time.Time{}, errEpoch
	}
	for f >= 1e11 { // to seconds
		f /= 1000
	}
	seconds, part := math.Modf(f)
	return time.Unix(int64(seconds), int64(part*1e9)).Round(time.Microsecond), nil // a float64 knows no more
}
