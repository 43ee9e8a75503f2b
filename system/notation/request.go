package notation

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"servent/system"
)

var hostForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Route reads host/path or /path; a * at the end means all below. The host comes out in lower case.
func Route(s string) (system.Route, error) {
	const want = "a route like shop.example.org/api/* or /api/*"
	host, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://"), "/")
	host = strings.ToLower(host)
	why := ""
	switch {
	case strings.Contains(s, "://"):
		return system.Route{}, wrong("a route without scheme like "+host+"/"+rest, s)
	case !ok:
		why = "a path is missing, " + cmp.Or(host, "HOST") + "/* is all of a host"
	case host != "" && !hostForm.MatchString(host):
		why = fmt.Sprintf("%q is no host name", host)
	case strings.ContainsAny(rest, " ?#{}\t\r\n"):
		why = "a path has no spaces, ?, # or braces"
	case strings.Contains(strings.TrimSuffix(rest, "*"), "*"), strings.HasSuffix(rest, "*") && rest != "*" && !strings.HasSuffix(rest, "/*"):
		why = "* stands only at the end, after a /"
	default:
		return system.Route{Host: host, Path: "/" + rest}, nil
	}
	return system.Route{}, because(want, s, why)
}

// Path reads the path of a request, with its query if any: /healthz.
func Path(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, " \t\r\n#") {
		return "", wrong("a path like /healthz", s)
	}
	return s, nil
}

// Origin reads the address of an HTTP server: http://127.0.0.1:9000, with a path below which it lies if any.
func Origin(s string) (string, error) {
	const want = "the address of an HTTP server like http://127.0.0.1:9000"
	u, err := url.Parse(s)
	switch {
	case !strings.Contains(s, "://"):
		return "", because(want, s, "http:// or https:// is missing")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", wrong(want, s)
	}
	return s, nil
}

// Source is the key of a service that is switched by connection: the client's address.
const Source = "source"

var (
	keyName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110 §5.6.2, token
	jsonKey = regexp.MustCompile(`^[^.\s]+(\.[^.\s]+)*$`)
)

// Key reads where a request's key stands: in its path, a header, the query, a cookie, a JSON body, or
// [Source].
func Key(s string) (string, error) {
	const want = "a key like /carts/{key}/*, header:X-User, query:id, cookie:sid, json:user.id or source"
	if strings.HasPrefix(s, "/") {
		if err := keyPath(s); err != nil {
			return "", because(want, s, err.Error())
		}
		return s, nil
	}
	kind, of, _ := strings.Cut(s, ":")
	ok := s == Source
	switch kind {
	case "header", "cookie":
		ok = keyName.MatchString(of)
	case "query":
		ok = of != "" && !strings.ContainsAny(of, "&=# \t")
	case "json":
		ok = jsonKey.MatchString(of)
	}
	if !ok {
		return "", wrong(want, s)
	}
	return s, nil
}

// keyPath checks a path with {key} as one whole segment and * at most at the end.
func keyPath(s string) error {
	keys := 0
	segments := strings.Split(s[1:], "/")
	for i, seg := range segments {
		switch {
		case seg == "{key}":
			keys++
		case seg == "*" && i == len(segments)-1:
		case strings.ContainsAny(seg, "{}"):
			return errors.New("the key is written {key}, alone between slashes")
		case strings.Contains(seg, "*"):
			return errors.New("* stands only at the end, after a /")
		case strings.ContainsAny(seg, " ?#\t\r\n"):
			return errors.New("a path has no spaces, ? or #")
		}
	}
	if keys != 1 {
		return errors.New("{key} must stand in it once")
	}
	return nil
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// Request reads METHOD /path. A {key} in it is a place for a key.
func Request(s string) (string, error) {
	method, at, ok := strings.Cut(s, " ")
	if !ok || !slices.Contains(methods, method) || !strings.HasPrefix(at, "/") || strings.ContainsAny(at, " *\t\r\n#") ||
		strings.ContainsAny(strings.ReplaceAll(at, "{key}", ""), "{}") {
		return "", wrong("a request like GET /carts/{key}", s)
	}
	return s, nil
}

// KeyRequest reads a request about one key, which stands in it once.
func KeyRequest(s string) (string, error) {
	if _, err := Request(s); err != nil || strings.Count(s, "{key}") != 1 {
		return "", wrong("a request like GET /_export/{key}", s)
	}
	return s, nil
}
