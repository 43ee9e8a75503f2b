package lab

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"servent/admin"
	"servent/architecture"
	"servent/lab/result"
	"servent/system"
)

const (
	starts    = 3    // of an instance, for a median
	warmCalls = 200  // by one client
	fullCalls = 2000 // by many
	runsFor   = 2 * time.Second
)

// kinds says that variants differ in what runs the service: its software, or whether it is woken.
func (r *run) kinds() bool {
	of := func(v Variant) [2]string {
		s := v.System.Service(r.service)
		return [2]string{string(s.Software.Kind), fmt.Sprint(architecture.Wakes(s))}
	}
	return slices.ContainsFunc(r.variants, func(v Variant) bool { return of(v) != of(r.variants[0]) })
}

// runs measures what runs each variant's service, where they differ in it: one instance on one node that nothing slows, one
// variant after the other.
func (r *run) runs(ctx context.Context) error {
	if !r.kinds() {
		return nil
	}
	for i, v := range r.variants {
		r.o.Tell(Progress{Text: "what runs it: " + v.Name})
		is, err := r.alone(ctx, v, fmt.Sprintf("runs-%d", i+1))
		if err != nil {
			return fmt.Errorf("what runs %s: %w", v.Name, err)
		}
		r.ran[v.Name] = is
	}
	return nil
}

// alone measures one variant.
func (r *run) alone(ctx context.Context, v Variant, name string) (*result.Runs, error) {
	free := v.scaled(r.service, 1)
	free.Nodes = slices.Clone(free.Nodes)
	for i := range free.Nodes {
		free.Nodes[i].Capacity = system.Capacity{} // nothing slows it
	}
	s, err := r.stagings.open(ctx, name, free, r.service)
	if err != nil {
		return nil, err
	}
	defer s.close()
	svc := free.Service(r.service)
	is := &result.Runs{Software: string(svc.Software.Kind), Isolation: isolation(svc.Software.Kind)}
	if calls, ok := architecture.CallsOf(svc); ok && architecture.Wakes(svc) {
		is.Woken, is.Idle = calls.Min == 0, calls.Idle.Seconds()
	}
	one := r.options(s, 0)
	one.Clients, one.Count, one.Duration = 1, 1, 0
	first, err := drive(ctx, one)
	if err == nil {
		err = r.answers(v, s, first)
	}
	if err != nil {
		return nil, err
	}
	is.FirstMS = milliseconds(first.Latency.Quantile(0.5))
	before, _, err := s.used(ctx, r.service)
	if err != nil {
		return nil, err
	}
	warm := r.options(s, 1)
	warm.Clients, warm.Count, warm.Duration = 1, warmCalls, runsFor
	calm, err := drive(ctx, warm)
	if err != nil {
		return nil, err
	}
	is.WarmMS = milliseconds(calm.Latency.Quantile(0.5))
	crowd := r.options(s, 1+warmCalls)
	crowd.Clients, crowd.Count, crowd.Duration = 16, fullCalls, runsFor
	many, err := drive(ctx, crowd)
	if err != nil {
		return nil, err
	}
	is.Rate = many.Rate()
	after, used, err := s.used(ctx, r.service)
	if err != nil {
		return nil, err
	}
	is.CPUMicros = 1e6 * (after - before) / float64(max(1, calm.Sent+many.Sent))
	for _, u := range used {
		is.Memory = max(is.Memory, u.Memory)
	}
	took := []float64{used[0].StartMS}
	for len(took) < starts && !is.Woken { // what is woken starts with its next call, when it has been idle
		if used, err = s.restarted(ctx, r.service, used[0].Started); err != nil {
			return nil, err
		}
		took = append(took, used[0].StartMS)
	}
	slices.Sort(took)
	is.StartMS, is.Starts = took[len(took)/2], len(took)
	return is, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// used is the processor time of the stage so far, and what the service's instances use; there is one at least.
func (s *stage) used(ctx context.Context, service system.ServiceName) (cpu float64, of []admin.Used, err error) {
	meters, err := s.meters(ctx)
	if err != nil {
		return 0, nil, err
	}
	for _, m := range meters {
		cpu += m.CPU
		for _, u := range m.Used {
			cpu += u.CPU
			if name, _, err := u.Instance.Split(); err == nil && name == service && u.StartMS > 0 {
				of = append(of, u)
			}
		}
	}
	if len(of) == 0 {
		return 0, nil, fmt.Errorf("no instance of %s runs", service)
	}
	slices.SortFunc(of, func(a, b admin.Used) int { return cmp.Compare(a.Instance, b.Instance) })
	return cpu, of, nil
}

// restarted restarts the service and returns what its instance uses then: one that was started later.
func (s *stage) restarted(ctx context.Context, service system.ServiceName, than time.Time) ([]admin.Used, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := s.client.Restart(ctx, string(service)); err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, used, err := s.used(ctx, service)
		if err == nil && len(used) == 1 && used[0].Started.After(than) {
			return used, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("restart %s: not ready after %s", service, readyWithin)
		}
	}
}

// isolation says what is between an instance and the machine.
func isolation(kind system.SoftwareKind) string {
	switch kind {
	case system.Process:
		return "process of the node's user, with its files"
	case system.Image:
		return "own files, network and process numbers; the machine's kernel, system calls filtered"
	case system.VM:
		return "kernel of its own, by a virtual machine"
	case system.Wasm:
		return "memory of its own inside the node; no files, no system calls, instructions counted"
	case system.Origin:
		return "elsewhere"
	}
	return "inside the node"
}
