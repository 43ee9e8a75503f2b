// Package fleet is how a machine becomes one of a fleet, stays one and leaves it: the door that a server holds open for those who have a
// token or a certificate, and the calls that a machine makes there. Who may run what is the plan's; this is only about who is in.
// Start at [Door] and [Join].
package fleet

import (
	"errors"
	"net"
	"time"

	"servent/identity"
	"servent/system"
)

// Port is where a fleet's door listens when nothing else is said.
const Port = 7077

// Bounds of what a machine says of itself.
const (
	maxCall   = 16 << 10 // bytes
	maxLabels = 64
	maxLabel  = 255 // letters of a label's name, and of its value
)

// certLife is how long a member's certificate lasts. After that long without the door, a machine has to join anew.
const certLife = 24 * time.Hour

// ErrOut: the machine is no member any more.
var ErrOut = errors.New("this machine is not of the fleet any more")

// Asked is what a machine says of itself when it joins.
type Asked struct {
	Token   string            `json:"token"` // its name
	Proof   string            `json:"proof"`
	Node    system.NodeID     `json:"node"`
	Site    system.Site       `json:"site,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Request []byte            `json:"request"` // PKCS #10 (RFC 2986), which proves that it has the key; the names in it do not count
}

// Server is one that answers for control.
type Server struct {
	Node system.NodeID `json:"node"`
	Link string        `json:"link"` // host:port
	Site system.Site   `json:"site,omitempty"`
	Door string        `json:"door,omitempty"` // host:port of a fleet's door there; it may be closed
}

// DoorOf is where the door is of a server whose link is at host:port: at [Port], or nowhere.
func DoorOf(link string) string {
	host, _, err := net.SplitHostPort(link)
	if err != nil {
		return ""
	}
	return Address(host)
}

// Welcome is what a member is told, when it joins and each time it asks again.
type Welcome struct {
	Certificate []byte          `json:"certificate"` // X.509, DER
	Servers     []Server        `json:"servers"`
	Sessions    identity.Secret `json:"sessions"`
	// Authority is the fleet's, with its key, in PEM: for a server, which holds a door of its own, and for nobody else.
	Authority []byte `json:"authority,omitempty"`
}

// failure is the answer to a call that could not be done.
type failure struct {
	Error string `json:"error"`
	Next  string `json:"next,omitempty"`
	Out   bool   `json:"out,omitempty"` // see [ErrOut]
}
