package l7

import (
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"servent/route"
	"servent/system"
)

// Why an instance got a request, as Server-Timing says it.
const (
	whyPolicy = "policy"
	whyKey    = "key"    // it owns the request's key
	whySticky = "sticky" // the client stays with it
	whyRetry  = "retry"  // another one was asked before
)

// choose picks one of a target's instances that was not tried yet. A client that stays with an instance gets
// it for as long as the table has it: that it is suspect moves nobody, for what it holds of the client would be lost.
func (x *exchange) choose(t *route.Table, to route.Target, tried []place) (route.Instance, bool) {
	var avoid func(route.Instance) bool
	if len(tried) > 0 {
		avoid = func(in route.Instance) bool {
			for _, p := range tried {
				if p.id == in.ID && p.node == in.Node {
					return true
				}
			}
			return false
		}
	}
	in, ok := x.stays(to, avoid)
	x.why = whySticky
	if !ok {
		x.why = whyPolicy
		in, ok = x.s.pick(t, to, x.hashed(to), x.s.busy(to, avoid))
	}
	switch {
	case len(tried) > 0:
		x.why = whyRetry
	case to.Locator != nil:
		x.why = whyKey
	}
	return in, ok
}

// busy avoids what avoid does, and instances that have as many requests of this node as they are given at a time.
func (s *Switch) busy(to route.Target, avoid func(route.Instance) bool) func(route.Instance) bool {
	if to.Each == 0 {
		return avoid
	}
	return func(in route.Instance) bool {
		return s.loads.Inflight(in.ID) >= to.Each || avoid != nil && avoid(in)
	}
}

// stays returns the instance that the client stays with, if it does and that one was not tried yet.
func (x *exchange) stays(to route.Target, avoid func(route.Instance) bool) (route.Instance, bool) {
	switch to.Sticky {
	case "cookie":
		id := x.session(to.Service)
		for _, among := range [][]route.Instance{to.Among, to.Leaving} {
			for _, in := range among {
				if in.ID == id && (avoid == nil || !avoid(in)) {
					return in, true
				}
			}
		}
	case "key":
		if key, err := x.key(to.Key); err == nil {
			return route.Stick(to.Among, key, avoid)
		}
	case "source":
		return route.Stick(to.Among, route.Key(x.source()), avoid)
	}
	return route.Instance{}, false
}

// hashed is what policies hash: the request's key, or where it comes from if it has none.
func (x *exchange) hashed(to route.Target) route.Key {
	if to.Locator != nil || to.Policy != "hash" && to.Policy != "maglev" {
		return ""
	}
	if key, err := x.key(to.Key); err == nil {
		return key
	}
	return route.Key(x.source())
}

// source is the host of the client that a request is from.
func (x *exchange) source() string {
	host, _, err := net.SplitHostPort(x.in.RemoteAddr)
	if err != nil {
		host = x.in.RemoteAddr
	}
	return x.s.o.Table().Client(host, x.in.Header["X-Forwarded-For"])
}

func (s *Switch) pick(t *route.Table, to route.Target, key route.Key, avoid func(route.Instance) bool) (route.Instance, bool) {
	now := time.Now()
	return route.Choose(s.picker(to), route.Ask{Now: now, Rnd: rand.Uint64(), Key: key, Among: to.Among,
		Load: func(id system.InstanceID) route.Load { return s.loads.Of(id, now, t) }}, avoid)
}

func (s *Switch) picker(to route.Target) route.Picker {
	type key struct {
		service system.ServiceName
		policy  string
	}
	k := key{to.Service, to.Policy}
	if p, ok := s.pickers.Load(k); ok {
		return p.(route.Picker)
	}
	p, _ := s.pickers.LoadOrStore(k, route.NewPicker(to.Policy))
	return p.(route.Picker)
}

// budget bounds the repeated requests of a service.
func (s *Switch) budget(service system.ServiceName) *route.Budget {
	if b, ok := s.budgets.Load(service); ok {
		return b.(*route.Budget)
	}
	b, _ := s.budgets.LoadOrStore(service, new(route.Budget))
	return b.(*route.Budget)
}

// judge counts an answer for or against an instance; failed says that it broke or that the instance is at fault.
func (s *Switch) judge(to route.Target, in route.Instance, failed bool) {
	if lasts := s.loads.Judge(in, time.Now(), failed); lasts > 0 {
		s.o.Log.Warn("instance answers badly; others are asked if they are at least as many", "service", to.Service, "instance", in.ID, "node", in.Node, "dur", lasts)
	}
}

// atFault says that an answer accuses the instance, not the request.
func atFault(status int) bool { return status >= 500 && status != http.StatusNotImplemented }
