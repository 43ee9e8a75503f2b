// Package driver is the contract for all that runs a user's software, and the one supervisor above it:
// health, restart with back-off, log ring, limits, states. A driver knows one engine (processes,
// handlers inside this process, later functions, containers, machines) and nothing of plans or nodes.
// Start at [Driver]; [Supervisor] turns its instances into states, [Log] keeps what they say.
package driver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"servent/system"
)

var (
	// ErrUnsupported: this driver cannot do that.
	ErrUnsupported = errors.New("not supported by this driver")
	// ErrArtifact: the software can never start here as it is: no executable, an empty folder, a bad
	// URL. The supervisor does not try again.
	ErrArtifact = errors.New("bad artifact")
)

// Driver is one engine.
type Driver interface {
	// Name is a word of the file: process, files, origin, wasm, …
	Name() string
	// Probe says what this machine can do with the engine and why something is missing. It is cheap
	// (< 200 ms) and starts nothing that outlives it.
	Probe(ctx context.Context) Caps
	// Prepare makes an artifact ready to start, by digest; doing it again is cheap and no error.
	Prepare(ctx context.Context, a Artifact) (Prepared, error)
}

// Artifact is what an instance is made from: the user's software, already on this node.
type Artifact struct {
	Software system.Software
	Dir      string // the unpacked, read-only bundle; empty when there is none
}

// Caps is what a driver can do on this machine.
type Caps struct {
	OK       bool              `json:"ok"`
	Reason   string            `json:"reason,omitempty"`  // why not, or what is missing, in words
	Limits   []string          `json:"limits,omitempty"`  // memory, cpu, pids, open files, fuel: those that are enforced
	Missing  map[string]string `json:"missing,omitempty"` // what this machine cannot do → why: "pause": "Windows has no SIGSTOP"
	Move     Mobility          `json:"move"`
	Versions map[string]string `json:"versions,omitempty"`
}

// Mobility is the strongest kind of moving an instance that a driver supports.
type Mobility int

const (
	MoveNone Mobility = iota
	MoveWeak
	MoveBetweenCalls
	MoveStrong
	MoveLive // with pre-copy
)

// Prepared is an artifact that can start instances.
type Prepared interface {
	// Start returns as soon as the instance exists; whether it is healthy is the supervisor's question.
	// The instance outlives ctx, which bounds starting alone.
	Start(ctx context.Context, s Spec) (Instance, error)
	// Close frees what Prepare took. Running instances go on.
	Close() error
}

// Spec is all that one instance is given.
type Spec struct {
	Instance system.InstanceID
	Host     string // address to listen on
	Port     int    // and the port, as in $PORT
	Env      []string
	Dir      string // private writable folder: working folder; TMPDIR and SERVENT_DATA lie below
	Limits   system.Limits
	Stop     system.Stop
	Mounts   []Mount   // what an instance that sees its own files alone finds among them
	Ways     []Way     // what one with a network of its own reaches; all that a module may call
	Stdout   io.Writer // nil discards
	Stderr   io.Writer
}

// Mount is a file or folder of the node that an instance finds at Target.
type Mount struct {
	Kind     string // volume, bind, tmpfs, file; data, which is the instance's own
	Source   string // on the node; empty for tmpfs
	Target   string // absolute
	ReadOnly bool
}

// Gate is the address at which a virtual machine finds the doors of its node, each at its port.
const Gate = "10.0.2.100"

// Way leads from an instance's own network, or out of a module that has none, to a door of its node.
type Way struct {
	Name string // of a service, by which it is found; empty: at 127.0.0.1
	Port int    // where the instance dials
	To   string // host:port on the node
	// Builtin is what the service is when it is one of ours: kv.
	Builtin string
}

// Instance is one running copy. An instance that is an operating system process also has a method
// Pid() int.
type Instance interface {
	ID() string // the engine's own: a process ID, …
	Endpoint() Endpoint
	Stats(ctx context.Context) (Stats, error)
	Wait() <-chan Exit // receives once, when all of the instance has ended
	// Stop asks politely, waits grace at the most, then kills. It returns when nothing is left.
	Stop(ctx context.Context, grace time.Duration) error
	// Exec runs a command as the instance's program would see it, for health checks. The error of a
	// command that ran and failed ends in the last line that it wrote.
	Exec(ctx context.Context, args []string) error
}

// Checker is an instance that knows better than a TCP connection whether it is well. It is asked when
// the user's file declares no check of its own.
type Checker interface {
	Check(ctx context.Context) error
}

// Declarer is an instance whose software brings a check of its own, as an image does by HEALTHCHECK. It is used when
// the user's file declares none; what the file says of its times stands over what the software says.
type Declarer interface {
	Declared() system.Health // without a command: none
}

// Endpoint is where an instance answers: at an address, or by a handler inside this process.
type Endpoint struct {
	Address string // host:port
	Handler http.Handler
	// Dial opens a connection to the instance; nil: to its Address. Of one that has a network of its own.
	Dial func(context.Context) (net.Conn, error)
}

// Connect opens a connection to an instance that has an address.
func (e Endpoint) Connect(ctx context.Context) (net.Conn, error) {
	if e.Dial != nil {
		return e.Dial(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", e.Address)
}

// Stats of one instance, since it started.
type Stats struct {
	CPU    time.Duration `json:"cpu"`
	Memory int64         `json:"memory"` // bytes resident
	Pids   int           `json:"pids"`
	Calls  int64         `json:"calls,omitempty"` // that its handler answered
	// By the supervisor: when it was started, and how long it took until it was ready; 0: it is not yet.
	Started time.Time     `json:"started,omitzero"`
	Took    time.Duration `json:"took,omitempty"`
	// Of a WebAssembly module.
	Interpreted int64 `json:"interpreted,omitempty"` // calls before it was compiled
	Made        int64 `json:"made,omitempty"`        // instances that live on from call to call, all there ever were
	Idle        int   `json:"idle,omitempty"`        // those that wait for a call
}

// Exit says how an instance ended.
type Exit struct {
	Code   int    // -1 when a signal ended it
	Signal string // killed, terminated, …
	OOM    bool
	Err    error // the engine's own trouble
}

// OK says that the instance ended with success.
func (e Exit) OK() bool { return e.Code == 0 && e.Signal == "" && !e.OOM && e.Err == nil }

// String is "exit 1", "signal killed", "out of memory".
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.OOM:
		return "out of memory"
	case e.Signal != "":
		return "signal " + e.Signal
	default:
		return "exit " + strconv.Itoa(e.Code)
	}
}
