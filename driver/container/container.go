// Package container runs container images as they are, by runc and without Docker: it fetches an image from a
// registry or from disk, unpacks it once a node, and starts each instance in namespaces and a network of its
// own, in which nothing is but the instance and ways to the doors of its node. The node opens connections to it
// by a socket that it makes in there; so all instances may listen on the same port. It never builds an image,
// keeps nothing that an instance writes outside its volumes, and gives no way to other machines but by a proxy.
// Where runc is not there or not allowed, a Docker Engine or podman that runs already does the same for it.
// Start at [New]; image.go fetches, unpack_linux.go unpacks, instance_linux.go is the life of an instance, and
// docked_linux.go that of one which another engine runs.
package container

import (
	"log/slog"
	"os"
	"sync"

	"servent/driver"
	"servent/driver/container/engine"
	"servent/system"
)

// Options of a [Driver].
type Options struct {
	Blobs    string         // folder of bytes by digest, shared with other nodes; images are unpacked below it
	StateDir string         // of this node alone: what runc notes of running containers, for Sweep
	Self     []string       // a program and words of it, which calls [Main] with what follows; nil: this one, with [Verb]
	Engine   *engine.Client // runs all; nil: runc does, or the engine that answers where runc may not
	Log      *slog.Logger   // nil discards
}

// Verb is the first argument by which this program starts itself as [Main].
const Verb = "__container"

// Driver is the engine.
type Driver struct {
	opts Options

	mu      sync.Mutex // guards what follows
	running map[driver.Instance]bool
	closed  bool
	chosen  bool           // once something runs containers here
	engine  *engine.Client // which it is; nil: runc
	name    string         // docker, podman
}

// New returns a driver. It starts nothing.
func New(o Options) *Driver {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if exe, err := os.Executable(); err == nil && o.Self == nil {
		o.Self = []string{exe, Verb}
	}
	return &Driver{opts: o, running: map[driver.Instance]bool{}}
}

// Name implements [driver.Driver].
func (d *Driver) Name() string { return string(system.Image) }
