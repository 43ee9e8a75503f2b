package system

import (
	"math"
	"slices"
	"time"
)

// Plan says what should run where. The conductor writes it under its fencing number; agents and
// route tables follow it. It is complete: what it does not name must not run.
type Plan struct {
	System     string       `json:"system"`
	Generation int64        `json:"generation"`      // grows by one with every change
	Fence      int64        `json:"fence"`           // of the conductor that wrote it
	Doors      []Door       `json:"doors"`           // sorted by service
	Names      int          `json:"names,omitempty"` // where every node answers for names, at its port base plus this; 0: nowhere
	Web        *Web         `json:"web,omitempty"`
	Services   []Deployment `json:"services"`          // sorted by service
	Refused    []Refusal    `json:"refused,omitempty"` // sorted by service
}

// Door is where a service is reached on every node: at the node's port base plus Offset.
// An offset never changes while the service exists.
type Door struct {
	Service ServiceName `json:"service"`
	Offset  int         `json:"offset"`
}

// Deployment is one service's part of the plan.
type Deployment struct {
	Service     Service      `json:"service"`          // as wanted now
	Spec        Digest       `json:"spec"`             // what an instance is made from; see [Service.Spec]
	Assignments []Assignment `json:"assignments"`      // sorted by instance
	Parts       *Parts       `json:"parts,omitempty"`  // of a partitioned service: who owns which keys
	Ring        Places       `json:"ring,omitempty"`   // of a ring or another overlay: where its members stand
	Called      *Called      `json:"called,omitempty"` // of a function: how many instances its calls need
}

// Called is how many instances a service has because it is called.
type Called struct {
	Want  int       `json:"want"`            // instances that calls need, or needed until a short while ago
	Less  time.Time `json:"less,omitzero"`   // since when fewer would do; zero: all of them are needed
	Wakes int       `json:"wakes,omitempty"` // how often a call found no instance planned, and one was made
	// Paced is the last step towards a goal of latency; nil before the first.
	Paced *Paced `json:"paced,omitempty"`
	// Arrivals is what is known of when calls come, with scale.warm; nil before the first.
	Arrivals *Arrivals `json:"arrivals,omitempty"`
}

// Paced is a change of a service's number of instances for the sake of its latency.
type Paced struct {
	At      time.Time `json:"at"`
	From    int       `json:"from"`    // instances before
	Latency float64   `json:"latency"` // before, seconds
}

// Arrivals are the times for which nobody called a service.
type Arrivals struct {
	Quiet time.Time `json:"quiet,omitzero"` // since when nobody calls; zero: somebody does
	Gaps  []int     `json:"gaps,omitempty"` // how many such times took from 2^(i/4) to 2^((i+1)/4) seconds
}

// Partitions is into how many parts the keys of a partitioned service are divided, whatever its number
// of instances: only whole partitions ever move.
const Partitions = 4096

// Parts says which instance owns each partition of a service's keys.
type Parts struct {
	Instances []InstanceID `json:"instances"` // owners, sorted by number
	Owner     []int        `json:"owner"`     // [Partitions] long: index into Instances
}

// Of returns the owner of a partition, or "" when there is none.
func (p *Parts) Of(partition int) InstanceID {
	if p == nil || partition >= len(p.Owner) || p.Owner[partition] >= len(p.Instances) {
		return ""
	}
	return p.Instances[p.Owner[partition]]
}

// Share is how many partitions an instance owns.
func (p *Parts) Share(id InstanceID) (n int) {
	if p == nil {
		return 0
	}
	for _, i := range p.Owner {
		if i < len(p.Instances) && p.Instances[i] == id {
			n++
		}
	}
	return n
}

// Places says where the members of a service's ring stand: sorted places on a circle of 2^64. What falls on it belongs
// to the one that stands there, or first after it; under another rule see [Owner.Ranges].
type Places []Place

// Place is one member's place.
type Place struct {
	Instance InstanceID `json:"instance"`
	At       uint64     `json:"at"`
}

// Of returns the owner of what falls on a place, or "" when there is none.
func (r Places) Of(at uint64) InstanceID {
	for _, m := range r {
		if m.At >= at {
			return m.Instance
		}
	}
	if len(r) > 0 {
		return r[0].Instance
	}
	return ""
}

// Between are the owners of what falls on first, on last or in between, in that order; first is not above last.
func (r Places) Between(first, last uint64) []InstanceID {
	out := []InstanceID{r.Of(first)}
	for _, m := range r {
		if first < m.At && m.At <= last {
			out = append(out, m.Instance)
		}
	}
	return slices.Compact(append(out, r.Of(last)))
}

// Range is how much of the circle the i-th member owns: from the member before it, without, to its own
// place. One alone owns it all, which counts as one place less.
func (r Places) Range(i int) uint64 {
	if len(r) == 1 {
		return math.MaxUint64
	}
	return r[i].At - r[(i+len(r)-1)%len(r)].At
}

// Share is how much of the keys an instance owns, 0 to 1.
func (r Places) Share(id InstanceID) (share float64) {
	for i, m := range r {
		if m.Instance == id {
			share += float64(r.Range(i)) / (1 << 64)
		}
	}
	return share
}

// Assignment gives one instance to one node.
type Assignment struct {
	Instance InstanceID `json:"instance"`
	Node     NodeID     `json:"node"`
	Spec     Digest     `json:"spec"`
	Made     *Service   `json:"made,omitempty"` // set when Spec is not the deployment's: the older version, still running
	Port     int        `json:"port"`           // offset of the instance's own port on its node
	Goal     Goal       `json:"goal"`
	Folder   string     `json:"folder"`          // of its private data, relative to the node's; equal to the ID's ordinal
	Reason   string     `json:"reason"`          // why here, in words
	Waits    string     `json:"waits,omitempty"` // why a GoalWait waits, in words
}

// Goal is what should become of an instance.
type Goal string

const (
	GoalRun   Goal = "run"
	GoalDrain Goal = "drain" // no new requests; stop when the open ones have ended
	GoalWait  Goal = "wait"  // holds its place, does not run: see Assignment.Waits
)

// Refusal says why a service has fewer instances than wanted.
type Refusal struct {
	Service ServiceName `json:"service"`
	Missing int         `json:"missing"` // instances without a place
	Reason  string      `json:"reason"`  // which node lacks what
}

// Deployment returns the plan's part for one service, or nil.
func (p *Plan) Deployment(name ServiceName) *Deployment {
	for i := range p.Services {
		if p.Services[i].Service.Name == name {
			return &p.Services[i]
		}
	}
	return nil
}

// Door returns the offset of a service's door.
func (p *Plan) Door(name ServiceName) (int, bool) {
	for _, d := range p.Doors {
		if d.Service == name {
			return d.Offset, true
		}
	}
	return 0, false
}

// Named says that some service is switched by name.
func (p *Plan) Named() bool {
	return slices.ContainsFunc(p.Services, func(d Deployment) bool { return d.Service.Switch.By == ByName })
}

// Seen is what one node says of itself. It lives under the node's lease: a node that is not seen
// is dead, cut off or stopped.
type Seen struct {
	Node      NodeID            `json:"node"`
	Role      string            `json:"role"` // server, node, edge
	Site      Site              `json:"site"`
	Group     string            `json:"group"`
	Address   string            `json:"address"`   // host of its doors and of its link
	PortBase  int               `json:"port_base"` // doors and instances are offsets from here
	Link      string            `json:"link"`      // host:port of its link
	Emulated  bool              `json:"emulated"`
	Capacity  Capacity          `json:"capacity"`
	Labels    map[string]string `json:"labels,omitempty"`
	Resources Resources         `json:"resources"`          // that instances may use in all
	Drivers   map[string]string `json:"drivers"`            // kind → "" when it works, else why not
	Cordoned  bool              `json:"cordoned,omitempty"` // gets nothing new
	Draining  bool              `json:"draining,omitempty"` // what is not tied to its data goes elsewhere
	Started   time.Time         `json:"started"`            // of the process
	Plan      int64             `json:"plan"`               // generation that it follows
	Instances []InstanceSeen    `json:"instances,omitempty"`
	Demand    []Demand          `json:"demand,omitempty"`   // sorted by service
	Prepared  []Prepared        `json:"prepared,omitempty"` // functions of the plan, sorted by service
	Moving    []InstanceID      `json:"moving,omitempty"`   // instances to which keys of their program are on their way; sorted
	Alarms    []Alarm           `json:"alarms,omitempty"`   // sorted by kind
}

// Alarm is what will hurt a node before long if nobody looks after it.
type Alarm struct {
	Kind AlarmKind `json:"kind"`
	Text string    `json:"text"`
}

// AlarmKind is what an alarm is about.
type AlarmKind string

const (
	AlarmClock   AlarmKind = "clock"   // it differs from a server's
	AlarmControl AlarmKind = "control" // its data are near their bound
	AlarmDisk    AlarmKind = "disk"    // little room is left
	AlarmSync    AlarmKind = "sync"    // control's disk is slow
)

// Prepared is a function that a node can make instances of at once.
type Prepared struct {
	Service ServiceName `json:"service"`
	Spec    Digest      `json:"spec"`
	Why     string      `json:"why,omitempty"` // it cannot be, in words
}

// Demand is what the doors of one node are asked of a service whose instances follow its calls.
type Demand struct {
	Service  ServiceName `json:"service"`
	Inflight float64     `json:"inflight"` // requests at a time, waiting or under way: the most of late
	// CPU is how many processors the service's instances on this node use, the most of late; told where scale.cpu is a goal.
	CPU float64 `json:"cpu,omitempty"`
	// Latency is the time in seconds within which 95 of 100 answers began in the last two seconds; told where scale.latency is a goal.
	Latency float64 `json:"latency,omitempty"`
}

// State is where an instance is in its life.
type State string

const (
	StatePreparing State = "preparing" // bundle, build, unpack
	StateStarting  State = "starting"  // runs, not yet healthy
	StateReady     State = "ready"     // healthy: gets requests
	StateUnhealthy State = "unhealthy" // was healthy, is not
	StateDraining  State = "draining"
	StateBackoff   State = "backoff" // ended; starts again soon
	StateFailed    State = "failed"  // ended; will not start again
	StateDone      State = "done"    // ended with success and need not run again
	StateWaiting   State = "waiting" // for the node that holds its data
	StateStopped   State = "stopped"
)

// InstanceSeen is what a node says of one instance.
type InstanceSeen struct {
	Instance InstanceID `json:"instance"`
	Spec     Digest     `json:"spec"`
	State    State      `json:"state"`
	Since    time.Time  `json:"since"`
	Started  time.Time  `json:"started"`
	Endpoint string     `json:"endpoint,omitempty"` // host:port on its node, or "inside"
	Pid      int        `json:"pid,omitempty"`
	Restarts int        `json:"restarts"`
	Exit     string     `json:"exit,omitempty"` // of the last end: "exit 1", "signal killed", …
	Why      string     `json:"why,omitempty"`  // of a state that is not ready, in words
}

// Healthy says that the instance may get requests.
func (s State) Healthy() bool { return s == StateReady }

// Holder says which node holds the data of a tied instance. It is written before the instance first
// starts and removed only by the user.
type Holder struct {
	Service  ServiceName `json:"service"`
	Instance InstanceID  `json:"instance"`
	Node     NodeID      `json:"node"`
	Since    time.Time   `json:"since"`
}

// Event is one thing that happened, worth telling a colleague.
type Event struct {
	Time     time.Time   `json:"time"`
	Kind     string      `json:"kind"` // plan, node, instance, update, fault
	Node     NodeID      `json:"node,omitempty"`
	Service  ServiceName `json:"service,omitempty"`
	Instance InstanceID  `json:"instance,omitempty"`
	Text     string      `json:"text"`
}
