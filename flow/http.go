package flow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/store/journal"
	"servent/system"
)

const (
	waitFor  = 30 * time.Second // for the end of a run that was started, when the client does not say
	waitLeft = 5 * time.Minute  // at most
	lastRuns = 100
)

// Shown is a run as clients see it.
type Shown struct {
	Run   string    `json:"run"`
	State state     `json:"state"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	Value any       `json:"value,omitempty"`
	Error string    `json:"error,omitempty"`
	Input any       `json:"input,omitempty"`
	Steps []Made    `json:"steps,omitempty"`
}

// Made is one step that was made.
type Made struct {
	Path    string             `json:"path"`
	Name    string             `json:"name"`
	Service system.ServiceName `json:"service"`
	Request string             `json:"request"`
	Did     string             `json:"did"` // done, failed, undone, not-undone
	Status  int                `json:"status,omitempty"`
	Tries   int                `json:"tries"`
	Began   time.Time          `json:"began"`
	Took    float64            `json:"took_ms"`
	Value   any                `json:"value,omitempty"`
	Error   string             `json:"error,omitempty"`
}

// ServeHTTP answers at any path: POST starts a run, GET …/runs lists the last ones, GET …/runs/RUN shows one, DELETE …/runs/RUN cancels it.
func (f *Flow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dir, id := path.Split(strings.TrimSuffix(r.URL.Path, "/"))
	one := path.Base(dir) == "runs"
	list := id == "runs"
	switch {
	case one && r.Method == http.MethodGet:
		f.one(w, r, id)
	case one && r.Method == http.MethodDelete:
		f.cancel(w, r, id)
	case list && r.Method == http.MethodGet:
		f.list(w, r)
	case !one && !list && r.Method == http.MethodPost:
		f.post(w, r)
	default:
		w.Header().Set("Allow", "POST, GET, DELETE")
		fail(w, http.StatusMethodNotAllowed, errors.New("POST starts a run; GET …/runs and …/runs/RUN show what there was; DELETE …/runs/RUN cancels one"))
	}
}

func (f *Flow) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxInput))
	if err != nil {
		status := http.StatusBadRequest
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			status = http.StatusRequestEntityTooLarge
		}
		fail(w, status, err)
		return
	}
	kind := r.Header.Get("Content-Type")
	if kind == "" || strings.HasPrefix(kind, "application/x-www-form-urlencoded") { // what curl -d says of anything
		if b := strings.TrimSpace(string(body)); strings.HasPrefix(b, "{") || strings.HasPrefix(b, "[") {
			kind = "application/json"
		}
	}
	input, err := parse(kind, body)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("the body is no JSON: %w", err))
		return
	}
	wait, async, err := prefer(r.Header.Values("Prefer"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if len(key) > 255 {
		fail(w, http.StatusBadRequest, errors.New("want an Idempotency-Key of at most 255 letters"))
		return
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	run, err := f.start(r.Context(), input, key, digest)
	switch {
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, err)
		return
	case err != nil:
		fail(w, http.StatusInternalServerError, err)
		return
	case run.begin.Body != digest: // draft-ietf-httpapi-idempotency-key-header §2.7
		fail(w, http.StatusUnprocessableEntity, errors.New("the Idempotency-Key began a run with another body"))
		return
	}
	w.Header().Set("Location", strings.TrimSuffix(r.URL.Path, "/")+"/runs/"+run.id)
	if !async {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		select {
		case <-run.over:
		case <-ctx.Done():
		}
	}
	s := run.shown(false)
	answer(w, statusOf(s.State), s)
}

// statusOf is what a started run's state is to its client.
func statusOf(s state) int {
	switch s {
	case done:
		return http.StatusOK
	case failed, cancelled:
		return http.StatusConflict
	case stuck:
		return http.StatusInternalServerError
	}
	return http.StatusAccepted
}

// prefer reads RFC 7240's respond-async and wait.
func prefer(values []string) (wait time.Duration, async bool, err error) {
	wait = waitFor
	for _, word := range strings.Split(strings.Join(values, ","), ",") {
		word = strings.ToLower(strings.TrimSpace(word))
		if word == "respond-async" {
			async = true
		}
		if text, ok := strings.CutPrefix(word, "wait="); ok {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return 0, false, fmt.Errorf("want Prefer: wait=SECONDS, have %q", word)
			}
			wait = min(time.Duration(n)*time.Second, waitLeft)
		}
	}
	return wait, async, nil
}

func (f *Flow) one(w http.ResponseWriter, _ *http.Request, id string) {
	run, err := f.find(id)
	if err != nil {
		failFind(w, err)
		return
	}
	answer(w, http.StatusOK, run.shown(true))
}

func failFind(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.Is(err, journal.ErrNoRun) {
		status = http.StatusNotFound
	}
	fail(w, status, err)
}

func (f *Flow) cancel(w http.ResponseWriter, r *http.Request, id string) {
	run, err := f.find(id)
	if err != nil {
		failFind(w, err)
		return
	}
	if err := run.cancel(); err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), waitFor)
	defer cancel()
	select {
	case <-run.over:
	case <-ctx.Done():
	}
	answer(w, http.StatusOK, run.shown(true))
}

func (f *Flow) list(w http.ResponseWriter, r *http.Request) {
	want := r.URL.Query().Get("state")
	ids, err := f.journal.Last(keepRuns)
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	out := []Shown{}
	for _, id := range ids {
		run, err := f.find(id)
		if errors.Is(err, journal.ErrNoRun) { // just forgotten
			continue
		}
		if err != nil {
			fail(w, http.StatusInternalServerError, err)
			return
		}
		if s := run.shown(false); want == "" || string(s.State) == want {
			out = append(out, s)
		}
		if len(out) == lastRuns {
			break
		}
	}
	answer(w, http.StatusOK, out)
}

// shown is the run as it is now, with all its steps or without.
func (r *run) shown(whole bool) Shown {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Shown{Run: r.id, State: r.state, Began: r.begin.At, Value: r.value, Error: r.why}
	if !whole {
		for _, e := range r.past {
			if e.What == "end" {
				s.Ended = e.At
			}
		}
		return s
	}
	s.Input, s.Steps = r.begin.Input, []Made{}
	for _, e := range r.past {
		switch e.What {
		case "end":
			s.Ended = e.At
		case "done", "failed", "undone", "not-undone":
			s.Steps = append(s.Steps, Made{Path: e.Path, Name: e.Name, Service: e.Service, Request: e.Request, Did: e.What, Status: e.Status, Tries: e.Tries,
				Began: e.Began, Took: float64(e.At.Sub(e.Began).Microseconds()) / 1000, Value: e.Value, Error: e.Error})
		}
	}
	slices.SortStableFunc(s.Steps, func(a, b Made) int { return a.Began.Compare(b.Began) })
	return s
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

func fail(w http.ResponseWriter, status int, err error) {
	answer(w, status, map[string]string{"error": err.Error()})
}
