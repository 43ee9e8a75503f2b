package split

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// longest is the most bytes of a key, a row or an answer.
const longest = 200

// other is another service: what is asked there costs messages and time.
type other struct {
	url    string
	client http.Client
}

// others finds services by their <NAME>_URL. It keeps as many connections to one door as orders come at once.
func others(env func(string) string) func(name string) *other {
	way := &http.Transport{MaxIdleConnsPerHost: 64}
	return func(name string) *other { return &other{env(name + "_URL"), http.Client{Transport: way}} }
}

// ask makes one call and returns the answer's text.
func (o *other) ask(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.url+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	res, err := o.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4*longest))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return strings.TrimSpace(string(text)), err
}

// pass hands whole requests on, with another beginning of their path, and the answer back.
func (o *other) pass(from, to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, longest))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		said, err := o.ask(r.Context(), r.Method, to+strings.TrimPrefix(r.URL.RequestURI(), from), string(body))
		say(w, said, err)
	})
}

// price asks what one piece costs.
func (o *other) price(at string) func(context.Context, string, int) (int, error) {
	return func(ctx context.Context, item string, quantity int) (int, error) {
		cents, err := o.number(ctx, at+url.PathEscape(item))
		return total(cents, quantity), err
	}
}

func (o *other) number(ctx context.Context, path string) (int, error) {
	said, err := o.ask(ctx, http.MethodGet, path, "")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(said)
}

// remembered asks for a price once and knows it from then on, also when it has changed.
func remembered(o *other, at string) func(context.Context, string, int) (int, error) {
	var known sync.Map // item → cents; what is not sold is not kept, so that it has a bound
	return func(ctx context.Context, item string, quantity int) (int, error) {
		if cents, ok := known.Load(item); ok {
			return total(cents.(int), quantity), nil
		}
		cents, err := o.number(ctx, at+url.PathEscape(item))
		if err == nil && cents > 0 {
			known.Store(item, cents)
		}
		return total(cents, quantity), err
	}
}

// check and total are the rules as services of their own.
func (o *other) check(ctx context.Context, item string, quantity int) (string, error) {
	return o.ask(ctx, http.MethodGet, "/check?"+query(item, quantity), "")
}

func (o *other) total(ctx context.Context, item string, quantity int) (int, error) {
	return o.number(ctx, "/total?"+query(item, quantity))
}

func query(item string, quantity int) string {
	return url.Values{"item": {item}, "quantity": {strconv.Itoa(quantity)}}.Encode()
}

// put stores a row.
func (o *other) put(at string) func(ctx context.Context, key, row string) error {
	return func(ctx context.Context, key, row string) error {
		_, err := o.ask(ctx, http.MethodPut, at+url.PathEscape(key), row)
		return err
	}
}

// rows are the orders that were accepted, in memory: lost with the process.
type rows struct {
	room int // rows at most
	mu   sync.Mutex
	of   map[string]string // guarded by mu
}

func newRows() *rows { return &rows{room: 1_000_000, of: map[string]string{}} }

func (rs *rows) price(_ context.Context, item string, quantity int) (int, error) {
	return total(list[item], quantity), nil
}

func (rs *rows) put(_ context.Context, key, row string) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if _, known := rs.of[key]; len(key) > longest || len(row) > longest || !known && len(rs.of) >= rs.room {
		return fmt.Errorf("there is no room for order %.20q", key)
	}
	rs.of[key] = row
	return nil
}

// write believes what it is told: who checks elsewhere must be trusted.
func (rs *rows) write(w http.ResponseWriter, r *http.Request) {
	row, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
	if err == nil {
		err = rs.put(r.Context(), r.PathValue("key"), string(row))
	}
	say(w, "stored", err)
}

func (rs *rows) read(w http.ResponseWriter, r *http.Request) {
	rs.mu.Lock()
	row, ok := rs.of[r.PathValue("key")]
	rs.mu.Unlock() // before the answer: a slow client holds up nobody
	if !ok {
		row = "there is no such order"
	}
	say(w, row, nil)
}
