// Package tokens is a student's program: its members stand in a ring and pass a token round. A member
// knows the next one, SERVENT_NEXT, and its own name, SERVENT_INSTANCE; nothing else, not even how many
// there are. Start at [Member.receive], which is the algorithm. The same program stands beside it in
// Python, and both fit into one ring.
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
	"strconv"
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
	Self   string // its own name: SERVENT_INSTANCE
	Next   string // URL of the next member: SERVENT_NEXT
	passed atomic.Int64
}

// receive counts the token, passes it on and answers with what came of it: all the answers come back
// the way the token went. A member that ends breaks the chain, and the start hears of it at once.
func (m *Member) receive(w http.ResponseWriter, r *http.Request) {
	var t Token
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1000)).Decode(&t)
	if err != nil || t.Home == "" || t.Rounds < 1 || t.N < 1 || t.N > farthest {
		http.Error(w, fmt.Sprintf(`want {"home": "NAME", "rounds": 1…, "n": 1…%d}`, farthest), http.StatusBadRequest)
		return
	}
	m.passed.Add(1)
	if t.Home == m.Self {
		t.Rounds--
	}
	t, err = m.pass(r.Context(), t)
	answer(w, t, err)
}

// start sends a new token round and answers with the time it took. A ring is as long as a round has passes.
func (m *Member) start(w http.ResponseWriter, r *http.Request) {
	rounds, err := strconv.Atoi(r.URL.Query().Get("rounds"))
	if err != nil || rounds < 1 || rounds > farthest {
		http.Error(w, fmt.Sprintf("want /start?rounds=M, M in 1…%d", farthest), http.StatusBadRequest)
		return
	}
	began := time.Now()
	t, err := m.pass(r.Context(), Token{Home: m.Self, Rounds: rounds})
	took := time.Since(began)
	answer(w, map[string]any{"home": m.Self, "members": t.N / rounds, "rounds": rounds, "n": t.N, "ms": float64(took.Microseconds()) / 1000}, err)
}

// pass sends the token to the next member and returns it as it ended.
func (m *Member) pass(ctx context.Context, t Token) (ended Token, err error) {
	switch {
	case t.Rounds == 0:
		return t, nil
	case t.N == farthest: // else it would go round for ever when its home is gone
		return t, fmt.Errorf("%s: the token ends here: it was passed on %d times, %d rounds were to go", m.Self, t.N, t.Rounds)
	}
	t.N++
	body, err := json.Marshal(t)
	if err != nil {
		return t, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.Next+"/token", bytes.NewReader(body))
	if err != nil {
		return t, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return t, fmt.Errorf("%s: the token is lost at pass %d: %w", m.Self, t.N, err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	switch {
	case err != nil:
		return t, fmt.Errorf("%s: the token is lost at pass %d: %w", m.Self, t.N, err)
	case resp.StatusCode == http.StatusBadGateway: // a later member has lost it: pass its words back
		return t, errors.New(string(bytes.TrimSpace(said)))
	case resp.StatusCode != http.StatusOK:
		return t, fmt.Errorf("%s: %s says %s: %s", m.Self, m.Next, resp.Status, bytes.TrimSpace(said))
	}
	return ended, json.Unmarshal(said, &ended)
}

func (m *Member) show(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"instance": m.Self, "next": m.Next, "passed": m.passed.Load()}, nil)
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error means that the client left
}

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func (m *Member) Serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", m.show)
	mux.HandleFunc("POST /start", m.start)
	mux.HandleFunc("POST /token", m.receive)
	srv, done := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
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
