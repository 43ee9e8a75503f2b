package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"servent/driver"
	"servent/system"
)

// Seen is what there is of the plan on this node, sorted by service and number. It is shared: read only.
func (a *Agent) Seen() []system.InstanceSeen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// Generation is that of the plan which Seen follows: what the plan gives this node stands in Seen since
// then. Asked before Seen, it is never newer than it. 0: no plan yet.
func (a *Agent) Generation() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generation
}

// Changed is closed at the next change of Seen or Generation. Take it before reading them.
func (a *Agent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Endpoint is where an instance of this node answers. It has one from its start to its end, also while it is
// not healthy or drains.
func (a *Agent) Endpoint(id system.InstanceID) (driver.Endpoint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.instances[id]
	if in == nil || !answers(in) {
		return driver.Endpoint{}, false
	}
	return in.status.Endpoint, true
}

// answers says that an instance runs. mu is held.
func answers(in *instance) bool {
	return in.status.Endpoint.Address != "" || in.status.Endpoint.Handler != nil
}

// Stats asks all instances that run here what they use. One that does not answer is left out.
func (a *Agent) Stats(ctx context.Context) map[system.InstanceID]driver.Stats {
	a.mu.Lock()
	ask := map[system.InstanceID]*driver.Supervisor{}
	for id, in := range a.instances {
		if in.supervisor != nil && answers(in) {
			ask[id] = in.supervisor
		}
	}
	a.mu.Unlock()
	out := map[system.InstanceID]driver.Stats{}
	for id, s := range ask {
		if st, err := s.Stats(ctx); err == nil {
			out[id] = st
		}
	}
	return out
}

// Log is the output of an instance that runs or ran on this node, also in an earlier life. It is open until
// Run ends; nobody else closes it.
func (a *Agent) Log(id system.InstanceID) (*driver.Log, bool) {
	a.mu.Lock()
	l := a.logs[id]
	a.mu.Unlock()
	if l != nil {
		return l, true
	}
	path, err := a.logFile(id)
	if err != nil {
		return nil, false
	}
	if _, err := os.Stat(path); err != nil {
		return nil, false
	}
	l, err = a.openLog(id)
	return l, err == nil
}

// Logs names the instances that [Agent.Log] knows, sorted.
func (a *Agent) Logs() ([]system.InstanceID, error) {
	ids := map[system.InstanceID]bool{}
	entries, err := os.ReadDir(filepath.Join(a.opts.Dir, "logs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		dot := strings.LastIndexByte(name, '.')
		if !ok || dot < 1 {
			continue // an older part of one
		}
		if n, err := strconv.Atoi(name[dot+1:]); err == nil && n > 0 {
			ids[system.Instance(system.ServiceName(name[:dot]), n)] = true
		}
	}
	a.mu.Lock()
	for id := range a.logs {
		ids[id] = true
	}
	a.mu.Unlock()
	return slices.SortedFunc(maps.Keys(ids), compare), nil
}

// report takes a supervisor's new status.
func (a *Agent) report(in *instance, st driver.Status, log *slog.Logger) {
	a.mu.Lock()
	was := in.status.State
	in.status = st
	a.publish()
	a.mu.Unlock()
	if st.State == was {
		return
	}
	level := slog.LevelInfo
	switch st.State {
	case system.StateBackoff, system.StateUnhealthy:
		level = slog.LevelWarn
	case system.StateFailed:
		level = slog.LevelError
	}
	log.Log(context.Background(), level, "instance changed", "state", st.State, "why", st.Why)
}

// publish makes a new snapshot when something changed. mu is held.
func (a *Agent) publish() {
	now, prepared := a.snapshot(), a.preparedNow()
	if slices.Equal(now, a.seen) && slices.Equal(prepared, a.prepared) && a.told == a.generation {
		return
	}
	a.seen, a.prepared, a.told = now, prepared, a.generation
	close(a.changed)
	a.changed = make(chan struct{})
}

// snapshot is all that this node has, and what it keeps a place for. mu is held.
func (a *Agent) snapshot() []system.InstanceSeen {
	var out []system.InstanceSeen
	for id, in := range a.instances {
		out = append(out, in.seen(id))
	}
	for as := range a.mine() {
		if since, ok := a.waiting[as.Instance]; ok && a.instances[as.Instance] == nil {
			out = append(out, system.InstanceSeen{Instance: as.Instance, Spec: as.Spec,
				State: system.StateWaiting, Since: since, Why: as.Waits})
		}
	}
	slices.SortFunc(out, func(a, b system.InstanceSeen) int { return compare(a.Instance, b.Instance) })
	return out
}

// mine are the plan's assignments to this node. mu is held.
func (a *Agent) mine() iter.Seq[*system.Assignment] {
	return func(yield func(*system.Assignment) bool) {
		for i := range a.plan.Services {
			for j := range a.plan.Services[i].Assignments {
				as := &a.plan.Services[i].Assignments[j]
				if as.Node == a.opts.Node && !yield(as) {
					return
				}
			}
		}
	}
}

// seen puts the supervisor's word and our own together.
func (in *instance) seen(id system.InstanceID) system.InstanceSeen {
	st := in.status
	s := system.InstanceSeen{
		Instance: id,
		Spec:     in.assignment.Spec,
		State:    st.State,
		Since:    st.Since,
		Started:  st.Started,
		Endpoint: st.Endpoint.Address,
		Pid:      st.Pid,
		Restarts: st.Restarts,
		Exit:     st.Exit,
		Why:      st.Why,
	}
	if st.Endpoint.Handler != nil {
		s.Endpoint = "inside"
	}
	up := st.State == system.StateReady || st.State == system.StateStarting || st.State == system.StateUnhealthy
	if in.phase == Draining && up {
		s.State, s.Since, s.Why = system.StateDraining, in.since, "gets no new requests; the open ones end"
	}
	return s
}
