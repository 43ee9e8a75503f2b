package flow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"servent/store/journal"
	"servent/system"
)

// Bounds of a flow.
const (
	MaxInput  = 1 << 20 // bytes of a start's body, and of an answer that is kept
	maxRuns   = 1000    // under way at once
	keepRuns  = 10_000
	maxItems  = 10_000 // of one map
	undoTries = 10
	waitMost  = 10 * time.Second // between two tries
)

// Options of [Open].
type Options struct {
	Steps     []system.Step
	URL       func(system.ServiceName) string // of a service's door; empty: there is none
	Dir       string
	Transport http.RoundTripper // nil means http.DefaultTransport's like
	Log       *slog.Logger      // nil discards
}

// Flow is the orchestrator of one service. It serves HTTP.
type Flow struct {
	o       Options
	journal *journal.Journal
	client  *http.Client

	started chan struct{} // closed when ctx is set
	ctx     context.Context
	work    sync.WaitGroup

	mu   sync.Mutex
	runs map[string]*run // under way
	last int64           // millisecond of the newest run's name
}

// state of a run.
type state string

const (
	running   state = "running"
	undoing   state = "undoing"
	done      state = "done"
	failed    state = "failed"    // and what was done is taken back
	cancelled state = "cancelled" // the same
	stuck     state = "stuck"     // something could not be taken back
)

var (
	errBusy = fmt.Errorf("%d runs are under way", maxRuns)
)

// Open opens the flow with its runs in a folder. Those that have not ended go on when Run does.
func Open(o Options) (*Flow, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	}
	j, err := journal.Open(filepath.Join(o.Dir, "runs.db"), 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Flow{o: o, journal: j, started: make(chan struct{}), runs: map[string]*run{},
		client: &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Run goes on with what has not ended, and makes the runs that are started, until ctx ends. What is under way then goes on in the next life.
func (f *Flow) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	close(f.started)
	defer f.work.Wait()
	open, err := f.journal.Open()
	if err != nil {
		return err
	}
	for _, id := range open {
		if err := f.resume(id); err != nil {
			f.o.Log.Error("go on with a run", "run", id, "err", err)
		}
	}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := f.journal.Trim(keepRuns, 1000); err != nil {
				f.o.Log.Error("forget old runs", "err", err)
			}
		}
	}
}

// Close closes the journal. Run has returned.
func (f *Flow) Close() error {
	f.client.CloseIdleConnections()
	return f.journal.Close()
}

// entry is one line of a run's journal.
type entry struct {
	What string    `json:"what"` // begin, done, failed, undone, not-undone, cancel, end
	At   time.Time `json:"at"`

	// of a begin
	Input any           `json:"input,omitempty"`
	Steps []system.Step `json:"steps,omitempty"` // as they were then: a changed file changes no run that is under way
	Body  string        `json:"body,omitempty"`  // digest of what began it

	// of a step
	Path    string             `json:"path,omitempty"` // place of the step: 0, 2/1/0
	Name    string             `json:"name,omitempty"`
	Service system.ServiceName `json:"service,omitempty"`
	Request string             `json:"request,omitempty"`
	Status  int                `json:"status,omitempty"`
	Value   any                `json:"value,omitempty"`
	Tries   int                `json:"tries,omitempty"`
	Began   time.Time          `json:"began,omitzero"`
	Error   string             `json:"error,omitempty"`
	Unknown bool               `json:"unknown,omitempty"` // it failed, and may have been done all the same

	State state `json:"state,omitempty"` // of an end
}

func (e *entry) bytes() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic("flow: a word of ours cannot be written as JSON: " + err.Error())
	}
	return b
}

// name makes a run's name: milliseconds and chance, so that names sort by age.
func (f *Flow) name() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(f.last, time.Now().UnixMilli())
	return fmt.Sprintf("%012x%s", f.last, strings.ToLower(rand.Text()[:8]))
}

// start begins a run, or finds the one that the key began.
func (f *Flow) start(ctx context.Context, input any, key, digest string) (*run, error) {
	select {
	case <-f.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	busy := len(f.runs) >= maxRuns
	f.mu.Unlock()
	if busy {
		return nil, errBusy
	}
	id := f.name()
	begin := entry{What: "begin", At: time.Now().UTC(), Input: input, Steps: f.o.Steps, Body: digest}
	r := newRun(f, id, &begin)
	f.mu.Lock()
	f.runs[id] = r
	f.mu.Unlock()
	was, err := f.journal.Begin(id, key, begin.bytes())
	if err != nil || was != id {
		f.forget(id)
	}
	if err != nil {
		return nil, err
	}
	if was != id {
		return f.find(was)
	}
	f.launch(r)
	return r, nil
}

func (f *Flow) forget(id string) {
	f.mu.Lock()
	delete(f.runs, id)
	f.mu.Unlock()
}

// launch makes a run's steps in the background.
func (f *Flow) launch(r *run) {
	f.work.Go(func() {
		r.live(f.ctx)
		f.forget(r.id)
		close(r.over)
	})
}

// resume goes on with a run of an earlier life.
func (f *Flow) resume(id string) error {
	r, err := f.read(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	_, here := f.runs[id]
	if !here {
		f.runs[id] = r
	}
	f.mu.Unlock()
	if !here {
		f.launch(r)
	}
	return nil
}

// find returns a run, under way or not.
func (f *Flow) find(id string) (*run, error) {
	f.mu.Lock()
	r := f.runs[id]
	f.mu.Unlock()
	if r != nil {
		return r, nil
	}
	return f.read(id)
}

// read makes a run of its journal.
func (f *Flow) read(id string) (*run, error) {
	lines, err := f.journal.Entries(id)
	if err != nil {
		return nil, err
	}
	var r *run
	for i, line := range lines {
		e, err := decodeEntry(line)
		if err != nil {
			return nil, fmt.Errorf("run %s: entry %d: %w", id, i+1, err)
		}
		if i == 0 {
			r = newRun(f, id, e)
			continue
		}
		r.replay(e)
	}
	if r.state != running && r.state != undoing {
		close(r.over)
	}
	return r, nil
}

// decodeEntry reads a line; numbers stay as they were written.
func decodeEntry(line []byte) (*entry, error) {
	var e entry
	dec := json.NewDecoder(strings.NewReader(string(line)))
	dec.UseNumber()
	if err := dec.Decode(&e); err != nil {
		return nil, err
	}
	return &e, nil
}
