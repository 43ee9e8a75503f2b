package l7

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
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
	for _, name := range hopByHop {
		delete(h, name)
	}
	for name := range h {
		if strings.HasPrefix(name, ours) {
			delete(h, name)
		}
	}
}

// onward returns the headers of a request as the next hop gets them. On entry it says where the request
// came from; what was said before is believed from this machine alone, where another proxy may stand.
func onward(r *http.Request, entry bool) http.Header {
	h := r.Header.Clone()
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
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // else http.Transport names itself
	}
	if entry {
		from(h, r)
	}
	return h
}

// from sets X-Forwarded-For, -Host, -Proto and Forwarded (RFC 7239).
func from(h http.Header, r *http.Request) {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	if !route.Loopback(client) {
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
	h.Set("X-Forwarded-For", join(h["X-Forwarded-For"], client))
	h.Set("Forwarded", join(h["Forwarded"], fmt.Sprintf(`for=%s;host="%s";proto=%s`, node, quoted(r.Host), proto)))
	if h.Get("X-Forwarded-Host") == "" {
		h.Set("X-Forwarded-Host", r.Host)
	}
	if h.Get("X-Forwarded-Proto") == "" {
		h.Set("X-Forwarded-Proto", proto)
	}
}

func join(have []string, more string) string {
	if len(have) == 0 {
		return more
	}
	return strings.Join(have, ", ") + ", " + more
}

// quoted escapes the inside of a quoted string (RFC 9110 §5.6.4).
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
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
	hops, instance, wait := 1, "", ""
	if in.Local {
		hops = 0
	}
	if in.ID != "" {
		instance = fmt.Sprintf(`, instance;desc="%s", why;desc="%s"`, quoted(string(in.ID)), why)
	}
	if cold > 0 {
		wait = fmt.Sprintf("cold;dur=%.1f, ", float64(cold)/float64(time.Millisecond))
	}
	return fmt.Sprintf(`node;desc="%s"%s, hops;desc="%d", %stotal;dur=%.1f`,
		quoted(string(in.Node)), instance, hops, wait, float64(took)/float64(time.Millisecond))
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
