// Package container runs container images as they are, by runc and without Docker: it fetches an image from a
// registry or from disk, unpacks it once a node, and starts each instance in namespaces and a network of its
// own, in which nothing is but the instance and ways to the doors of its node. The node opens connections to it
// by a socket that it makes in there; so all instances may listen on the same port. It never builds an image,
// keeps nothing that an instance writes outside its volumes, and gives no way to other machines but by a proxy.
// Start at [New]; image.go fetches, unpack_linux.go unpacks, instance_linux.go is the life of an instance.
package container

import (
	"log/slog"
	"sync"

	"servent/system"
)

// Options of a [Driver].
type Options struct {
	Blobs    string       // folder of bytes by digest, shared with other nodes; images are unpacked below it
	StateDir string       // of this node alone: what runc notes of running containers, for Sweep
	Log      *slog.Logger // nil discards
}

// Driver is the engine.
type Driver struct {
	opts Options

	mu      sync.Mutex // guards running and closed
	running map[*instance]bool
	closed  bool
}

// New returns a driver. It starts nothing.
func New(o Options) *Driver {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{opts: o, running: map[*instance]bool{}}
}

// Name implements [driver.Driver].
func (d *Driver) Name() string { return string(system.Image) }
