package dns

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"servent/route"
	"servent/system"
	"servent/system/notation"
)

// Types of records that a zone has (IANA's registry of DNS parameters).
const (
	typeA     = 1
	typeNS    = 2
	typeSOA   = 6
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = 41
	typeHTTPS = 65
	typeANY   = 255
	classIN   = 1
)

// TTL is how long an answer about a service may be kept when the service does not say.
const TTL = 2 * time.Second

const (
	steady   = time.Minute // TTL of what hardly changes: nodes' addresses, NS, SOA
	negative = time.Second // of "there is none": an instance may come at any moment (RFC 2308 §5)
	mostSRV  = 8           // records of one answer; a longer one would not fit where 512 bytes are the bound
	mostNS   = 4
	primary  = 10 // priority of the instances to ask first, in SRV
	others   = 20 // of the rest
)

// Spec says what a zone is made of.
type Spec struct {
	Origin   string      // the zone's name: shop.internal
	Serial   uint32      // of its SOA; nobody transfers the zone, so it need not tell every change
	Site     system.Site // of the server: a client whose network says nothing is taken to be there
	Nodes    []Node
	Services []Service
}

// Node is a machine of the zone: NODE.node.ORIGIN.
type Node struct {
	ID    system.NodeID
	Site  system.Site
	Addr  netip.Addr
	Names bool // it has a name server
}

// Service is what clients look for: SERVICE.ORIGIN.
type Service struct {
	Name   system.ServiceName
	TTL    time.Duration // 0: not to be kept
	Policy string        // of [Policies]; empty means weighted
	Sticky bool          // a client's network stays with an instance as long as that is there
	Secure bool          // it speaks HTTPS: a record of that type says so. A browser that finds one uses no HTTP any more (RFC 9460 §9.5)
	At     []Place       // who may be asked now
}

// Place is where one instance is reached.
type Place struct {
	Instance route.Instance
	Addr     netip.Addr
	Port     uint16
}

// Policies are the words of switch.policy that a name server can follow: it sees no connections, so not those that count them.
var Policies = []string{"weighted", "roundrobin", "random", "nearest", "hash", "maglev"}

// Zone is all that there is to answer, ready for the wire. It is never changed after it is made.
type Zone struct {
	origin []byte            // in the wire's form, lower case
	names  map[string]*entry // by the wire's form, lower case
	soa    record            // of what is not there: its TTL is the negative one
	site   system.Site
	nets   map[netip.Prefix]system.Site // networks of nodes
}

// record is one, as it is sent, without its owner.
type record []byte // type, class, TTL, length, data

// entry is what a name has.
type entry struct {
	fixed   []record
	service *service
}

// service is what the answer to a query for it is chosen from.
type service struct {
	nearest bool
	random  bool
	stick   bool
	picker  route.Picker // set where the client's network decides
	keyed   bool         // it does: picker, or stick
	tcp     bool         // the name is _SERVICE._tcp: it has SRV alone
	text    record       // TXT
	at      []place
	turn    *atomic.Uint32              // counts answers
	among   map[system.Site]*candidates // as a client at a site sees them; "" is a client at none that is known
	index   map[system.InstanceID]int   // into at
}

// candidates are those that a client may be sent to.
type candidates struct {
	all   []route.Instance
	turns []uint16 // indices into at, in the order of their turns
}

// cycle is after how many turns those of unequal weights begin anew.
const cycle = 1000

// turns is the order in which places get their turns: in proportion to weights and evenly mixed (smooth weighted round robin,
// nginx 52327e0627f4), made in advance. Where one has no weight all are alike.
func turns(weights []float64) []int {
	total := 0.0
	alike := slices.Min(weights) <= 0 || slices.Min(weights) == slices.Max(weights)
	n := cycle
	if alike {
		n = len(weights)
	}
	for i := range weights {
		if alike {
			weights[i] = 1
		}
		total += weights[i]
	}
	owed, out := make([]float64, len(weights)), make([]int, n)
	for t := range out {
		best := 0
		for i, w := range weights {
			if owed[i] += w; owed[i] > owed[best] {
				best = i
			}
		}
		owed[best] -= total
		out[t] = best
	}
	return out
}

type place struct {
	site    system.Site
	address record // A or AAAA
	srv     record // priority and weight are filled in
	https   record // priority is filled in
	host    []byte // the node's name: owner of address beside an SRV record
	kind    uint16 // of address
}

// pack is a name in the wire's form, in lower case.
func pack(name string) ([]byte, error) {
	var b []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(strings.ToLower(name), "."), ".") {
		if err := notation.Label(label); err != nil {
			return nil, err
		}
		b = append(append(b, byte(len(label))), label...)
	}
	if b = append(b, 0); len(b) > 255 {
		return nil, fmt.Errorf("%q is longer than a name may be: 255 bytes (RFC 1035 §2.3.4)", name)
	}
	return b, nil
}

// NewZone makes a zone. Nodes and services whose names cannot be names of the DNS are left out; the error says that the
// zone's own cannot.
func NewZone(s Spec) (*Zone, error) {
	origin, err := pack(s.Origin)
	if err != nil {
		return nil, err
	}
	z := &Zone{origin: origin, names: map[string]*entry{}, site: s.Site, nets: map[netip.Prefix]system.Site{}}
	apex := &entry{}
	z.names[string(origin)] = apex
	z.name("node", &entry{}) // it has none, and there are names below: NODATA (RFC 8020)
	z.name("_tcp", &entry{})
	server := origin
	hosts := map[system.NodeID][]byte{}
	servers := 0
	for _, n := range s.Nodes {
		host, err := z.name(string(n.ID)+".node", &entry{fixed: []record{address(n.Addr, steady), text(steady, "site="+string(n.Site))}})
		if err != nil {
			continue
		}
		hosts[n.ID] = host
		z.near(n)
		if n.Names && servers < mostNS {
			if servers++; servers == 1 {
				server = host
			}
			apex.fixed = append(apex.fixed, newRecord(typeNS, steady, host))
		}
	}
	mail := append([]byte("\x0ahostmaster"), origin...)
	soa := slices.Concat(server, mail)
	for _, n := range []uint32{s.Serial, 60, 10, 86400, uint32(negative / time.Second)} { // refresh, retry, expire; minimum (RFC 2308 §4)
		soa = binary.BigEndian.AppendUint32(soa, n)
	}
	z.soa = newRecord(typeSOA, negative, soa)
	apex.fixed = append(apex.fixed, newRecord(typeSOA, steady, soa), text(steady, "servent"))
	for i := range s.Services {
		z.add(&s.Services[i], hosts)
	}
	return z, nil
}

// name adds an entry under the origin.
func (z *Zone) name(prefix string, e *entry) ([]byte, error) {
	b, err := pack(prefix)
	if err != nil {
		return nil, err
	}
	b = append(b[:len(b)-1:len(b)-1], z.origin...)
	if len(b) > 255 {
		return nil, fmt.Errorf("%q is longer than a name may be", prefix)
	}
	z.names[string(b)] = e
	return b, nil
}

// near notes that clients of a node's network are at its site, unless two sites share the network: then it says nothing.
func (z *Zone) near(n Node) {
	net, ok := network(n.Addr)
	if !ok || n.Addr.IsLoopback() {
		return
	}
	if was, known := z.nets[net]; known && was != n.Site {
		z.nets[net] = ""
		return
	}
	z.nets[net] = n.Site
}

// network is what may be said of where an address is: /24 or /48 (RFC 7871 §11.1 has /24 and /56 at most).
func network(a netip.Addr) (netip.Prefix, bool) {
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

func (z *Zone) add(s *Service, hosts map[system.NodeID][]byte) {
	if notation.Label(string(s.Name)) != nil {
		return
	}
	policy := cmp.Or(s.Policy, Policies[0])
	v := &service{nearest: policy == "nearest", random: policy == "random", stick: s.Sticky, turn: new(atomic.Uint32),
		among: map[system.Site]*candidates{}, index: map[system.InstanceID]int{},
		text: text(s.TTL, "policy="+policy, fmt.Sprintf("instances=%d", len(s.At)))}
	if policy == "hash" || policy == "maglev" {
		v.picker = route.NewPicker(policy)
	}
	v.keyed = s.Sticky || v.picker != nil
	v.turn.Store(rand.Uint32()) // name servers that begin together do not all say the same
	sites := map[system.Site]bool{"": true, z.site: true}
	for _, site := range z.nets {
		sites[site] = true
	}
	at := slices.DeleteFunc(slices.Clone(s.At), func(p Place) bool { return hosts[p.Instance.Node] == nil || !p.Addr.IsValid() })
	total := 0.0
	for _, p := range at {
		total += p.Instance.Weight
	}
	for _, p := range at {
		host := hosts[p.Instance.Node]
		sites[p.Instance.Site] = true
		weight := uint16(1)
		if p.Instance.Weight > 0 {
			weight = uint16(max(1, math.Round(p.Instance.Weight/total*1000)))
		}
		here := place{site: p.Instance.Site, address: address(p.Addr, s.TTL), host: host, kind: typeA}
		if p.Addr.Is6() {
			here.kind = typeAAAA
		}
		here.srv = newRecord(typeSRV, s.TTL, slices.Concat([]byte{0, primary, byte(weight >> 8), byte(weight), byte(p.Port >> 8), byte(p.Port)}, host))
		if s.Secure {
			// RFC 9460 §2.2: priority, target, and SvcParams in order of their keys; 3 is port, 4 ipv4hint, 6 ipv6hint.
			data := slices.Concat([]byte{0, 1}, host, []byte{0, 3, 0, 2, byte(p.Port >> 8), byte(p.Port)})
			if ip := p.Addr.AsSlice(); p.Addr.Is4() {
				data = append(append(data, 0, 4, 0, 4), ip...)
			} else {
				data = append(append(data, 0, 6, 0, 16), ip...)
			}
			here.https = newRecord(typeHTTPS, s.TTL, data)
		}
		v.index[p.Instance.ID] = len(v.at)
		v.at = append(v.at, here)
	}
	for site := range sites {
		c := &candidates{}
		var near, all []int
		var weights []float64
		for i, p := range at {
			c.all = append(c.all, p.Instance)
			if all = append(all, i); site != "" && p.Instance.Site == site {
				near = append(near, i)
			}
		}
		if v.nearest && len(near) > 0 {
			all = near
		}
		if len(all) == 0 {
			break
		}
		for _, i := range all {
			weight := 1.0
			if policy == "weighted" {
				weight = at[i].Instance.Weight
			}
			weights = append(weights, weight)
		}
		for _, i := range turns(weights) {
			c.turns = append(c.turns, uint16(all[i]))
		}
		v.among[site] = c
	}
	_, _ = z.name(string(s.Name), &entry{service: v}) // longer than a name may be: it has none
	srv := *v
	srv.tcp = true
	_, _ = z.name("_"+string(s.Name)+"._tcp", &entry{service: &srv})
}

func newRecord(kind uint16, ttl time.Duration, data []byte) record {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, uint32(ttl/time.Second))
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func (r record) kind() uint16 { return binary.BigEndian.Uint16(r) }

func address(a netip.Addr, ttl time.Duration) record {
	if a = a.Unmap(); a.Is4() {
		return newRecord(typeA, ttl, a.AsSlice())
	}
	return newRecord(typeAAAA, ttl, a.AsSlice())
}

func text(ttl time.Duration, words ...string) record {
	var b []byte
	for _, w := range words {
		w = w[:min(len(w), 255)]
		b = append(append(b, byte(len(w))), w...)
	}
	return newRecord(typeTXT, ttl, b)
}
