// Package shortener gives long links short names, in memory: PUT /s/{name} gives a name of one's own, POST
// /links one that is made from the link, GET /s/{name} leads on and counts a visit. Every instance knows only
// what was said to it. Start at [Shortener.make]: why a name is made before anybody owns it.
package shortener

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	longest     = 2000 // bytes of a link
	longestName = 100  // bytes of a name
	tries       = 5    // names for one link, if other links have those before
)

// Shortener is links by their names. They are lost with its instance.
type Shortener struct {
	door string // URL that leads to the owner of a name: the service's own door; empty: it is this one
	mux  http.ServeMux
	room int // links at most; a further one is refused, so that memory has a bound
	mu   sync.Mutex
	of   map[string]*link // guarded by mu, with what it points to
}

type link struct {
	to     string
	visits int64
}

// New returns a shortener without links. door is the URL of its own service, SHORTENER_URL.
func New(door string) *Shortener {
	s := &Shortener{door: door, room: 1_000_000, of: map[string]*link{}}
	s.mux.HandleFunc("POST /links", s.make)
	s.mux.HandleFunc("PUT /s/{name}", s.put)
	s.mux.HandleFunc("GET /s/{name}", s.follow)
	s.mux.HandleFunc("GET /s/{name}/visits", s.visits)
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "POST /links makes a short name of the link in the body, GET /s/NAME leads there, GET /s/NAME/visits counts")
	})
	return s
}

func (s *Shortener) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// make names a link by its hash. The name is known before anything is kept, so the link can be sent where
// requests for this name will go: to its owner. A counter would give shorter names, and all instances
// would have to share it.
func (s *Shortener) make(w http.ResponseWriter, r *http.Request) {
	to, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	err = errTaken
	name := ""
	for try := 0; errors.Is(err, errTaken) && try < tries; try++ {
		name = short(to, try)
		if s.door == "" {
			err = s.keep(name, to, true)
		} else {
			err = s.send(r.Context(), name, to)
		}
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Location", "/s/"+name)
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintln(w, "/s/"+name)
}

// short is a name of seven letters and digits: one of 8·10¹⁰, so that among 10⁶ links about six meet another.
func short(to string, try int) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(try) + to))
	text := "000000" + strconv.FormatUint(binary.BigEndian.Uint64(sum[:])>>1, 36)
	return text[len(text)-7:]
}

var (
	errTaken = errors.New("another link has this name")
	errFull  = errors.New("there is no room for a further link")
	errLong  = fmt.Errorf("a name has at most %d bytes", longestName)
)

// send asks the owner of a name to keep a link, unless another one has it.
func (s *Shortener) send(ctx context.Context, name, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.door+"/s/"+name, strings.NewReader(to))
	if err != nil {
		return err
	}
	req.Header.Set("If-None-Match", "*") // RFC 9110 §13.1.2
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch said, err := io.ReadAll(io.LimitReader(res.Body, 200)); {
	case res.StatusCode == http.StatusPreconditionFailed:
		return errTaken
	case err != nil || res.StatusCode >= 300:
		return errors.Join(fmt.Errorf("the owner of %s says %s: %s", name, res.Status, said), err)
	}
	return nil
}

func (s *Shortener) put(w http.ResponseWriter, r *http.Request) {
	to, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.keep(r.PathValue("name"), to, r.Header.Get("If-None-Match") == "*"); err != nil {
		fail(w, err)
		return
	}
	fmt.Fprintln(w, to)
}

// read takes a link as Location may have it: a URL, or a path of the same site (RFC 9110 §10.2.2).
func read(r *http.Request) (string, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, longest))
	if err != nil {
		return "", fmt.Errorf("want a link of at most %d bytes: %w", longest, err)
	}
	to := strings.TrimSpace(string(body))
	u, err := url.Parse(to)
	if err != nil || to == "" || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("want a link like https://example.org/a, have %.40q", to)
	}
	return to, nil
}

// keep gives a name to a link. fresh: not when another link has it.
func (s *Shortener) keep(name, to string, fresh bool) error {
	if len(name) > longestName {
		return errLong
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old := s.of[name]; {
	case old != nil && fresh && old.to != to:
		return errTaken
	case old != nil:
		old.to = to
	case len(s.of) >= s.room:
		return errFull
	default:
		s.of[name] = &link{to: to}
	}
	return nil
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, errTaken):
		status = http.StatusPreconditionFailed
	case errors.Is(err, errLong):
		status = http.StatusBadRequest
	case errors.Is(err, errFull):
		status = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), status)
}

// follow leads on. The link stands in the body, too, for those who do not follow.
func (s *Shortener) follow(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	to := ""
	if l := s.of[r.PathValue("name")]; l != nil {
		to = l.to
		l.visits++
	}
	s.mu.Unlock() // before the answer: a slow client holds up nobody
	if to == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-store") // else nobody would see the next visits
	w.WriteHeader(http.StatusFound)
	fmt.Fprintln(w, to)
}

func (s *Shortener) visits(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := int64(0)
	if l := s.of[r.PathValue("name")]; l != nil {
		n = l.visits
	}
	s.mu.Unlock()
	fmt.Fprintln(w, n)
}

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func (s *Shortener) Serve(ctx context.Context, ln net.Listener) error {
	srv, done := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
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
