package node

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"servent/blob"
	"servent/control"
	"servent/identity"
	"servent/system"
)

const (
	lastName    = "last.json"
	rememberGap = 2 * time.Second // between two writes
	recallAfter = 3 * time.Second // of silence, from the start on
)

// last is what a node keeps of the cluster, so that it can start while nobody answers for control.
type last struct {
	Cluster  string            `json:"cluster"`
	Rev      control.Rev       `json:"rev"` // of control, at which it stood so
	Plan     *system.Plan      `json:"plan"`
	Seen     []system.Seen     `json:"seen"`
	Expelled []system.Expelled `json:"expelled,omitempty"`
	// Certificates are sealed as in control.
	Certificates []system.Certified `json:"certificates,omitempty"`
}

// recalls says whether the node writes the plan down, for a start at which nobody answers for control: a machine that is not alone.
func (n *Node) recalls() bool {
	return !n.boot.Emulated && (n.boot.Role != identity.Server || len(n.servers.others()) > 0)
}

// remember writes down every new plan, and what is seen with it, until ctx ends.
func (n *Node) remember(ctx context.Context) error {
	for written := (*control.View)(nil); ; {
		changed := n.news.wait()
		if v := n.view.Load(); v != written && v.Plan != nil && v.Rev > 0 { // one that was recalled has no revision
			b, err := json.Marshal(last{n.keep.ID().Cluster, v.Rev, v.Plan, v.Seen, v.Expelled, v.Certificates})
			if err == nil {
				err = blob.Replace(n.lastFile(), b, 0o600)
			}
			if err != nil { // it serves all the same
				n.log.Warn("keep the plan for a start without control", "err", err)
			}
			written = v
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rememberGap):
		}
	}
}

func (n *Node) lastFile() string { return filepath.Join(n.boot.Dir, lastName) }

// recall is the view that was written down last, or nil.
func (n *Node) recall() *control.View {
	l := n.lastKept()
	if l == nil {
		return nil
	}
	return &control.View{Plan: l.Plan, Seen: l.Seen, Expelled: l.Expelled, Certificates: l.Certificates}
}

// witnessed is the revision at which control stood when this node wrote down what it said: it cannot be older now. 0: nothing was written down.
func (n *Node) witnessed() control.Rev {
	if !n.recalls() {
		return 0
	}
	if l := n.lastKept(); l != nil {
		return l.Rev
	}
	return 0
}

// lastKept is what was written down last of this fleet, or nil.
func (n *Node) lastKept() *last {
	b, err := os.ReadFile(n.lastFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var l last
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil || l.Plan == nil {
		n.log.Warn("the plan that was kept cannot be read", "err", err)
		return nil
	}
	if l.Cluster != n.keep.ID().Cluster {
		return nil
	}
	return &l
}
