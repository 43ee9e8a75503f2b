package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"shop/sale"
)

// TestMain lets the test run the program itself, as a process that it can kill.
func TestMain(m *testing.M) {
	if os.Getenv("SHOP_TEST_SERVES") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "a folder?#%.db")) // what is special in a URL is not in a name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// An order is acknowledged when it is on disk: that hangs on two settings, which a typing error would lose in silence.
func TestSettings(t *testing.T) {
	s := open(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := s.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, %v, want %s", pragma, got, err, want)
		}
	}
}

func TestPlace(t *testing.T) {
	s := open(t)
	for _, tt := range []struct { // in this order, on one store
		name                  string
		key                   string
		product, quantity, id int64
		repeated              bool
		status                int
	}{
		{"first", "a", 1, 2, 1, false, 0},
		{"sent again", "a", 1, 2, 1, true, 0},
		{"another", "b", 1, 2, 2, false, 0},
		{"another under a used key", "a", 1, 3, 0, false, http.StatusConflict},
		{"no such product", "c", 99, 1, 0, false, http.StatusNotFound},
		{"no key", "", 1, 1, 0, false, http.StatusBadRequest},
		{"long key", strings.Repeat("k", 101), 1, 1, 0, false, http.StatusBadRequest},
		{"none", "d", 1, 0, 0, false, http.StatusBadRequest},
		{"too many", "d", 1, 101, 0, false, http.StatusBadRequest},
		{"after all that", "e", 6, 100, 3, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			placed, err := s.Place(t.Context(), sale.Order{Key: tt.key, Product: tt.product, Quantity: tt.quantity})
			var refusal *sale.Refusal
			switch {
			case tt.status != 0 && (!errors.As(err, &refusal) || refusal.Status != tt.status):
				t.Errorf("Place() = %v, want status %d", err, tt.status)
			case tt.status == 0 && (err != nil || placed.Order.ID != tt.id || placed.Repeated != tt.repeated):
				t.Errorf("Place() = %+v, %v, want order %d, repeated %v", placed, err, tt.id, tt.repeated)
			}
		})
	}
}

func TestOrdersByThePage(t *testing.T) {
	s := open(t)
	for i := range sale.Page + 5 {
		if _, err := s.Place(t.Context(), sale.Order{Key: fmt.Sprint(i), Product: 1, Quantity: 1}); err != nil {
			t.Fatal(err)
		}
	}
	newest, err := s.Orders(t.Context(), math.MaxInt64)
	if err != nil || len(newest) != sale.Page || newest[0].ID != sale.Page+5 {
		t.Fatalf("first page: %d orders, %v, want the newest %d", len(newest), err, sale.Page)
	}
	rest, err := s.Orders(t.Context(), newest[len(newest)-1].ID)
	if err != nil || len(rest) != 5 || rest[4].ID != 1 {
		t.Errorf("second page: %+v, %v, want orders 5…1", rest, err)
	}
}

// Many buyers at once, each of whom sends each order twice: each order is there once.
func TestRepeatsAtOnce(t *testing.T) {
	s := open(t)
	const buyers, each = 4, 10
	var wg sync.WaitGroup
	for range 2 {
		for b := range buyers {
			wg.Go(func() {
				for i := range each {
					if _, err := s.Place(t.Context(), sale.Order{Key: fmt.Sprint(b, "-", i), Product: 1, Quantity: 1}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if orders, err := s.Orders(t.Context(), math.MaxInt64); err != nil || len(orders) != buyers*each {
		t.Errorf("%d orders, %v, want %d", len(orders), err, buyers*each)
	}
}

func TestServerAnswers(t *testing.T) {
	h := NewServer(open(t))
	for _, tt := range []struct {
		method, path, body string
		status             int
		part               string
	}{
		{"GET", "/healthz", "", 200, `"ok"`},
		{"GET", "/products", "", 200, `"Idempotent hammer`},
		{"GET", "/orders", "", 200, "[]"},
		{"POST", "/orders", `{"key":"a","product":1,"quantity":2}`, 201, `"repeated":false`},
		{"POST", "/orders", `{"key":"a","product":1,"quantity":2}`, 201, `"repeated":true`},
		{"POST", "/orders", `{"key":`, 400, `{"error":"want an order as JSON`},
		{"POST", "/orders", `{"key":"b","product":99,"quantity":2}`, 404, `{"error":"product 99`},
		{"GET", "/orders?before=1", "", 200, "[]"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.part) || w.Header().Get("Shop-Data") == "" {
			t.Errorf("%s %s = %d %s (Shop-Data %q), want %d with %s", tt.method, tt.path, w.Code, w.Body, w.Header().Get("Shop-Data"), tt.status, tt.part)
		}
	}
}

// start runs the program on a folder and returns its URL and how to kill it.
func start(t *testing.T, folder string) (url string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHOP_TEST_SERVES=1", "SERVENT_DATA="+folder, "HOST=127.0.0.1", "PORT=0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(kill)
	for in := bufio.NewScanner(out); in.Scan(); {
		if _, at, ok := strings.Cut(in.Text(), "listens on "); ok {
			return "http://" + at, kill
		}
		t.Log(in.Text())
	}
	t.Fatal("the program ended before it listened")
	return "", nil
}

// What was acknowledged is there after kill -9.
func TestKilled(t *testing.T) {
	folder := t.TempDir()
	url, kill := start(t, folder)
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var wg sync.WaitGroup
	for b := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprint(b, "-", i)
				body, err := json.Marshal(sale.Order{Key: key, Product: 1, Quantity: 1})
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := http.Post(url+"/orders", "application/json", bytes.NewReader(body))
				if err != nil {
					return // killed
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					t.Errorf("POST = %s", resp.Status)
					return
				}
				mu.Lock()
				acknowledged[key] = true
				enough := len(acknowledged) >= 60
				mu.Unlock()
				if enough {
					kill()
				}
			}
		})
	}
	wg.Wait()

	url, _ = start(t, folder)
	there := map[string]int{}
	for before := int64(math.MaxInt64); ; {
		resp, err := http.Get(fmt.Sprintf("%s/orders?before=%d", url, before))
		if err != nil {
			t.Fatal(err)
		}
		var page []sale.Order
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, o := range page {
			there[o.Key]++
			before = o.ID
		}
	}
	if len(acknowledged) < 60 {
		t.Fatalf("only %d orders were acknowledged", len(acknowledged))
	}
	for key := range acknowledged {
		if there[key] != 1 {
			t.Errorf("order %s was acknowledged and is there %d times", key, there[key])
		}
	}
}
