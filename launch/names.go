package launch

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"servent/control"
	"servent/request/dns"
	"servent/route"
	"servent/system"
)

// namesFirst is the port of the name server for this machine's users, or the next free one. 53 takes root.
const namesFirst = 18053

// names answers for the system's names on this machine, for as long as a service is switched by name. It outlives every
// node, as the published ports do; each node has its own, too.
type names struct {
	view    func() (*control.View, error)
	changed func() <-chan struct{}
	log     *slog.Logger

	mu   sync.Mutex // guards what follows
	at   netip.AddrPort
	stop context.CancelFunc // nil: it does not run
	done chan struct{}
}

// Set starts the name server or ends it, as sys needs. Calls do not overlap.
func (n *names) Set(sys *system.System) error {
	wanted := false
	for i := range sys.Services {
		wanted = wanted || sys.Services[i].Switch.By == system.ByName
	}
	n.mu.Lock()
	runs := n.stop != nil
	n.mu.Unlock()
	switch {
	case wanted && !runs:
		return n.start()
	case !wanted:
		n.Close()
	}
	return nil
}

func (n *names) start() error {
	var zone atomic.Pointer[dns.Zone]
	s := dns.New(dns.Options{Zone: zone.Load, Log: n.log})
	ctx, stop := context.WithCancel(context.Background()) // Close ends it
	var err error
	for port := namesFirst; port < namesFirst+webTries; port++ {
		ready, done, failed := make(chan netip.AddrPort, 1), make(chan struct{}), make(chan error, 1)
		go func() {
			defer close(done)
			failed <- s.Serve(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), func(at netip.AddrPort) { ready <- at })
		}()
		select {
		case err = <-failed:
			if !isInUse(err) {
				stop()
				return err
			}
		case at := <-ready:
			all := make(chan struct{})
			n.mu.Lock()
			n.at, n.stop, n.done = at, stop, all
			n.mu.Unlock()
			go func() {
				defer close(all)
				n.follow(ctx, &zone)
				<-done
				if err := <-failed; err != nil {
					n.log.Error("the name server ended", "addr", at, "err", err)
				}
			}()
			return nil
		}
	}
	stop()
	return fmt.Errorf("name server: no free port from %d to %d: %w", namesFirst, namesFirst+webTries-1, err)
}

// follow keeps the zone until ctx ends.
func (n *names) follow(ctx context.Context, zone *atomic.Pointer[dns.Zone]) {
	var last *control.View
	for {
		changed := n.changed()
		if v, _ := n.view(); v != last && v != nil && v.Plan != nil { // while control is away the last one stands
			last = v
			z, err := dns.NewZone(dns.Of(v.Plan, v.Seen, route.Build(v.Plan, v.Seen, ""), ""))
			if err != nil {
				n.log.Error("no zone", "err", err)
			} else {
				zone.Store(z)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Addr is where it answers; not valid: it does not run.
func (n *names) Addr() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop == nil {
		return netip.AddrPort{}
	}
	return n.at
}

// Close ends it and waits.
func (n *names) Close() {
	n.mu.Lock()
	stop, done := n.stop, n.done
	n.stop = nil
	n.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}
