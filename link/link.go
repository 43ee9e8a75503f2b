// Package link is the only way a byte leaves a node: mutual TLS between nodes, datagrams under keys of that,
// the delay line, rate and cut of emulated links and faults, counters, and the node's station. Nothing else but drivers and public
// listeners opens a socket. It knows who is at the other end, never what is said.
// Start at [Link]; [Secure] is the real one, [Memory] its twin inside one process. [Datagrams] go beside it.
package link

import (
	"context"
	"errors"
	"net"

	"servent/identity"
	"servent/system"
)

// Proto is what a connection is for; it is negotiated as the TLS ALPN name.
type Proto string

const (
	HTTP   Proto = "http/1.1"      // requests and artifacts: a pool of keep-alive connections
	HTTP2  Proto = "h2"            // control, watches, logs: one connection a pair of nodes
	Tunnel Proto = "servent-l4"    // one switched connection: a preamble, then its bytes
	Voter  Proto = "servent-voter" // between the engines of two servers: one voter's connection to another
	Alive  Proto = "servent-alive" // says nothing; breaks when the node dies
)

var (
	// ErrUnknownNode: no address is known for the node.
	ErrUnknownNode = errors.New("unknown node")
	// ErrRefused: the node's machine answered that nobody listens there. The node is dead.
	ErrRefused = errors.New("connection refused")
)

// Peer is the node at the other end, as its certificate names it.
type Peer struct {
	identity.ID
	Site system.Site // as the resolver knows it; empty when it does not
}

// Conn is a connection to another node.
type Conn interface {
	net.Conn
	Peer() Peer
	CloseWrite() error
}

// Link joins a node to the others.
type Link interface {
	Self() identity.ID
	// Dial opens a connection to a node. Errors wrap [ErrUnknownNode], [ErrRefused] or ctx's. Bound it
	// by ctx: a way that is cut gives no answer.
	Dial(ctx context.Context, to system.NodeID, proto Proto) (Conn, error)
	// Accept returns the listener of the connections that other nodes open for proto. Each is a [Conn].
	// A proto without a listener is refused, and so are connections that nobody takes while 512 wait.
	// It panics when proto has a listener that is not closed.
	Accept(proto Proto) net.Listener
}

// Address is where a node's link listens.
type Address struct {
	Host string // host:port
	Site system.Site
}

// Resolver knows nodes' addresses; it answers from memory.
type Resolver func(system.NodeID) (Address, bool)
