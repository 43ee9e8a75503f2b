package system

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Web is x-servent.web: where the web door is published, and under which certificates it and the ports of https speak TLS.
type Web struct {
	HTTP  string `json:"http,omitempty"`  // host:port; empty: on 127.0.0.1, port 18080 or the next that is free
	HTTPS string `json:"https,omitempty"` // host:port; empty: not by TLS
	// Redirect sends who comes without TLS to HTTPS.
	Redirect     bool   `json:"redirect,omitempty"`
	Certificates []Pair `json:"certificates,omitempty"`
	// Trust are the addresses of proxies in front, whose word of who the client is counts; what runs on this machine always is one.
	Trust []netip.Prefix `json:"trust,omitempty"`
	// Proxy says that these begin each connection with a header of the PROXY protocol.
	Proxy bool  `json:"proxy,omitempty"`
	ACME  *ACME `json:"acme,omitempty"` // nil: names without a pair have a certificate of the system's own authority
	Pos   Pos   `json:"pos"`
}

// Proxies are those whose connections begin with a header of the PROXY protocol.
func (w *Web) Proxies() []netip.Prefix {
	if w == nil || !w.Proxy {
		return nil
	}
	return w.Trust
}

// Pair is a certificate with its chain, and its key, in PEM.
type Pair struct {
	Chain  string `json:"chain"` // absolute file on the user's machine
	Key    string `json:"key"`
	Digest Digest `json:"digest,omitempty"` // of both; set by launch
	Pos    Pos    `json:"pos"`
}

// ACME is an authority that certifies names to who answers under them (RFC 8555).
type ACME struct {
	Directory string `json:"directory"`       // its URL
	Email     string `json:"email,omitempty"` // that it writes to
	Trust     string `json:"trust,omitempty"` // absolute file of the certificate that its own is signed by; empty: as the machine trusts
	Roots     string `json:"roots,omitempty"` // what the file says; set by launch
	Pos       Pos    `json:"pos"`
}

// Certified is a certificate that the doors of the system speak TLS with.
type Certified struct {
	Name   string        `json:"name"`  // of its place: own, file/1, acme/shop.example.org
	Hosts  []string      `json:"hosts"` // names and addresses that it is for
	From   string        `json:"from"`  // digest of the pair, directory, or the own authority's: another makes it anew
	Issuer string        `json:"issuer,omitempty"`
	Since  time.Time     `json:"since,omitzero"`
	Until  time.Time     `json:"until,omitzero"`   // when it ends
	Sealed []byte        `json:"sealed,omitempty"` // chain and key in PEM, for who has the secret; empty: there is none yet
	Failed string        `json:"failed,omitempty"` // why there is none, or no newer one
	Again  time.Time     `json:"again,omitzero"`   // when the next try is due
	Pause  time.Duration `json:"pause,omitempty"`  // that was before that
}

// Challenge is how an authority is shown that the system answers under a name (RFC 8555 §8.3, RFC 8737).
type Challenge struct {
	Host   string `json:"host"`
	Token  string `json:"token,omitempty"`  // of the path that it asks for by HTTP, and
	Answer string `json:"answer,omitempty"` // what is there
	Sealed []byte `json:"sealed,omitempty"` // or a certificate and key that it meets by TLS, sealed as in [Certified]
}

// Certifiable says that an authority outside can certify the route's host: it is no name of this machine or network alone
// (RFC 6761 §6, RFC 6762 §3, RFC 8375).
func (r Route) Certifiable() bool {
	if !strings.Contains(r.Host, ".") {
		return false
	}
	for _, own := range []string{".localhost", ".local", ".internal", ".test", ".invalid", ".home.arpa"} {
		if strings.HasSuffix(r.Host, own) {
			return false
		}
	}
	_, err := netip.ParseAddr(r.Host)
	return err != nil
}

// Hosts are the host names of all routes, sorted.
func (s *System) Hosts(which func(Route) bool) (hosts []string) {
	for i := range s.Services {
		for _, r := range s.Services[i].Routes {
			if r.Host != "" && which(r) && !slices.Contains(hosts, r.Host) {
				hosts = append(hosts, r.Host)
			}
		}
	}
	slices.Sort(hosts)
	return hosts
}

// TLS says that a published port is one that clients come to by TLS.
func (p Port) TLS() bool { return p.App == "https" || p.App == "wss" }

// Secure says that some way into the system is by TLS.
func (s *System) Secure() bool {
	if s.Web != nil && s.Web.HTTPS != "" {
		return true
	}
	for i := range s.Services {
		for _, p := range s.Services[i].Ports {
			if p.TLS() && s.Services[i].Switch.By == ByRequest {
				return true
			}
		}
	}
	return false
}
