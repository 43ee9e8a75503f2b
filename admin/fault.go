package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/system"
	"servent/system/notation"
)

// FaultKind is what a fault does.
type FaultKind string

const (
	FaultKill  FaultKind = "kill"  // a node's process ends as by kill -9, and does not come back meanwhile
	FaultPause FaultKind = "pause" // a node's process stops where it is
	FaultCut   FaultKind = "cut"   // nothing passes between nodes
	FaultSlow  FaultKind = "slow"  // what passes between nodes is late, or little
)

var faultKinds = []string{string(FaultKill), string(FaultPause), string(FaultCut), string(FaultSlow)}

// Trouble asks for a fault.
type Trouble struct {
	Kind    FaultKind     `json:"kind"`
	Node    system.NodeID `json:"node"`
	Peer    system.NodeID `json:"peer,omitempty"`    // cut, slow: the other end; empty: every other node
	OneWay  bool          `json:"one_way,omitempty"` // cut, slow: only what node sends to peer
	Latency time.Duration `json:"latency,omitempty"` // slow: more delay, one way
	Jitter  time.Duration `json:"jitter,omitempty"`  // slow: latency ± up to this; at most latency
	Rate    int64         `json:"rate,omitempty"`    // slow: bits a second; 0: no bound
	After   time.Duration `json:"after,omitempty"`   // until it begins
	For     time.Duration `json:"for,omitempty"`     // that it lasts; 0: a kill until it is healed, all others [FaultFor]
}

// FaultFor is how long a fault lasts when nobody says otherwise.
const FaultFor = 10 * time.Second

// maxFault bounds the durations of a fault.
const maxFault = 24 * time.Hour

// maxTrouble bounds a request for a fault.
const maxTrouble = 64 << 10

// Fault is one that is, or will be.
type Fault struct {
	ID int `json:"id"` // from 1, never used twice in a system's run
	Trouble
	Begins time.Time `json:"begins"`
	Ends   time.Time `json:"ends"` // zero: when it is healed
}

// String says what it does, without its times.
func (t Trouble) String() string {
	between := string(t.Kind) + " " + string(t.Node)
	if t.Kind == FaultKill || t.Kind == FaultPause {
		return between
	}
	arrow := " ↔ "
	if t.OneWay {
		arrow = " → "
	}
	between += arrow + cmp.Or(string(t.Peer), "all others")
	var how []string
	if t.Latency > 0 {
		how = append(how, "+"+t.Latency.String())
	}
	if t.Jitter > 0 {
		how = append(how, "±"+t.Jitter.String())
	}
	if t.Rate > 0 {
		how = append(how, bits(t.Rate))
	}
	return strings.Join(append([]string{between}, how...), " ")
}

// bits writes a rate as files have it.
func bits(rate int64) string {
	for _, u := range []struct {
		name string
		bits int64
	}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}} {
		if rate >= u.bits {
			return strconv.FormatFloat(float64(rate)/float64(u.bits), 'g', 4, 64) + u.name
		}
	}
	return strconv.FormatInt(rate, 10) + "bit"
}

// Check says what is wrong with a trouble, whatever nodes there are.
func (t Trouble) Check() error {
	bad := func(format string, args ...any) error { return fmt.Errorf("fault: "+format, args...) }
	if !slices.Contains(faultKinds, string(t.Kind)) {
		return bad("want one of %s, have %q%s", strings.Join(faultKinds, ", "), t.Kind, notation.Suggest(string(t.Kind), faultKinds))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"latency", t.Latency}, {"jitter", t.Jitter}, {"after", t.After}, {"for", t.For}} {
		if d.value < 0 || d.value > maxFault {
			return bad("%s: want 0s…%s, have %s", d.name, maxFault, d.value)
		}
	}
	switch {
	case (t.Kind == FaultKill || t.Kind == FaultPause) && (t.Peer != "" || t.OneWay):
		return bad("%s takes one node", t.Kind)
	case t.Kind != FaultSlow && (t.Latency != 0 || t.Jitter != 0 || t.Rate != 0):
		return bad("%s has no latency, jitter or rate; slow has", t.Kind)
	case t.Peer != "" && t.Peer == t.Node:
		return bad("%s cannot be parted from itself", t.Node)
	case t.Rate < 0:
		return bad("rate: want bits a second from 0, have %d", t.Rate)
	case t.Kind == FaultSlow && t.Latency == 0 && t.Rate == 0:
		return bad("slow: want a latency or a rate")
	case t.Jitter > t.Latency:
		return bad("jitter: want at most the latency, %s, have %s", t.Latency, t.Jitter)
	}
	return nil
}

// complete checks a trouble among the nodes that there are, and fills in what it leaves open.
func (t Trouble) complete(nodes []system.NodeID) (Trouble, error) {
	if err := t.Check(); err != nil {
		return t, &coded{http.StatusBadRequest, err}
	}
	for i, n := range []system.NodeID{t.Node, t.Peer} {
		if !slices.Contains(nodes, n) && (i == 0 || n != "") {
			return t, noNode(n, nodes)
		}
	}
	if (t.Kind == FaultCut || t.Kind == FaultSlow) && len(nodes) < 2 {
		return t, &coded{http.StatusBadRequest, &system.Hint{Err: fmt.Errorf("fault: %s is the only node; %s needs two", t.Node, t.Kind), Next: "servent ps"}}
	}
	if t.For == 0 && t.Kind != FaultKill {
		t.For = FaultFor
	}
	return t, nil
}

// noNode says that there is no such node, and which there are.
func noNode(n system.NodeID, nodes []system.NodeID) error {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	return &coded{http.StatusNotFound, &system.Hint{Err: fmt.Errorf("no node %q%s; the nodes are %s", n, notation.Suggest(string(n), names), strings.Join(names, ", ")), Next: "servent ps"}}
}

// noFaults is why a fleet has none.
var noFaults = &system.Hint{Err: errors.New("fault: these nodes are not this machine's own; a fault is made on the machine that started them"), Next: "servent up"}

// nodes are the names of those that were started here, in the order of [State].
func (d *Door) nodes() (out []system.NodeID) {
	for _, n := range d.State().Nodes {
		out = append(out, n.Node)
	}
	return out
}

func (d *Door) trouble(w http.ResponseWriter, r *http.Request) error {
	t, err := readTrouble(http.MaxBytesReader(w, r.Body, maxTrouble))
	if err != nil {
		return err
	}
	if d.Machines == nil {
		return noFaults
	}
	if t, err = t.complete(d.nodes()); err != nil {
		return err
	}
	f, err := d.Machines.Trouble(r.Context(), t)
	if err != nil {
		return err
	}
	return answer(w, f)
}

func (d *Door) faults(w http.ResponseWriter, _ *http.Request) error {
	if d.Machines == nil {
		return answer(w, []Fault{})
	}
	return answer(w, listed(d.Machines.Faults()))
}

func (d *Door) heal(w http.ResponseWriter, r *http.Request) error {
	if d.Machines == nil {
		return noFaults
	}
	q := r.URL.Query()
	if !q.Has("what") {
		return answer(w, listed(d.Machines.Heal(r.Context(), func(Fault) bool { return true })))
	}
	what := q.Get("what")
	id, err := strconv.Atoi(what)
	if nodes := d.nodes(); err != nil && !slices.Contains(nodes, system.NodeID(what)) {
		return noNode(system.NodeID(what), nodes)
	}
	healed := d.Machines.Heal(r.Context(), func(f Fault) bool {
		return err == nil && f.ID == id || string(f.Node) == what || string(f.Peer) == what
	})
	if err == nil && len(healed) == 0 {
		return &coded{http.StatusNotFound, &system.Hint{Err: fmt.Errorf("no fault %d", id), Next: "servent fault ls"}}
	}
	return answer(w, listed(healed))
}

func listed(fs []Fault) []Fault {
	if fs == nil {
		return []Fault{}
	}
	return fs
}

func readTrouble(r io.Reader) (t Trouble, err error) {
	if err := decode(r, &t); err != nil {
		return t, &coded{http.StatusBadRequest, fmt.Errorf(`read the fault, as {"kind": "kill", "node": "node-2"}: %w`, err)}
	}
	return t, nil
}
