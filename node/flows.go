package node

import (
	"strings"

	"servent/driver"
	"servent/driver/inside"
	"servent/flow"
	"servent/system"
)

// startFlow opens the orchestrator of an instance. It reaches other services by the doors of its node, as programs do.
func (n *Node) startFlow(spec driver.Spec, data string) (*inside.Program, error) {
	name, _, err := spec.Instance.Split()
	if err != nil {
		return nil, err
	}
	svc, err := n.stores.service(name)
	if err != nil {
		return nil, err
	}
	doors := map[string]string{}
	for _, kv := range spec.Env {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasSuffix(k, "_URL") {
			doors[k] = v
		}
	}
	f, err := flow.Open(flow.Options{Steps: svc.Flow, Dir: data, Log: n.log.With("instance", spec.Instance),
		URL: func(to system.ServiceName) string { return doors[to.EnvName()+"_URL"] }})
	if err != nil {
		return nil, err
	}
	return &inside.Program{Handler: f, Run: f.Run, Close: f.Close}, nil
}
