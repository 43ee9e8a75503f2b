package node

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/driver"
	"servent/driver/process"
	"servent/identity"
	"servent/link"
	"servent/system"
)

// guard lets only servers and operators ask.
func (n *Node) guard(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, ok := link.PeerFrom(r.Context())
		if !ok || peer.ID.Role != identity.Server && peer.ID.Role != identity.Operator {
			n.deny(w, r, "", errRole)
			return
		}
		h(w, r)
	}
}

// between lets only nodes of this system ask.
func (n *Node) between(h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, ok := link.PeerFrom(r.Context())
		if !ok || peer.ID.Role != identity.Server && peer.ID.Role != identity.Node {
			n.deny(w, r, "", errRole)
			return
		}
		h.ServeHTTP(w, r)
	}
}

func (n *Node) serveMeter(w http.ResponseWriter, r *http.Request) {
	m := admin.NodeMeter{Node: n.boot.ID, At: time.Now(), Rows: n.meter.Snapshot(), CPU: process.OwnCPU().Seconds()}
	stats := n.agent.Stats(r.Context())
	for _, id := range slices.Sorted(maps.Keys(stats)) {
		st := stats[id]
		m.Used = append(m.Used, admin.Used{Instance: id, Started: st.Started, StartMS: float64(st.Took.Microseconds()) / 1000, CPU: st.CPU.Seconds(),
			Memory: st.Memory, Pids: st.Pids, Calls: st.Calls})
	}
	if n.place != nil {
		r := n.place.Report()
		m.Station = &admin.Station{Served: r.Served, Passed: r.Passed, Late: r.Late, LateShare: r.LateShare, ValidRate: r.ValidRate}
	}
	for _, c := range n.link.Counters() {
		m.Link.Sent += c.Sent.Bytes
		m.Link.Received += c.Received.Bytes
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m) // the caller is gone
}

// serveLogs streams the lines of the instances here that are asked for, as NDJSON of [admin.LogLine].
func (n *Node) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tail, err := strconv.Atoi(q.Get("tail"))
	if err != nil {
		http.Error(w, "tail: want a whole number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := lineWriter{enc: json.NewEncoder(w), ctl: http.NewResponseController(w)}
	_ = out.ctl.Flush() // the caller is gone
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var wg sync.WaitGroup
	ids, err := n.agent.Logs()
	if err != nil {
		n.log.Warn("list logs", "err", err)
	}
	for _, id := range ids {
		if !asked(id, q.Get("of")) {
			continue
		}
		log, ok := n.agent.Log(id)
		if !ok {
			continue
		}
		tell := func(l driver.Line) error { return out.write(n.boot.ID, id, l) }
		if q.Get("follow") == "true" {
			wg.Go(func() {
				if log.Follow(ctx, tail, tell) != nil {
					cancel()
				}
			})
			continue
		}
		for _, l := range log.Tail(tail) {
			if tell(l) != nil {
				return
			}
		}
	}
	wg.Wait()
}

// asked says whether an instance is the one, or of the service, that is asked for; empty asks for all.
func asked(id system.InstanceID, of string) bool {
	service, _, _ := strings.Cut(string(id), "/")
	return of == "" || of == string(id) || of == service
}

// lineWriter writes the lines of several logs, each whole and at once.
type lineWriter struct {
	mu  sync.Mutex // one line at a time
	enc *json.Encoder
	ctl *http.ResponseController
}

func (w *lineWriter) write(node system.NodeID, id system.InstanceID, l driver.Line) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enc.Encode(admin.LogLine{Time: l.Time, Node: node, Instance: id, Stream: l.Stream, Text: l.Text}); err != nil {
		return err
	}
	return w.ctl.Flush()
}
