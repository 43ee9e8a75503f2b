package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"servent/control"
	"servent/system"
)

// Logs implements [Nodes] as a node does: what is kept, and with Follow what is written from then on, until
// the node dies.
func (s *stage) Logs(ctx context.Context, id system.NodeID, q LogQuery) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent[id] {
		r, _ := io.Pipe()
		context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
		return r, nil
	}
	if !slices.ContainsFunc(s.view.Seen, func(n system.Seen) bool { return n.Node == id }) {
		return nil, errors.New("refused")
	}
	of := func() (lines []LogLine) {
		for _, l := range s.lines[id] {
			if service, _, _ := strings.Cut(string(l.Instance), "/"); q.Of == "" || q.Of == service || q.Of == string(l.Instance) {
				lines = append(lines, l)
			}
		}
		return lines
	}
	lines := of()
	all := len(lines)
	if q.Tail >= 0 {
		lines = lines[max(0, len(lines)-q.Tail):]
	}
	r, w := io.Pipe()
	life := s.life(id)
	go func() {
		defer w.Close()
		stop := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
		defer stop()
		enc := json.NewEncoder(w)
		for {
			for _, l := range lines {
				if enc.Encode(l) != nil {
					return
				}
			}
			if !q.Follow {
				return
			}
			changed := s.wait()
			s.mu.Lock()
			if life.Err() != nil { // what is written after its end it did not read
				s.mu.Unlock()
				return
			}
			lines = of()[all:]
			all += len(lines)
			s.mu.Unlock()
			if len(lines) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-life.Done():
				return // with the node
			case <-ctx.Done():
				return
			}
		}
	}()
	return r, nil
}

// life is a node's present life. s.mu is held.
func (s *stage) life(id system.NodeID) context.Context {
	if s.lives == nil {
		s.lives = map[system.NodeID]life{}
	}
	if l, ok := s.lives[id]; ok {
		return l.ctx
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	s.lives[id] = life{ctx, cancel}
	return ctx
}

type life struct {
	ctx context.Context
	end context.CancelFunc
}

// kill ends a node's life; what it wrote stays.
func (s *stage) kill(id system.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives[id].end()
	delete(s.lives, id)
}

// say writes a line at a second.
func (s *stage) say(node system.NodeID, instance system.InstanceID, second float64, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines[node] = append(s.lines[node], LogLine{Time: t0.Add(time.Duration(second * float64(time.Second))), Node: node, Instance: instance, Stream: "stdout", Text: text})
	close(s.changed)
	s.changed = make(chan struct{})
}

func seenWith(nodes map[system.NodeID][]system.InstanceID) *control.View {
	v := &control.View{Wanted: shop().Wanted, Plan: shop().Plan}
	for _, id := range []system.NodeID{"node-1", "node-2"} {
		if ids, ok := nodes[id]; ok {
			seen := system.Seen{Node: id}
			for _, in := range ids {
				seen.Instances = append(seen.Instances, system.InstanceSeen{Instance: in})
			}
			v.Seen = append(v.Seen, seen)
		}
	}
	return v
}

type placed = map[system.NodeID][]system.InstanceID

func TestKeptLogs(t *testing.T) {
	s := newStage(t)
	s.view = seenWith(placed{"node-1": {"api/1"}, "node-2": {"api/2", "data/1"}})
	s.say("node-1", "api/1", 1, "one")
	s.say("node-2", "api/2", 2, "two")
	s.say("node-1", "api/1", 3, "three")
	s.say("node-2", "data/1", 4, "four")
	for _, tt := range []struct {
		query string
		want  string
	}{
		{"", "one two three four"},
		{"?of=api", "one two three"},
		{"?of=api/2", "two"},
		{"?of=data", "four"},
		{"?of=api&tail=1", "two three"},
		{"?tail=0", ""},
		{"?tail=-1", "one two three four"},
	} {
		code, body := call(s.Handler(), "GET", "/v1/logs"+tt.query, "")
		var got []string
		for dec := json.NewDecoder(strings.NewReader(body)); ; {
			var l LogLine
			if dec.Decode(&l) != nil {
				break
			}
			got = append(got, l.Text)
		}
		if code != 200 || strings.Join(got, " ") != tt.want {
			t.Errorf("logs%s: %d %q, want %q", tt.query, code, got, tt.want)
		}
	}
}

// A node that hangs is done without, and it is said that its lines are missing.
func TestKeptLogsOfASilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.view = seenWith(placed{"node-1": {"api/1"}, "node-2": {"api/2"}})
		s.say("node-1", "api/1", 1, "one")
		s.silent["node-2"] = true
		began := time.Now()
		_, body := call(s.Handler(), "GET", "/v1/logs", "")
		if !strings.Contains(body, `"one"`) || !strings.Contains(body, "lines of node-2 are missing: it does not answer within 3s") {
			t.Errorf("got %s", body)
		}
		if got := time.Since(began); got != quietFor {
			t.Errorf("it took %v, want %v", got, quietFor)
		}
	})
}

// Lines of a log that goes on come once each, in order, whatever happens to nodes and instances meanwhile.
func TestFollowLosesNoLine(t *testing.T) {
	s := newStage(t)
	s.view = seenWith(placed{"node-1": {"api/1"}, "node-2": {"api/2"}})
	s.say("node-1", "api/1", 1, "asked for no more")
	s.say("node-1", "api/1", 2, "old")
	s.say("node-2", "api/2", 9, "old, of a clock that is ahead")
	c := s.serve()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	steps := []struct {
		after string // this line
		do    func()
	}{
		{"old, of a clock that is ahead", func() { s.say("node-1", "api/1", 3, "older than the newest of another") }},
		{"older than the newest of another", func() {
			s.show(seenWith(placed{"node-2": {"api/2", "api/3"}})) // first: it could be read again before it is missed
			s.kill("node-1")
			s.say("node-1", "api/1", 4, "last words") // they are on its disk, nobody has read them
			s.say("node-2", "api/3", 5, "new instance")
		}},
		{"new instance", func() {
			s.say("node-2", "api/2", 10, "meanwhile")
			s.say("node-2", "data/1", 10, "of another service")
		}},
		{"meanwhile", func() { s.show(seenWith(placed{"node-1": {}, "node-2": {"api/2", "api/3"}})) }},
		{"last words", func() { s.kill("node-2"); s.say("node-2", "api/3", 6, "while it broke off") }}, // the view never shows it
		{"while it broke off", func() { s.say("node-2", "api/3", 7, "end") }},
	}
	var got []string
	err := c.Logs(ctx, LogQuery{Of: "api", Tail: 1, Follow: true}, func(l LogLine) error {
		got = append(got, l.Text)
		if len(steps) > 0 && l.Text == steps[0].after {
			steps[0].do()
			steps = steps[1:]
		}
		if l.Text == "end" {
			return io.EOF
		}
		return nil
	})
	want := []string{"old", "old, of a clock that is ahead", "older than the newest of another", "new instance", "meanwhile", "last words", "while it broke off", "end"}
	if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
		t.Errorf("lines %s (%v),\nwant %s", fmt.Sprintf("%q", got), err, fmt.Sprintf("%q", want))
	}
}

// With --tail 0 nothing old is shown, not even of instances that wrote before.
func TestFollowFromNow(t *testing.T) {
	s := newStage(t)
	s.view = seenWith(placed{"node-1": {"api/1"}})
	s.say("node-1", "api/1", 1, "old")
	c := s.serve()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		for ctx.Err() == nil { // until the log is followed
			s.mu.Lock()
			following := len(s.lives) > 0
			s.mu.Unlock()
			if following {
				s.say("node-1", "api/1", 2, "new")
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	var got []string
	_ = c.Logs(ctx, LogQuery{Follow: true}, func(l LogLine) error { got = append(got, l.Text); return io.EOF })
	if !slices.Equal(got, []string{"new"}) {
		t.Errorf("lines %q, want only the new one", got)
	}
}
