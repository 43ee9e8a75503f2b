package sysfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/architecture"
	"servent/system"
	"servent/system/sysfile/schema"
)

// notes names every key that is accepted and not acted on, where it stands.
func (f *file) notes(s *system.System) {
	roots, _ := spots(f.main, nil)
	for _, at := range roots {
		f.noteKeys(at.src, at.val, nil, "", 0)
	}
	for i := range s.Services {
		one := &s.Services[i]
		at := path{"services", string(one.Name)}
		found, _ := spots(f.main, at)
		for _, sp := range found {
			f.noteKeys(sp.src, sp.val, at, "services.*", 0)
		}
		f.noteVolumes(one.Name)
		f.noteIdle(one)
	}
}

// noteIf notes a key where it is said.
func (f *file) noteIf(at path, why string) {
	if f.exact(at) {
		f.found.note(f.keyPos(at), at, "%s", why)
	}
}

// noteKeys goes through what one file has at a path, which compose.json knows as above.
func (f *file) noteKeys(src *source, n *yaml.Node, at path, above string, depth int) {
	if n = follow(n); n == nil || depth > 32 {
		return
	}
	if _, each, known := schema.Treat(above, "*"); n.Kind == yaml.SequenceNode && known && each.Note+each.Refused == "" {
		for i, one := range n.Content {
			f.noteKeys(src, one, at.item(i), above+".*", depth+1)
		}
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if isMerge(k) {
			for _, m := range mergedFrom(v) {
				f.noteKeys(src, m, at, above, depth+1)
			}
			continue
		}
		as, t, known := schema.Treat(above, k.Value)
		here := at.key(k.Value)
		won, _ := spots(f.main, here)
		switch {
		case won[len(won)-1].val.Tag == "!reset", as == "services", as == "services.*.deploy.mode" && v.Value == "replicated":
		case t.Note != "":
			if why := f.why(here, t); why != "" {
				f.found.note(src.pos(k), here, "not acted on: %s", why)
			}
		case known && t.Refused == "":
			f.noteKeys(src, v, here, as, depth+1)
		}
	}
}

// why says why a key is not acted on where it stands; empty: it is. What a process has no use for may be
// right for a container.
func (f *file) why(at path, t schema.Treatment) string {
	if len(at) < 3 || at[0] != "services" || !f.contains(at[1]) {
		return t.Note
	}
	for _, about := range []string{"it is for containers", "there is no container", "a process ", "only the user "} {
		if t.Image == "" && strings.HasPrefix(t.Note, about) {
			return "not built for containers yet"
		}
	}
	if t.Image != "" {
		return ""
	}
	return t.Note
}

// contains says that a service is a container image.
func (f *file) contains(service string) bool {
	s := f.project.Services[service]
	if s.Image == "" && s.Build == nil {
		return false
	}
	x := value{f, path{"services", service, "x-servent"}, s.Extensions["x-servent"]}
	return !slices.ContainsFunc(kinds, func(kind string) bool { return x.key(kind).given() })
}

// noteVolumes names the volumes that are not kept, and those that a program may write all the same.
func (f *file) noteVolumes(service system.ServiceName) {
	for i, v := range f.project.Services[string(service)].Volumes {
		at := path{"services", string(service), "volumes"}.item(i)
		switch {
		case f.contains(string(service)) && (v.Type == "tmpfs" || v.Type == "volume" || v.Type == "bind"):
		case v.Type != "volume" && v.Type != "bind":
			f.found.note(f.pos(at), at, "not acted on: a volume of type %s", v.Type)
		case v.ReadOnly && !f.exact(at.key("read_only")):
			f.found.note(f.pos(at), at, "read-only is not acted on: %s", schema.Treatments()["services.*.volumes.*.read_only"].Note)
		}
	}
}

// noteIdle names the keys of x-servent that an architecture or a kind of software has no use for, and
// that another has: they may stay while the architecture is changed to and fro.
func (f *file) noteIdle(s *system.Service) {
	x := path{"services", string(s.Name), "x-servent"}
	if row, _ := architecture.Of(s.Architecture); row.Key != architecture.Must {
		why := "not acted on: " + string(s.Architecture) + " sends no request by its key"
		for _, at := range []path{x.key("key"), x.key("nokey"), x.key("data", "export"), x.key("data", "import")} {
			f.noteIf(at, why)
		}
		f.noteIf(x.key("idempotent"), "not acted on: "+string(s.Architecture)+" repeats requests by their method (RFC 9110 §9.2.2)")
	} else if row.Way != architecture.ToOwner {
		for _, at := range []path{x.key("data", "export"), x.key("data", "import")} {
			f.noteIf(at, "not acted on under "+string(s.Architecture)+" yet: a key that gets another owner begins empty there")
		}
	}
	switch s.Software.Kind {
	case system.Image:
	case system.Process:
		f.noteIf(x.key("egress"), "not acted on: a process reaches what its node does; run it from an image to bound it")
	default:
		f.noteIf(x.key("egress"), "not acted on: it is for images")
	}
	if s.Software.Kind == system.Wasm || s.Architecture == system.Function {
		return
	}
	for _, key := range []string{"output", "concurrency", "timeout"} {
		if key != "timeout" || s.Software.Kind != system.Origin {
			f.noteIf(x.key("limits", key), "not acted on: it bounds one call, which only a function and a wasm module know")
		}
	}
}
