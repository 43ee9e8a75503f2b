package route

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// compareWeb orders routes from the most to the least specific: a named host, then *.wildcard (the
// longer first), then none; in one host an exact path, then the longer prefix; then the service's name.
func compareWeb(a, b Web) int {
	return cmp.Or(
		cmp.Compare(hostRank(a.Host), hostRank(b.Host)),
		cmp.Compare(len(b.Host), len(a.Host)),
		cmp.Compare(a.Host, b.Host),
		comparePath(a, b),
		cmp.Compare(a.Service, b.Service),
	)
}

func comparePath(a, b Web) int {
	if a.Prefix != b.Prefix {
		if b.Prefix {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.Path, b.Path))
}

func hostRank(host string) int {
	switch {
	case host == "":
		return 2
	case strings.HasPrefix(host, "*."):
		return 1
	}
	return 0
}

// Match returns the route of the web door for a request's host, with or without port, and its path,
// unescaped. Dot segments are resolved first, so that no request leaves the path that a route opens. A
// loopback host that no route names exactly matches the routes of every host.
func (t *Table) Match(host, urlPath string) (Web, bool) {
	host = bareHost(host)
	urlPath = clean(urlPath)
	loopback := Loopback(host)
	best, any := -1, -1
	for i, w := range t.Web {
		if !w.matchPath(urlPath) {
			continue
		}
		if loopback && (any < 0 || cmp.Or(comparePath(w, t.Web[any]), cmp.Compare(w.Service, t.Web[any].Service)) < 0) {
			any = i
		}
		if best < 0 && w.matchHost(host) {
			best = i
		}
	}
	if loopback && (best < 0 || hostRank(t.Web[best].Host) != 0) {
		best = any
	}
	if best < 0 {
		return Web{}, false
	}
	return t.Web[best], true
}

func (w Web) matchHost(host string) bool {
	if below, wild := strings.CutPrefix(w.Host, "*"); wild {
		return strings.HasSuffix(host, below) && len(host) > len(below)
	}
	return w.Host == "" || w.Host == host
}

// matchPath: /api/* takes /api as well, as prefixes of the Kubernetes Ingress do.
func (w Web) matchPath(p string) bool {
	if !w.Prefix {
		return p == w.Path
	}
	return strings.HasPrefix(p, w.Path) || strings.HasSuffix(w.Path, "/") && p == w.Path[:len(w.Path)-1]
}

// String is the route as it stands in a file: shop.example.org/api/*
func (w Web) String() string {
	if w.Prefix {
		return w.Host + w.Path + "*"
	}
	return w.Host + w.Path
}

// Trusts says whether what a connection's peer says of who the client is counts. A peer without an address has one that we do not know.
func (t *Table) Trusts(peer string) bool {
	if Loopback(peer) {
		return true
	}
	addr, err := netip.ParseAddr(peer)
	return err == nil && slices.ContainsFunc(t.Trust, func(p netip.Prefix) bool { return p.Contains(addr.Unmap().WithZone("")) })
}

// Client is who a request is from: the nearest one that is no trusted proxy, of the peer and of those that forwarded, which is what all lines of X-Forwarded-For say, names beside it,
// the nearest last. If all are trusted it is the farthest.
func (t *Table) Client(peer string, forwarded []string) string {
	if len(forwarded) == 0 || !t.Trusts(peer) {
		return peer
	}
	var hops []string
	for _, line := range forwarded {
		for hop := range strings.SplitSeq(line, ",") {
			hops = append(hops, strings.TrimSpace(hop))
		}
	}
	for ; len(hops) > 0 && t.Trusts(peer); hops = hops[:len(hops)-1] {
		next := hops[len(hops)-1]
		if at, err := netip.ParseAddrPort(next); err == nil { // some say the port, too
			next = at.Addr().String()
		}
		if _, err := netip.ParseAddr(strings.Trim(next, "[]")); err != nil {
			break // no address
		}
		peer = strings.Trim(next, "[]")
	}
	return peer
}

// Loopback says whether a host without port is a loopback name or address (RFC 6761 §6.3).
func Loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// bareHost takes port, brackets and a final dot from a Host header.
func bareHost(host string) string {
	if strings.HasPrefix(host, "[") { // [::1]:8080
		host, _, _ = strings.Cut(host[1:], "]")
	} else if name, port, ok := strings.Cut(host, ":"); ok && !strings.Contains(port, ":") {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func clean(p string) string {
	if p == "" {
		return "/"
	}
	if !strings.Contains(p, "/.") {
		return p
	}
	cleaned := path.Clean("/" + p)
	if cleaned != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		cleaned += "/"
	}
	return cleaned
}
