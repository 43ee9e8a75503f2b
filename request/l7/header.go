package l7

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"servent/route"
)

// Headers between nodes. Nobody else's pass: they are taken from what users and programs send.
const (
	ours           = "Servent-"
	headerInstance = "Servent-Instance" // of a request: who is to serve it
	headerContinue = "Servent-Continue" // of a request: "Expect: 100-continue" is the sending node's, not the client's
	headerRefused  = "Servent-Refused"  // of an answer: why the instance never saw the request
	headerBroken   = "Servent-Broken"   // of an answer: why the instance's answer broke
	headerKey      = "Servent-Key"      // of a request: its key, escaped as in a query
	headerEpoch    = "Servent-Epoch"    // of a request: of the view by which the instance owns the key
	headerMoved    = "Servent-Moved"    // of an answer: who owns the key instead, in words
)

// hopByHop are the headers of one connection: RFC 9110 §7.6.1, and the older ones that it obsoletes.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// forwarded are the headers that say where a request came from.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// endToEnd removes what belongs to the connection that h came by, and headers of ours.
func endToEnd(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if slices.Contains(hopByHop, name) || strings.HasPrefix(name, ours) {
			delete(h, name)
		}
	}
}

// onward returns the headers of a request as the next hop gets them. On entry it says where the request
// came from; what was said before is believed from trusted proxies alone.
func onward(r *http.Request, entry bool, t *route.Table) http.Header {
	h := maps.Clone(r.Header) // its values are nobody's to change
	protocol := upgrade(r.Header)
	trailers := httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers")
	endToEnd(h)
	if trailers {
		h.Set("Te", "trailers")
	}
	if protocol != "" {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", protocol)
	}
	if entry {
		from(h, r, t)
	}
	return h
}

// from sets X-Forwarded-For, -Host, -Proto and Forwarded (RFC 7239).
func from(h http.Header, r *http.Request, t *route.Table) {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	if !t.Trusts(client) {
		for _, name := range forwarded {
			delete(h, name)
		}
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	node := client
	if addr, err := netip.ParseAddr(client); err != nil {
		node = "unknown"
	} else if addr.Is6() {
		node = `"[` + client + `]"`
	}
	values := [...]string{join(h["X-Forwarded-For"], client), join(h["Forwarded"], "for="+node+`;host="`+quoted(r.Host)+`";proto=`+proto), r.Host, proto}
	h["X-Forwarded-For"], h["Forwarded"] = values[0:1:1], values[1:2:2]
	if h.Get("X-Forwarded-Host") == "" {
		h["X-Forwarded-Host"] = values[2:3:3]
	}
	if h.Get("X-Forwarded-Proto") == "" {
		h["X-Forwarded-Proto"] = values[3:4:4]
	}
}

func join(have []string, more string) string {
	if len(have) == 0 {
		return more
	}
	return strings.Join(have, ", ") + ", " + more
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// quoted escapes the inside of a quoted string (RFC 9110 §5.6.4).
func quoted(s string) string {
	if strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return escapes.Replace(s)
}

// upgrade returns the protocol that a message switches to, or "".
func upgrade(h http.Header) string {
	if !httpguts.HeaderValuesContainsToken(h["Connection"], "Upgrade") {
		return ""
	}
	return h.Get("Upgrade")
}

// idempotent says that a request may be repeated: RFC 9110 §9.2.2. An upgrade starts a conversation
// and may be repeated until it is answered.
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// timing is the Server-Timing entry of an answer: who gave it (no instance: the node itself), why
// that one, over how many hops from node to node, and how long it took until it began.
func timing(in route.Instance, took, cold time.Duration, why string) string {
	hops := "1"
	if in.Local {
		hops = "0"
	}
	var room [200]byte
	b := append(room[:0], `node;desc="`...)
	b = append(b, quoted(string(in.Node))...)
	if in.ID != "" {
		b = append(b, `", instance;desc="`...)
		b = append(b, quoted(string(in.ID))...)
		b = append(b, `", why;desc="`...)
		b = append(b, why...)
	}
	b = append(b, `", hops;desc="`...)
	b = append(b, hops...)
	b = append(b, `", `...)
	if cold > 0 {
		b = append(b, "cold;dur="...)
		b = append(milliseconds(b, cold), ", "...)
	}
	b = append(b, "total;dur="...)
	return string(milliseconds(b, took))
}

// milliseconds appends d with one digit behind the point, rounded.
func milliseconds(b []byte, d time.Duration) []byte {
	tenths := int64(d+50*time.Microsecond) / int64(100*time.Microsecond)
	b = strconv.AppendInt(b, tenths/10, 10)
	return append(b, '.', byte('0'+tenths%10))
}

// refuse answers with an error of ours: what is wrong, and the next step if there is one.
func refuse(w http.ResponseWriter, status int, why, next string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	text := "servent: " + why + "\n"
	if next != "" {
		text += "next: " + next + "\n"
	}
	_, _ = w.Write([]byte(text)) // a client that left needs no answer
}
