package h1

import (
	"net/http"
	"slices"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// trailing says that a field may stand in trailers: RFC 9110 §6.5.1 forbids framing, routing and the like.
func trailing(name string) bool { return httpguts.ValidTrailerHeader(name) && name != "Host" }

// names are sorted in one piece of memory, for most heads.
type names [24]string

// AppendFields appends the fields of h in the order of their names, but those that skip says. Names and values that
// would break the head are left out or blanked, as net/http does.
func AppendFields(dst []byte, h http.Header, skip func(name string) bool) []byte {
	var few names
	order := few[:0]
	for name := range h {
		if skip == nil || !skip(name) {
			order = append(order, name)
		}
	}
	slices.Sort(order)
	for _, name := range order {
		if !token(name) {
			continue
		}
		for _, value := range h[name] {
			dst = append(dst, name...)
			dst = append(dst, ": "...)
			dst = appendValue(dst, value)
			dst = append(dst, "\r\n"...)
		}
	}
	return dst
}

// AppendField appends one field.
func AppendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = appendValue(dst, value)
	return append(dst, "\r\n"...)
}

func appendValue(dst []byte, value string) []byte {
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	at := len(dst)
	dst = append(dst, value...)
	for i := at; i < len(dst); i++ {
		if dst[i] == '\r' || dst[i] == '\n' || dst[i] == 0 {
			dst[i] = ' '
		}
	}
	return dst
}

// AppendRequestLine appends METHOD TARGET HTTP/1.1 and the Host.
func AppendRequestLine(dst []byte, method, target, host string) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	return AppendField(dst, "Host", host)
}

// AppendStatusLine appends HTTP/1.x STATUS REASON, where x is minor: a client of HTTP/1.0 is answered so, as net/http does.
func AppendStatusLine(dst []byte, minor, status int) []byte {
	if minor == 0 {
		dst = append(dst, "HTTP/1.0 "...)
	} else {
		dst = append(dst, "HTTP/1.1 "...)
	}
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	if text := http.StatusText(status); text != "" {
		dst = append(dst, text...)
	} else {
		dst = append(dst, "status code "...)
		dst = strconv.AppendInt(dst, int64(status), 10)
	}
	return append(dst, "\r\n"...)
}
