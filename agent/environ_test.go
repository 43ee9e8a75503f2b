package agent

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

func TestEnviron(t *testing.T) {
	base := func() *system.Plan {
		p := planOf(1,
			system.Assignment{Instance: "api/1", Port: 12},
			system.Assignment{Instance: "api/10", Port: 30, Node: "node-2"},
			system.Assignment{Instance: "api/2", Port: 14, Node: "node-2", Goal: system.GoalWait},
			system.Assignment{Instance: "api/3", Port: 16, Goal: system.GoalDrain},
			system.Assignment{Instance: "order-db.v2/1", Port: 20})
		p.Services[1].Service.Switch.By = system.ByConnection
		return p
	}
	place := Place{Node: "node-1", Site: "eu", Host: "127.77.0.1", PortBase: 20000, Dir: "/p", Data: "/p/data", Temp: "/p/tmp"}
	for _, tt := range []struct {
		name   string
		of     system.ServiceName
		change func(*system.Plan, *system.Service, *Place)
		want   map[string]string // "-" is: not set
	}{
		{"of its own", "api", nil, map[string]string{
			"PORT": "20012", "HOST": "127.77.0.1", "SERVENT_SELF": "http://127.77.0.1:20012", "SERVENT_NEXT": "http://127.77.0.1:20013",
			"SERVENT_PEERS": "http://127.77.0.1:20012,http://127.77.0.1:20014,http://127.77.0.1:20030",
			"SERVENT_NODE":  "node-1", "SERVENT_SITE": "eu", "SERVENT_SERVICE": "api", "SERVENT_INSTANCE": "api/1",
			"SERVENT_DATA": "/p/data", "TMPDIR": "/p/tmp", "TMP": "/p/tmp", "TEMP": "/p/tmp", "SERVENT_BUNDLE": "-"}},
		{"doors of all", "api", nil, map[string]string{
			"API_URL": "http://127.77.0.1:20002", "API_HOST": "127.77.0.1", "API_PORT": "20002",
			"ORDER_DB_V2_URL": "tcp://127.77.0.1:20003", "ORDER_DB_V2_HOST": "127.77.0.1", "ORDER_DB_V2_PORT": "20003"}},
		{"by connection", "order-db.v2", nil, map[string]string{
			"PORT": "20020", "SERVENT_SELF": "tcp://127.77.0.1:20020", "SERVENT_PEERS": "tcp://127.77.0.1:20020", "SERVENT_NEXT": "tcp://127.77.0.1:20021", "API_URL": "http://127.77.0.1:20002"}},
		{"an address with colons", "api", func(_ *system.Plan, _ *system.Service, at *Place) { at.Host = "::1" }, map[string]string{
			"API_URL": "http://[::1]:20002", "API_HOST": "::1", "SERVENT_SELF": "http://[::1]:20012"}},
		{"a bundle and mounts", "api", func(_ *system.Plan, _ *system.Service, at *Place) {
			at.Bundle, at.Mounts = "/b", []string{"SERVENT_VOLUME_DB=/v=1"}
		}, map[string]string{"SERVENT_BUNDLE": "/b", "SERVENT_VOLUME_DB": "/v=1"}},
		{"the base is the lowest", "api", func(_ *system.Plan, s *system.Service, at *Place) {
			at.Base = []string{"PATH=/bin", "HOME=/root", "API_URL=x", "PORT=1", "TMPDIR=/tmp", "=C:=C:\\x", "", "broken"}
			s.Environment = map[string]string{"HOME": "/home/me"}
		}, map[string]string{"PATH": "/bin", "HOME": "/home/me", "API_URL": "http://127.77.0.1:20002", "PORT": "20012", "TMPDIR": "/p/tmp", "=C:": "C:\\x", "broken": "-"}},
		{"the user may say where others are", "api", func(_ *system.Plan, s *system.Service, _ *Place) {
			s.Environment = map[string]string{"ORDER_DB_V2_URL": "tcp://elsewhere:1", "HOST": "0.0.0.0", "TMPDIR": "/scratch", "LITERAL": "$HOME ${x} 'q'", "EMPTY": ""}
		}, map[string]string{"ORDER_DB_V2_URL": "tcp://elsewhere:1", "ORDER_DB_V2_PORT": "20003", "HOST": "0.0.0.0", "TMPDIR": "/scratch", "LITERAL": "$HOME ${x} 'q'", "EMPTY": ""}},
		{"the user may not say where it is itself", "api", func(_ *system.Plan, s *system.Service, _ *Place) {
			s.Environment = map[string]string{"PORT": "80", "SERVENT_SELF": "x", "SERVENT_DATA": "/", "SERVENT_NODE": "me", "SERVENT_MINE": "kept"}
		}, map[string]string{"PORT": "20012", "SERVENT_SELF": "http://127.77.0.1:20012", "SERVENT_DATA": "/p/data", "SERVENT_NODE": "node-1", "SERVENT_MINE": "kept"}},
		{"a door without a service", "api", func(p *system.Plan, _ *system.Service, _ *Place) {
			p.Doors = append(p.Doors, system.Door{Service: "ghost", Offset: 9})
		}, map[string]string{"GHOST_URL": "-", "GHOST_PORT": "-"}},
		{"no longer in the plan", "api", func(p *system.Plan, _ *system.Service, _ *Place) {
			p.Services = p.Services[1:]
		}, map[string]string{"SERVENT_PEERS": "", "PORT": "20012", "API_URL": "-"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, at := base(), place
			d := *plan.Deployment(tt.of)
			as, service := d.Assignments[0], d.Service
			if tt.change != nil {
				tt.change(plan, &service, &at)
			}
			env := Environ(plan, &as, &service, at)
			got := map[string]string{}
			for _, kv := range env {
				i := strings.Index(kv[1:], "=") + 1
				if _, twice := got[kv[:i]]; twice {
					t.Errorf("%s is set twice", kv[:i])
				}
				got[kv[:i]] = kv[i+1:]
			}
			for k, want := range tt.want {
				if have, ok := got[k]; want == "-" && ok || want != "-" && (!ok || have != want) {
					t.Errorf("%s = %q (set: %v), want %q", k, have, ok, want)
				}
			}
			if again := Environ(plan, &as, &service, at); !slices.Equal(env, again) {
				t.Errorf("another order the second time:\n%s", cmp.Diff(env, again))
			}
		})
	}
}

func TestEnvName(t *testing.T) {
	for in, want := range map[string]string{"db": "DB", "db-password.v1": "DB_PASSWORD_V1", "a b=c": "A_B_C", "ü": "_", "": ""} {
		if got := envName(in); got != want {
			t.Errorf("envName(%q) = %q, want %q", in, got, want)
		}
	}
}

// A module may call what its service names in depends_on, if that is called by request, and nothing else.
func TestCalls(t *testing.T) {
	plan := planOf(1, system.Assignment{Instance: "fn/1", Port: 12}, system.Assignment{Instance: "db/1", Port: 14},
		system.Assignment{Instance: "raw/1", Port: 16}, system.Assignment{Instance: "other/1", Port: 18})
	for i := range plan.Services {
		s := &plan.Services[i].Service
		s.Switch.By = system.ByRequest
		switch s.Name {
		case "db":
			s.Software = system.Software{Kind: system.Builtin, From: "kv"}
		case "raw":
			s.Switch.By = system.ByConnection
		}
	}
	service := plan.Deployment("fn").Service
	at := Place{Host: "127.77.0.1", PortBase: 20000}
	if got := Calls(plan, &service, at); len(got) > 0 {
		t.Errorf("Calls() = %v without depends_on, want none", got)
	}
	service.DependsOn = []system.Dependency{{Service: "db"}, {Service: "raw"}, {Service: "gone"}}
	got := Calls(plan, &service, at)
	if len(got) != 1 || got[0].Name != "db" || got[0].Builtin != "kv" || !strings.HasPrefix(got[0].To, "127.77.0.1:200") {
		t.Errorf("Calls() = %+v, want the door of db alone", got)
	}
}
