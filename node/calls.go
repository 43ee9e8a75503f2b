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
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	used := map[system.InstanceID]use{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.calls.Asked():
		case <-again:
		case now := <-look.C:
			if used = n.uses(ctx, now, used); len(used) == 0 && again == nil {
				continue
			}
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

// lookEvery is how often processor time is looked at, where it is a goal.
const lookEvery = time.Second

// use is the processor time of an instance at a time.
type use struct {
	started, at time.Time
	cpu         time.Duration
}

// uses gauges what instances of services whose goal is processor time use here, and returns what they have used so far.
func (n *Node) uses(ctx context.Context, now time.Time, was map[system.InstanceID]use) map[system.InstanceID]use {
	p := n.view.Load().Plan
	if p == nil || !slices.ContainsFunc(p.Services, func(d system.Deployment) bool { return d.Service.Scale.CPU > 0 }) {
		return nil
	}
	is, sums := map[system.InstanceID]use{}, map[system.ServiceName]float64{}
	for id, st := range n.agent.Stats(ctx) {
		name, _, err := id.Split()
		if err != nil {
			continue
		}
		if d := p.Deployment(name); d == nil || d.Service.Scale.CPU <= 0 {
			continue
		}
		is[id] = use{st.Started, now, st.CPU}
		rate := 0.0
		if before, ok := was[id]; ok && before.started.Equal(st.Started) && now.After(before.at) {
			rate = max(0, (st.CPU-before.cpu).Seconds()/now.Sub(before.at).Seconds())
		}
		sums[name] += rate
	}
	for id := range was {
		if name, _, err := id.Split(); err == nil {
			sums[name] += 0 // the last one here has gone
		}
	}
	for name, sum := range sums {
		n.calls.Uses(name, now, sum)
	}
	return is
}
