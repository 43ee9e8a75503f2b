package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/control"
	"servent/identity"
	"servent/link"
	"servent/system"
)

func credential(t testing.TB) identity.Credential {
	t.Helper()
	ca, err := identity.NewAuthority("t")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ca.Issue(identity.ID{Cluster: "t", Role: identity.Node, Node: "node-2"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// built is a node that does not run.
func built(t *testing.T, portBase int) *Node {
	t.Helper()
	n, err := build(Boot{Credential: credential(t), ID: "node-2", Role: identity.Node, Host: "127.0.0.1", PortBase: portBase, Dir: t.TempDir(), Blobs: t.TempDir(),
		Servers: []Server{{Node: "node-1", Link: "127.0.0.1:7", Site: "eu"}}}, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWanted(t *testing.T) {
	plan := &system.Plan{Doors: []system.Door{{Service: "web", Offset: 2}, {Service: "db", Offset: 3}}, Services: []system.Deployment{
		{Service: system.Service{Name: "web", Switch: system.Switch{By: system.ByRequest}},
			Assignments: []system.Assignment{{Instance: "web/1", Node: "node-1", Port: 4}, {Instance: "web/2", Node: "node-2", Port: 6}}},
		{Service: system.Service{Name: "db", Switch: system.Switch{By: system.ByConnection}},
			Assignments: []system.Assignment{{Instance: "db/1", Node: "node-2", Port: 8}}},
	}}
	for _, tt := range []struct {
		name string
		plan *system.Plan
		want map[int]opening
	}{
		{"no plan", nil, map[int]opening{}},
		{"nothing in it", &system.Plan{}, map[int]opening{webOffset: {by: system.ByRequest}}},
		{"a name server", &system.Plan{Names: 9}, map[int]opening{webOffset: {by: system.ByRequest}, 9: {names: true}}},
		{"web door, services, a peer's and two next doors", plan, map[int]opening{
			webOffset: {by: system.ByRequest},
			2:         {service: "web", by: system.ByRequest},
			3:         {service: "db", by: system.ByConnection},
			4:         {service: "web", instance: "web/1", by: system.ByRequest},
			7:         {service: "web", instance: "web/2", next: true, by: system.ByRequest},
			9:         {service: "db", instance: "db/1", next: true, by: system.ByConnection},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := wanted(tt.plan, "node-2"); !maps.Equal(got, tt.want) {
				t.Errorf("wanted = %v, want %v", got, tt.want)
			}
		})
	}
}

// Doors open with the plan, wait for a port that is still somebody's, and close with it.
func TestDoorsFollowThePlan(t *testing.T) {
	theirs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := built(t, theirs.Addr().(*net.TCPAddr).Port-webOffset)
	answers := func() bool {
		conn, err := net.Dial("tcp", n.address(webOffset))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	n.doors.set(t.Context(), &system.Plan{})
	theirs.Close()
	for late := time.After(10 * time.Second); !answers(); {
		select {
		case <-late:
			t.Fatal("the web door did not open after its port became free")
		case <-time.After(5 * time.Millisecond):
		}
	}
	n.doors.set(t.Context(), nil)
	for late := time.After(10 * time.Second); answers(); {
		select {
		case <-late:
			t.Fatal("the web door did not close")
		case <-time.After(5 * time.Millisecond):
		}
	}
	n.doors.close()
	n.doors.set(t.Context(), &system.Plan{}) // too late
	if len(n.doors.open) != 0 {
		t.Error("a door was opened after the end")
	}
}

func TestResolve(t *testing.T) {
	n := built(t, 1)
	n.view.Store(&control.View{Seen: []system.Seen{{Node: "node-1", Link: "elsewhere"}, {Node: "node-3", Link: "127.0.0.3:9", Site: "ap"}}})
	for _, tt := range []struct {
		id   system.NodeID
		want link.Address
		ok   bool
	}{
		{"node-1", link.Address{Host: "127.0.0.1:7", Site: "eu"}, true}, // as told at the start: it cannot be asked of itself
		{"node-3", link.Address{Host: "127.0.0.3:9", Site: "ap"}, true},
		{"node-4", link.Address{}, false},
	} {
		if got, ok := n.resolve(tt.id); got != tt.want || ok != tt.ok {
			t.Errorf("resolve(%s) = %v %v, want %v %v", tt.id, got, ok, tt.want, tt.ok)
		}
	}
}

func TestAsked(t *testing.T) {
	for _, tt := range []struct {
		id   system.InstanceID
		of   string
		want bool
	}{{"web/1", "", true}, {"web/1", "web", true}, {"web/1", "web/1", true}, {"web/1", "web/2", false}, {"web/1", "we", false}, {"web/10", "web/1", false}} {
		if got := asked(tt.id, tt.of); got != tt.want {
			t.Errorf("asked(%s, %q) = %v, want %v", tt.id, tt.of, got, tt.want)
		}
	}
}

func TestReadBoot(t *testing.T) {
	next := credential(t)
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, v := range []any{Boot{ID: "node-2", Credential: credential(t)}, Word{}, Word{Credential: &next}} {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	in.WriteString("{ not a word")
	b, words, err := ReadBoot(&in)
	if err != nil || b.ID != "node-2" {
		t.Fatalf("ReadBoot = %+v %v", b, err)
	}
	var got []bool
	for w := range words { // it closes with the input
		got = append(got, w.Credential != nil)
	}
	if want := []bool{false, true}; !slices.Equal(got, want) {
		t.Errorf("words with a certificate: %v, want %v", got, want)
	}
	for _, text := range []string{"", "{", `{"role": 5}`, "[]"} {
		if _, _, err := ReadBoot(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "read the boot line") {
			t.Errorf("ReadBoot(%q) = %v, want an error", text, err)
		}
	}
}

func FuzzReadBoot(f *testing.F) {
	f.Add([]byte(`{"id": "node-1", "role": "node"}` + "\n{}\n"))
	f.Add([]byte(`{"credential": {}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, words, err := ReadBoot(bytes.NewReader(b))
		if err != nil {
			return
		}
		for range words {
		}
	})
}

// A new certificate is taken, another node's is not, and the end of the words is the end of the node.
func TestObey(t *testing.T) {
	n := built(t, 1)
	ca, err := identity.NewAuthority("t")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ca.Issue(identity.ID{Cluster: "t", Role: identity.Node, Node: "node-3"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own := credential(t)
	words := make(chan Word, 2)
	words <- Word{Credential: &own}
	words <- Word{Credential: &theirs}
	close(words)
	stopped := false
	n.obey(words, func() { stopped = true })
	if !stopped {
		t.Error("the end of the words did not stop the node")
	}
	want, _ := json.Marshal(own)
	if got, _ := json.Marshal(n.keep.Credential()); !bytes.Equal(got, want) {
		t.Error("the certificate is not the new one of this node")
	}
}

// What a node is told of faults is so when it says that it heard.
func TestSuffer(t *testing.T) {
	n := built(t, 1)
	var told []Told
	n.opt.Tell = func(x Told) { told = append(told, x) }
	dial := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := n.link.Dial(ctx, "node-1", link.Alive) // nobody listens there
		return err
	}
	hear := func(fs ...Faults) {
		words := make(chan Word, len(fs))
		for _, f := range fs {
			words <- Word{Faults: &f}
		}
		close(words)
		n.obey(words, func() {})
	}
	hear(Faults{Turn: 3, To: link.Faults{"node-1": {Cut: true}}})
	if err := dial(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over a cut way: %v, want silence", err)
	}
	hear(Faults{Turn: 5, To: link.Faults{"node-3": {Cut: true}}})
	if err := dial(); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over a healed way: %v", err)
	}
	if len(told) != 2 || told[0].Heard != 3 || told[1].Heard != 5 {
		t.Errorf("told %+v, want that 3 and 5 were heard", told)
	}
}

func TestParts(t *testing.T) {
	mine := errors.New("mine")
	t.Run("a clean stop", func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		p, own := newParts(ctx, func(err error) { t.Errorf("failed: %v", err) })
		p.run(own, "a", func(ctx context.Context) error { <-ctx.Done(); return nil })
		end()
		if own.Err() != nil {
			t.Error("parts end with ctx, want only with stop")
		}
		if err := p.stop(); err != nil {
			t.Errorf("stop = %v", err)
		}
	})
	for name, end := range map[string]error{"one fails": mine, "one ends by itself": nil} {
		t.Run(name, func(t *testing.T) {
			told := make(chan error, 1)
			p, own := newParts(t.Context(), func(err error) { told <- err })
			p.run(own, "a", func(context.Context) error { return end })
			err := <-told
			if !strings.HasPrefix(err.Error(), "a: ") || end != nil && !errors.Is(err, mine) {
				t.Errorf("told %v, want its name and why", err)
			}
			if got := p.stop(); !errors.Is(got, err) {
				t.Errorf("stop = %v, want %v", got, err)
			}
		})
	}
}

// Others notice this node's end by a connection that is held until then.
func TestHold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hold(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "what is said is not heard"); err != nil {
		t.Fatal(err)
	}
	end()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v; want the connection to break", n, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("hold = %v", err)
	}
}
