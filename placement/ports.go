package placement

import "servent/system"

// Offsets from a node's port base. 0 is its link and 1 its web door.
const (
	firstOffset  = 2
	instancePort = 2 // an instance's own port, and after it the door to the next instance
)

// givePorts gives a door to each service and ports to each instance that has none, the lowest that are
// free. Doors and instances share one space, so an offset means one thing on every node.
func givePorts(old, plan *system.Plan) {
	taken := map[int]bool{}
	for _, d := range plan.Services {
		for _, a := range d.Assignments {
			if a.Port > 0 {
				taken[a.Port], taken[a.Port+1] = true, true
			}
		}
		if old != nil {
			if offset, ok := old.Door(d.Service.Name); ok {
				taken[offset] = true
			}
		}
	}
	if old != nil && plan.Named() {
		taken[old.Names] = true
	}
	next := firstOffset
	free := func(n int) int {
		for taken[next] {
			next++
		}
		at := next
		for n > 1 && taken[at+1] {
			for at++; taken[at]; at++ {
			}
		}
		for i := range n {
			taken[at+i] = true
		}
		return at
	}
	for _, d := range plan.Services {
		offset, ok := 0, false
		if old != nil {
			offset, ok = old.Door(d.Service.Name)
		}
		if !ok {
			offset = free(1)
		}
		plan.Doors = append(plan.Doors, system.Door{Service: d.Service.Name, Offset: offset})
	}
	if plan.Named() { // last of the doors, so that no service's depends on it
		if old != nil {
			plan.Names = old.Names
		}
		if plan.Names == 0 {
			plan.Names = free(1)
		}
	}
	for i := range plan.Services {
		for j := range plan.Services[i].Assignments {
			if a := &plan.Services[i].Assignments[j]; a.Port == 0 {
				a.Port = free(instancePort)
			}
		}
	}
}
