package agent

import (
	"net"
	"slices"
	"strconv"

	"servent/driver"
	"servent/system"
)

// What an instance in a container calls what is around it.
const (
	nodeName = "node.internal" // the node, for doors that lead to one instance
	dataDir  = "/servent/data"
)

// contain makes a place that of an instance in a container: nothing of the machine's environment, and paths as
// the instance sees them.
func (at *Place) contain(made furnished) {
	at.Inside, at.Base, at.Host = true, nil, nodeName
	at.Dir, at.Data, at.Temp, at.Bundle = "/", dataDir, "/tmp", ""
	at.Mounts = made.inside
}

// enclose makes the place that of a virtual machine: it finds the doors of its node at one address of its own network.
func (at *Place) enclose() {
	at.Base, at.Host, at.Enclosed = nil, driver.Gate, true
	at.Dir, at.Data, at.Temp, at.Bundle, at.Mounts = "", "", "", "", nil
}

// Ways are the doors of this node that an instance in a container or a virtual machine is given: every service by its name, at its
// own ports and at its door's, and the doors to its peers. host is where they are on the node.
func Ways(plan *system.Plan, as *system.Assignment, service *system.Service, at Place, host string) []driver.Way {
	var all []driver.Way
	add := func(name string, port, offset int) {
		all = append(all, driver.Way{Name: name, Port: port, To: net.JoinHostPort(host, strconv.Itoa(at.PortBase+offset))})
	}
	for _, d := range plan.Doors {
		other := plan.Deployment(d.Service)
		if other == nil {
			continue
		}
		for _, port := range append(portsOf(&other.Service), at.PortBase+d.Offset) {
			add(string(d.Service), port, d.Offset)
		}
	}
	offsets := []int{as.Port, as.Port + 1}
	if d := plan.Deployment(service.Name); d != nil {
		for _, a := range d.Assignments {
			offsets = append(offsets, a.Port)
		}
	}
	slices.Sort(offsets)
	for _, offset := range slices.Compact(offsets) {
		add(nodeName, at.PortBase+offset, offset)
	}
	return all
}

// Calls are the doors that a WebAssembly module may call: of the services that its own names in depends_on, if they are switched by request.
func Calls(plan *system.Plan, service *system.Service, at Place) []driver.Way {
	var all []driver.Way
	for _, d := range plan.Doors {
		other := plan.Deployment(d.Service)
		named := slices.ContainsFunc(service.DependsOn, func(on system.Dependency) bool { return on.Service == d.Service })
		if !named || other == nil || other.Service.Switch.By != system.ByRequest {
			continue
		}
		way := driver.Way{Name: string(d.Service), Port: 80, To: net.JoinHostPort(at.Host, strconv.Itoa(at.PortBase+d.Offset))}
		if other.Service.Software.Kind == system.Builtin {
			way.Builtin = other.Service.Software.From
		}
		all = append(all, way)
	}
	return all
}

// portsOf are the ports by which others know a service: those it names, and what its protocol has.
func portsOf(s *system.Service) []int {
	var ports []int
	if c := s.Software.Container; c != nil {
		ports = append(ports, c.Ports...)
	}
	for _, p := range s.Ports {
		ports = append(ports, p.Target)
	}
	if s.Switch.By == system.ByRequest {
		ports = append(ports, 80)
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	return slices.DeleteFunc(ports, func(p int) bool { return p < 1 || p > 65535 })
}
