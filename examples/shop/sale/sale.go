// Package sale holds the words that the tiers say to one another, and what every tier's program needs:
// to listen, to stop, to name itself. It knows no database. Start at [Order].
package sale

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Product is something to buy.
type Product struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Price int64  `json:"price"` // cents
}

// Catalogue is what a new shop sells.
var Catalogue = []Product{
	{1, "Chord ring, finger size 7", 4900},
	{2, "Kademlia bucket, holds 20", 1290},
	{3, "Vector clock, never wrong, seldom comparable", 8900},
	{4, "Two generals, set", 2400},
	{5, "Byzantine cake, serves 3f + 1", 1800},
	{6, "Idempotent hammer: a second blow changes nothing", 3150},
}

// Order is a purchase. Its Key is the buyer's: an order that is sent again under the same key is the same order.
type Order struct {
	ID       int64     `json:"id"`
	Key      string    `json:"key"`
	Product  int64     `json:"product"`
	Quantity int64     `json:"quantity"`
	At       time.Time `json:"at"`
}

// Page is how many orders one answer lists at most.
const Page = 100

// Placed is an order that is on disk.
type Placed struct {
	Order    Order `json:"order"`
	Repeated bool  `json:"repeated"` // it was there before: the buyer sent it again
}

// Check says what is wrong with an order before it goes to a database.
func (o *Order) Check() error {
	switch {
	case o.Key == "" || len(o.Key) > 100:
		return &Refusal{http.StatusBadRequest, "want a header Idempotency-Key of 1…100 bytes; under the same key an order is placed once"}
	case o.Quantity < 1 || o.Quantity > 100:
		return &Refusal{http.StatusBadRequest, fmt.Sprintf("quantity: want 1…100, have %d", o.Quantity)}
	}
	return nil
}

// Same refuses to take a second, different order for the first that has its key.
func (o *Order) Same(first Order) error {
	if o.Product != first.Product || o.Quantity != first.Quantity {
		return &Refusal{http.StatusConflict, fmt.Sprintf("key %q is that of order %d, which is another", o.Key, first.ID)}
	}
	return nil
}

// Refusal is an answer that trying again will not change.
type Refusal struct {
	Status int // of HTTP
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// NoProduct refuses an order of what is not sold.
func NoProduct(id int64) error {
	return &Refusal{http.StatusNotFound, fmt.Sprintf("product %d is not sold here", id)}
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // an error means that the client left
}

// Here names the instance that runs this program: data/1 on node-2.
func Here() string {
	return fmt.Sprintf("%s on %s", os.Getenv("SERVENT_INSTANCE"), os.Getenv("SERVENT_NODE"))
}

// Main serves h on $HOST:$PORT until SIGTERM, gives open requests 5s, and returns nil after a clean stop.
func Main(h http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	log.Printf("%s listens on %s", Here(), ln.Addr())
	srv, done := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	})
	if err := srv.Serve(ln); ctx.Err() == nil { // not stopped: the listener failed on its own
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return <-done
}
