package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"shop/sale"
)

// launch builds a program of this module and runs it on a free port until the test ends.
func launch(t *testing.T, folder string, env ...string) (port string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), folder)
	if out, err := exec.Command("go", "build", "-o", program, "../"+folder).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // PostgreSQL cannot choose a port itself
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	ln.Close()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+port, "SERVENT_INSTANCE=data/1", "SERVENT_NODE=node-2", "SERVENT_DATA="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT) // to PostgreSQL: do not wait for clients
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", folder, err)
		}
	})
	return port
}

func postgres(t *testing.T) *Postgres {
	if _, err := exec.LookPath("postgres"); err != nil {
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
			if os.Getenv("CI") == "true" {
				t.Fatal("PostgreSQL is not installed, and CI must test it")
			}
			t.Skip("PostgreSQL is not installed")
		}
	}
	const password = "it's a \"secret\" $1 @/:"
	p, err := NewPostgres("127.0.0.1", launch(t, "postgres", "POSTGRES_PASSWORD="+password), password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// The page sees no difference between the two data tiers.
func TestData(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the data tiers")
	}
	for name, tt := range map[string]struct {
		data func(t *testing.T) Data
		from string
	}{
		"sqlite":   {func(t *testing.T) Data { return &Tier{URL: "http://127.0.0.1:" + launch(t, "data")} }, "data/1 on node-2"},
		"postgres": {func(t *testing.T) Data { return postgres(t) }, "data/1 on node-2, PostgreSQL "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SERVENT_INSTANCE", "api/3")
			t.Setenv("SERVENT_NODE", "node-1")
			checkData(t, NewServer(tt.data(t)), tt.from)
		})
	}
}

type answer struct {
	Door, Api, Data, Error string
	Products               []sale.Product
	Orders                 []sale.Order
	Placed                 sale.Placed
}

func ask(t *testing.T, h http.Handler, method, path, key, body string) (int, answer) {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	h.ServeHTTP(w, r)
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Errorf("%s %s = %s: %v", method, path, w.Body, err)
	}
	return w.Code, a
}

func checkData(t *testing.T, h http.Handler, from string) {
	status, a := ask(t, h, "GET", "http://shop.test/api/products", "", "")
	if status != 200 || len(a.Products) != len(sale.Catalogue) || a.Products[5] != sale.Catalogue[5] {
		t.Fatalf("products = %d %+v", status, a)
	}
	if a.Door != "shop.test" || a.Api != "api/3 on node-1" || !strings.HasPrefix(a.Data, from) {
		t.Errorf("came through %q, %q, %q, want shop.test, api/3 on node-1, %s", a.Door, a.Api, a.Data, from)
	}
	if status, a := ask(t, h, "GET", "/api/orders", "", ""); status != 200 || a.Orders == nil || len(a.Orders) != 0 {
		t.Errorf("orders of a new shop = %d %+v, want an empty list", status, a)
	}
	for _, tt := range []struct { // in this order, on one shop
		name, key, body string
		status          int
		repeated        bool
	}{
		{"first", "a", `{"product": 1, "quantity": 2}`, 201, false},
		{"sent again", "a", `{"product": 1, "quantity": 2}`, 200, true},
		{"another under a used key", "a", `{"product": 1, "quantity": 3}`, 409, false},
		{"no such product", "b", `{"product": 99, "quantity": 3}`, 404, false},
		{"no key", "", `{"product": 1, "quantity": 3}`, 400, false},
		{"too many", "b", `{"product": 1, "quantity": 101}`, 400, false},
		{"no JSON", "b", `{"product": `, 400, false},
		{"last", "'; DROP TABLE orders; --", `{"product": 2, "quantity": 1}`, 201, false},
	} {
		status, a := ask(t, h, "POST", "/api/orders", tt.key, tt.body)
		if status != tt.status || a.Placed.Repeated != tt.repeated || (a.Error != "") != (status >= 400) {
			t.Errorf("%s: %d %+v, want %d, repeated %v", tt.name, status, a, tt.status, tt.repeated)
		}
	}
	status, a = ask(t, h, "GET", "/api/orders", "", "")
	if status != 200 || len(a.Orders) != 2 || a.Orders[0].Product != 2 || a.Orders[1].Key != "a" || time.Since(a.Orders[1].At) > time.Hour {
		t.Fatalf("orders = %d %+v, want the two that were placed, newest first", status, a)
	}
	if _, older := ask(t, h, "GET", fmt.Sprintf("/api/orders?before=%d", a.Orders[0].ID), "", ""); len(older.Orders) != 1 {
		t.Errorf("orders before the last: %+v, want one", older)
	}
	if status, _ := ask(t, h, "GET", "/api/orders?before=x", "", ""); status != 400 {
		t.Errorf("before=x: %d, want 400", status)
	}

	var wg sync.WaitGroup
	for range 8 { // the same order, sent by a buyer in a hurry
		wg.Go(func() {
			if status, a := ask(t, h, "POST", "/api/orders", "hurry", `{"product": 3, "quantity": 1}`); status > 201 {
				t.Errorf("%d %+v", status, a)
			}
		})
	}
	wg.Wait()
	if _, a := ask(t, h, "GET", "/api/orders", "", ""); len(a.Orders) != 3 {
		t.Errorf("%d orders, want 3", len(a.Orders))
	}
}

// A data tier that comes back within the patience of a request costs time, not an error.
type flaky struct {
	Data
	failures int
	err      error
}

func (f *flaky) Orders(context.Context, int64) ([]sale.Order, string, error) {
	if f.failures--; f.failures >= 0 {
		return nil, "", f.err
	}
	return []sale.Order{}, "data/1", nil
}

func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		name     string
		failures int
		err      error
		status   int
		took     time.Duration
	}{
		{"there at once", 0, nil, 200, 0},
		{"back after a while", 3, errors.New("connection refused"), 200, 350 * time.Millisecond},
		{"does not come back", math.MaxInt, errors.New("connection refused"), 503, patience},
		{"refused is refused", 1, &sale.Refusal{Status: 404, Reason: "none"}, 404, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				status, a := ask(t, NewServer(&flaky{failures: tt.failures, err: tt.err}), "GET", "/api/orders", "", "")
				if status != tt.status || time.Since(began) != tt.took {
					t.Errorf("%d %+v after %v, want %d after %v", status, a, time.Since(began), tt.status, tt.took)
				}
			})
		})
	}
}

// A door that answers for a dead data tier is no data tier.
func TestTierAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		from    string
		body    string
		refused bool
		ok      bool
	}{
		{"answer", 200, "data/1", `[{"id": 7}]`, false, true},
		{"refusal", 404, "data/1", `{"error": "none"}`, true, false},
		{"trouble", 503, "data/1", `{"error": "disk full"}`, false, false},
		{"door without instance", 503, "", "no instance", false, false},
		{"door's not found", 404, "", "no such path", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.from != "" {
					w.Header().Set("Shop-Data", tt.from)
				}
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}))
			defer srv.Close()
			products, from, err := (&Tier{URL: srv.URL}).Products(t.Context())
			var refusal *sale.Refusal
			if got := errors.As(err, &refusal); got != tt.refused || (err == nil) != tt.ok || tt.ok && (from != tt.from || products[0].ID != 7) {
				t.Errorf("Products() = %v, %q, %v, want refused %v, ok %v", products, from, err, tt.refused, tt.ok)
			}
		})
	}
}
