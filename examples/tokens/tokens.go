// Package tokens is a student's program: its members stand in a ring and pass a token round. A member
// knows the next one, SERVENT_NEXT, and its own name, SERVENT_INSTANCE; nothing else, not even how many
// there are. Start at [Member.take], which is the algorithm. The same program stands beside it in
// Python, and both fit into one ring. For comparison the token can also go by a central relay.
package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const farthest = 1000 // passes of one token: each holds a request open until the token has ended

// Token is what goes round.
type Token struct {
	Home   string `json:"home"`   // the member that started it
	Rounds int    `json:"rounds"` // to go: home counts them
	N      int    `json:"n"`      // how often it was passed on
}

// Member is one place in the ring.
type Member struct {
	self   string   // its own name
	next   string   // URL of the next member
	peers  []string // with a relay: URLs of all members; the first one is the relay
	place  int      // with a relay: its own among them
	mux    http.ServeMux
	client http.Client
	passed atomic.Int64
}

// New makes a member from its environment: SERVENT_INSTANCE and SERVENT_NEXT. With WAY=relay the token does
// not go to the next member but to the first one, the relay, which knows all (SERVENT_PEERS) and sends it on.
func New(env func(string) string) (*Member, error) {
	m := &Member{self: env("SERVENT_INSTANCE"), next: env("SERVENT_NEXT")}
	m.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64} // many tokens go the same way
	switch way := env("WAY"); way {
	case "", "ring":
	case "relay":
		m.peers = strings.Split(env("SERVENT_PEERS"), ",")
		if m.place = slices.Index(m.peers, env("SERVENT_SELF")); m.place < 0 {
			return nil, fmt.Errorf("WAY=relay: want SERVENT_SELF among SERVENT_PEERS, have %q among %q", env("SERVENT_SELF"), m.peers)
		}
	default:
		return nil, fmt.Errorf("WAY: want ring or relay, have %q", way)
	}
	m.mux.HandleFunc("GET /{$}", m.show)
	m.mux.HandleFunc("GET /length", m.length)
	m.mux.HandleFunc("POST /start", m.start)
	m.mux.HandleFunc("POST /token", m.receive)
	m.mux.HandleFunc("POST /relay", m.relay)
	return m, nil
}

// receive answers with what came of the token: all the answers come back the way the token went. A member that
// ends breaks the chain, and the start hears of it at once.
func (m *Member) receive(w http.ResponseWriter, r *http.Request) {
	if t, ok := read(w, r); ok {
		t, err := m.take(r.Context(), t)
		answer(w, t, err)
	}
}

// take counts the token and passes it on.
func (m *Member) take(ctx context.Context, t Token) (Token, error) {
	m.passed.Add(1)
	if t.Home == m.self {
		t.Rounds--
	}
	return m.pass(ctx, t)
}

// relay sends a token on to a member: POST /relay?to=2.
func (m *Member) relay(w http.ResponseWriter, r *http.Request) {
	to, err := strconv.Atoi(r.URL.Query().Get("to"))
	if err != nil || to < 0 || to >= len(m.peers) {
		http.Error(w, fmt.Sprintf("want /relay?to=N, N below the number of members, %d", len(m.peers)), http.StatusBadRequest)
		return
	}
	if t, ok := read(w, r); ok {
		t, err := m.deliver(r.Context(), to, t)
		answer(w, t, err)
	}
}

// deliver gives the relay's token to a member, which may be the relay itself.
func (m *Member) deliver(ctx context.Context, to int, t Token) (Token, error) {
	if to == m.place {
		return m.take(ctx, t)
	}
	return m.send(ctx, m.peers[to]+"/token", t)
}

func read(w http.ResponseWriter, r *http.Request) (t Token, ok bool) {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1000)).Decode(&t)
	if err != nil || t.Home == "" || t.Rounds < 1 || t.N < 1 || t.N > farthest {
		http.Error(w, fmt.Sprintf(`want {"home": "NAME", "rounds": 1…, "n": 1…%d}`, farthest), http.StatusBadRequest)
		return t, false
	}
	return t, true
}

// start sends a new token round and answers with the time it took. A ring is as long as a round has passes.
func (m *Member) start(w http.ResponseWriter, r *http.Request) {
	rounds, err := strconv.Atoi(r.URL.Query().Get("rounds"))
	if err != nil || rounds < 1 || rounds > farthest {
		http.Error(w, fmt.Sprintf("want /start?rounds=M, M in 1…%d", farthest), http.StatusBadRequest)
		return
	}
	began := time.Now()
	t, err := m.pass(r.Context(), Token{Home: m.self, Rounds: rounds})
	took := time.Since(began)
	answer(w, map[string]any{"home": m.self, "members": t.N / rounds, "rounds": rounds, "n": t.N, "ms": float64(took.Microseconds()) / 1000}, err)
}

// length sends a token round once and answers how many members it met: one question, one answer, whoever is asked.
func (m *Member) length(w http.ResponseWriter, r *http.Request) {
	t, err := m.pass(r.Context(), Token{Home: m.self, Rounds: 1})
	answer(w, t.N, err)
}

// pass sends the token to the next member, or there by the relay, and returns it as it ended.
func (m *Member) pass(ctx context.Context, t Token) (Token, error) {
	switch {
	case t.Rounds == 0:
		return t, nil
	case t.N == farthest: // else it would go round for ever when its home is gone
		return t, fmt.Errorf("%s: the token ends here: it was passed on %d times, %d rounds were to go", m.self, t.N, t.Rounds)
	}
	t.N++
	if m.peers == nil {
		return m.send(ctx, m.next+"/token", t)
	}
	to := (m.place + 1) % len(m.peers)
	if m.place == 0 {
		return m.deliver(ctx, to, t)
	}
	return m.send(ctx, m.peers[0]+"/relay?to="+strconv.Itoa(to), t)
}

// send makes one call with a token and returns it as it ended.
func (m *Member) send(ctx context.Context, url string, t Token) (ended Token, err error) {
	body, err := json.Marshal(t)
	if err != nil {
		return t, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return t, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return t, fmt.Errorf("%s: the token is lost at pass %d: %w", m.self, t.N, err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	switch {
	case err != nil:
		return t, fmt.Errorf("%s: the token is lost at pass %d: %w", m.self, t.N, err)
	case resp.StatusCode == http.StatusBadGateway: // a later member has lost it: pass its words back
		return t, errors.New(string(bytes.TrimSpace(said)))
	case resp.StatusCode != http.StatusOK:
		return t, fmt.Errorf("%s: %s says %s: %s", m.self, url, resp.Status, bytes.TrimSpace(said))
	}
	return ended, json.Unmarshal(said, &ended)
}

func (m *Member) show(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"instance": m.self, "next": m.next, "passed": m.passed.Load()}, nil)
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error means that the client left
}

// ServeHTTP answers clients and other members.
func (m *Member) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func (m *Member) Serve(ctx context.Context, ln net.Listener) error {
	srv, done := &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	})
	err := srv.Serve(ln)
	if stop() { // ctx still lives: the listener failed on its own
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return <-done
}
