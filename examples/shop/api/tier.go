package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"shop/sale"
)

// Tier is the data tier as an HTTP server: see folder data.
type Tier struct {
	URL string // of its door: DATA_URL
}

func (t *Tier) Products(ctx context.Context) (products []sale.Product, from string, err error) {
	from, err = t.call(ctx, http.MethodGet, "/products", nil, &products)
	return products, from, err
}

func (t *Tier) Orders(ctx context.Context, before int64) (orders []sale.Order, from string, err error) {
	from, err = t.call(ctx, http.MethodGet, fmt.Sprintf("/orders?before=%d", before), nil, &orders)
	return orders, from, err
}

func (t *Tier) Place(ctx context.Context, o sale.Order) (placed sale.Placed, from string, err error) {
	from, err = t.call(ctx, http.MethodPost, "/orders", o, &placed)
	return placed, from, err
}

// call sends one request, decodes its answer and says who answered.
func (t *Tier) call(ctx context.Context, method, path string, in, out any) (from string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, t.URL+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("data tier: %w", err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	from = resp.Header.Get("Shop-Data")
	switch {
	case err != nil:
		return from, fmt.Errorf("data tier: %w", err)
	case from == "": // a door answered in its place: there is no instance now
		return from, fmt.Errorf("data tier: %s: %.200s", resp.Status, bytes.TrimSpace(said))
	case resp.StatusCode >= 400:
		var why struct{ Error string }
		if json.Unmarshal(said, &why) != nil || resp.StatusCode >= 500 {
			return from, fmt.Errorf("data tier: %s: %.200s", resp.Status, bytes.TrimSpace(said))
		}
		return from, &sale.Refusal{Status: resp.StatusCode, Reason: why.Error}
	}
	return from, json.Unmarshal(said, out)
}
