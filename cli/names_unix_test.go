//go:build unix

package cli

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

const named = `name: plus
services:
  increment:
    deploy: {replicas: 3}
    ports: ["7007"]
    x-servent:
      process: [servent, example, increment]
      architecture: replicated
      switch: {by: name, ttl: 1s}
x-servent:
  nodes: {node: {count: 3}}
`

// asking is the standard library's own stub resolver, sent to one name server.
func asking(server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
}

// Clients find the instances by name and speak to their nodes. A node that dies is named no more.
func TestNames(t *testing.T) {
	t.Parallel()
	w := start(t, named)
	s := w.state()
	server := ""
	for _, p := range s.Published {
		if rest, ok := strings.CutPrefix(p.URL, "dns://"); ok {
			at, name, _ := strings.Cut(rest, "/")
			if server = at; name != "increment.plus.internal" {
				t.Errorf("published as %s", p.URL)
			}
		}
	}
	if server == "" {
		t.Fatalf("no name server among %v", s.Published)
	}
	servers := []string{server}
	for _, n := range s.Nodes {
		servers = append(servers, n.Names)
	}
	nodes := func(server string) map[string]string { // name → host:port
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		r := asking(server)
		_, all, err := r.LookupSRV(ctx, "increment", "tcp", "plus.internal")
		if err != nil {
			t.Errorf("%s: %v", server, err)
		}
		out := map[string]string{}
		for _, srv := range all {
			addrs, err := r.LookupHost(ctx, srv.Target)
			if err != nil || len(addrs) != 1 {
				t.Errorf("%s: %s is %v, %v", server, srv.Target, addrs, err)
				continue
			}
			out[srv.Target] = net.JoinHostPort(addrs[0], fmt.Sprint(srv.Port))
		}
		return out
	}
	w.until("all name servers know all", 30*time.Second, func(admin.State) bool {
		for _, s := range servers {
			if len(nodes(s)) != 3 {
				return false
			}
		}
		return true
	})
	for name, at := range nodes(server) {
		c, err := net.DialTimeout("tcp", at, 20*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintln(c, 41)
		line, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err != nil || strings.TrimSpace(line) != "42" {
			t.Errorf("%s answers %q, %v", name, line, err)
		}
	}
	if _, err := asking(server).LookupHost(t.Context(), "www.example.org"); err == nil {
		t.Error("it resolves names of others")
	}
	victim := system.NodeID("")
	for _, n := range s.Nodes {
		if n.Role != "server" {
			victim = n.Node
		}
	}
	if out, err := w.run("fault", "kill", string(victim), "--for", "60s"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.until("the dead node is named no more", 30*time.Second, func(admin.State) bool {
		return nodes(server)[string(victim)+".node.plus.internal."] == ""
	})
	if out, err := w.run("explain", "increment"); err != nil || !strings.Contains(out, "increment is switched by name: weighted, answers hold for 1s") {
		t.Errorf("explain: %v\n%s", err, out)
	}
}
