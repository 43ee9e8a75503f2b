// Package route says who may answer a request: immutable tables, pickers among equals, locators by key.
// It never dials, sleeps or reads a clock; a table is built from a plan and what is seen, and swapped
// whole. Start at [Table] and [Build].
package route

import (
	"context"
	"errors"
	"time"

	"servent/system"
)

// ErrNoInstance: nobody can answer now.
var ErrNoInstance = errors.New("no instance is ready")

// Table is one node's view of who answers what. It is never changed after it is built.
type Table struct {
	Self       system.NodeID
	Generation int64 // of the plan that it was built from
	Services   map[system.ServiceName]*Service
	Web        []Web // the most specific first: host before none, longer path before shorter
}

// Service is one service as a node's doors see it.
type Service struct {
	Name      system.ServiceName
	Door      int // offset of its door
	Switch    system.Switch
	Instances []Instance // that may get requests now, sorted by ID
	Coming    bool       // one is planned that is not ready yet: a request may wait for it
	Why       string     // when Instances is empty: why, in words
	Locator   Locator    // set when a key decides, else nil
}

// Instance is one that may get requests.
type Instance struct {
	ID       system.InstanceID
	Node     system.NodeID
	Site     system.Site
	Address  string // host:port on its node, or "inside"
	Local    bool   // on this node
	SameSite bool
}

// Web is one path of the system's web door.
type Web struct {
	Host    string // empty: any
	Path    string // without the star
	Prefix  bool   // the path ended in *
	Service system.ServiceName
}

// Key is what a key template found in a request.
type Key string

// Location is the answer of a locator.
type Location struct {
	Node     system.NodeID
	Instance system.InstanceID
	Hops     int    // node to node, until the owner was known
	Epoch    uint64 // of the view that was asked; the owner refuses an older one
}

// Locator finds the instance that owns a key.
type Locator interface {
	Locate(ctx context.Context, key Key) (Location, error)
}

// Load is what a switch knows of an instance.
type Load struct {
	Inflight int           // requests it holds now, through this node
	Latency  time.Duration // peak-EWMA; 0: not known
	Suspect  bool          // refused or broke lately: only when no other is left
}

// Picker chooses among equals. It keeps no state that outlives a table; load tells it what it must know.
type Picker interface {
	// Pick returns an index into among, which is never empty. rnd is uniform.
	Pick(now time.Time, rnd uint64, among []Instance, load func(system.InstanceID) Load) int
}
