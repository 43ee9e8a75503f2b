package node

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"servent/identity"
	"servent/link"
	"servent/system"
)

var errEdge = errors.New("an edge may speak with the fleet's servers, about what it runs, and with nobody else")

// admit says whether a connection is taken. An edge answers requests and asks a server what it is to run: it asks no service for anything, and
// is of no overlay.
func (n *Node) admit(who link.Peer, proto link.Proto, from string) error {
	if who.Role != identity.Edge || proto == link.HTTP2 && n.boot.Role == identity.Server {
		return nil
	}
	n.refused(who.ID, from, "connect "+string(proto), string(n.boot.ID), errEdge)
	return errEdge
}

// refused says that another node asked what it may not.
func (n *Node) refused(who identity.ID, from, what, of string, why error) {
	n.log.Warn("refused", "peer", who, "from", from, "asked", what, "of", of, "err", why)
	n.opt.Tell(Told{Refused: &system.Act{Time: time.Now().UTC(), What: what, Who: who.String(), From: from, Of: of, Why: why.Error()}})
}

// deny answers a request of a node that may not make it.
func (n *Node) deny(w http.ResponseWriter, r *http.Request, of string, why error) {
	http.Error(w, "denied", http.StatusForbidden)
	who := identity.ID{}
	if p, ok := link.PeerFrom(r.Context()); ok {
		who = p.ID
	}
	n.refused(who, r.RemoteAddr, r.Method+" "+strings.TrimSuffix(r.URL.Path, "/"+of), of, why)
}

var errRole = errors.New("its role does not let it")
