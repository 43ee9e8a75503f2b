// Package identity says who a node is: the cluster's certificate authority, a certificate with a SPIFFE
// name per node, and the keeper that holds the current one. It opens no socket and writes no file by itself.
// Names follow https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, certificates
// https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md.
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

// Check says what is wrong with a name that was not made by [Parse].
func (id ID) Check() error {
	switch id.Role {
	case Server, Node, Edge, Operator:
	default:
		return fmt.Errorf("role %q: want server, node, edge or operator", id.Role)
	}
	if err := checkCluster(id.Cluster); err != nil {
		return err
	}
	// SPIFFE-ID §2.2: letters, digits, dots, dashes and underscores; no relative segments.
	if node := string(id.Node); !spelled(node, lower+digits+upper+"._-") || node == "." || node == ".." {
		return fmt.Errorf("node %q: want 1 to 255 letters, digits, dots, dashes or underscores", node)
	}
	return nil
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// checkCluster follows SPIFFE-ID §2.1: a trust domain has no upper case.
func checkCluster(name string) error {
	if !spelled(name, lower+digits+"._-") {
		return fmt.Errorf("cluster %q: want 1 to 255 lower-case letters, digits, dots, dashes or underscores", name)
	}
	return nil
}

func spelled(s, with string) bool {
	return s != "" && len(s) <= 255 && strings.Trim(s, with) == ""
}

// Parse reads a SPIFFE name of ours. It refuses anything that [ID.URI] does not write.
func Parse(u *url.URL) (ID, error) {
	role, node, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id := ID{Cluster: u.Host, Role: Role(role), Node: system.NodeID(node)}
	if err := id.Check(); err != nil {
		return ID{}, fmt.Errorf("name %q: %w", u, err)
	}
	if u.String() != id.String() {
		return ID{}, fmt.Errorf("name %q: want spiffe://CLUSTER/ROLE/NODE", u)
	}
	return id, nil
}
