package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"servent/control"
	"servent/meter"
	"servent/system"
)

const (
	watchEvery = 50 * time.Millisecond // between two states of one watch
	meterFor   = time.Second           // a node may take to say what it counted
)

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
	if d.Fleet != nil {
		s.Voters = d.Fleet.Voters()
		s.Survives = Survives(s.Voters, s.node)
	}
	if err != nil {
		s.Control, s.Settled = err.Error(), false
	}
	return s
}

func (d *Door) state(w http.ResponseWriter, r *http.Request) error { return answer(w, d.said(r)) }

// watch streams a state at every change that shows, with a pause between two. Of a burst some are
// skipped, never the last: each is made after the signal of the one before was taken.
func (d *Door) watch(w http.ResponseWriter, r *http.Request) error {
	out := stream(w)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for last := []byte(nil); ; {
		changed := d.Changed()
		text, err := json.Marshal(d.said(r))
		if err != nil {
			return err // a word of ours cannot be written as JSON: never
		}
		if !bytes.Equal(text, last) && out(json.RawMessage(text)) != nil {
			return nil
		}
		last = text
		select {
		case <-changed:
		case <-r.Context().Done():
			return nil
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
	}
}

// happened names an event. Several may have one time, and a new conductor's clock may be behind the old
// one's: only all of it tells two events apart.
type happened struct {
	time     int64
	kind     string
	node     system.NodeID
	service  system.ServiceName
	instance system.InstanceID
	text     string
}

// events streams what happened, each once, also while control is away.
func (d *Door) events(w http.ResponseWriter, r *http.Request) error {
	follow, err := flag(r.URL.Query(), "follow")
	if err != nil {
		return err
	}
	out, told := stream(w), map[happened]bool{}
	var last *control.View
	for {
		changed := d.Changed()
		v, _ := d.View()
		if v != last {
			last = v
			here := make(map[happened]bool, len(v.Events))
			for _, e := range v.Events {
				name := happened{e.Time.UnixNano(), e.Kind, e.Node, e.Service, e.Instance, e.Text}
				if here[name] = true; !told[name] && out(e) != nil {
					return nil
				}
			}
			told = here
		}
		if !follow {
			return nil
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return nil
		}
	}
}

// meter asks all nodes at once; one that does not answer says so in its place.
func (d *Door) meter(w http.ResponseWriter, r *http.Request) error {
	v, _ := d.View() // the nodes answer by themselves
	meters := make([]NodeMeter, len(v.Seen))
	ctx, cancel := context.WithTimeout(r.Context(), meterFor)
	defer cancel()
	var wg sync.WaitGroup
	for i := range v.Seen {
		wg.Go(func() {
			m, err := d.Nodes.Meter(ctx, v.Seen[i].Node)
			if err != nil {
				m = NodeMeter{Node: v.Seen[i].Node, At: time.Now(), Error: err.Error()}
			}
			if m.Rows == nil {
				m.Rows = []meter.Row{}
			}
			if m.Used == nil {
				m.Used = []Used{}
			}
			meters[i] = m
		})
	}
	wg.Wait()
	return answer(w, meters)
}
