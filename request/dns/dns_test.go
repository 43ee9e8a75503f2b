package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"servent/route"
	"servent/system"
)

// sample is a zone with services of all policies at two sites.
func sample(t testing.TB) *Zone {
	t.Helper()
	s := Spec{Origin: "shop.internal", Serial: 7, Site: "eu"}
	for i := range 6 {
		n := Node{ID: system.NodeID(fmt.Sprintf("node-%d", i+1)), Site: "eu", Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), Names: true}
		if i >= 4 {
			n.Site, n.Addr = "us", netip.AddrFrom4([4]byte{10, 2, 0, byte(i + 1)})
		}
		s.Nodes = append(s.Nodes, n)
	}
	s.Nodes = append(s.Nodes, Node{ID: "six", Site: "us", Addr: netip.MustParseAddr("2001:db8:7::1")})
	at := func(name string, nodes ...int) (all []Place) {
		for i, n := range nodes {
			node := s.Nodes[n]
			all = append(all, Place{route.Instance{ID: system.Instance(system.ServiceName(name), i+1), Node: node.ID, Site: node.Site, Weight: 1}, node.Addr, 8080 + uint16(i)})
		}
		return all
	}
	for _, policy := range Policies {
		s.Services = append(s.Services, Service{Name: system.ServiceName(policy), TTL: TTL, Policy: policy, At: at(policy, 0, 1, 2, 3, 4, 5)})
	}
	s.Services = append(s.Services,
		Service{Name: "one", TTL: 0, Policy: "random", At: at("one", 1), Secure: true},
		Service{Name: "six", TTL: TTL, Policy: "random", At: at("six", 6), Secure: true},
		Service{Name: "none", TTL: TTL, Policy: "random"},
		Service{Name: "stay", TTL: TTL, Policy: "random", Sticky: true, At: at("stay", 0, 1, 2, 3, 4, 5)},
		Service{Name: "heavy", TTL: TTL, At: at("heavy", 0, 1)},
		Service{Name: "no.label", TTL: TTL, At: at("no.label", 0)},
		Service{Name: "crowd", TTL: TTL, Policy: "random", At: at("crowd", 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 6)})
	heavy := &s.Services[len(s.Services)-3]
	heavy.At[0].Instance.Weight = 3
	z, err := NewZone(s)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// question is a query as clients send it.
func question(name string, kind uint16, edit ...func(*dns.Msg)) []byte {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	m.Id = 4711
	for _, e := range edit {
		e(m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func edns(size uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, false) } }

func behind(net string) func(*dns.Msg) {
	return func(m *dns.Msg) {
		p := netip.MustParsePrefix(net)
		m.SetEdns0(1232, true)
		e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
		if p.Addr().Is6() {
			e.Family = 2
		}
		m.IsEdns0().Option = append(m.IsEdns0().Option, e)
	}
}

// both answers a query by the wire path, if that takes it, and by the library.
func both(z *Zone, q []byte, from netip.Addr, rnd uint64, tcp bool) (wire, slow *ask, a, b []byte) {
	now := time.Unix(1e9, 0)
	make1 := func() *ask {
		k := &ask{zone: z, from: from, now: now, rnd: rnd, room: most}
		if !tcp {
			k.room = least
		}
		return k
	}
	wire, slow = make1(), make1()
	a, b = make([]byte, room), make([]byte, room)
	n, ok := wire.wire(q, a, tcp)
	if !ok {
		wire, n = nil, 0
	}
	return wire, slow, a[:n], b[:slow.slow(q, b, tcp)]
}

// differ says in what two answers differ; the library reads both.
func differ(a, b []byte) string {
	x, y := new(dns.Msg), new(dns.Msg)
	if err := x.Unpack(a); err != nil {
		return "the wire path's answer cannot be read: " + err.Error()
	}
	if err := y.Unpack(b); err != nil {
		return "the library's answer cannot be read: " + err.Error()
	}
	if len(x.Question) != len(y.Question) || len(x.Question) > 0 && x.Question[0] != y.Question[0] {
		return fmt.Sprint("the questions differ: ", x.Question, y.Question)
	}
	x.Compress, y.Compress = false, false
	return cmp.Diff(strings.ToLower(y.String()), strings.ToLower(x.String())) // names are as the question has them, or as we do
}

// fixed zones do not remember turns: weighted and roundrobin go on from one answer to the next.
func turning(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "nearest") || strings.Contains(name, "weighted") || strings.Contains(name, "roundrobin") || strings.Contains(name, "heavy")
}

func TestBothWaysAnswerAlike(t *testing.T) {
	z := sample(t)
	froms := []string{"127.0.0.1", "10.1.0.77", "10.2.0.77", "192.0.2.1", "2001:db8:7::9"}
	edits := map[string][]func(*dns.Msg){
		"plain":  nil,
		"edns":   {edns(1232)},
		"tiny":   {edns(100)},
		"huge":   {edns(65535)},
		"subnet": {behind("10.2.0.0/24")},
		"wide":   {behind("10.0.0.0/8")},
		"narrow": {behind("10.2.0.9/32")},
		"nobody": {behind("0.0.0.0/0")},
		"six":    {behind("2001:db8:7::/56")},
		"cd":     {func(m *dns.Msg) { m.CheckingDisabled, m.RecursionDesired = true, false }},
		"unheard": {edns(1232), func(m *dns.Msg) {
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: 10, Cookie: "0102030405060708"}}
		}},
	}
	var names []string
	for _, s := range []string{"random", "hash", "maglev", "one", "six", "none", "stay", "crowd", "missing", "RaNDom", "node-1.node", "six.node", "node", "_tcp", "_random._tcp", "_crowd._tcp", "_one._tcp", "a.b.c", "random.random", "no.label"} {
		names = append(names, s+".shop.internal")
	}
	names = append(names, "shop.internal", "sHop.internal", "internal", ".", "example.org", "xshop.internal", "random.shop.internal.org")
	n := 0
	for _, name := range names {
		for _, kind := range []uint16{1, 2, 5, 6, 15, 16, 28, 33, 43, 65, 99} {
			for what, edit := range edits {
				for i, from := range froms {
					for _, tcp := range []bool{false, true} {
						q := question(name, kind, edit...)
						wire, slow, a, b := both(z, q, netip.MustParseAddr(from), uint64(i)*977, tcp)
						if wire == nil {
							t.Fatalf("%s %d %s: the wire path does not take it", name, kind, what)
						}
						if d := differ(a, b); d != "" || wire.kind != slow.kind || wire.about != slow.about || wire.cut != slow.cut {
							t.Fatalf("%s type %d, %s from %s (tcp %v): kinds %d %d\n%s", name, kind, what, from, tcp, wire.kind, slow.kind, d)
						}
						n++
					}
				}
			}
		}
	}
	t.Logf("%d queries", n)
}

func FuzzWire(f *testing.F) {
	z := sample(f)
	for _, q := range [][]byte{question("random.shop.internal", 1), question("_crowd._tcp.shop.internal", 33, edns(4096)), question("hash.shop.internal", 28, behind("10.2.0.0/24")),
		question("x.shop.internal", 6), question("example.org", 255), question("stay.shop.internal", 65, behind("2001:db8::/33")), {0}, make([]byte, 12), make([]byte, 17)} {
		f.Add(q, uint64(3), false)
	}
	f.Fuzz(func(t *testing.T, q []byte, rnd uint64, tcp bool) {
		if len(q) > 2<<10 {
			q = q[:2<<10]
		}
		from := netip.AddrFrom4([4]byte{10, 2, 0, byte(rnd)})
		wire, _, a, b := both(z, q, from, rnd, tcp)
		bound := least
		if m := new(dns.Msg); m.Unpack(q) == nil && m.IsEdns0() != nil {
			bound = Payload
		}
		if !tcp && (len(b) > bound || wire != nil && len(a) > Payload) {
			t.Errorf("answers of %d and %d bytes to a client that takes %d", len(a), len(b), bound)
		}
		if len(b) > 0 && (b[2]&0x80 == 0 || !slices.Equal(b[:2], q[:2])) {
			t.Errorf("% x is no answer to % x", b, q)
		}
		if wire == nil || len(b) == 0 {
			if wire != nil {
				t.Errorf("the wire path answers what is not to be answered: % x", q)
			}
			return
		}
		n := truncate(slices.Clone(a))
		if n > len(a) || n > len(q) {
			t.Errorf("truncated, an answer has %d bytes; the query has %d", n, len(q))
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			t.Fatalf("the library's own answer: %v", err)
		}
		if len(m.Question) == 1 && turning(m.Question[0].Name) {
			return
		}
		if d := differ(a, b); d != "" {
			t.Errorf("% x: %s", q, d)
		}
	})
}

// TestRefused is what no server should answer, or no more than with a word.
func TestRefused(t *testing.T) {
	z := sample(t)
	good := question("random.shop.internal", 1)
	with := func(edit func([]byte)) []byte {
		b := slices.Clone(good)
		edit(b)
		return b
	}
	for _, tt := range []struct {
		name string
		q    []byte
		kind kind
		code int // -1: no answer
	}{
		{"nothing", nil, ignored, -1},
		{"half a header", good[:11], ignored, -1},
		{"an answer", with(func(b []byte) { b[2] |= 0x80 }), ignored, -1},
		{"a header alone", good[:12], malformed, dns.RcodeFormatError},
		{"cut off", good[:len(good)-1], malformed, dns.RcodeFormatError},
		{"two questions", with(func(b []byte) { b[5] = 2 }), malformed, dns.RcodeFormatError},
		{"a name that points at itself", append(slices.Clone(good[:12]), 0xc0, 0x0c, 0, 1, 0, 1), malformed, dns.RcodeFormatError},
		{"a label of 64 bytes", append(append(slices.Clone(good[:12]), 64), make([]byte, 70)...), malformed, dns.RcodeFormatError},
		{"records in the answer section", question("random.shop.internal", 1, func(m *dns.Msg) { m.Answer = []dns.RR{rr("a.", address(netip.IPv4Unspecified(), 0))} }), malformed, dns.RcodeFormatError},
		{"opcode NOTIFY", with(func(b []byte) { b[2] = 4 << 3 }), malformed, dns.RcodeNotImplemented},
		{"opcode UPDATE", with(func(b []byte) { b[2] = 5 << 3 }), malformed, dns.RcodeNotImplemented},
		{"a name outside", question("www.example.org", 1), refused, dns.RcodeRefused},
		{"the root", question(".", 2), refused, dns.RcodeRefused},
		{"a transfer", question("shop.internal", dns.TypeAXFR), refused, dns.RcodeRefused},
		{"a part of one", question("shop.internal", dns.TypeIXFR), refused, dns.RcodeRefused},
		{"version.bind", question("version.bind", 16, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), refused, dns.RcodeRefused},
		{"class ANY", question("random.shop.internal", 1, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), refused, dns.RcodeRefused},
		{"TSIG as a type", question("random.shop.internal", dns.TypeTSIG), malformed, dns.RcodeNotImplemented},
		{"EDNS version 1", question("random.shop.internal", 1, edns(1232), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), malformed, dns.RcodeBadVers},
		{"EDNS twice", question("random.shop.internal", 1, edns(1232), func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), malformed, dns.RcodeFormatError},
		{"a subnet of 33 bits", broken(0, 1, 33, 0, 1, 2, 3, 4, 5), malformed, dns.RcodeFormatError},
		{"a subnet with a scope", broken(0, 1, 24, 24, 1, 2, 3), malformed, dns.RcodeFormatError},
		{"a subnet with bits beyond", broken(0, 1, 20, 0, 10, 1, 0xff), malformed, dns.RcodeFormatError},
		{"no such name", question("missing.shop.internal", 1), nxDomain, dns.RcodeNameError},
		{"nobody there", question("none.shop.internal", 1), noData, dns.RcodeSuccess},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire, slow, a, b := both(z, tt.q, netip.MustParseAddr("192.0.2.1"), 1, false)
			k := slow
			if wire != nil {
				k, b = wire, a
			}
			if k.kind != tt.kind {
				t.Errorf("it counts as %d, want %d", k.kind, tt.kind)
			}
			if (len(b) == 0) != (tt.code < 0) {
				t.Fatalf("%d bytes of an answer", len(b))
			}
			if tt.code < 0 {
				return
			}
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			if m.Rcode != tt.code {
				t.Errorf("code %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[tt.code])
			}
			if (tt.kind == nxDomain || tt.kind == noData) && (len(m.Ns) != 1 || m.Ns[0].(*dns.SOA).Minttl != 1 || m.Ns[0].Header().Ttl != 1) {
				t.Errorf("RFC 2308 §3: want the zone's SOA, with how long that holds; have %v", m.Ns)
			}
			if tt.kind != nxDomain && tt.kind != noData && len(b) > len(tt.q)+11 {
				t.Errorf("%d bytes of an answer to %d", len(b), len(tt.q))
			}
		})
	}
	// RFC 8482: ANY gets a word, not all there is.
	_, slow, _, b := both(z, question("crowd.shop.internal", dns.TypeANY), netip.MustParseAddr("192.0.2.1"), 1, false)
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil || slow.kind != answered || len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != dns.TypeHINFO {
		t.Errorf("ANY: %v, %v", m, err)
	}
}

// broken is a query with a client subnet as it should not be.
func broken(option ...byte) []byte {
	return question("random.shop.internal", 1, edns(1232), func(m *dns.Msg) {
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 8, Data: option}}
	})
}

// asked is the answer by whichever way takes it.
func asked(t *testing.T, z *Zone, q []byte, from string, rnd uint64) *dns.Msg {
	t.Helper()
	k := ask{zone: z, from: netip.MustParseAddr(from), now: time.Unix(1e9, 0), rnd: rnd, room: least}
	out := make([]byte, room)
	n, ok := k.wire(q, out, false)
	if !ok {
		t.Fatal("the wire path does not take it")
	}
	m := new(dns.Msg)
	if err := m.Unpack(out[:n]); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChoice(t *testing.T) {
	z := sample(t)
	count := func(name, from string, edit ...func(*dns.Msg)) map[string]int {
		got := map[string]int{}
		for i := range 6000 {
			m := asked(t, z, question(name+".shop.internal", 1, edit...), from, hash([]byte{byte(i), byte(i >> 8)}))
			if len(m.Answer) != 1 {
				t.Fatalf("%s: %d addresses, want 1: who gets several always takes the same", name, len(m.Answer))
			}
			got[m.Answer[0].(*dns.A).A.String()]++
		}
		return got
	}
	if got := count("weighted", "192.0.2.1"); len(got) != 6 || got["10.1.0.1"] != 1000 {
		t.Errorf("six of one weight: %v", got)
	}
	if got := count("heavy", "192.0.2.1"); got["10.1.0.1"] != 4500 || got["10.1.0.2"] != 1500 {
		t.Errorf("weights 3 and 1: %v", got)
	}
	if got := count("roundrobin", "192.0.2.1"); got["10.1.0.1"] != 1000 {
		t.Errorf("round robin: %v", got)
	}
	for name, n := range count("random", "192.0.2.1") {
		if n < 800 || n > 1200 {
			t.Errorf("%s: %d of 6000 at random, want about 1000", name, n)
		}
	}
	for _, tt := range []struct {
		name, from string
		edit       []func(*dns.Msg)
		want       int // addresses
		prefix     string
	}{
		{"nearest", "10.2.0.200", nil, 2, "10.2."},                                     // a client on the network of nodes at us
		{"nearest", "10.1.0.200", nil, 4, "10.1."},                                     // at eu
		{"nearest", "192.0.2.1", nil, 4, "10.1."},                                      // who knows; the server is at eu
		{"nearest", "10.1.0.200", []func(*dns.Msg){behind("10.2.0.0/24")}, 2, "10.2."}, // its resolver is at eu, it is not
		{"nearest", "10.1.0.200", []func(*dns.Msg){behind("192.0.2.0/24")}, 6, "10."},  // nobody's neighbour
		{"hash", "192.0.2.1", nil, 1, "10."},
		{"maglev", "192.0.2.1", nil, 1, "10."},
		{"stay", "192.0.2.1", nil, 1, "10."},
	} {
		got := count(tt.name, tt.from, tt.edit...)
		if len(got) != tt.want {
			t.Errorf("%s from %s: %v, want %d of them", tt.name, tt.from, got, tt.want)
		}
		for a := range got {
			if !strings.HasPrefix(a, tt.prefix) {
				t.Errorf("%s from %s: %v, want all at %s", tt.name, tt.from, got, tt.prefix)
			}
		}
	}
	networks := map[string]bool{}
	for i := range 200 {
		m := asked(t, z, question("stay.shop.internal", 1), fmt.Sprintf("198.51.%d.1", i), 1)
		networks[m.Answer[0].(*dns.A).A.String()] = true
	}
	if len(networks) != 6 {
		t.Errorf("200 networks stay with %v, want all six", networks)
	}
}

// TestScope: RFC 7871 §7.2.1, how far an answer holds.
func TestScope(t *testing.T) {
	z := sample(t)
	for _, tt := range []struct {
		name, net string
		want      uint8
	}{
		{"random", "10.2.0.0/24", 0}, {"nearest", "10.2.0.0/24", 24}, {"nearest", "10.2.0.7/32", 24}, {"nearest", "10.0.0.0/8", 8}, {"hash", "10.2.0.0/24", 24}, {"nearest", "0.0.0.0/0", 0},
		{"missing", "10.2.0.0/24", 0},
	} {
		m := asked(t, z, question(tt.name+".shop.internal", 1, behind(tt.net)), "192.0.2.1", 1)
		if e := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET); e.SourceScope != tt.want {
			t.Errorf("%s of %s holds for /%d, want /%d", tt.name, tt.net, e.SourceScope, tt.want)
		}
	}
}

func TestSRV(t *testing.T) {
	z := sample(t)
	m := asked(t, z, question("_heavy._tcp.shop.internal", 33), "192.0.2.1", 1)
	got := map[string]string{}
	for _, a := range m.Answer {
		s := a.(*dns.SRV)
		got[s.Target] = fmt.Sprint(s.Priority, s.Weight, s.Port)
	}
	if d := cmp.Diff(map[string]string{"node-1.node.shop.internal.": "10 750 8080", "node-2.node.shop.internal.": "10 250 8081"}, got); d != "" || len(m.Extra) != 2 {
		t.Errorf("%s\n%v", d, m)
	}
	m = asked(t, z, question("_nearest._tcp.shop.internal", 33, edns(1232)), "10.2.0.9", 1)
	for _, a := range m.Answer {
		s := a.(*dns.SRV)
		far := !strings.HasPrefix(s.Target, "node-5.") && !strings.HasPrefix(s.Target, "node-6.")
		if far != (s.Priority == others) {
			t.Errorf("from us: %v", s)
		}
	}
	// 512 bytes have room for eight records and not for their addresses.
	m = asked(t, z, question("crowd.shop.internal", 33), "192.0.2.1", 1)
	if len(m.Answer) != mostSRV || m.Truncated || len(m.Extra) >= 7 {
		t.Errorf("%d records and %d addresses, truncated %v", len(m.Answer), len(m.Extra), m.Truncated)
	}
}

func TestHTTPS(t *testing.T) {
	z := sample(t)
	m := asked(t, z, question("one.shop.internal", 65), "192.0.2.1", 1)
	if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "1 node-2.node.shop.internal. port=\"8080\" ipv4hint=\"10.1.0.2\"") {
		t.Errorf("%v", m.Answer)
	}
	m = asked(t, z, question("six.shop.internal", 65), "192.0.2.1", 1)
	if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "ipv6hint=\"2001:db8:7::1\"") {
		t.Errorf("%v", m.Answer)
	}
	if m = asked(t, z, question("random.shop.internal", 65), "192.0.2.1", 1); len(m.Answer) != 0 {
		t.Errorf("a service of plain HTTP has %v: browsers would use HTTPS", m.Answer)
	}
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(10, 2), time.Unix(1000, 0)
	client, neighbour, far := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("198.51.100.1")
	count := func(n int, from netip.Addr, about uint64, step time.Duration) (c [3]int) {
		for range n {
			c[l.judge(from, about, now)]++
			now = now.Add(step)
		}
		return c
	}
	if got := count(100, client, 1, 0); got != [3]int{10, 45, 45} {
		t.Errorf("a burst of 100 at 10 a second: sent, dropped, truncated %v", got)
	}
	if got := count(1, neighbour, 1, 0); got[send] != 0 {
		t.Error("another address of the same /24 has an account of its own")
	}
	if got := count(1, far, 1, 0); got[send] != 1 {
		t.Error("another network pays for it")
	}
	if got := count(1, client, 2, 0); got[send] != 1 {
		t.Error("another name pays for it")
	}
	now = now.Add(window * 2 * time.Second)
	if got := count(500, client, 3, 100*time.Millisecond); got[send] != 500 {
		t.Errorf("500 at the rate: %v", got)
	}
	if got := count(1000, client, 4, 50*time.Millisecond); got[send] < 10 || got[send] > 520 {
		t.Errorf("1000 at twice the rate: %v", got)
	}
	if newLimiter(-1, 2) != nil {
		t.Error("there is a bound where none is wanted")
	}
}

func TestBadNames(t *testing.T) {
	for _, origin := range []string{"", "a..b", "a b", strings.Repeat("a", 64), strings.Repeat("abcdefg.", 40)} {
		if _, err := NewZone(Spec{Origin: origin}); err == nil {
			t.Errorf("a zone %q", origin)
		}
	}
}

// serve runs a server until the test ends.
func serve(t testing.TB, o Options) (*Server, string) {
	t.Helper()
	s := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	at, done := make(chan netip.AddrPort, 1), make(chan error, 1)
	go func() { done <- s.Serve(ctx, "127.0.0.1:0", func(a netip.AddrPort) { at <- a }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-at:
		return s, a.String()
	case err := <-done:
		done <- nil
		t.Fatal(err)
		return nil, ""
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	z := sample(t)
	for _, sockets := range []int{1, 3} {
		s, addr := serve(t, Options{Zone: func() *Zone { return z }, Sockets: sockets})
		for _, net := range []string{"udp", "tcp"} {
			c := &dns.Client{Net: net, Timeout: 10 * time.Second}
			for i := range 50 {
				m := new(dns.Msg)
				m.SetQuestion("rAndom.shop.internal.", dns.TypeA)
				r, _, err := c.Exchange(m, addr)
				if err != nil {
					t.Fatalf("%s %d: %v", net, i, err)
				}
				if len(r.Answer) != 1 || !r.Authoritative || r.RecursionAvailable || r.Question[0].Name != "rAndom.shop.internal." {
					t.Fatalf("%s: %v", net, r)
				}
			}
		}
		if c := s.Counts(); c.Answered != 100 || c.Queries != 100 || c.TCP != 50 || c.Slow != 0 {
			t.Errorf("%+v", c)
		}
	}
	if err := New(Options{Zone: func() *Zone { return z }}).Serve(t.Context(), "0.0.0.0:0", nil); err == nil {
		t.Error("it serves on all addresses")
	}
}

// TestFlood: what one network gets is bounded, and who asks by TCP gets all.
func TestFlood(t *testing.T) {
	t.Parallel()
	z := sample(t)
	s, addr := serve(t, Options{Zone: func() *Zone { return z }, Rate: 20, Exempt: func(netip.Addr) bool { return false }})
	c, err := (&dns.Client{}).Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, cut := 0, 0
	for range 400 {
		m := new(dns.Msg)
		m.SetQuestion("one.shop.internal.", dns.TypeA)
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		m, err := c.ReadMsg()
		if err != nil {
			break
		}
		if got++; m.Truncated {
			cut++
			if len(m.Answer) > 0 {
				t.Error("a truncated answer has records")
			}
		}
	}
	n := s.Counts()
	if n.Limited == 0 || n.Slipped == 0 || cut == 0 || got > 400-int(n.Limited) {
		t.Errorf("of 400 at once, %d were answered, %d of them truncated: %+v", got, cut, n)
	}
	r, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion("one.shop.internal.", dns.TypeA), addr)
	if err != nil || len(r.Answer) != 1 {
		t.Errorf("by TCP: %v, %v", r, err)
	}
}

func TestNoZoneYet(t *testing.T) {
	t.Parallel()
	_, addr := serve(t, Options{Zone: func() *Zone { return nil }})
	r, err := dns.Exchange(new(dns.Msg).SetQuestion("one.shop.internal.", dns.TypeA), addr)
	if err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", r, err)
	}
}

func BenchmarkWire(b *testing.B) {
	z := sample(b)
	for _, name := range []string{"one", "random", "weighted", "missing"} {
		b.Run(name, func(b *testing.B) {
			q, out := question(name+".shop.internal", 1, edns(1232)), make([]byte, room)
			b.ReportAllocs()
			for b.Loop() {
				k := ask{zone: z, from: netip.AddrFrom4([4]byte{192, 0, 2, 1}), now: time.Unix(1e9, 0), rnd: 7, room: least}
				if _, ok := k.wire(q, out, false); !ok {
					b.Fatal("the wire path does not take it")
				}
			}
		})
	}
}
