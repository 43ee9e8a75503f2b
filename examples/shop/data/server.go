package main

import (
	"encoding/json"
	"errors"
	"log"
	"math"
	"net/http"
	"strconv"

	"shop/sale"
)

// NewServer answers the api tier over HTTP: GET /products, GET /orders?before=ID, POST /orders, GET /healthz.
// Every answer names this instance in the header Shop-Data.
func NewServer(store *Store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, "ok", store.Ping(r.Context()))
	})
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, r *http.Request) {
		products, err := store.Products(r.Context())
		answer(w, http.StatusOK, products, err)
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		before, err := strconv.ParseInt(r.FormValue("before"), 10, 64)
		if err != nil {
			before = math.MaxInt64 // not said: from the newest
		}
		orders, err := store.Orders(r.Context(), before)
		answer(w, http.StatusOK, orders, err)
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		o := sale.Order{}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 10_000)).Decode(&o); err != nil {
			answer(w, 0, nil, &sale.Refusal{Status: http.StatusBadRequest, Reason: "want an order as JSON: " + err.Error()})
			return
		}
		placed, err := store.Place(r.Context(), o)
		answer(w, http.StatusCreated, placed, err)
	})
	return mux
}

func answer(w http.ResponseWriter, status int, v any, err error) {
	w.Header().Set("Shop-Data", sale.Here())
	var refusal *sale.Refusal
	switch {
	case errors.As(err, &refusal):
		sale.WriteJSON(w, refusal.Status, map[string]string{"error": refusal.Reason})
	case err != nil:
		log.Print(err)
		sale.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
	default:
		sale.WriteJSON(w, status, v)
	}
}
