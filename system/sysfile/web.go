package sysfile

import (
	"net/netip"

	"servent/system"
	"servent/system/notation"
)

// letsEncrypt is the directory of an acme without one (https://letsencrypt.org/docs/acme-protocol-updates).
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// web reads x-servent.web.
func web(v value) *system.Web {
	w := &system.Web{
		HTTP:     read(v.key("http"), notation.Listen),
		HTTPS:    read(v.key("https"), notation.Listen),
		Redirect: read(v.key("redirect"), notation.Truth),
		Proxy:    read(v.key("proxy"), notation.Truth),
		Pos:      v.f.keyPos(v.at),
	}
	for _, c := range v.key("certificates").items() {
		pos := v.f.pos(c.at)
		w.Certificates = append(w.Certificates, system.Pair{Chain: absolute(v.f.home, c.key("cert").text()), Key: absolute(v.f.home, c.key("key").text()), Pos: pos})
	}
	for _, t := range v.key("trust").items() {
		w.Trust = append(w.Trust, read(t, notation.Network))
	}
	if a := v.key("acme"); a.given() {
		w.ACME = &system.ACME{Directory: a.key("directory").text(), Email: a.key("email").text(), Pos: v.f.keyPos(a.at)}
		if w.ACME.Directory == "" {
			w.ACME.Directory = letsEncrypt
		}
		if t := a.key("trust"); t.given() {
			w.ACME.Trust = absolute(v.f.home, t.text())
		}
	}
	return w
}

// secured finds contradictions between the web door and the services.
func (f *file) secured(s *system.System) {
	w := s.Web
	if w == nil {
		return
	}
	at := path{"x-servent", "web"}
	bad := func(key, format string, args ...any) {
		f.found.problem(f.pos(at.key(key)), at.key(key), format, args...)
	}
	if w.Redirect && w.HTTPS == "" {
		bad("redirect", "there is no https to send anybody to")
	}
	if w.Proxy && len(w.Trust) == 0 {
		bad("proxy", "say whose headers count: trust names the proxies")
	}
	if w.HTTP != "" && w.HTTPS != "" && port(w.HTTP).Clashes(port(w.HTTPS)) {
		bad("https", "http is at %s already", w.HTTP)
	}
	for _, one := range s.Services {
		for _, p := range one.Ports {
			if w.HTTP != "" && port(w.HTTP).Clashes(p) {
				bad("http", "port %d is already published by service %s at %s", p.Published, one.Name, p.Pos)
			}
			if w.HTTPS != "" && port(w.HTTPS).Clashes(p) {
				bad("https", "port %d is already published by service %s at %s", p.Published, one.Name, p.Pos)
			}
		}
	}
	if w.ACME != nil && len(s.Hosts(system.Route.Certifiable)) == 0 {
		bad("acme", "it certifies host names, and no route has one; write route: shop.example.org/*")
	}
	if !s.Secure() {
		for _, key := range []string{"certificates", "acme"} {
			if f.exact(at.key(key)) {
				f.found.note(f.pos(at.key(key)), at.key(key), "not used: nothing is published by TLS; write https: 0.0.0.0:443")
			}
		}
	}
}

// port is an address of the web door as a published port.
func port(addr string) system.Port {
	at, _ := netip.ParseAddrPort(addr) // notation.Listen made it
	host := at.Addr().String()
	if host == "127.0.0.1" {
		host = ""
	}
	return system.Port{Host: host, Published: int(at.Port()), Protocol: "tcp"}
}
