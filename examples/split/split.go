// Package split is one small application, orders with three rules, cut into processes in several ways:
// which tier does the rules, and how many pieces there are. The rules stand once, in [rules.order]; a role
// is a process that does them, or passes orders on to one that does. Start there, then [New].
package split

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// list is what is sold, in cents apiece.
var list = map[string]int{"lamp": 2990, "chair": 4990, "desk": 19900}

// rules are what an order goes through. Whether each is done here or elsewhere is what a split decides.
type rules struct {
	check func(ctx context.Context, item string, quantity int) (why string, err error)
	price func(ctx context.Context, item string, quantity int) (cents int, err error) // of all pieces; 0: not sold
	store func(ctx context.Context, key, row string) error
}

// order checks, prices and stores, and says what came of it. A refusal is an answer, not an error. The same
// order under the same key may come again: it replaces itself.
func (r rules) order(ctx context.Context, key, item string, quantity int) (string, error) {
	if why, err := r.check(ctx, item, quantity); why != "" || err != nil {
		return "refused: " + why, err
	}
	cents, err := r.price(ctx, item, quantity)
	if cents == 0 || err != nil {
		return fmt.Sprintf("refused: item: there is no %q", item), err
	}
	row := fmt.Sprintf("accepted: %d %s for %d.%02d", quantity, item, cents/100, cents%100)
	return row, r.store(ctx, key, row)
}

// check needs nothing but the order itself.
func check(_ context.Context, item string, quantity int) (string, error) {
	switch {
	case item == "" || len(item) > 20:
		return "item: want a name of 1 to 20 letters", nil
	case quantity < 1 || quantity > 10:
		return fmt.Sprintf("quantity: want 1 to 10, have %d", quantity), nil
	}
	return "", nil
}

// total gives a tenth off from five pieces.
func total(cents, quantity int) int {
	if quantity >= 5 {
		return cents * quantity * 9 / 10
	}
	return cents * quantity
}

// Roles of a process.
const (
	Front    = "front"    // the client's tier; RULES says which tier does the rules: front, middle or data
	Middle   = "middle"   // does the rules for /orders/…, passes /data/… on
	Data     = "data"     // has the list and the rows; does the rules, too, when it is asked to
	All      = "all"      // everything in one process
	Services = "services" // does the rules by asking checks, prices and data
	Checks   = "checks"   // a service of its own for one rule
	Prices   = "prices"   // and for the other
)

// New makes a process of a role. env is its environment: the <NAME>_URL of those that it asks, and RULES.
func New(role string, env func(string) string) (http.Handler, error) {
	mux := http.NewServeMux()
	kept := newRows()
	here := rules{check, kept.price, kept.put}
	to := others(env)
	middle, data := to("MIDDLE"), to("DATA")
	switch role {
	case Front:
		switch by := cmp.Or(env("RULES"), Middle); by {
		case Front:
			take(mux, rules{check, remembered(middle, "/data/prices/"), middle.put("/data/rows/")})
		case Middle:
			mux.Handle("PUT /orders/{key}", middle.pass("/orders/", "/orders/"))
		case Data:
			mux.Handle("PUT /orders/{key}", middle.pass("/orders/", "/data/orders/"))
		default:
			return nil, fmt.Errorf("RULES: want front, middle or data, have %q", by)
		}
		mux.Handle("GET /orders/{key}", middle.pass("/orders/", "/data/rows/"))
	case Middle:
		take(mux, rules{check, data.price("/prices/"), data.put("/rows/")})
		mux.Handle("/data/", data.pass("/data/", "/"))
	case Data:
		take(mux, here)
		mux.HandleFunc("PUT /rows/{key}", kept.write)
		mux.HandleFunc("GET /rows/{key}", kept.read)
		mux.HandleFunc("GET /prices/{item}", price)
	case All:
		take(mux, here)
		mux.HandleFunc("GET /orders/{key}", kept.read)
	case Services:
		take(mux, rules{to("CHECKS").check, to("PRICES").total, data.put("/rows/")})
		mux.Handle("GET /orders/{key}", data.pass("/orders/", "/rows/"))
	case Checks:
		mux.HandleFunc("GET /check", func(w http.ResponseWriter, r *http.Request) {
			item, quantity := asked(r)
			why, err := check(r.Context(), item, quantity)
			say(w, why, err)
		})
	case Prices:
		mux.HandleFunc("GET /prices/{item}", price)
		mux.HandleFunc("GET /total", func(w http.ResponseWriter, r *http.Request) {
			item, quantity := asked(r)
			cents, err := kept.price(r.Context(), item, quantity)
			say(w, strconv.Itoa(cents), err)
		})
	default:
		return nil, fmt.Errorf("want a role of front, middle, data, all, services, checks, prices; have %q", role)
	}
	return mux, nil
}

// take answers orders by the rules.
func take(mux *http.ServeMux, r rules) {
	mux.HandleFunc("PUT /orders/{key}", func(w http.ResponseWriter, req *http.Request) {
		item, quantity := asked(req)
		said, err := r.order(req.Context(), req.PathValue("key"), item, quantity)
		say(w, said, err)
	})
}

// asked is what an order wants: ?item=lamp&quantity=2. What is no number is no quantity.
func asked(r *http.Request) (item string, quantity int) {
	quantity, _ = strconv.Atoi(r.URL.Query().Get("quantity"))
	return r.URL.Query().Get("item"), quantity
}

// price answers what one piece costs: 0 for what is not sold.
func price(w http.ResponseWriter, r *http.Request) {
	say(w, strconv.Itoa(list[r.PathValue("item")]), nil)
}

func say(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, text)
}

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv, done := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	})
	err := srv.Serve(ln)
	if stop() { // ctx still lives: the listener failed on its own
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return <-done
}
