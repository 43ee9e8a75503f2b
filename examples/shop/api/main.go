// Command api is the shop's processing tier. It keeps nothing, so any number of copies may run: what is
// to last goes to the data tier, an HTTP server by default, PostgreSQL with DATA_KIND=postgres.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"shop/sale"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var data Data
	switch kind := os.Getenv("DATA_KIND"); kind {
	case "", "http":
		data = &Tier{URL: os.Getenv("DATA_URL")}
	case "postgres":
		db, err := NewPostgres(os.Getenv("DATA_HOST"), os.Getenv("DATA_PORT"), os.Getenv("POSTGRES_PASSWORD"))
		if err != nil {
			return err
		}
		defer db.Close()
		data = db
	default:
		return fmt.Errorf("DATA_KIND: want http or postgres, have %q", kind)
	}
	return sale.Main(NewServer(data))
}

// Data is the tier below. Every method names the instance that answered, and may be called again after
// an error: an order's key sees to it that it is placed once. A *sale.Refusal will be the same again.
type Data interface {
	Products(ctx context.Context) (products []sale.Product, from string, err error)
	// Orders lists the newest orders with an ID below before, at most a page of them.
	Orders(ctx context.Context, before int64) (orders []sale.Order, from string, err error)
	// Place returns when the order is on disk.
	Place(ctx context.Context, o sale.Order) (placed sale.Placed, from string, err error)
}
