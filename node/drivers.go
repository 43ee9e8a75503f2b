package node

import (
	"os"
	"path/filepath"

	"servent/driver"
	"servent/driver/container"
	"servent/driver/inside"
	"servent/driver/process"
	"servent/driver/vm"
	"servent/driver/wasm"
	"servent/system"
)

// drivers lists the engines of a node: the one place that knows them all.
func (n *Node) drivers() map[system.SoftwareKind]driver.Driver {
	return map[system.SoftwareKind]driver.Driver{
		system.Process: n.process,
		system.Files:   inside.Files(),
		system.Origin:  inside.Origin(),
		system.Wasm:    wasm.New(wasm.Options{Cache: filepath.Join(n.boot.Blobs, "compiled")}),
		system.VM:      n.machines(),
		system.Image:   n.container,
		system.Builtin: inside.Builtin(map[string]inside.Open{"kv": n.stores.start, "flow": n.startFlow}),
	}
}

// machines is the engine of virtual machines, whose processes are kept as all others.
func (n *Node) machines() driver.Driver {
	o := vm.Options{Process: n.process, Templates: filepath.Join(n.boot.Blobs, "machines"), Log: n.log}
	if exe, err := os.Executable(); err == nil && n.opt.ConnectVerb != "" {
		o.Self = []string{exe, n.opt.ConnectVerb}
	}
	return vm.New(o)
}

// Doctored lists the engines to be probed on a machine that runs no node.
func Doctored() []driver.Driver {
	return []driver.Driver{process.New(process.Options{}), inside.Files(), inside.Origin(), wasm.New(wasm.Options{}),
		container.New(container.Options{}), vm.New(vm.Options{}), inside.Builtin(nil)}
}
