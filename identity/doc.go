// Package identity says who a node is: the cluster's certificate authority, a certificate with a SPIFFE
// name per node, and the keeper that renews it. It opens no socket and writes no file by itself.
// Names follow https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md.
// Start at [Authority] and [Keeper].
package identity

import (
	"fmt"
	"net/url"
	"strings"

	"servent/system"
)

// Role is what a certificate lets its holder do.
type Role string

const (
	Server   Role = "server"   // control and all below
	Node     Role = "node"     // its own plan and status, requests
	Edge     Role = "edge"     // its own plan and the artifacts it names
	Operator Role = "operator" // what a user may ask for through the admin door
)

// ID is a SPIFFE name: spiffe://CLUSTER/ROLE/NODE.
type ID struct {
	Cluster string
	Role    Role
	Node    system.NodeID
}

// URI returns the name as it stands in a certificate.
func (id ID) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.Cluster, Path: "/" + string(id.Role) + "/" + string(id.Node)}
}

func (id ID) String() string { return id.URI().String() }

// Parse reads a SPIFFE name of ours. It refuses anything that [ID.URI] does not write.
func Parse(u *url.URL) (ID, error) {
	role, node, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id := ID{Cluster: u.Host, Role: Role(role), Node: system.NodeID(node)}
	switch id.Role {
	case Server, Node, Edge, Operator:
	default:
		ok = false
	}
	if !ok || u.Scheme != "spiffe" || id.Cluster == "" || node == "" || strings.Contains(node, "/") || u.String() != id.String() {
		return ID{}, fmt.Errorf("name %q: want spiffe://CLUSTER/ROLE/NODE", u)
	}
	return id, nil
}
