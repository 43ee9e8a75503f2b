package node

import (
	"servent/driver"
	"servent/driver/inside"
	"servent/driver/process"
	"servent/system"
)

// drivers lists the engines of a node: the one place that knows them all.
func (n *Node) drivers() map[system.SoftwareKind]driver.Driver {
	return map[system.SoftwareKind]driver.Driver{
		system.Process: n.process,
		system.Files:   inside.Files(),
		system.Origin:  inside.Origin(),
	}
}

// Doctored lists the engines to be probed on a machine that runs no node.
func Doctored() []driver.Driver {
	return []driver.Driver{process.New(process.Options{}), inside.Files(), inside.Origin()}
}
