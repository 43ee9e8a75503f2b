package link

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"servent/system"
)

// Datagram is what nodes agree on keys for datagrams by. The connection stays open as long as the keys
// count; its end, also by kill -9, is the end of the keys.
const Datagram Proto = "servent-datagram"

// MaxDatagram is how many bytes a datagram has room for.
const MaxDatagram = 1200

const (
	inboxSize   = 1024 // datagrams that wait to be received; more are lost
	waitingSize = 16   // datagrams to one peer that wait for keys; more are lost
	maxSessions = 1024 // of one node; the one that is idle longest makes room
	maxMeetings = 64   // with which keys are agreed on at a time, each way; more wait, of one peer 2
	maxWanted   = 256  // peers that wait for their turn to be dialled; datagrams to more are lost

	sessionIdle = 2 * time.Minute // without a datagram either way; then it is closed
	sessionAge  = time.Hour       // then who dialled makes a new one
	maxAge      = 2 * time.Hour   // then it is closed even if no new one could be made
	sweepEvery  = 10 * time.Second

	// AES-GCM protects 2^28 packets of up to 2^11 bytes (RFC 9001 §6.6, B.1.1).
	maxPackets   = 1 << 28
	renewPackets = maxPackets / 2

	minPause = 50 * time.Millisecond // between two tries to reach a peer, doubled up to maxPause
	maxPause = time.Second
)

// Lost counts the datagrams that went astray at this node.
type Lost struct {
	// of what this node sent
	Unsent int64 // the peer could not be reached, or too many waited for it
	Cut    int64 // lost on an emulated way, by a cut or in a full queue
	// of what came in
	Strange  int64 // no packet of ours, or of a session that has ended
	Forged   int64 // its seal is broken
	Repeated int64 // a copy, or overtaken by thousands
	Full     int64 // nobody received so fast
}

// losses is Lost while it is counted.
type losses struct {
	unsent, cut, strange, forged, repeated, full atomic.Int64
}

// Lost returns what went astray since the start.
func (l *losses) Lost() Lost {
	return Lost{l.unsent.Load(), l.cut.Load(), l.strange.Load(), l.forged.Load(), l.repeated.Load(), l.full.Load()}
}

// inbox holds what came until it is received.
type inbox struct {
	losses
	letters chan letter
	closed  chan struct{}
}

type letter struct {
	from system.NodeID
	b    []byte
}

func newInbox() inbox {
	return inbox{letters: make(chan letter, inboxSize), closed: make(chan struct{})}
}

// drop puts a datagram in, or counts it as lost.
func (i *inbox) drop(l letter) {
	select {
	case i.letters <- l:
	default:
		i.full.Add(1)
	}
}

// Receive returns the next datagram and the node that sent it, as its certificate names it. The bytes
// are the caller's. Errors are ctx's, or wrap [net.ErrClosed] when no more will come.
func (i *inbox) Receive(ctx context.Context) (from system.NodeID, b []byte, err error) {
	select {
	case <-ctx.Done():
		return "", nil, ctx.Err()
	case <-i.closed:
		return "", nil, fmt.Errorf("receive a datagram: %w", net.ErrClosed)
	default:
	}
	select {
	case l := <-i.letters:
		return l.from, l.b, nil
	case <-ctx.Done():
		return "", nil, ctx.Err()
	case <-i.closed:
		return "", nil, fmt.Errorf("receive a datagram: %w", net.ErrClosed)
	}
}

// checkSize says that a datagram is too large.
func checkSize(b []byte) error {
	if len(b) > MaxDatagram {
		return fmt.Errorf("%d bytes: want at most %d in a datagram", len(b), MaxDatagram)
	}
	return nil
}
