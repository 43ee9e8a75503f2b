package system

import "time"

// RoleEdge is the role of a machine that is trusted with what it runs, and with nothing else.
const RoleEdge = "edge"

// Member is a machine that joined a fleet, whether it answers now or not.
type Member struct {
	Node   NodeID            `json:"node"`
	Role   string            `json:"role"`
	Site   Site              `json:"site,omitempty"`
	Labels map[string]string `json:"labels,omitempty"` // count instead of those that the node reports
	Key    string            `json:"key"`              // pin of the public key that its certificates are for
	From   string            `json:"from"`             // address that it joined from
	By     string            `json:"by"`               // the token's name
	Joined time.Time         `json:"joined"`
}

// Drain is an operator's word that a node is to be emptied, until it is taken back.
type Drain struct {
	Node  NodeID    `json:"node"`
	Since time.Time `json:"since"`
}

// Invitation lets one machine join. It stands for as long as its lease, and is used up by the join.
type Invitation struct {
	Role   string `json:"role"`
	Digest string `json:"digest"` // SHA-256 of the token's secret
}

// Expelled is a machine that was put out of a fleet: until its last certificate has ended nobody speaks with who holds the key.
type Expelled struct {
	Node  NodeID    `json:"node"`
	Key   string    `json:"key"`
	Until time.Time `json:"until"`
}

// Act is one thing that somebody did to a fleet, or was refused.
type Act struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`          // join, renew, leave; a call of the admin door, as METHOD /v1/PATH; read, call: what a node asked of another
	Who  string    `json:"who"`           // a SPIFFE name, a token's name, or the admin door
	From string    `json:"from"`          // address; empty: this machine
	Of   string    `json:"of,omitempty"`  // node, or what was changed
	Why  string    `json:"why,omitempty"` // it was refused; empty: it was done
}
