package admin

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"servent/control"
	"servent/identity"
	"servent/meter"
	"servent/system"
)

// Machines are the nodes that this process started on its machine.
type Machines interface {
	// Apply makes the nodes those of the system, stores what is wanted and opens the ways in. It
	// returns when control has it.
	Apply(ctx context.Context, sys *system.System) error
	// Nodes are those that it started, also while they do not answer.
	Nodes() []NodeState
	// Published are the ways in that it holds open.
	Published() []Published
	// RestartNode ends a node and starts it again.
	RestartNode(ctx context.Context, id system.NodeID) error
	// Trouble makes a fault, which is checked already and ends by itself; unless it is to begin later, it
	// is there when Trouble returns.
	Trouble(ctx context.Context, t Trouble) (Fault, error)
	// Faults are those that are or will be, the oldest first.
	Faults() []Fault
	// Heal ends faults and returns them.
	Heal(ctx context.Context, which func(Fault) bool) []Fault
	// History is what was wanted, the oldest first.
	History() ([]Revision, error)
	// Revision is a system that was wanted; of 0 the one before the last.
	Revision(n int) (*system.System, error)
	// CA is the certificate of the system's own authority, in PEM; nil: it has none.
	CA() ([]byte, error)
	// Stop ends everything; with volumes also the data. It returns at once.
	Stop(volumes bool)
}

// Nodes answers what only a node itself knows.
type Nodes interface {
	// Logs streams a node's log lines of one service or instance as NDJSON of [LogLine].
	Logs(ctx context.Context, node system.NodeID, q LogQuery) (io.ReadCloser, error)
	// Meter returns a node's counters.
	Meter(ctx context.Context, node system.NodeID) (NodeMeter, error)
}

// Revision is one system that was wanted.
type Revision struct {
	N    int       `json:"n"`
	At   time.Time `json:"at"`
	What string    `json:"what"` // how it differs from the one before, in words
	Now  bool      `json:"now"`  // it is wanted now
}

// Fleet is who may join and who has joined.
type Fleet interface {
	// Token makes a token that lets one machine join within ttl.
	Token(ctx context.Context, role identity.Role, ttl time.Duration) (Token, error)
	// Label changes a member's labels; an empty value removes one.
	Label(ctx context.Context, node system.NodeID, labels map[string]string) error
	// Remove puts a member out: its certificate counts no more.
	Remove(ctx context.Context, node system.NodeID) error
	// Voters are the servers that agree on what is planned, as they were last heard of.
	Voters() []Voter
	// Acted writes down that somebody changed something by this door, or why that was refused.
	Acted(system.Act)
	// Acts is what was written down, the last so many, oldest first; 0: all that is kept.
	Acts(last int) ([]system.Act, error)
}

// Token lets one machine join, once.
type Token struct {
	Token   string    `json:"token"`
	Address string    `json:"address"` // of the fleet's door
	Expires time.Time `json:"expires"`
}

// LogQuery says which lines.
type LogQuery struct {
	Of     string // service or instance; empty: all
	Tail   int    // the last so many of each instance; negative: all that are kept
	Follow bool
}

// LogLine is one line that a program wrote.
type LogLine struct {
	Time     time.Time         `json:"time"`
	Node     system.NodeID     `json:"node"`
	Instance system.InstanceID `json:"instance"` // empty: of the node as a whole
	Stream   string            `json:"stream"`   // stdout, stderr; servent: what we say ourselves
	Text     string            `json:"text"`
}

// NodeMeter is what one node counted since it started.
type NodeMeter struct {
	Node    system.NodeID `json:"node"`
	At      time.Time     `json:"at"`
	Rows    []meter.Row   `json:"rows"`
	Station *Station      `json:"station,omitempty"` // of an emulated node
	Link    Traffic       `json:"link"`              // with all other nodes, control's own included
	CPU     float64       `json:"cpu_seconds"`       // of the node itself, with all that it does for instances; without theirs
	Used    []Used        `json:"used"`              // by instances
	Error   string        `json:"error,omitempty"`   // why it did not answer; then there are no rows
}

// Used is what one instance has used since it was started. One inside the node (a module, files) has no processor time of its
// own: it is the node's.
type Used struct {
	Instance system.InstanceID `json:"instance"`
	Started  time.Time         `json:"started"`
	StartMS  float64           `json:"start_ms"` // until it was ready
	CPU      float64           `json:"cpu_seconds"`
	Memory   int64             `json:"memory"` // bytes resident
	Pids     int               `json:"pids,omitempty"`
	Calls    int64             `json:"calls,omitempty"`
}

// Traffic is what went between a node and all others. Bytes are those on the wire.
type Traffic struct {
	Sent     int64 `json:"sent_bytes"`
	Received int64 `json:"received_bytes"`
}

// Station is what an emulated node's station says of itself.
type Station struct {
	Served    int64   `json:"served"`
	Passed    int64   `json:"passed"`
	Late      int64   `json:"late"`       // requests whose program was slower than the node's capacity
	LateShare float64 `json:"late_share"` // above 0.01 a measurement is invalid
	ValidRate float64 `json:"valid_rate"` // requests a second and worker that would be valid
}

// Check is one line of `servent doctor`.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Next string `json:"next,omitempty"`

	Alarm bool `json:"alarm,omitempty"` // it works, and will not for long
}

// Door answers for one running system. All fields but Machines, Fleet, Console and Log must be set.
type Door struct {
	Cluster  control.Cluster
	View     func() (*control.View, error) // the last view, never nil, and why control does not answer now
	Changed  func() <-chan struct{}        // closed at the next change of view, nodes or ways in
	Machines Machines                      // nil: this process started none
	Fleet    Fleet                         // nil on a laptop
	Nodes    Nodes
	Context  string // laptop, fleet
	Console  http.Handler
	URL      string // of the console, with its token
	Log      *slog.Logger

	turn turn
}

// Handler answers without asking who calls: for a unix socket that only its owner can open.
func (d *Door) Handler() http.Handler { return d.with(d.answers()) }

// Guarded is Handler for a loopback port. Pages are open, answers need the token. Every request must name
// a loopback host, so that no page from elsewhere can reach it by DNS rebinding, and none that a browser
// sends for another page may change anything.
func (d *Door) Guarded(token string) http.Handler {
	want, answers := []byte("Bearer "+token), d.answers()
	inner := d.with(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			fail(w, &coded{http.StatusUnauthorized, &system.Hint{Err: errors.New("this door wants its token, as Authorization: Bearer TOKEN"), Next: "servent console"}})
			return
		}
		answers.ServeHTTP(w, r)
	}))
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fail(w, &coded{http.StatusForbidden, errors.New("the request comes from a page of another origin")})
	}))
	inner = same.Handler(inner)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			fail(w, &coded{http.StatusMisdirectedRequest, &system.Hint{Err: fmt.Errorf("this door answers on loopback only, not for %q", r.Host), Next: "servent console"}})
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// with adds the pages. All that is not below /v1/ is a page: nothing else needs to be guarded.
func (d *Door) with(answers http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", answers)
	if d.Console != nil {
		mux.Handle("/", d.Console)
	}
	return mux
}

// answers is all below /v1/; docs/admin-api.md lists it.
func (d *Door) answers() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/state":     d.state,
		"GET /v1/watch":     d.watch,
		"PUT /v1/wanted":    d.want,
		"DELETE /v1/wanted": d.unwant,
		"POST /v1/scale":    d.scale,
		"POST /v1/restart":  d.restart,
		"POST /v1/plan":     d.plan,
		"GET /v1/explain":   d.explain,
		"GET /v1/events":    d.events,
		"GET /v1/logs":      d.logs,
		"GET /v1/meter":     d.meter,
		"POST /v1/fault":    d.trouble,
		"GET /v1/fault":     d.faults,
		"DELETE /v1/fault":  d.heal,
		"GET /v1/history":   d.history,
		"POST /v1/rollback": d.rollback,
		"POST /v1/drain":    d.drain,
		"DELETE /v1/drain":  d.uncordon,
		"POST /v1/token":    d.token,
		"POST /v1/label":    d.label,
		"DELETE /v1/node":   d.remove,
		"GET /v1/audit":     d.audit,

		"GET /v1/certificates": d.certificates,
		"/v1/": func(_ http.ResponseWriter, r *http.Request) error {
			return &coded{http.StatusNotFound, fmt.Errorf("no answer to %s %s; docs/admin-api.md lists them", r.Method, r.URL.Path)}
		},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			head := w.Header()
			head.Set("Cache-Control", "no-store")
			head.Set("X-Content-Type-Options", "nosniff")
			err := h(w, r)
			if d.Fleet != nil && r.Method != http.MethodGet && r.URL.Path != "/v1/plan" { // which changes nothing
				d.Fleet.Acted(act(r, err))
			}
			if err != nil {
				fail(w, err)
			}
		})
	}
	return mux
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// Failure is the answer to a request that could not be done.
type Failure struct {
	Error string `json:"error"`
	Next  string `json:"next,omitempty"` // command to try
}

// coded is an error with its HTTP status.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }

func (c *coded) Unwrap() error { return c.err }

// fail answers with an error: 503 when control is away, and 409 when the system is not such that it can
// be done, where the error does not say better.
func fail(w http.ResponseWriter, err error) {
	code, next := http.StatusConflict, system.Next(err)
	if c, ok := errors.AsType[*coded](err); ok {
		code = c.code
	} else if errors.Is(err, control.ErrUnavailable) {
		code, next = http.StatusServiceUnavailable, cmp.Or(next, "servent ps")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(Failure{Error: err.Error(), Next: next}) // the caller is gone
}

// answer sends one JSON document. It never fails: who does not take it is gone.
func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
	return nil
}

// stream answers with one JSON document a line, each sent at once.
func stream(w http.ResponseWriter) func(any) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	ctl, enc := http.NewResponseController(w), json.NewEncoder(w)
	_ = ctl.Flush() // the caller is gone
	return func(v any) error {
		if err := enc.Encode(v); err != nil {
			return err
		}
		return ctl.Flush()
	}
}
