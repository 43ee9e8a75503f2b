// Package route says who may answer a request: immutable tables, pickers among equals, locators by key.
// It never dials, sleeps or reads a clock; a table is built from a plan and what is seen, and swapped
// whole. Start at [Table] and [Build]; [Choose] is what a switch asks of a table, [Loads] what it knows.
package route

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
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
	Web        []Web           // the most specific first: host before none, exact before prefix, longer before shorter
	Nodes      []system.NodeID // alive: those that are seen, and Self; sorted
	Trust      []netip.Prefix  // proxies in front, beside those on this machine
}

// Service is one service as a node's doors see it.
type Service struct {
	Name      system.ServiceName
	Door      int // offset of its door
	Switch    system.Switch
	Instances []Instance // that may get requests now, sorted by ordinal
	Leaving   []Instance // that drain and still run: they get requests of clients that stay with them, no others
	Coming    bool       // one is planned that is not ready yet, or is made when called: a request may wait for it
	Called    bool       // its instances follow its calls
	Timed     bool       // they have a goal of latency
	Each      int        // of such: requests that one node gives an instance at a time; further ones wait for a place. Of those that come at once a few more may pass
	Why       string     // when Instances is empty: why, in words
	Absent    []Absent   // planned, and not among Instances
	Key       KeyRule    // where the key stands, when there is one; whether it decides says Locator
	Locator   Locator    // set when a key decides, else nil
	Once      bool       // it tells one write from two: none may be sent again unless nobody has seen it
	Moves     Moves      // how its program's keys follow their partitions; zero: they do not
}

// Moves are the two requests by which a key of a user's program moves from one instance to another.
type Moves struct {
	Export string // reads it: GET /_export/{key}
	Import string // writes it: PUT /_import/{key}
}

// Absent is an instance that is planned and may not get requests now.
type Absent struct {
	ID     system.InstanceID
	Node   system.NodeID
	Coming bool   // a request may wait for it
	Why    string // in words
}

// Instance is one that may get requests.
type Instance struct {
	ID       system.InstanceID
	Node     system.NodeID
	Site     system.Site
	Address  string // host:port on its node, or "inside"
	Local    bool   // on this node
	SameSite bool
	Ready    time.Time // since when, by its node's clock: another time is another life
	Weight   float64   // its share of its node's capacity; 0: not known
}

// Web is one path of the system's web door.
type Web struct {
	Host    string // empty: any; *.example.org: any name below; lower case
	Path    string // without the star
	Prefix  bool   // the path ended in *
	Service system.ServiceName
}

// Alive says whether a node is seen. An instance on a node that is not is lost: what was asked of it
// will not be answered.
func (t *Table) Alive(node system.NodeID) bool {
	_, ok := slices.BinarySearch(t.Nodes, node)
	return ok
}

// Instance returns an instance that may get requests now. When there is none, its ID is still set.
func (t *Table) Instance(id system.InstanceID) (Instance, bool) {
	if name, _, err := id.Split(); err == nil && t.Services[name] != nil {
		for _, in := range t.Services[name].Instances {
			if in.ID == id {
				return in, true
			}
		}
	}
	return Instance{ID: id}, false
}

// Next returns the instance that follows one in the ring of its service's ready instances; see [Next].
// When there is none, the ID of the one that asked is still set.
func (t *Table) Next(of system.InstanceID) (Instance, bool) {
	if name, _, err := of.Split(); err == nil && t.Services[name] != nil {
		if in, ok := Next(t.Services[name].Instances, of); ok {
			return in, true
		}
	}
	return Instance{ID: of}, false
}

// Next returns the instance with the next higher ordinal, or the lowest after the highest: itself when
// it is the only one. The instance that asks need not be among them.
func Next(among []Instance, of system.InstanceID) (Instance, bool) {
	if len(among) == 0 {
		return Instance{}, false
	}
	self, next, first := ordinal(of), -1, 0
	for i, in := range among {
		n := ordinal(in.ID)
		if n < ordinal(among[first].ID) {
			first = i
		}
		if n > self && (next < 0 || n < ordinal(among[next].ID)) {
			next = i
		}
	}
	if next < 0 {
		next = first
	}
	return among[next], true
}

// ordinal is the instance's number in its service, 0 for a name that has none.
func ordinal(id system.InstanceID) int {
	_, n, err := id.Split()
	if err != nil {
		return 0
	}
	return n
}

// byOrdinal orders api/2 before api/10.
func byOrdinal(a, b system.InstanceID) int {
	return cmp.Or(cmp.Compare(ordinal(a), ordinal(b)), cmp.Compare(a, b))
}

// Key is what a key template found in a request.
type Key string

// Location is the answer of a locator.
type Location struct {
	Node     system.NodeID
	Instance system.InstanceID // empty: the one on Node
	Hops     int               // node to node, until the owner was known
	Epoch    uint64            // of the view that was asked; the owner refuses an older one
}

// Locator finds the instance that owns a key.
type Locator interface {
	// Locate may ask other nodes; it returns when the owner is known, ready or not. Errors wrap
	// [ErrNoInstance] or ctx's, or say in words what is in the way for now.
	Locate(ctx context.Context, key Key) (Location, error)
	// Owns checks on the owner's node, by its own view, that an instance owns a key: nil if so,
	// [ErrBehind] when the asker's view is newer than this one, else who owns it, in words.
	Owns(key Key, id system.InstanceID, epoch uint64) error
}

// ErrBehind: the asker's view is newer than that of the one asked.
var ErrBehind = errors.New("this node's view is behind")
