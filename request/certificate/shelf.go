package certificate

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/acme"

	"servent/identity"
	"servent/system"
)

// challengePath is below what an authority asks by HTTP (RFC 8555 §8.3).
const challengePath = "/.well-known/acme-challenge/"

// Shelf is what one node speaks TLS with. Its zero value is not used; start at [NewShelf].
type Shelf struct {
	box box
	log *slog.Logger
	now atomic.Pointer[shelf]

	mu    sync.Mutex // of Set
	known map[string]opened
}

// opened is a certificate as it was last read.
type opened struct {
	sealed string
	cert   *tls.Certificate
}

// shelf is never changed.
type shelf struct {
	certs  []*tls.Certificate // those of files first, then those by ACME, then the system's own
	alpn   map[string]*tls.Certificate
	tokens map[string]string
}

// NewShelf makes an empty one; the secret is that of the [Issuer].
func NewShelf(secret identity.Secret, log *slog.Logger) (*Shelf, error) {
	b, err := newBox(secret)
	s := &Shelf{box: b, log: log, known: map[string]opened{}}
	s.now.Store(&shelf{})
	return s, err
}

// ranks orders places: what the user gave wins.
var ranks = []string{placeFile, placeACME, placeOwn}

// Set makes the shelf what control says. What cannot be opened is left out, and said once.
func (s *Shelf) Set(certs []system.Certified, challenges []system.Challenge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &shelf{alpn: map[string]*tls.Certificate{}, tokens: map[string]string{}}
	known := map[string]opened{}
	take := func(place string, sealed []byte) *tls.Certificate {
		o := s.known[place]
		if len(sealed) == 0 {
			return nil
		}
		if o.sealed != string(sealed) {
			o.sealed = string(sealed)
			text, err := s.box.open(place, sealed)
			if err == nil {
				o.cert, err = Parse(text)
			}
			if err != nil {
				o.cert = nil
				s.log.Error("certificate cannot be read", "certificate", place, "err", err)
			}
		}
		known[place] = o
		return o.cert
	}
	for _, rank := range ranks {
		for _, c := range certs {
			if kind, _, _ := strings.Cut(c.Name, "/"); kind == rank {
				if cert := take(c.Name, c.Sealed); cert != nil {
					next.certs = append(next.certs, cert)
				}
			}
		}
	}
	for _, c := range challenges {
		if c.Token != "" {
			next.tokens[c.Token] = c.Answer
		} else if cert := take(challengePlace(c.Host), c.Sealed); cert != nil {
			next.alpn[c.Host] = cert
		}
	}
	s.known = known
	s.now.Store(next)
}

// Config is how a door speaks TLS: version 1.2 or later, HTTP/2 or HTTP/1.1.
func (s *Shelf) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1", acme.ALPNProto}, GetCertificate: s.pick}
}

// pick is the certificate for the name that a client asks for: the first that is for it, else the system's own.
func (s *Shelf) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now, name := s.now.Load(), strings.ToLower(hello.ServerName)
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) { // RFC 8737 §3
		if c := now.alpn[name]; c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("no challenge for %q", name)
	}
	if len(now.certs) == 0 {
		return nil, fmt.Errorf("no certificate yet")
	}
	if name == "" {
		name, _, _ = net.SplitHostPort(hello.Conn.LocalAddr().String())
	}
	for _, c := range now.certs {
		if c.Leaf.VerifyHostname(name) == nil && hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return now.certs[len(now.certs)-1], nil
}

// Front stands before the web door: it answers authorities, and sends who comes without TLS to port if redirect says so, unless a proxy that is
// trusted says that its client came by TLS.
func (s *Shelf) Front(h http.Handler, redirect func() (port string, ok bool), trusts func(peer string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			h.ServeHTTP(w, r)
			return
		}
		if token, ok := strings.CutPrefix(r.URL.Path, challengePath); ok {
			if answer, ok := s.now.Load().tokens[token]; ok {
				w.Header().Set("Content-Type", "application/octet-stream")
				_, _ = w.Write([]byte(answer)) // an authority that left asks again
				return
			}
		}
		if port, ok := redirect(); ok && !behindTLS(r, trusts) {
			host := r.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			host = strings.Trim(host, "[]")
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			if port != "443" {
				host += ":" + port
			}
			http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// behindTLS says that a trusted proxy says that its client came by TLS.
func behindTLS(r *http.Request, trusts func(string) bool) bool {
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	return trusts(client) && r.Header.Get("X-Forwarded-Proto") == "https"
}
