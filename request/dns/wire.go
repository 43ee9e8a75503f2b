package dns

import (
	"encoding/binary"
	"net/netip"
	"time"

	"servent/route"
	"servent/system"
)

// Codes of answers (RFC 1035 §4.1.1, RFC 6891 §9).
const (
	noError  = 0
	formErr  = 1
	nameErr  = 3
	refuse   = 5
	head     = 12 // bytes of a header
	optBytes = 11 // of an OPT record without options
)

// ask is one query under way.
type ask struct {
	zone *Zone
	from netip.Addr // who sent it: a client, or its resolver
	now  time.Time
	rnd  uint64

	room  int // bytes that the client takes
	kind  kind
	cut   bool
	about uint64 // hash of the name that the answer is about; see token

	edns   bool
	flags  uint16 // of the OPT record: DO
	subnet subnet
}

// subnet is EDNS client subnet (RFC 7871): the network of the client behind a resolver.
type subnet struct {
	given  bool
	family uint16
	source uint8
	scope  uint8 // of the answer
	addr   netip.Addr
	raw    []byte // the address, as it came
}

// parseSubnet reads the option's data; RFC 7871 §6: the address has as many bytes as the prefix needs, zeros beyond it, and
// the scope of a query is 0.
func parseSubnet(b []byte) (s subnet, ok bool) {
	if len(b) < 4 || b[3] != 0 {
		return s, false
	}
	s = subnet{given: true, family: binary.BigEndian.Uint16(b), source: b[2], raw: b[4:]}
	bits := int(s.source)
	if len(s.raw) != (bits+7)/8 {
		return s, false
	}
	if bits%8 != 0 && s.raw[len(s.raw)-1]<<(bits%8) != 0 {
		return s, false
	}
	switch {
	case s.family == 0:
		return s, bits == 0 // nobody's network, as dig +subnet=0 says it
	case s.family == 1 && bits <= 32:
		var a [4]byte
		copy(a[:], s.raw)
		s.addr = netip.AddrFrom4(a)
	case s.family == 2 && bits <= 128:
		var a [16]byte
		copy(a[:], s.raw)
		s.addr = netip.AddrFrom16(a)
	default:
		return s, false
	}
	return s, true
}

// client is the network that a choice goes by: what the resolver says of its client, else the resolver's own. A /0
// asks that nothing be concluded (RFC 7871 §7.1.2); then it is the resolver's, too. told says that it was the client's.
func (a *ask) client() (net netip.Prefix, told bool) {
	if a.subnet.given && a.subnet.source > 0 {
		bits := min(int(a.subnet.source), 48)
		if a.subnet.addr.Is4() {
			bits = min(bits, 24)
		}
		net, err := a.subnet.addr.Prefix(bits)
		return net, err == nil
	}
	net, _ = network(a.from)
	return net, false
}

// wire answers what clients usually ask: one question of class IN, with EDNS or without. ok is false for all else, and nothing
// of out counts then. It allocates only where the client's network decides.
func (a *ask) wire(q, out []byte, tcp bool) (n int, ok bool) {
	if len(q) < head+5 || q[2]&0xf8 != 0 || binary.BigEndian.Uint16(q[4:]) != 1 ||
		binary.BigEndian.Uint32(q[6:]) != 0 || q[10] != 0 || q[11] > 1 || a.zone == nil {
		return 0, false
	}
	var name [255]byte
	size := 0
	for at := head; ; {
		length := int(q[at])
		if length > 63 || size+1+length > 254 && length > 0 || at+1+length >= len(q) {
			return 0, false
		}
		name[size] = byte(length)
		size++
		if length == 0 {
			break
		}
		for _, c := range q[at+1 : at+1+length] {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			name[size] = c
			size++
		}
		at += 1 + length
	}
	end := head + size + 4
	if end > len(q) || binary.BigEndian.Uint16(q[end-2:]) != classIN {
		return 0, false
	}
	want := binary.BigEndian.Uint16(q[end-4:])
	if want == 0 || want == typeOPT || want >= 248 && want <= 255 {
		return 0, false
	}
	if !a.options(q[end:], int(q[11]), tcp) {
		return 0, false
	}
	copy(out, q[:end])
	out[2] = 0x80 | q[2]&0x01 // an answer; RD as it was
	out[3] = q[3] & 0x10      // CD as it was
	clear(out[6:head])
	r := reply{ask: a, out: out, n: end, name: name[:size], want: want}
	r.fill()
	return r.finish(end), true
}

// options reads the additional section of a query: nothing, or an OPT record of version 0.
func (a *ask) options(b []byte, records int, tcp bool) bool {
	if records == 0 {
		return len(b) == 0
	}
	if len(b) < optBytes || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != typeOPT || b[5] != 0 || b[6] != 0 {
		return false
	}
	if !tcp {
		a.room = min(max(int(binary.BigEndian.Uint16(b[3:])), least), Payload)
	}
	a.edns, a.flags = true, binary.BigEndian.Uint16(b[7:])&0x8000
	data := b[optBytes:]
	if int(binary.BigEndian.Uint16(b[9:])) != len(data) {
		return false
	}
	for len(data) > 0 {
		if len(data) < 4 {
			return false
		}
		code, length := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		if len(data) < 4+length {
			return false
		}
		if code == 8 {
			var ok bool
			if a.subnet.given {
				return false // twice
			}
			if a.subnet, ok = parseSubnet(data[4 : 4+length]); !ok {
				return false
			}
		}
		data = data[4+length:]
	}
	return true
}

// reply is an answer that is being written.
type reply struct {
	*ask
	out  []byte
	n    int
	name []byte // of the question, lower case, in the wire's form
	want uint16

	answers, authority, extra uint16
}

func (r *reply) put(owner int, rec []byte) {
	r.out[r.n], r.out[r.n+1] = 0xc0|byte(owner>>8), byte(owner)
	r.n += 2 + copy(r.out[r.n+2:], rec)
}

// fill chooses the records.
func (r *reply) fill() {
	z := r.zone
	under := len(r.name) - len(z.origin)
	if under < 0 || string(r.name[under:]) != string(z.origin) || !aligned(r.name, under) {
		r.kind = refused
		r.out[3] |= refuse
		r.about = 1
		return
	}
	r.out[2] |= 0x04 // we are the authority
	e := z.names[string(r.name)]
	switch {
	case e == nil:
		r.kind = nxDomain
		r.out[3] |= nameErr
		r.about = 2 // all names that there are not count as one: they are made up
	case e.service != nil:
		r.about = hash(r.name)
		r.choose(e.service)
	default:
		r.about = hash(r.name)
		for _, rec := range e.fixed {
			if rec.kind() == r.want {
				r.put(head, rec)
				r.answers++
			}
		}
	}
	if r.answers > 0 {
		r.kind = answered
		return
	}
	if r.kind != nxDomain {
		r.kind = noData
	}
	r.put(head+under, z.soa)
	r.authority = 1
}

// aligned says that a label begins at a byte of a name.
func aligned(name []byte, at int) bool {
	i := 0
	for i < at {
		i += 1 + int(name[i])
	}
	return i == at
}

// choose answers for a service: one address, for who gets several sorts them by RFC 6724 §6, rule 9, and always takes the
// same; for SRV all of them with their weights, of which the client chooses (RFC 2782).
func (r *reply) choose(s *service) {
	switch {
	case s.tcp && r.want != typeSRV:
		return
	case r.want == typeTXT:
		r.put(head, s.text)
		r.answers++
		return
	case r.want != typeA && r.want != typeAAAA && r.want != typeSRV && r.want != typeHTTPS:
		return
	}
	first, site, ok := r.pick(s)
	if !ok {
		return
	}
	switch at := &s.at[first]; r.want {
	case typeHTTPS:
		if at.https != nil {
			r.put(head, at.https)
			r.answers++
		}
	case typeSRV:
		r.services(s, first, site)
	case at.kind:
		r.put(head, at.address)
		r.answers++
	}
}

// pick chooses a place by the service's policy.
func (r *reply) pick(s *service) (index int, site system.Site, ok bool) {
	net, told := r.client()
	site, known := r.zone.nets[net]
	switch {
	case known:
	case told && r.subnet.addr.IsValid(): // a network of which nothing is known: it is nobody's neighbour
	default:
		site = r.zone.site
	}
	c := s.among[site]
	if c == nil {
		if c = s.among[""]; c == nil {
			return 0, site, false // there is none
		}
	}
	if told && (s.keyed || s.nearest) {
		r.subnet.scope = uint8(net.Bits()) // the answer is for this network alone (RFC 7871 §7.2.1)
	}
	switch {
	case s.keyed:
		return s.index[s.hashed(c.all, net, r.now, r.rnd)], site, true
	case s.random:
		return int(c.turns[r.rnd%uint64(len(c.turns))]), site, true
	}
	return int(c.turns[s.turn.Add(1)%uint32(len(c.turns))]), site, true
}

// hashed is the instance of a network.
func (s *service) hashed(among []route.Instance, net netip.Prefix, now time.Time, rnd uint64) system.InstanceID {
	b, _ := net.MarshalBinary() // it cannot fail
	if s.stick {
		in, _ := route.Stick(among, route.Key(b), nil)
		return in.ID
	}
	in, _ := route.Choose(s.picker, route.Ask{Now: now, Rnd: rnd, Key: route.Key(b), Among: among, Load: idle}, nil)
	return in.ID
}

// idle is what a name server knows of how busy an instance is: nothing.
func idle(system.InstanceID) route.Load { return route.Load{} }

// services lists places as SRV records, the chosen one first, and their addresses. What the policy prefers has the lower
// priority: the chosen one where the client's network decides, the client's site under nearest, else all are alike.
func (r *reply) services(s *service, first int, site system.Site) {
	all := len(s.at)
	took := [mostSRV]int{}
	for i := range min(all, mostSRV) {
		p := (first + i) % all
		took[i] = p
		at := &s.at[p]
		low := i > 0 && s.keyed || s.nearest && at.site != site && s.at[first].site == site
		mark := r.n
		r.put(head, at.srv)
		if low {
			r.out[mark+2+10+1] = others
		}
		r.answers++
	}
	for i := range min(all, mostSRV) {
		at := &s.at[took[i]]
		again := false
		for _, p := range took[:i] {
			again = again || &s.at[p].host[0] == &at.host[0]
		}
		// Extra records are no loss where there is no room (RFC 2181 §9).
		if size := len(at.host) + len(at.address); !again && r.n+size+r.opt() <= r.room {
			r.n += copy(r.out[r.n:], at.host)
			r.n += copy(r.out[r.n:], at.address)
			r.extra++
		}
	}
}

// opt is how many bytes the OPT record of the answer takes.
func (r *reply) opt() int {
	switch {
	case !r.edns:
		return 0
	case r.subnet.given:
		return optBytes + 8 + len(r.subnet.raw)
	}
	return optBytes
}

// finish adds EDNS, cuts what is too long off after the question, and writes the counts.
func (r *reply) finish(question int) int {
	if r.n+r.opt() > r.room {
		r.out[2] |= 0x02
		r.n, r.answers, r.authority, r.extra, r.cut = question, 0, 0, 0, true
	}
	if r.edns {
		r.n += r.ask.putOPT(r.out[r.n:], 0)
		r.extra++
	}
	binary.BigEndian.PutUint16(r.out[6:], r.answers)
	binary.BigEndian.PutUint16(r.out[8:], r.authority)
	binary.BigEndian.PutUint16(r.out[10:], r.extra)
	return r.n
}

// putOPT writes the OPT record of an answer (RFC 6891 §6.1.2) with the client's network, if it was given (RFC 7871 §7.2.2).
func (a *ask) putOPT(b []byte, upper byte) int {
	clear(b[:optBytes])
	b[2] = typeOPT
	binary.BigEndian.PutUint16(b[3:], Payload)
	b[5] = upper
	binary.BigEndian.PutUint16(b[7:], a.flags)
	s := &a.subnet
	if !s.given {
		return optBytes
	}
	length := 4 + len(s.raw)
	binary.BigEndian.PutUint16(b[9:], uint16(4+length))
	binary.BigEndian.PutUint16(b[11:], 8)
	binary.BigEndian.PutUint16(b[13:], uint16(length))
	binary.BigEndian.PutUint16(b[15:], s.family)
	b[17], b[18] = s.source, s.scope
	copy(b[19:], s.raw)
	return optBytes + 4 + length
}

// hash is FNV-1a.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// token tells what is said from what else is said to the same network: the name and the kind of answer.
func (a *ask) token() uint64 { return a.about ^ uint64(a.kind)<<56 }

// truncate makes an answer one that only says: ask again by TCP.
func truncate(out []byte) int {
	if len(out) < head || binary.BigEndian.Uint16(out[4:]) != 1 {
		return len(out) // there is no question: it is a bare header
	}
	at := head
	for at < len(out) && out[at] != 0 {
		at += 1 + int(out[at])
	}
	end := at + 5
	out[2] |= 0x02
	out[3] &^= 0x0f
	clear(out[6:head])
	return min(end, len(out))
}
