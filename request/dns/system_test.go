package dns

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"servent/route"
	"servent/system"
)

// shop is a plan with a service by name, one by request, and what is seen of it.
func shop(emulated bool, port system.Port) (*system.Plan, []system.Seen) {
	run := func(id, node string) system.Assignment {
		return system.Assignment{Instance: system.InstanceID(id), Node: system.NodeID(node), Goal: system.GoalRun, Spec: "s"}
	}
	plan := &system.Plan{System: "shop", Generation: 5, Names: 2, Doors: []system.Door{{Service: "api", Offset: 3}, {Service: "web", Offset: 4}},
		Services: []system.Deployment{
			{Service: system.Service{Name: "api", Switch: system.Switch{By: system.ByName, TTL: 5 * time.Second}, Ports: []system.Port{port}}, Spec: "s",
				Assignments: []system.Assignment{run("api/1", "n1"), run("api/2", "n1"), run("api/3", "n2"), run("api/4", "n3")}},
			{Service: system.Service{Name: "web", Switch: system.Switch{By: system.ByRequest}}, Spec: "s", Assignments: []system.Assignment{run("web/1", "n1")}}}}
	var seen []system.Seen
	for i, node := range []system.NodeID{"n1", "n2", "n3"} {
		s := system.Seen{Node: node, Site: "eu", Address: fmt.Sprintf("127.77.0.%d", i+1), PortBase: 20000 + 100*i, Emulated: emulated, Link: fmt.Sprintf("127.77.0.%d:20000", i+1),
			Resources: system.Resources{CPUs: 4}}
		if !emulated {
			s.Address, s.Link = "127.0.0.1", fmt.Sprintf("10.0.0.%d:20000", i+1)
		}
		for _, d := range plan.Services {
			for _, a := range d.Assignments {
				state := system.StateReady
				if a.Instance == "api/4" {
					state = system.StateUnhealthy
				}
				if a.Node == node {
					s.Instances = append(s.Instances, system.InstanceSeen{Instance: a.Instance, Spec: "s", State: state})
				}
			}
		}
		seen = append(seen, s)
	}
	return plan, seen
}

// places are who is said to have a service, by name: host:port and weight.
func places(s Spec, name system.ServiceName) (all []string) {
	for _, svc := range s.Services {
		for _, p := range svc.At {
			if svc.Name == name {
				all = append(all, fmt.Sprintf("%s %s:%d %v", p.Instance.Node, p.Addr, p.Port, p.Instance.Weight))
			}
		}
	}
	return all
}

func TestOfASystem(t *testing.T) {
	for _, tt := range []struct {
		name     string
		emulated bool
		port     system.Port
		self     system.NodeID
		api      []string
	}{
		{"emulated nodes: their doors, and who is not ready is left out", true, system.Port{Published: 8080}, "", []string{"n1 127.77.0.1:20003 4", "n2 127.77.0.2:20103 4"}},
		{"a fleet, published to all", false, system.Port{Published: 8080, Host: "0.0.0.0"}, "", []string{"n1 10.0.0.1:8080 4", "n2 10.0.0.2:8080 4"}},
		{"a fleet, published on loopback: for the machine's own users", false, system.Port{Published: 8080}, "n2", []string{"n2 127.0.0.1:20103 4"}},
	} {
		plan, seen := shop(tt.emulated, tt.port)
		s := Of(plan, seen, route.Build(plan, seen, tt.self), "eu")
		if d := cmp.Diff(tt.api, places(s, "api")); d != "" {
			t.Errorf("%s: api %s", tt.name, d)
		}
		if s.Origin != "shop.internal" || s.Serial != 5 || s.Services[0].TTL != 5*time.Second || s.Services[1].TTL != TTL {
			t.Errorf("%s: %+v", tt.name, s)
		}
		if tt.emulated {
			if got := places(s, "web"); len(got) != 3 || got[0] != "n1 127.77.0.1:20004 0" {
				t.Errorf("by request, any node lets in: %v", got)
			}
		}
		if _, err := NewZone(s); err != nil {
			t.Error(err)
		}
	}
}

func TestResolver(t *testing.T) {
	t.Parallel()
	var zones = map[string]*Zone{}
	for _, ttl := range []time.Duration{0, time.Hour} {
		plan, seen := shop(true, system.Port{})
		plan.Services[0].Service.Switch.TTL = ttl
		z, err := NewZone(Of(plan, seen, route.Build(plan, seen, ""), ""))
		if err != nil {
			t.Fatal(err)
		}
		zones[ttl.String()] = z
	}
	zone := zones["1h0m0s"]
	s, addr := serve(t, Options{Zone: func() *Zone { return zone }})
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	servers := []string{dead.LocalAddr().String(), addr}
	r := &Resolver{Name: "_api._tcp.shop.internal", Servers: func() []string { return servers }}
	seen := map[string]bool{}
	for range 20 {
		at, err := r.Lookup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[at] = true
	}
	if n := s.Counts().Queries; len(seen) != 1 || n != 1 || r.Asked() != 2 {
		t.Errorf("an answer for an hour: %v after %d questions, %d with those to the dead one", seen, n, r.Asked())
	}
	for at := range seen {
		if !strings.HasPrefix(at, "127.77.0.") {
			t.Errorf("it is at %s", at)
		}
	}
	if _, err := (&Resolver{Name: "_gone._tcp.shop.internal", Servers: r.Servers}).Lookup(t.Context()); err == nil || !strings.Contains(err.Error(), ErrNowhere.Error()) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := (&Resolver{Name: "www.example.org", Servers: r.Servers}).Lookup(t.Context()); err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Errorf("outside: %v", err)
	}
	if _, err := (&Resolver{Name: "x", Servers: func() []string { return nil }}).Lookup(t.Context()); err == nil {
		t.Error("without a server")
	}
	_, fresh := serve(t, Options{Zone: func() *Zone { return zones["0s"] }})
	r = &Resolver{Name: "api.shop.internal", Servers: func() []string { return []string{fresh} }}
	for range 20 {
		at, err := r.Lookup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[at] = true
	}
	if len(seen) != 2 || r.Asked() != 20 {
		t.Errorf("an answer that is not kept: %v after %d questions", seen, r.Asked())
	}
}

// TestPlainAndBatched: one datagram at a time, as elsewhere than on Linux, and many at a call are the same to clients.
func TestPlainAndBatched(t *testing.T) {
	t.Parallel()
	z := sample(t)
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Zone: func() *Zone { return z }})
	done := make(chan error, 1)
	go func() { done <- s.plain(c) }()
	for range 20 {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion("one.shop.internal.", dns.TypeA), c.LocalAddr().String())
		if err != nil || len(r.Answer) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	c.Close()
	if err := <-done; err == nil {
		t.Error("it ended without a word")
	}
}
