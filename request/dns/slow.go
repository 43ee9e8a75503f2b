package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// slow answers any query, by the library: the wire path's own ones, too, which is how tests compare them. It returns
// 0 for what is not to be answered at all: too short for a header, or itself an answer, which could go round for ever.
func (a *ask) slow(q, out []byte, tcp bool) int {
	*a = ask{zone: a.zone, from: a.from, now: a.now, rnd: a.rnd, room: a.room} // the wire path may have begun
	if !tcp {
		a.room = least
	} else {
		a.room = most
	}
	if len(q) < head || q[2]&0x80 != 0 {
		return 0
	}
	a.kind, a.about = malformed, 3
	m, r := new(dns.Msg), new(dns.Msg)
	if err := m.Unpack(q); err != nil {
		return bare(q, out, dns.RcodeFormatError)
	}
	if m.Opcode != dns.OpcodeQuery {
		return bare(q, out, dns.RcodeNotImplemented)
	}
	if len(m.Question) != 1 || binary.BigEndian.Uint16(q[4:]) != 1 || len(m.Answer)+len(m.Ns) > 0 {
		return bare(q, out, dns.RcodeFormatError)
	}
	r.SetReply(m)
	r.Compress = true
	r.RecursionAvailable, r.AuthenticatedData, r.Authoritative = false, false, false
	opt, code := a.readOPT(m, tcp)
	if code == dns.RcodeSuccess {
		code = a.answer(r)
	}
	r.Rcode = code
	if code != dns.RcodeSuccess && code != dns.RcodeNameError {
		r.Answer, r.Ns, r.Extra = nil, nil, nil
	}
	n, err := a.packed(r, opt, out)
	if err != nil || n > a.room {
		a.cut = true
		r.Truncated = true
		r.Answer, r.Ns, r.Extra = nil, nil, nil
		if n, err = a.packed(r, opt, out); err != nil {
			return bare(q, out, dns.RcodeServerFailure)
		}
	}
	return n
}

// packed writes a message and the OPT record that goes with it.
func (a *ask) packed(r *dns.Msg, opt *dns.OPT, out []byte) (int, error) {
	extra := r.Extra
	if a.edns {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		o.SetUDPSize(Payload)
		if opt.Do() {
			o.SetDo()
		}
		for _, e := range opt.Option {
			if s, ok := e.(*dns.EDNS0_SUBNET); ok && a.subnet.given {
				s.SourceScope = a.subnet.scope
				o.Option = append(o.Option, s)
			}
		}
		r.Extra = append(slices.Clip(extra), o)
	}
	b, err := r.Pack()
	r.Extra = extra
	if err != nil || len(b) > len(out) {
		return len(b), err
	}
	return copy(out, b), nil
}

// bare is an answer of a header alone.
func bare(q, out []byte, code int) int {
	copy(out, q[:2])
	clear(out[2:head])
	out[2] = 0x80 | q[2]&0x79 // an answer, opcode and RD as they were
	out[3] = byte(code)
	return head
}

// readOPT reads EDNS; the code is that of what is wrong with it.
func (a *ask) readOPT(m *dns.Msg, tcp bool) (*dns.OPT, int) {
	var opt *dns.OPT
	for _, rr := range m.Extra {
		o, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if opt != nil || o.Hdr.Name != "." { // RFC 6891 §6.1.1
			return nil, dns.RcodeFormatError
		}
		opt = o
	}
	if opt == nil {
		return nil, dns.RcodeSuccess
	}
	a.edns = true
	if !tcp {
		a.room = min(max(int(opt.UDPSize()), least), Payload)
	}
	if opt.Version() != 0 {
		return opt, dns.RcodeBadVers
	}
	for _, e := range opt.Option {
		s, ok := e.(*dns.EDNS0_SUBNET)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(s.Address)
		addr = addr.Unmap()
		if s.Family == 2 {
			addr, ok = netip.AddrFromSlice(s.Address.To16())
		}
		net, err := addr.Prefix(int(s.SourceNetmask))
		if a.subnet.given || s.SourceScope != 0 || !ok || err != nil || net.Addr() != addr {
			return opt, dns.RcodeFormatError
		}
		a.subnet = subnet{given: true, family: s.Family, source: s.SourceNetmask, raw: make([]byte, (int(s.SourceNetmask)+7)/8)}
		if s.Family != 0 {
			a.subnet.addr = addr
		}
	}
	return opt, dns.RcodeSuccess
}

// answer fills a reply's sections.
func (a *ask) answer(r *dns.Msg) int {
	q := r.Question[0]
	if a.zone == nil {
		a.kind = refused
		return dns.RcodeServerFailure
	}
	name := strings.ToLower(q.Name)
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(name, wire, 0, nil, false)
	if err != nil {
		return dns.RcodeFormatError
	}
	wire = wire[:n]
	origin, _, _ := dns.UnpackDomainName(a.zone.origin, 0)
	switch {
	case q.Qclass != dns.ClassINET, !dns.IsSubDomain(origin, name), q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR:
		a.kind, a.about = refused, 1
		return dns.RcodeRefused
	case q.Qtype == 0 || q.Qtype == dns.TypeOPT || q.Qtype >= 248 && q.Qtype < 255:
		return dns.RcodeNotImplemented // of messages, not of names
	}
	r.Authoritative = true
	e, there := a.zone.names[string(wire)]
	a.about = hash(wire)
	fill := reply{ask: a, want: q.Qtype, n: head + n + 4}
	switch {
	case there && q.Qtype == dns.TypeANY: // RFC 8482 §4.2: less than asked, no more than a word
		r.Answer = append(r.Answer, &dns.HINFO{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: uint32(steady.Seconds())}, Cpu: "RFC8482"})
	case there && e.service != nil:
		fill.ofService(r, e.service)
	case there:
		for _, rec := range e.fixed {
			if rec.kind() == q.Qtype {
				r.Answer = append(r.Answer, rr(q.Name, rec))
			}
		}
	}
	if a.kind = answered; len(r.Answer) == 0 {
		a.kind = noData
		r.Ns = append(r.Ns, rr(origin, a.zone.soa))
	}
	if !there {
		a.kind, a.about = nxDomain, 2
		return dns.RcodeNameError
	}
	return dns.RcodeSuccess
}

// ofService is [reply.choose] in the library's words.
func (r *reply) ofService(m *dns.Msg, s *service) {
	name := m.Question[0].Name
	addressed := r.want == typeA || r.want == typeAAAA || r.want == typeHTTPS
	switch {
	case r.want == typeTXT && !s.tcp:
		m.Answer = append(m.Answer, rr(name, s.text))
		return
	case r.want != typeSRV && (s.tcp || !addressed):
		return
	}
	first, site, ok := r.pick(s)
	if !ok {
		return
	}
	chosen := s.at[first]
	switch {
	case r.want == typeHTTPS && chosen.https != nil:
		m.Answer = append(m.Answer, rr(name, chosen.https))
	case r.want == chosen.kind:
		m.Answer = append(m.Answer, rr(name, chosen.address))
	}
	if r.want != typeSRV {
		return
	}
	size, hosts := r.n, map[string]record{}
	var order []string
	for i, at := range slices.Concat(s.at[first:], s.at[:first]) {
		if i == mostSRV {
			break
		}
		srv := rr(name, at.srv).(*dns.SRV)
		if i > 0 && s.keyed || s.nearest && chosen.site == site && at.site != site {
			srv.Priority = others
		}
		m.Answer = append(m.Answer, srv)
		size += 2 + len(at.srv)
		if hosts[srv.Target] == nil {
			hosts[srv.Target] = at.address
			order = append(order, srv.Target)
		}
	}
	for _, host := range order {
		if more := len(host) + 1 + len(hosts[host]); size+more+r.opt() <= r.room {
			m.Extra = append(m.Extra, rr(host, hosts[host]))
			size += more
		}
	}
}

// rr is a record of ours in the library's form.
func rr(owner string, rec record) dns.RR {
	b := make([]byte, 256+len(rec))
	n, _ := dns.PackDomainName(owner, b, 0, nil, false) // it came from a message, or is ours
	n += copy(b[n:], rec)
	out, _, err := dns.UnpackRR(b[:n], 0)
	if err != nil {
		panic("dns: a record of a zone's cannot be read: " + err.Error()) // we made it
	}
	return out
}
