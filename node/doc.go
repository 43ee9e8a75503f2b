// Package node is the composition root: it builds one servent node from its parts, wires them, opens
// its listeners and closes them again. It decides nothing: where things run is the conductor's, what
// runs the agent's, who answers the route table's. Start at [Run]; [Boot] is all that a node is told.
package node

import (
	"encoding/json"
	"fmt"
	"io"

	"servent/identity"
	"servent/link"
	"servent/system"
)

// Boot is what a node is told at its start, as one line of JSON on its standard input. Further lines
// are [Word]s. When the input ends, the node does, in good order: that is how it is stopped, and why it
// never outlives who started it.
type Boot struct {
	Credential identity.Credential `json:"credential"`
	Sessions   identity.Secret     `json:"sessions"` // signs cookies: the same on all nodes
	ID         system.NodeID       `json:"id"`
	Role       identity.Role       `json:"role"`
	Site       system.Site         `json:"site"`
	Group      string              `json:"group"`
	Labels     map[string]string   `json:"labels,omitempty"`
	Resources  system.Resources    `json:"resources"`
	Host       string              `json:"host"`        // address of its doors and its instances
	LinkHost   string              `json:"link_host"`   // address of its link, as other machines know it; empty: Host
	PortBase   int                 `json:"port_base"`   // the link listens here; doors and instances above
	Inlet      int                 `json:"inlet"`       // offset at which published ports pass on what came to them; 0: there is none
	Dir        string              `json:"dir"`         // private folder
	Blobs      string              `json:"blobs"`       // folder of bytes by digest
	ControlDir string              `json:"control_dir"` // where a server keeps control
	Servers    []Server            `json:"servers"`     // who answers for control
	Joined     bool                `json:"joined"`      // on a server: it joined others, and never begins a control of its own
	Control    string              `json:"control"`     // on a server: an etcd of the user's; empty: its own
	Emulated   bool                `json:"emulated"`
	Capacity   system.Capacity     `json:"capacity"`
	Groups     []system.NodeGroup  `json:"groups,omitempty"` // of the whole system: how far other sites are
	Faults     Faults              `json:"faults"`           // as they stand when it starts
}

// Faults are the troubles made on purpose on the ways to other nodes. Each replaces the one before.
type Faults struct {
	Turn int64       `json:"turn"` // grows; the node says it back in [Told.Heard]
	To   link.Faults `json:"to,omitempty"`
}

// Server is one that answers for control.
type Server struct {
	Node system.NodeID `json:"node"`
	Link string        `json:"link"` // host:port
	Site system.Site   `json:"site"`
}

// Word is a later line on a node's standard input. Fields that are not set change nothing.
type Word struct {
	Credential *identity.Credential `json:"credential,omitempty"` // a new certificate, before the old one ends
	Faults     *Faults              `json:"faults,omitempty"`
	Servers    []Server             `json:"servers,omitempty"` // who answers for control from now on
}

// Told is one line on a node's standard output.
type Told struct {
	Serving bool   `json:"serving,omitempty"` // its link accepts connections
	Failed  string `json:"failed,omitempty"`  // it ends; why, in words
	Heard   int64  `json:"heard,omitempty"`   // the turn of the faults that its link has now

	Refused *system.Act `json:"refused,omitempty"` // what another asked that it may not
}

// words reads what is told after the boot line. The channel closes with the input.
func words(dec *json.Decoder) <-chan Word {
	out := make(chan Word, 16)
	go func() { // ends with the input, that is, with who started this process
		defer close(out)
		for {
			var w Word
			if dec.Decode(&w) != nil {
				return
			}
			out <- w
		}
	}()
	return out
}

// ReadBoot reads the boot line and returns the words that follow it.
func ReadBoot(r io.Reader) (Boot, <-chan Word, error) {
	var b Boot
	dec := json.NewDecoder(r)
	if err := dec.Decode(&b); err != nil {
		return b, nil, fmt.Errorf("read the boot line: %w", err)
	}
	return b, words(dec), nil
}
