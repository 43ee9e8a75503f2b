package sysfile

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system"
)

// acted are the keys of a service that say something to Servent.
var acted = []string{
	"build", "configs", "cpus", "depends_on", "deploy", "env_file", "environment", "extends", "healthcheck", "image",
	"label_file", "labels", "mem_limit", "mem_reservation", "pids_limit", "ports", "profiles", "restart", "scale",
	"secrets", "stop_grace_period", "stop_signal", "ulimits", "volumes", "x-servent",
}

// ignored says in plain words why a key is not acted on. Dotted keys stand below acted ones.
var ignored = map[string]string{
	"annotations":                           "there is no container to annotate",
	"attach":                                "servent up shows the output of every service",
	"cap_add":                               "a process has the rights of the user who starts it",
	"cap_drop":                              "a process has the rights of the user who starts it",
	"command":                               "x-servent says what runs",
	"container_name":                        "instances are named SERVICE/NUMBER",
	"devices":                               "a process sees the devices of its node",
	"dns":                                   "a process uses its node's resolver",
	"dns_search":                            "a process uses its node's resolver",
	"entrypoint":                            "x-servent says what runs",
	"expose":                                "every service has a door on every node",
	"external_links":                        "services find each other by <NAME>_URL",
	"extra_hosts":                           "services find each other by <NAME>_URL",
	"hostname":                              "a process has its node's name",
	"init":                                  "the node looks after every process group",
	"links":                                 "services find each other by <NAME>_URL; only the order of starting is kept",
	"logging":                               "output is kept by the node: servent logs",
	"network_mode":                          "services reach each other by their doors",
	"networks":                              "services reach each other by their doors, and all can",
	"platform":                              "a process runs on its node's platform",
	"post_start":                            "hooks are not run",
	"pre_start":                             "hooks are not run",
	"pre_stop":                              "hooks are not run",
	"privileged":                            "a process has the rights of the user who starts it",
	"provider":                              "providers are not called",
	"read_only":                             "a process sees its node's files; its own folder is writable",
	"stdin_open":                            "a process has no terminal",
	"sysctls":                               "a process runs under its node's kernel",
	"tmpfs":                                 "an instance has a private TMPDIR",
	"tty":                                   "a process has no terminal",
	"user":                                  "a process runs as the user who starts it",
	"working_dir":                           "an instance starts in its private folder",
	"deploy.mode":                           "x-servent.architecture says where instances go",
	"deploy.endpoint_mode":                  "x-servent.switch says how requests are spread",
	"deploy.labels":                         "labels of the service itself are used",
	"deploy.rollback_config":                "a rollback goes as an update does",
	"deploy.resources.reservations.devices": "devices are not counted",
	"deploy.resources.reservations.generic_resources": "only memory and cpus are counted",
	"deploy.restart_policy.window":                    "an instance counts as started after 10s",
	"deploy.update_config.max_failure_ratio":          "the first failure counts",
	"healthcheck.start_interval":                      "a starting instance is tried as often as it can be",
}

// ignoredAtTop are the sections that are not acted on.
var ignoredAtTop = map[string]string{
	"version":  "Compose has no versions any more",
	"networks": ignored["networks"],
	"jobs":     "jobs are not run",
	"models":   "models are not run",
}

// notes names every key that is accepted and not acted on, where it stands.
func (f *file) notes(s *system.System) {
	roots, _ := spots(f.main, nil)
	for _, at := range roots {
		for _, key := range slices.Sorted(maps.Keys(ignoredAtTop)) {
			if k, v := lookup(at.val, key, 0); k != nil && v.Tag != "!reset" {
				f.found.note(at.src.pos(k), path{key}, "not acted on: %s", ignoredAtTop[key])
			}
		}
	}
	for i := range s.Services {
		one := &s.Services[i]
		at := path{"services", string(one.Name)}
		if one.Software.Kind == system.Image || one.Software.Kind == system.Build {
			continue // all of it is for the containers to come
		}
		found, _ := spots(f.main, at)
		for _, sp := range found {
			f.noteKeys(sp.src, sp.val, at, 0)
		}
		f.noteVolumes(string(one.Name))
	}
	if c := (path{"x-servent", "compare"}); f.exact(c) {
		f.found.note(f.keyPos(c), c, "kept for servent compare; servent up does not read it")
	}
}

// noteKeys goes through the keys of a service as one file has them.
func (f *file) noteKeys(src *source, n *yaml.Node, at path, depth int) {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode || depth > 32 {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if isMerge(k) {
			for _, m := range mergedFrom(v) {
				f.noteKeys(src, m, at, depth+1)
			}
			continue
		}
		here := at.key(k.Value)
		key := strings.Join(here[2:], ".")
		why, named := ignored[key]
		won, _ := spots(f.main, here)
		switch {
		case won[len(won)-1].val.Tag == "!reset", strings.HasPrefix(k.Value, "x-"):
		case key == "deploy.mode" && v.Value == "replicated":
		case named:
			f.found.note(src.pos(k), here, "not acted on: %s", why)
		case len(at) == 2 && !slices.Contains(acted, key):
			f.found.note(src.pos(k), here, "not acted on: it is for containers")
		case len(at) == 3 && at[2] == "ulimits" && k.Value != "nofile":
			f.found.note(src.pos(k), here, "not acted on: only nofile is")
		case len(at) > 2 || key == "deploy" || key == "healthcheck" || key == "ulimits":
			f.noteKeys(src, v, here, depth+1)
		}
	}
}

// noteVolumes names the volumes that are not kept, and settings of volumes that nobody reads.
func (f *file) noteVolumes(service string) {
	for i, v := range f.project.Services[service].Volumes {
		at := path{"services", service, "volumes"}.item(i)
		switch v.Type {
		case "volume":
			if def, ok := f.project.Volumes[v.Source]; ok && (def.Driver != "" || len(def.DriverOpts) > 0) {
				p := path{"volumes", v.Source}
				f.found.note(f.keyPos(p), p, "driver and driver_opts are not acted on: a volume is a folder on the node that holds it")
			}
		case "bind":
		default:
			f.found.note(f.pos(at), at, "not acted on: a volume of type %s", v.Type)
		}
	}
}
