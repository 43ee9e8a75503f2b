// Package order is the three services of an order: stock, payment and shipping, each with its own memory and none that knows of another. What makes one order
// of them stands in compose.yaml: a flow. Start at [New].
package order

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	shelf   = 100 // of each item at first
	purse   = 500 // of each buyer at first
	price   = 20
	most    = 100_000 // of what is remembered
	longest = 100     // letters of a name
)

// New returns the service of a role: stock, payment or shipping.
func New(role string) (http.Handler, error) {
	s := &service{left: map[string]int{}, made: map[string]thing{}}
	mux := http.NewServeMux()
	switch role {
	case "stock":
		s.begin, s.lacks = shelf, "only %d of %s left"
		mux.HandleFunc("POST /take/{of}", s.take(func(n int) int { return n }))
	case "payment":
		s.begin, s.lacks = purse, "only %d in the purse of %s"
		mux.HandleFunc("POST /charge/{of}", s.take(func(n int) int { return n * price }))
	case "shipping":
		s.begin, s.lacks = most, "%d left for %s"
		mux.HandleFunc("POST /send/{of}", func(w http.ResponseWriter, r *http.Request) {
			if strings.EqualFold(r.PathValue("of"), "nowhere") {
				http.Error(w, "nobody lives there", http.StatusUnprocessableEntity)
				return
			}
			s.take(func(int) int { return 1 })(w, r)
		})
	default:
		return nil, fmt.Errorf("want stock, payment or shipping, have %q", role)
	}
	mux.HandleFunc("DELETE /{id}", s.giveBack)
	mux.HandleFunc("GET /left/{of}", s.look)
	return mux, nil
}

// service is a number for each name, and what was taken from it.
type service struct {
	begin int
	lacks string

	mu   sync.Mutex // guards what follows
	left map[string]int
	made map[string]thing // by Idempotency-Key, which is also its ID
	next int
}

// thing is what was taken: one that is given back stays known, so that neither request is done twice.
type thing struct {
	ID string `json:"id"`
	Of string `json:"of"`
	N  int    `json:"n"`

	key  string
	back bool
}

// take takes some of a name. A request that comes again with its Idempotency-Key takes nothing more.
func (s *service) take(worth func(int) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := struct{ N int }{1}
		of, key := r.PathValue("of"), r.Header.Get("Idempotency-Key")
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&q); err != nil || q.N < 1 || q.N > 1000 || len(of) > longest {
			http.Error(w, `want {"n": 1…1000}`, http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if was, ok := s.made[key]; key != "" && ok {
			say(w, was)
			return
		}
		if len(s.made) >= most {
			http.Error(w, "the books are full", http.StatusInsufficientStorage)
			return
		}
		left, known := s.left[of]
		if !known {
			left = s.begin
		}
		if n := worth(q.N); n > left {
			http.Error(w, fmt.Sprintf(s.lacks, left, of), http.StatusConflict)
			return
		}
		s.next++
		t := thing{ID: fmt.Sprint(s.next), Of: of, N: worth(q.N), key: key}
		if key == "" {
			t.key = "id " + t.ID
		}
		s.left[of], s.made[t.key] = left-t.N, t
		say(w, t)
	}
}

// giveBack takes a thing back, once.
func (s *service) giveBack(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.made {
		if t.ID != r.PathValue("id") {
			continue
		}
		if !t.back {
			t.back = true
			s.made[key] = t
			s.left[t.Of] += t.N
		}
		say(w, t)
		return
	}
	http.Error(w, "nothing of that name was taken", http.StatusNotFound)
}

func (s *service) look(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, known := s.left[r.PathValue("of")]
	if !known {
		left = s.begin
	}
	say(w, map[string]int{"left": left})
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv, done := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
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
