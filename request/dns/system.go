package dns

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"servent/route"
	"servent/system"
)

// Origin is the name of a system's zone: in internal., which the public DNS leaves to private use (ICANN, July 2024).
func Origin(sys string) string { return sys + ".internal" }

// Of is the zone of a system as one who has the table sees it: a service that is switched by name is where its ready
// instances are, any other one at every node that is seen, whose door leads on. site is the server's own, if it has one.
func Of(plan *system.Plan, seen []system.Seen, t *route.Table, site system.Site) Spec {
	s := Spec{Origin: Origin(plan.System), Serial: uint32(plan.Generation), Site: site}
	at := map[system.NodeID]*system.Seen{}
	for i := range seen {
		n := &seen[i]
		at[n.Node] = n
		if a, err := netip.ParseAddr(outside(n)); err == nil {
			s.Nodes = append(s.Nodes, Node{ID: n.Node, Site: n.Site, Addr: a, Names: n.Emulated && plan.Names > 0})
		}
	}
	for i := range plan.Services {
		svc := &plan.Services[i].Service
		of := t.Services[svc.Name]
		if of == nil {
			continue
		}
		out := Service{Name: svc.Name, TTL: TTL, Policy: "roundrobin"}
		among := of.Instances
		if svc.Switch.By == system.ByName {
			out.TTL, out.Policy = svc.Switch.TTL, svc.Switch.Policy
			out.Sticky = svc.Switch.Sticky != "" && svc.Switch.Sticky != "none"
		} else {
			among = doors(svc.Name, seen)
		}
		for _, p := range svc.Ports {
			out.Secure = out.Secure || p.App == "https"
		}
		here := map[system.NodeID]int{} // instances of one node share its door: it is one place, of their weight together
		for _, in := range among {
			n := at[in.Node]
			if n == nil {
				continue
			}
			if i, ok := here[in.Node]; ok {
				out.At[i].Instance.Weight += in.Weight
				continue
			}
			if p, ok := reached(svc, n, of.Door, in.Node == t.Self); ok {
				p.Instance = in
				here[in.Node] = len(out.At)
				out.At = append(out.At, p)
			}
		}
		s.Services = append(s.Services, out)
	}
	return s
}

// doors are the nodes where a service is let in whoever has its instances.
func doors(name system.ServiceName, seen []system.Seen) (all []route.Instance) {
	for i := range seen {
		n := &seen[i]
		all = append(all, route.Instance{ID: system.InstanceID(fmt.Sprintf("%s/%s", name, n.Node)), Node: n.Node, Site: n.Site})
	}
	return all
}

// outside is the address by which others know a node.
func outside(n *system.Seen) string {
	if host, _, err := net.SplitHostPort(n.Link); err == nil && !n.Emulated {
		return host
	}
	return n.Address
}

// reached is where clients reach a service on a node. Of an emulated node it is its door. A machine of a fleet has its doors on
// loopback, for its own programs; others come by a port that the file publishes to them.
func reached(s *system.Service, n *system.Seen, door int, own bool) (p Place, ok bool) {
	host, port := n.Address, n.PortBase+door
	if !n.Emulated {
		open := 0
		for _, p := range s.Ports {
			if a, err := netip.ParseAddr(p.Host); err == nil && !a.IsLoopback() && p.Published > 0 {
				open = p.Published
			}
		}
		switch {
		case open > 0:
			host, port = outside(n), open
		case !own:
			return p, false
		}
	}
	a, err := netip.ParseAddrPort(net.JoinHostPort(host, strconv.Itoa(port)))
	return Place{Addr: a.Addr(), Port: a.Port()}, err == nil
}
