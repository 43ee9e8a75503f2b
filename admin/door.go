package admin

import (
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
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/control"
	"servent/meter"
	"servent/system"
)

// Machines are the nodes that this process started on one machine. A fleet has none.
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
	Instance system.InstanceID `json:"instance"`
	Stream   string            `json:"stream"` // stdout, stderr
	Text     string            `json:"text"`
}

// NodeMeter is what one node counted since it started.
type NodeMeter struct {
	Node    system.NodeID `json:"node"`
	At      time.Time     `json:"at"`
	Rows    []meter.Row   `json:"rows"`
	Station *Station      `json:"station,omitempty"` // of an emulated node
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
}

// Door answers for one running system. All fields but Machines and Log must be set.
type Door struct {
	Cluster  control.Cluster
	View     func() (*control.View, error) // the last view, and why control does not answer now
	Changed  func() <-chan struct{}        // closed at the next change of view, nodes or ways in
	Machines Machines                      // nil on a fleet
	Nodes    Nodes
	Context  string // laptop, fleet
	Console  http.Handler
	URL      string // of the console, with its token
	Log      *slog.Logger
}

// Handler answers without asking who calls: for a unix socket that only its owner can open.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/state", d.state)
	mux.HandleFunc("GET /v1/watch", d.watch)
	mux.HandleFunc("PUT /v1/wanted", d.want)
	mux.HandleFunc("DELETE /v1/wanted", d.unwant)
	mux.HandleFunc("POST /v1/scale", d.scale)
	mux.HandleFunc("POST /v1/restart", d.restart)
	mux.HandleFunc("POST /v1/plan", d.plan)
	mux.HandleFunc("GET /v1/explain", d.explain)
	mux.HandleFunc("GET /v1/events", d.events)
	mux.HandleFunc("GET /v1/logs", d.logs)
	mux.HandleFunc("GET /v1/meter", d.meter)
	if d.Console != nil {
		mux.Handle("GET /", d.Console)
	}
	return mux
}

// Guarded is Handler for a loopback port: pages are open, answers need the token, and the request must
// name a loopback host, so that no page from elsewhere can reach it by DNS rebinding.
func (d *Door) Guarded(token string) http.Handler {
	inner := d.Handler()
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			fail(w, http.StatusMisdirectedRequest, errors.New("this door answers on loopback only"))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/v1/") && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			fail(w, http.StatusUnauthorized, &system.Hint{Err: errors.New("a token is needed"), Next: "servent console"})
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Failure is the answer to a request that could not be done.
type Failure struct {
	Error string `json:"error"`
	Next  string `json:"next,omitempty"` // command to try
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(Failure{Error: err.Error(), Next: system.Next(err)}) // the caller is gone
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

// State is what the system looks like now.
func (d *Door) State() State {
	v, err := d.View()
	var machines []NodeState
	var published []Published
	if d.Machines != nil {
		machines, published = d.Machines.Nodes(), d.Machines.Published()
	}
	s := NewState(v, machines, published)
	s.Context, s.Console = d.Context, d.URL
	if err != nil {
		s.Control, s.Settled = err.Error(), false
	}
	return s
}

func (d *Door) state(w http.ResponseWriter, _ *http.Request) { answer(w, d.State()) }

// watch streams a state at every change, at most 20 a second.
func (d *Door) watch(w http.ResponseWriter, r *http.Request) {
	out := stream(w)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		changed := d.Changed()
		if out(d.State()) != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// stream answers with one JSON document a line, each sent at once.
func stream(w http.ResponseWriter) func(any) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	ctl, enc := http.NewResponseController(w), json.NewEncoder(w)
	return func(v any) error {
		if err := enc.Encode(v); err != nil {
			return err
		}
		return ctl.Flush()
	}
}

func (d *Door) want(w http.ResponseWriter, r *http.Request) {
	sys, err := readSystem(w, r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if err := d.Apply(r.Context(), sys); err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	answer(w, d.State())
}

// Apply makes a system what is wanted.
func (d *Door) Apply(ctx context.Context, sys *system.System) error {
	if d.Machines != nil {
		return d.Machines.Apply(ctx, sys)
	}
	_, err := d.Cluster.Want(ctx, sys)
	return err
}

func readSystem(w http.ResponseWriter, r *http.Request) (*system.System, error) {
	var sys system.System
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)).Decode(&sys); err != nil {
		return nil, fmt.Errorf("read the system: %w", err)
	}
	if sys.Name == "" {
		return nil, errors.New("read the system: it has no name")
	}
	return &sys, nil
}

func (d *Door) unwant(w http.ResponseWriter, r *http.Request) {
	if d.Machines != nil {
		d.Machines.Stop(r.URL.Query().Get("volumes") == "true")
		answer(w, struct{}{})
		return
	}
	if err := d.Cluster.Unwant(r.Context()); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, struct{}{})
}

// change edits what is wanted, under the services' present names.
func (d *Door) change(ctx context.Context, edit func(*system.System) error) error {
	v, err := d.View()
	if err != nil {
		return err
	}
	if v.Wanted == nil {
		return &system.Hint{Err: errors.New("nothing runs"), Next: "servent up"}
	}
	sys := *v.Wanted
	sys.Services = slices.Clone(sys.Services)
	if err := edit(&sys); err != nil {
		return err
	}
	_, err = d.Cluster.Want(ctx, &sys)
	return err
}

func (d *Door) scale(w http.ResponseWriter, r *http.Request) {
	var counts map[system.ServiceName]int
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&counts); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	err := d.change(r.Context(), func(sys *system.System) error {
		for name, n := range counts {
			s := sys.Service(name)
			if s == nil {
				return unknown(sys, string(name))
			}
			if err := Scale(s, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	answer(w, struct{}{})
}

// Scale sets the number of a service's instances where its architecture leaves it open.
func Scale(s *system.Service, n int) error {
	switch {
	case n < 0 || n > 1000:
		return fmt.Errorf("scale %s: want 0…1000 instances, have %d", s.Name, n)
	case s.Architecture != system.Replicated && s.Architecture != system.Partitioned:
		return fmt.Errorf("scale %s: %s decides the number of its instances itself; replicated and partitioned can be scaled", s.Name, s.Architecture)
	case n == 0:
		return &system.Hint{Err: fmt.Errorf("scale %s: 0 instances would serve nobody", s.Name), Next: "servent down"}
	}
	s.Replicas, s.Scale.Min = n, n
	s.Scale.Max = max(s.Scale.Max, n)
	return nil
}

func unknown(sys *system.System, what string) error {
	names := make([]string, len(sys.Services))
	for i, s := range sys.Services {
		names[i] = string(s.Name)
	}
	return &system.Hint{Err: fmt.Errorf("%q is neither a service (%s) nor one of the nodes", what, strings.Join(names, ", ")), Next: "servent ps"}
}

func (d *Door) restart(w http.ResponseWriter, r *http.Request) {
	what := r.URL.Query().Get("what")
	if d.Machines != nil && slices.ContainsFunc(d.Machines.Nodes(), func(n NodeState) bool { return string(n.Node) == what }) {
		if err := d.Machines.RestartNode(r.Context(), system.NodeID(what)); err != nil {
			fail(w, http.StatusConflict, err)
			return
		}
		answer(w, struct{}{})
		return
	}
	err := d.change(r.Context(), func(sys *system.System) error {
		s := sys.Service(system.ServiceName(what))
		if s == nil {
			return unknown(sys, what)
		}
		s.Restarts++
		return nil
	})
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	answer(w, struct{}{})
}

func (d *Door) events(w http.ResponseWriter, r *http.Request) {
	out := stream(w)
	var last time.Time
	for {
		changed := d.Changed()
		v, _ := d.View() // events are worth showing while control is away, too
		for _, e := range v.Events {
			if e.Time.After(last) {
				if out(e) != nil {
					return
				}
			}
		}
		if n := len(v.Events); n > 0 {
			last = v.Events[n-1].Time
		}
		if r.URL.Query().Get("follow") != "true" {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (d *Door) meter(w http.ResponseWriter, r *http.Request) {
	v, _ := d.View() // the nodes answer by themselves
	meters := []NodeMeter{}
	for _, seen := range v.Seen {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		m, err := d.Nodes.Meter(ctx, seen.Node)
		cancel()
		if err == nil { // a node that does not answer is missing from the sum, and shown as gone
			meters = append(meters, m)
		}
	}
	answer(w, meters)
}

func logQuery(r *http.Request) (LogQuery, error) {
	q := r.URL.Query()
	lq := LogQuery{Of: q.Get("of"), Follow: q.Get("follow") == "true", Tail: 100}
	if t := q.Get("tail"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return lq, fmt.Errorf("tail: want a whole number, have %q", t)
		}
		lq.Tail = n
	}
	return lq, nil
}
