package h1

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// ParseRequest reads the head of a request, through its empty line, into the zero fields of r as net/http's server has them: Host
// apart from the other fields, ContentLength −1 for chunks, Trailer with the names that were announced. The error is an [*Error].
func ParseRequest(head []byte, r *http.Request) error {
	line, rest, err := cut(string(head), false)
	if err != nil {
		return err
	}
	method, line, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(line, " ")
	if !token(method) || target == "" {
		return bad("want METHOD TARGET HTTP/1.1")
	}
	switch proto {
	case "HTTP/1.1":
		r.ProtoMinor = 1
	case "HTTP/1.0":
	default:
		return bad("want HTTP/1.1, have %.40q", proto)
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return bad("%q in the target", c)
		}
	}
	r.Method, r.RequestURI, r.Proto, r.ProtoMajor = method, target, proto, 1
	authority := method == http.MethodConnect && !strings.HasPrefix(target, "/")
	if authority {
		target = "http://" + target
	}
	if target == "*" && method != http.MethodOptions { // RFC 9112 §3.2.4
		return bad("* is a target of OPTIONS alone")
	}
	if r.URL, err = url.ParseRequestURI(target); err != nil {
		return bad("bad target: %v", err)
	}
	if authority {
		r.URL.Scheme = ""
	}
	if target[0] != '/' && !authority && target != "*" && (r.URL.Host == "" || !strings.EqualFold(r.URL.Scheme, "http") && !strings.EqualFold(r.URL.Scheme, "https")) {
		return bad("want a path or http://HOST/PATH, have %.40q", target)
	}
	h := make(http.Header, 8)
	if err := fields(rest, h, false); err != nil {
		return err
	}
	r.Header = h
	hosts := h["Host"]
	switch {
	case len(hosts) > 1:
		return bad("two Host headers")
	case len(hosts) == 0 && r.ProtoMinor == 1:
		return bad("no Host header")
	case len(hosts) == 1:
		if r.Host = hosts[0]; !httpguts.ValidHostHeader(r.Host) {
			return bad("bad Host %.40q", r.Host)
		}
		delete(h, "Host")
	}
	if r.URL.Host != "" {
		r.Host = r.URL.Host // RFC 9112 §3.2.2: it beats the header
	}
	if r.ContentLength, err = length(h, r.ProtoMinor == 0); err != nil {
		return err
	}
	if r.ContentLength == -2 {
		r.ContentLength = 0
	}
	t, err := announced(h)
	if err != nil {
		return err
	}
	if r.ContentLength < 0 {
		delete(h, "Transfer-Encoding")
		if r.TransferEncoding = chunked; t == nil {
			t = http.Header{}
		}
		r.Trailer = t
	}
	c := h["Connection"]
	r.Close = r.ProtoMinor == 0 && !has(c, "keep-alive")
	for _, line := range c { // whatever else stands there: to close too often does no harm
		r.Close = r.Close || strings.Contains(strings.ToLower(line), "close")
	}
	if e := h["Expect"]; len(e) > 0 && (len(e) > 1 || !strings.EqualFold(e[0], "100-continue")) {
		return &Error{http.StatusExpectationFailed, "only 100-continue can be expected"}
	}
	return nil
}

var chunked = []string{"chunked"} // shared: nobody writes to it

// ParseResponse reads the head of a response to a request by method, through its empty line, into the zero fields of r, as
// net/http's client has them. ContentLength is −1 where the body is in chunks or ends with the connection, which
// Close and no TransferEncoding say. Lines may end in LF alone (RFC 9112 §2.2), for the sake of programs written by hand.
func ParseResponse(head []byte, method string, r *http.Response) error {
	line, rest, err := cut(string(head), true)
	if err != nil {
		return err
	}
	proto, status, _ := strings.Cut(line, " ")
	code, _, more := strings.Cut(status, " ")
	switch proto {
	case "HTTP/1.1":
		r.ProtoMinor = 1
	case "HTTP/1.0":
	default:
		return bad("want HTTP/1.1 and a status, have %.40q", line)
	}
	if len(code) != 3 || code[0] < '1' || code[0] > '9' || code[1] < '0' || code[1] > '9' || code[2] < '0' || code[2] > '9' || !more && len(status) != 3 {
		return bad("want a status of three digits, have %.40q", line)
	}
	r.StatusCode = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	r.Status, r.Proto, r.ProtoMajor = status, proto, 1
	h := make(http.Header, 8)
	if err := fields(rest, h, true); err != nil {
		return err
	}
	r.Header = h
	n, err := length(h, r.ProtoMinor == 0)
	if err != nil {
		return err
	}
	t, err := announced(h)
	if err != nil {
		return err
	}
	if c := h["Connection"]; r.ProtoMinor == 0 {
		r.Close = !has(c, "keep-alive") || has(c, "close")
	} else if c != nil {
		r.Close = has(c, "close")
	}
	switch {
	case bodyless(method, r.StatusCode):
		if method == http.MethodHead {
			r.ContentLength = max(n, -1) // that of the body which a GET would get
		}
		delete(h, "Transfer-Encoding")
		r.Body = http.NoBody
	case n == -1:
		delete(h, "Transfer-Encoding")
		if r.TransferEncoding = chunked; t == nil {
			t = http.Header{}
		}
		r.ContentLength, r.Trailer = -1, t
	case n == -2:
		r.ContentLength, r.Close = -1, true
	default:
		if r.ContentLength = n; n == 0 {
			r.Body = http.NoBody
		}
	}
	return nil
}
