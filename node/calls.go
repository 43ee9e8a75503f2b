package node

import (
	"context"
	"slices"
	"time"

	"servent/architecture"
	"servent/system"
)

// sampleEvery is how often it is looked at what is called, while anything is.
const sampleEvery = 100 * time.Millisecond

// listen keeps what others are told of calls: a first call at once, more of them soon, fewer late. It costs
// control nothing as long as about as much is asked, and nobody anything while nobody calls.
func (n *Node) listen(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.calls.Asked():
		case <-again:
		}
		demand, busy := n.calls.Sample(time.Now(), n.span)
		if !slices.Equal(demand, *n.demand.Load()) {
			n.demand.Store(&demand)
			n.again()
		}
		if again = nil; busy {
			again = time.After(sampleEvery)
		}
	}
}

// again has what this node says of itself said anew.
func (n *Node) again() {
	select {
	case n.reword <- struct{}{}:
	default: // it will be told with the one before
	}
}

// span is how long a node remembers what was asked of a service: half of its idle time, the conductor waits
// for the other half. 0: its instances do not follow its calls.
func (n *Node) span(name system.ServiceName) time.Duration {
	p := n.view.Load().Plan
	if p == nil {
		return 0
	}
	d := p.Deployment(name)
	if d == nil {
		return 0
	}
	calls, _ := architecture.CallsOf(&d.Service)
	return calls.Idle / 2
}
