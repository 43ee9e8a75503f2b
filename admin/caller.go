package admin

import (
	"context"
	"net/http"
	"time"

	"servent/system"
)

// Caller is a machine of the fleet that asks, by its certificate.
type Caller struct {
	Who  string // SPIFFE name
	From string // address
}

// HereName is who acts at this machine, where it is written down who did what.
const HereName = "admin door"

type callerKey struct{}

// As says who asks: whoever wraps [Door.Handler] has checked that it may. A request without one comes from this machine.
func As(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf says who asks; false: this machine.
func callerOf(ctx context.Context) (Caller, bool) {
	c, far := ctx.Value(callerKey{}).(Caller)
	return c, far
}

// act is a request as it is written down.
func act(r *http.Request, err error) system.Act {
	a := system.Act{Time: time.Now().UTC(), What: r.Method + " " + r.URL.Path, Who: HereName, Of: r.URL.RawQuery}
	if c, far := callerOf(r.Context()); far {
		a.Who, a.From = c.Who, c.From
	}
	if err != nil {
		a.Why = err.Error()
	}
	return a
}

// said is the state as whoever asks may have it: the console's address holds the key of this machine's door.
func (d *Door) said(r *http.Request) State {
	s := d.State()
	if _, far := callerOf(r.Context()); far {
		s.Console = ""
	}
	return s
}
