package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"shop/sale"
)

// patience is how long a request waits for the data tier: longer than a restart of it takes.
const patience = 15 * time.Second

// calls is what GET /api/ says: the address is printed by up, and somebody will open it.
const calls = "GET /api/products\nGET /api/orders?before=ID\nPOST /api/orders {\"product\": ID, \"quantity\": 1…100}, with a header Idempotency-Key\n"

// NewServer answers the page: GET /api/products, GET /api/orders?before=ID, POST /api/orders with a header
// Idempotency-Key. Every answer names the tiers that it came through: door, api, data.
// GET /healthz says that this process lives; the data tier has a health check of its own.
func NewServer(data Data) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { sale.WriteJSON(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /api/{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, calls) })
	mux.HandleFunc("GET /api/products", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, "products", func(ctx context.Context) (any, string, error) { return plain(data.Products(ctx)) })
	})
	mux.HandleFunc("GET /api/orders", func(w http.ResponseWriter, r *http.Request) {
		before := int64(math.MaxInt64)
		if said := r.FormValue("before"); said != "" {
			var err error
			if before, err = strconv.ParseInt(said, 10, 64); err != nil {
				refuse(w, r, &sale.Refusal{Status: http.StatusBadRequest, Reason: "before: want the ID of an order"})
				return
			}
		}
		serve(w, r, "orders", func(ctx context.Context) (any, string, error) { return plain(data.Orders(ctx, before)) })
	})
	mux.HandleFunc("POST /api/orders", func(w http.ResponseWriter, r *http.Request) {
		var o sale.Order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 10_000)).Decode(&o); err != nil {
			refuse(w, r, &sale.Refusal{Status: http.StatusBadRequest, Reason: `want {"product": ID, "quantity": 1…100}: ` + err.Error()})
			return
		}
		o = sale.Order{Key: r.Header.Get("Idempotency-Key"), Product: o.Product, Quantity: o.Quantity}
		if err := o.Check(); err != nil {
			refuse(w, r, err)
			return
		}
		serve(w, r, "placed", func(ctx context.Context) (any, string, error) { return plain(data.Place(ctx, o)) })
	})
	return mux
}

// plain forgets the type of an answer.
func plain[T any](v T, from string, err error) (any, string, error) { return v, from, err }

// serve asks the data tier, again while it does not answer, and says what came back by which way.
func serve(w http.ResponseWriter, r *http.Request, name string, ask func(context.Context) (any, string, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	var v any
	var from string
	err := again(ctx, func() (err error) { v, from, err = ask(ctx); return err })
	if err != nil {
		refuse(w, r, err)
		return
	}
	status := http.StatusOK
	if placed, ok := v.(sale.Placed); ok && !placed.Repeated {
		status = http.StatusCreated
	}
	sale.WriteJSON(w, status, map[string]any{"door": r.Host, "api": sale.Here(), "data": from, name: v})
}

// again calls f until it succeeds, is refused, or ctx ends. Between calls it waits 50ms, 100ms, … 1s.
func again(ctx context.Context, f func() error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		var refusal *sale.Refusal
		if err == nil || errors.As(err, &refusal) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusServiceUnavailable
	var refusal *sale.Refusal
	if errors.As(err, &refusal) {
		status = refusal.Status
	} else {
		w.Header().Set("Retry-After", "1")
	}
	sale.WriteJSON(w, status, map[string]string{"door": r.Host, "api": sale.Here(), "error": err.Error()})
}
