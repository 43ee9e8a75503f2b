package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/identity"
	"servent/system"
)

// guild is a fleet that remembers what it was told.
type guild struct {
	acts []system.Act
	last int
}

func (g *guild) Token(context.Context, identity.Role, time.Duration) (Token, error) {
	return Token{Token: "sv1"}, nil
}
func (g *guild) Label(context.Context, system.NodeID, map[string]string) error { return nil }
func (g *guild) Voters() []Voter                                               { return []Voter{{Node: "a", Leads: true}} }
func (g *guild) Remove(context.Context, system.NodeID) error                   { return nil }
func (g *guild) Acted(a system.Act)                                            { g.acts = append(g.acts, a) }
func (g *guild) Acts(last int) ([]system.Act, error) {
	g.last = last
	return g.acts, nil
}

// Another machine of the fleet commands under its own name. It does not get the key of this machine's page, and does not end what runs here.
func TestFromAfar(t *testing.T) {
	s, g := newStage(t).run(), &guild{}
	s.Fleet, s.Context, s.URL = g, "fleet", "http://127.0.0.1:1/#token=secret"
	s.machines = []NodeState{{Node: "a", State: nodeUp}}
	s.wants(&system.System{Name: "shop", Services: []system.Service{{Name: "api", Architecture: system.Replicated, Replicas: 1}}})
	here := s.Handler()
	afar := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here.ServeHTTP(w, r.WithContext(As(r.Context(), Caller{Who: "spiffe://fleet-x/node/b", From: "192.0.2.2:5"})))
	})
	if _, body := call(here, http.MethodGet, "/v1/state", ""); !strings.Contains(body, "token=secret") {
		t.Errorf("here: %s", body)
	}
	if code, body := call(afar, http.MethodGet, "/v1/state", ""); code != http.StatusOK || strings.Contains(body, "secret") {
		t.Errorf("the state from afar: %d %s", code, body)
	}
	if code, body := call(afar, http.MethodPost, "/v1/scale", `{"api": 2}`); code != http.StatusOK || strings.Contains(body, "secret") {
		t.Errorf("scale from afar: %d %s", code, body)
	}
	if code, body := call(afar, http.MethodDelete, "/v1/wanted?volumes=true", ""); code != http.StatusForbidden || !strings.Contains(body, `"next"`) || len(s.did) > 0 {
		t.Errorf("down from afar: %d %s, done: %v", code, body, s.did)
	}
	if code, _ := call(here, http.MethodPost, "/v1/token?role=node&ttl=1m", ""); code != http.StatusOK {
		t.Errorf("token here: %d", code)
	}
	var who []string
	for _, a := range g.acts {
		who = append(who, a.What+" by "+a.Who+" from "+a.From+refused(a))
	}
	want := []string{"POST /v1/scale by spiffe://fleet-x/node/b from 192.0.2.2:5", "DELETE /v1/wanted by spiffe://fleet-x/node/b from 192.0.2.2:5 refused",
		"POST /v1/token by admin door from "}
	if !slices.Equal(who, want) {
		t.Errorf("written down:\n%s\nwant\n%s", strings.Join(who, "\n"), strings.Join(want, "\n"))
	}
	if code, body := call(afar, http.MethodGet, "/v1/audit?last=7", ""); code != http.StatusOK || strings.Count(body, "\n") != len(want) || g.last != 7 {
		t.Errorf("audit: %d %s of the last %d", code, body, g.last)
	}
	for _, bad := range []string{"-1", "many", "1e9", "99999999999999999999"} {
		if code, _ := call(here, http.MethodGet, "/v1/audit?last="+bad, ""); code != http.StatusBadRequest {
			t.Errorf("audit of the last %s: %d", bad, code)
		}
	}
}

func refused(a system.Act) string {
	if a.Why != "" {
		return " refused"
	}
	return ""
}

// A node is drained and comes back; the answer shows it, and of a node that there is not nothing is noted.
func TestDrain(t *testing.T) {
	s := newStage(t).run()
	s.machines = []NodeState{{Node: "a", State: nodeUp}, {Node: "b", State: nodeUp}}
	h := s.Handler()
	for _, tt := range []struct {
		method, node, want string
		code               int
	}{
		{http.MethodPost, "b", `"drained":true`, 200}, {http.MethodPost, "b", `"drained":true`, 200}, {http.MethodDelete, "b", "", 200}, {http.MethodDelete, "b", "", 200},
		{http.MethodPost, "c", "the nodes are a, b", 404}, {http.MethodPost, "", "the nodes are a, b", 404}, {http.MethodPost, "b/../a", "the nodes are a, b", 404},
	} {
		code, body := call(h, tt.method, "/v1/drain?node="+tt.node, "")
		if code != tt.code || !strings.Contains(body, tt.want) || tt.want == "" && strings.Contains(body, "drained") {
			t.Errorf("%s of %q: %d %s", tt.method, tt.node, code, body)
		}
	}
	if v, err := s.Cluster.Read(t.Context()); err != nil || len(v.Drains) != 0 {
		t.Errorf("left behind: %v, %v", v.Drains, err)
	}
}
