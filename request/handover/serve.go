package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/route"
	"servent/system"
)

// Paths that one node's keeper asks another's.
const (
	Prefix   = "/v1/keys/"
	listPath = Prefix + "list" // POST a request, get an answer
	readPath = Prefix + "read" // GET what a program exports of a key
)

const (
	headerStatus = "Servent-Export" // the program's status, which only then is the keeper's
	bytesMost    = 64 << 20         // of a list
)

// request asks the old owner for the names of its keys in some partitions.
type request struct {
	From  system.InstanceID `json:"from"`
	To    place             `json:"to"`
	Epoch uint64            `json:"epoch"` // of the table by which they are asked for
	Parts []int             `json:"parts"`
}

// answer names them.
type answer struct {
	Keys []route.Key `json:"keys"`
	More bool        `json:"more,omitempty"` // than are named
	Stay []int       `json:"stay,omitempty"` // partitions that a newer table leaves where they are
}

// ServeHTTP answers the keepers of other nodes.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == listPath:
		var q request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bytesMost)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := k.hand(r.Context(), q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the asker is gone
	case r.Method == http.MethodGet && r.URL.Path == readPath:
		q := r.URL.Query()
		res, err := k.export(r.Context(), system.InstanceID(q.Get("instance")), route.Key(q.Get("key")))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer res.Body.Close()
		w.Header().Set(headerStatus, strconv.Itoa(res.StatusCode))
		relay(w.Header(), res.Header)
		w.WriteHeader(http.StatusOK)
		if _, err := io.Copy(w, res.Body); err != nil {
			panic(http.ErrAbortHandler) // half a value is none
		}
	default:
		http.NotFound(w, r)
	}
}

// relay passes on what says how a value is to be read.
func relay(to, from http.Header) {
	for _, name := range []string{"Content-Type", "Content-Encoding", "Etag"} {
		if v := from.Values(name); len(v) > 0 {
			to[name] = v
		}
	}
}

// hand hands partitions of an instance of this node over: when this node's own table has given them away, when all that was to
// come for them has, and when no request for them is under way.
func (k *Keeper) hand(ctx context.Context, q request) (answer, error) {
	service, _, err := q.From.Split()
	if err != nil {
		return answer{}, err
	}
	if slices.ContainsFunc(q.Parts, func(p int) bool { return p < 0 || p >= system.Partitions }) {
		return answer{}, errors.New("no such partition")
	}
	for {
		changed := k.o.Changed() // before the table, so that no swap is missed
		if t := k.o.Table(); uint64(t.Generation) >= q.Epoch {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	var now *route.Partitioned
	if svc := k.o.Table().Services[service]; svc != nil {
		now, _ = svc.Locator.(*route.Partitioned)
	}
	until := time.NewTimer(quietFor)
	defer until.Stop()
	for late := false; ; {
		a, wait := k.name(q, now, late)
		if wait == nil {
			return a, nil
		}
		select {
		case <-wait:
		case <-until.C:
			k.o.Log.Warn("keys are handed over while requests for them are under way", "instance", q.From, "to", q.To.ID)
			late = true
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

// stays says that a partition is its holder's by this node's table too, so that it does not leave it.
func stays(now *route.Partitioned, p int, h *holder, id system.InstanceID) bool {
	return now != nil && now.Parts.Of(p) == id && h.mine[p]
}

// name names the keys, which are the asker's from now on; or it returns what to wait for before, unless it is late.
func (k *Keeper) name(q request, now *route.Partitioned, late bool) (answer, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[q.From]
	if h == nil {
		return answer{}, nil
	}
	for _, p := range q.Parts {
		switch a := h.coming[p]; {
		case late, stays(now, p, h, q.From):
		case a != nil:
			return answer{}, a.ended
		case h.busy[p] > 0:
			return answer{}, h.quiet
		}
	}
	a := answer{More: h.more}
	asked := map[int]bool{}
	for _, p := range q.Parts {
		is := pass{q.To, q.Epoch}
		switch {
		case stays(now, p, h, q.From):
			a.Stay = append(a.Stay, p)
		case h.mine[p] || h.passed[p] == is: // the second: asked again, because the answer before was lost on its way
			asked[p] = true
			h.passed[p] = is
			delete(h.mine, p)
			delete(h.taken, p)
		}
	}
	for key := range h.owed {
		if asked[route.Partition(key)] {
			a.Keys = append(a.Keys, key)
		}
	}
	for key := range h.keys {
		if asked[route.Partition(key)] {
			a.Keys = append(a.Keys, key)
			h.owed[key] = struct{}{}
			delete(h.keys, key)
		}
	}
	return a, nil
}

// ask has the keeper of a node hand over.
func (k *Keeper) ask(ctx context.Context, at place, q request) (answer, error) {
	if at.Node == k.o.Self {
		return k.hand(ctx, q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	res, err := k.remote(ctx, at.Node, http.MethodPost, listPath, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	var a answer
	return a, json.NewDecoder(io.LimitReader(res.Body, bytesMost)).Decode(&a)
}

// remote asks another node's keeper. An answer that is none is an error.
func (k *Keeper) remote(ctx context.Context, node system.NodeID, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+string(node)+path, body)
	if err != nil {
		return nil, err
	}
	res, err := k.o.Remote(node).RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", node, err)
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		res.Body.Close()
		return nil, fmt.Errorf("ask %s: %s: %s", node, res.Status, bytes.TrimSpace(text))
	}
	return res, nil
}

// carry reads a key from its old owner and writes it to the new one, a few times if need be. A key that the old owner does not have is
// nothing to carry.
func (k *Keeper) carry(ctx context.Context, b *bequest, key route.Key) error {
	from := b.from
	return again(ctx, func(ctx context.Context) error {
		res, status, err := k.read(ctx, from, key)
		if err != nil {
			return fmt.Errorf("read from %s: %w", from.ID, err)
		}
		defer res.Body.Close()
		switch {
		case status == http.StatusNotFound || status == http.StatusGone:
			return nil
		case status/100 != 2:
			return fmt.Errorf("read from %s: it answers %d to %s", from.ID, status, b.moves.Export)
		}
		if err := k.write(ctx, b, key, res); err != nil {
			return fmt.Errorf("write to %s: %w", b.to.ID, err)
		}
		return nil
	})
}

// read reads a key where it was.
func (k *Keeper) read(ctx context.Context, from place, key route.Key) (res *http.Response, status int, err error) {
	if from.Node == k.o.Self {
		if res, err = k.export(ctx, from.ID, key); err != nil {
			return nil, 0, err
		}
		return res, res.StatusCode, nil
	}
	q := url.Values{"instance": {string(from.ID)}, "key": {string(key)}}
	if res, err = k.remote(ctx, from.Node, http.MethodGet, readPath+"?"+q.Encode(), nil); err != nil {
		return nil, 0, err
	}
	if status, err = strconv.Atoi(res.Header.Get(headerStatus)); err != nil {
		res.Body.Close()
		return nil, 0, fmt.Errorf("%s: want a number, have %q", headerStatus, res.Header.Get(headerStatus))
	}
	return res, status, nil
}

// export reads a key from an instance of this node. When all of it is read, it is owed no more.
func (k *Keeper) export(ctx context.Context, id system.InstanceID, key route.Key) (*http.Response, error) {
	service, _, err := id.Split()
	if err != nil {
		return nil, err
	}
	svc := k.o.Table().Services[service]
	if svc == nil || svc.Moves == (route.Moves{}) {
		return nil, fmt.Errorf("%s exports nothing", service)
	}
	res, err := k.program(ctx, id, svc.Moves.Export, key, nil)
	if err != nil {
		return nil, err
	}
	res.Body = &owed{ReadCloser: res.Body, paid: func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if h := k.held[id]; h != nil {
			delete(h.owed, key)
		}
	}}
	return res, nil
}

// owed is the body of a key that is read; paid is called at its end.
type owed struct {
	io.ReadCloser
	paid func()
}

func (o *owed) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	if err == io.EOF {
		o.paid()
	}
	return n, err
}

// write writes a key to its new owner, an instance of this node.
func (k *Keeper) write(ctx context.Context, b *bequest, key route.Key, value *http.Response) error {
	res, err := k.program(ctx, b.to.ID, b.moves.Import, key, value)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return fmt.Errorf("it answers %d to %s: %s", res.StatusCode, b.moves.Import, bytes.TrimSpace(text))
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// program makes one of the declared requests of an instance of this node; value is the answer of another, or nil.
func (k *Keeper) program(ctx context.Context, id system.InstanceID, declared string, key route.Key, value *http.Response) (*http.Response, error) {
	ep, ok := k.o.Local(id)
	if !ok || ep.Handler != nil {
		return nil, fmt.Errorf("%s does not run on %s", id, k.o.Self)
	}
	turn, err := k.o.Station.Serve(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turn.End(ctx) }() // only that ctx has ended
	method, at, _ := strings.Cut(declared, " ")
	r, err := http.NewRequestWithContext(context.WithValue(ctx, endpoint{}, ep), method, "http://"+ep.Address+strings.ReplaceAll(at, "{key}", url.PathEscape(string(key))), nil)
	if err != nil {
		return nil, err
	}
	if value != nil {
		r.Body, r.ContentLength = io.NopCloser(value.Body), value.ContentLength
		if value.ContentLength == 0 {
			r.Body = http.NoBody
		}
		relay(r.Header, value.Header)
	}
	return k.local.RoundTrip(r)
}
