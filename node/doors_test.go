package node

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"servent/link"
	"servent/system"
)

// A door that only programs of this node ask at tells the station that they wait; one of outside does not.
func TestProgramsThatWaitAreNotSlow(t *testing.T) {
	for _, inside := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := &Node{place: link.NewStation(system.Capacity{Rate: 50})}
			turn, err := n.place.Serve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var d door
			d.inside.Store(inside)
			h := n.waits(&d, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }))
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			if err := turn.End(t.Context()); err != nil {
				t.Error(err)
			}
			if r := n.place.Report(); r.Served != 1 || (r.Late == 0) != inside {
				t.Errorf("inside %v: report %+v, want one turn, late if the request came from outside", inside, r)
			}
		})
	}
}

func TestPrivateDoors(t *testing.T) {
	p := &system.Plan{Services: []system.Deployment{
		{Service: system.Service{Name: "data"}},
		{Service: system.Service{Name: "db", Ports: []system.Port{{Target: 5432}}}},
		{Service: system.Service{Name: "web", Routes: []system.Route{{Path: "/*"}}}},
	}}
	for _, tt := range []struct {
		name string
		at   opening
		want bool
	}{
		{"the web door", opening{}, false},
		{"a service with a route", opening{service: "web"}, false},
		{"a service with a port", opening{service: "db"}, false},
		{"a service without", opening{service: "data"}, true},
		{"one instance", opening{service: "web", instance: "web/1"}, true},
		{"the next one", opening{service: "web", instance: "web/1", next: true}, true},
		{"a service that is gone", opening{service: "old"}, false},
	} {
		if got := private(p, tt.at); got != tt.want {
			t.Errorf("%s: private = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Only a node with an address of its own can have the ports that the machine has, too.
func TestNamedDoors(t *testing.T) {
	p := &system.Plan{Services: []system.Deployment{
		{Service: system.Service{Name: "api", Switch: system.Switch{By: system.ByName}, Ports: []system.Port{{Published: 8080}, {Published: 9090, Host: "0.0.0.0"}, {Target: 1}}}},
		{Service: system.Service{Name: "web", Switch: system.Switch{By: system.ByRequest}, Ports: []system.Port{{Published: 80}}}},
	}}
	want := map[string]opening{"127.77.0.2:8080": {service: "api", by: system.ByName}}
	if got := named(p, "127.77.0.2"); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := named(p, "127.0.0.1"); len(got) != 0 {
		t.Errorf("of a shared address: %v", got)
	}
	if got := named(nil, "127.77.0.2"); len(got) != 0 {
		t.Errorf("without a plan: %v", got)
	}
}
