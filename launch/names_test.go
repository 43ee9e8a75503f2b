package launch

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"servent/control"
	"servent/system"
)

// The name server of the machine comes with the first service that is switched by name, follows the view, and goes with the last.
func TestNames(t *testing.T) {
	var changes news
	changes.init()
	plan := &system.Plan{System: "shop", Names: 3, Doors: []system.Door{{Service: "api", Offset: 4}}, Services: []system.Deployment{{
		Service: system.Service{Name: "api", Switch: system.Switch{By: system.ByName}}, Spec: "s",
		Assignments: []system.Assignment{{Instance: "api/1", Node: "node-1", Goal: system.GoalRun, Spec: "s"}}}}}
	view := &control.View{Plan: plan, Seen: []system.Seen{{Node: "node-1", Address: "127.77.0.9", PortBase: 20000, Emulated: true,
		Instances: []system.InstanceSeen{{Instance: "api/1", Spec: "s", State: system.StateReady}}}}}
	n := &names{view: func() (*control.View, error) { return view, nil }, changed: changes.wait, log: slog.New(slog.DiscardHandler)}
	t.Cleanup(n.Close)
	sys := &system.System{Name: "shop", Services: []system.Service{{Name: "api", Switch: system.Switch{By: system.ByRequest}}}}
	if err := n.Set(sys); err != nil || n.Addr().IsValid() {
		t.Fatalf("nothing is switched by name: %v, %v", n.Addr(), err)
	}
	sys.Services[0].Switch.By = system.ByName
	if err := n.Set(sys); err != nil {
		t.Fatal(err)
	}
	at := n.Addr()
	if err := n.Set(sys); err != nil || n.Addr() != at || !at.Addr().IsLoopback() {
		t.Fatalf("the same again: %v, then %v, %v", at, n.Addr(), err)
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at.String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for { // it follows in its own time
		got, err := r.LookupHost(ctx, "api.shop.internal")
		if err == nil && len(got) == 1 && got[0] == "127.77.0.9" {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%v, %v", got, err)
		}
	}
	other := &names{view: n.view, changed: n.changed, log: n.log}
	if err := other.Set(sys); err != nil || other.Addr() == at {
		t.Errorf("a second system's is at %v, %v", other.Addr(), err)
	}
	other.Close()
	sys.Services[0].Switch.By = system.ByConnection
	if err := n.Set(sys); err != nil || n.Addr().IsValid() {
		t.Errorf("nothing is switched by name any more: %v, %v", n.Addr(), err)
	}
}
