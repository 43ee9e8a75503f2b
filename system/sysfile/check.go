package sysfile

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"servent/architecture"
	"servent/system"
	"servent/system/notation"
)

// built says which software runs today.
var built = []system.SoftwareKind{system.Process, system.Files, system.Origin, system.Wasm, system.VM, system.Image, system.Builtin}

// kv and flow are the built-ins that run today; kvKey is where kv's keys stand.
const (
	kv    = "kv"
	flow  = "flow"
	kvKey = "/kv/{key}"
)

// isFlow says that a service is the built-in orchestrator.
func isFlow(s *system.Service) bool {
	return s.Software.Kind == system.Builtin && s.Software.From == flow
}

// isKV says that a service is the built-in key-value database.
func isKV(s *system.Service) bool { return s.Software.Kind == system.Builtin && s.Software.From == kv }

// checker holds what all checks of one service need.
type checker struct {
	*file
	s   *system.Service
	all *system.System
	at  path // of the service
	row architecture.Row
}

// x is a path under the service's x-servent.
func (c checker) x(keys ...string) path { return c.at.key("x-servent").key(keys...) }

// bad reports a mistake at a path, or at the nearest key above it.
func (c checker) bad(at path, format string, args ...any) {
	if !c.found.faulty(at) {
		c.found.problem(c.pos(at), at, format, args...)
	}
}

// unbuilt reports what is right and cannot be run yet.
func (c checker) unbuilt(at path, format string, args ...any) {
	if !c.o.AllowUnbuilt {
		c.found.problem(c.pos(at), at, format, args...)
	}
}

// check finds contradictions within one service.
func (f *file) check(s *system.Service, all *system.System) {
	c := checker{file: f, s: s, all: all, at: path{"services", string(s.Name)}}
	c.software()
	c.dependencies()
	c.declared()
	c.data()
	if c.found.faulty(c.x("architecture")) {
		return
	}
	row, ok := architecture.Of(s.Architecture)
	if !ok { // the schema lists the table, so only a merged oddity comes here
		c.bad(c.x("architecture"), "want one of %s, have %q", strings.Join(architecture.Words(false), ", "), s.Architecture)
		return
	}
	c.row = row
	c.keys()
	c.counts()
	c.switching()
	c.suits()
	if !row.Built {
		c.unbuilt(c.x("architecture"), "%s", row.Unbuilt())
	}
}

func (c checker) software() {
	k := c.s.Software.Kind
	switch {
	case k == system.Builtin && c.s.Software.From != kv && c.s.Software.From != flow:
		if at := c.x(string(k)); !c.found.faulty(at) {
			c.unbuilt(at, "%q is not built yet; these are: %s, %s", c.s.Software.From, kv, flow)
		}
	case k == "" || slices.Contains(built, k):
	default:
		c.unbuilt(c.x(string(k)), "%q is not built yet; runs today: %s", k, words(built))
	}
	c.contained()
	c.machine()
	c.flow()
	c.triggers()
	if c.s.Limits.Fuel > 0 && k != system.Wasm {
		c.bad(c.x("limits", "fuel"), "fuel counts WebAssembly instructions; the service is of the kind %s", k)
	}
	if h := c.x("health"); c.s.Health.HTTP != "" && c.s.Health.TCP {
		c.bad(h.key("tcp"), "want http or tcp, have both")
	} else if p := c.s.Switch.Proxy; c.s.Health.HTTP != "" && p != "" && p != "none" {
		c.bad(h.key("http"), "a check by HTTP does not begin with the header of switch.proxy; want tcp: true")
	}
	if near := c.s.Near; near != "" && near != "clients" && (c.all.Service(system.ServiceName(near)) == nil || near == string(c.s.Name)) {
		c.bad(c.x("near"), "want clients or another service, have %q%s", near, notation.Suggest(near, append(c.others(), "clients")))
	}
}

// machine checks what a virtual machine is made of.
func (c checker) machine() {
	m, at := c.s.Software.Machine, c.x("vm")
	if m == nil || c.found.faulty(at) {
		return
	}
	if m.Disk == "" && m.Kernel == "" {
		c.bad(at, "want a disk or a kernel, have neither")
	}
	if m.Kernel == "" && (m.Initrd != "" || m.Append != "") {
		c.bad(at, "initrd and append go with a kernel; there is none")
	}
	for key, file := range map[string]string{"disk": m.Disk, "kernel": m.Kernel, "initrd": m.Initrd, "user-data": m.UserData} {
		if file != "" && !filepath.IsLocal(filepath.FromSlash(file)) {
			where := at
			if c.exact(at.key(key)) {
				where = at.key(key)
			}
			c.bad(where, "want a file inside the folder of the file, have %s", file)
		}
	}
	if len(c.s.Volumes) > 0 {
		c.bad(c.at.key("volumes"), "a virtual machine sees no folder of its node; data: hard keeps its disk")
	}
	if m.Warm && m.Disk != "" && c.s.Tied() {
		c.bad(at, "want warm: false with hard data: what starts from a saved state begins with that state's disk")
	}
}

func words[T ~string](all []T) string {
	text := make([]string, len(all))
	for i, w := range all {
		text[i] = string(w)
	}
	return strings.Join(text, ", ")
}

// others are the names of all other services.
func (c checker) others() []string {
	var all []string
	for _, s := range c.all.Services {
		if s.Name != c.s.Name {
			all = append(all, string(s.Name))
		}
	}
	return all
}

func unknownService(name string, s *system.System) string {
	var known []string
	for _, one := range s.Services {
		known = append(known, string(one.Name))
	}
	return fmt.Sprintf("no service %q%s", name, notation.Suggest(name, known))
}

// dependencies checks that each service waited for exists.
func (c checker) dependencies() {
	for _, d := range c.s.DependsOn {
		at := c.at.key("depends_on", string(d.Service))
		_, off := c.project.DisabledServices[string(d.Service)]
		_, job := c.project.Jobs[string(d.Service)]
		switch {
		case c.all.Service(d.Service) != nil, c.found.faulty(path{"services", string(d.Service)}):
		case off:
			c.bad(at, "service %q is off: none of its profiles is on; say required: false when it may be missing", d.Service)
		case job:
			c.bad(at, "want a service, have the job %q; jobs are not run", d.Service)
		default:
			c.bad(at, "%s", unknownService(string(d.Service), c.all))
		}
	}
}

// declared checks that every network and named volume stands at the top of the file.
func (c checker) declared() {
	compose := c.project.Services[string(c.s.Name)]
	for i, v := range compose.Volumes {
		if _, ok := c.project.Volumes[v.Source]; v.Type == "volume" && v.Source != "" && !ok && !c.found.faulty(path{"volumes", v.Source}) {
			c.bad(c.at.key("volumes").item(i), "no volume %q at the top of the file%s", v.Source, undeclared("volumes", v.Source, c.project.VolumeNames()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(compose.Networks)) {
		if _, ok := c.project.Networks[name]; !ok && !c.found.faulty(path{"networks", name}) {
			c.bad(c.at.key("networks", name), "no network %q at the top of the file%s", name, undeclared("networks", name, c.project.NetworkNames()))
		}
	}
}

// undeclared is what to do about a name that a section at the top of the file does not have.
func undeclared(section, name string, known []string) string {
	body := map[string]string{"configs": "{file: …}", "secrets": "{file: …}"}[section]
	return cmp.Or(notation.Suggest(name, known), fmt.Sprintf("; declare it there: %s: {%s: %s}", section, name, cmp.Or(body, "{}")))
}

// data checks the kind of data against volumes and keys.
func (c checker) data() {
	at := c.x("data")
	if keeps := c.s.Tied(); keeps && c.s.Data.Kind != system.DataHard {
		if c.exact(at.key("kind")) {
			at = at.key("kind")
		}
		c.bad(at, "want hard, because the service has a volume; have %s", c.s.Data.Kind)
	}
	if d := c.s.Data; (d.Export != "") != (d.Import != "") && !c.found.faulty(at) {
		c.bad(at, "want export and import, have one of them: a key that is read must be written somewhere")
	} else if d.Export != "" && c.s.Key == "" {
		c.bad(at.key("export"), "export and import move keys; the service has no key")
	}
}

// keys checks key and copies against the architecture's row.
func (c checker) keys() {
	s, key := c.s, c.x("key")
	switch {
	case c.row.Key == architecture.Must && s.Key == "":
		if !c.found.faulty(key) {
			c.found.problem(c.pos(c.x("architecture")), key, "%s needs a key, like /carts/{key}/* or header:X-User", s.Architecture)
		}
	case c.row.Key == architecture.Never && s.Key != "":
		c.bad(key, "%s takes no key", s.Architecture)
	}
	if s.NoKey != "" && s.Key == "" {
		c.bad(c.x("nokey"), "says what becomes of requests without key; the service has no key")
	}
	if s.Copies > 0 && c.row.Copies == architecture.Never {
		c.bad(c.x("copies"), "%s keeps no copies of keys; these do: %s", s.Architecture, words(withCopies()))
	} else if s.Copies > 1 && !s.Idempotent && s.Software.Kind != system.Builtin {
		c.bad(c.x("copies"), "copies of a program's keys need idempotent: true, because a write is repeated to every copy")
	} else if s.Copies > 1 && s.Software.Kind != system.Builtin {
		c.unbuilt(c.x("copies"), "copies of a program's keys are not built yet; leave copies out: each key has one owner")
	} else if s.Copies > 1 && s.Architecture != system.Partitioned {
		c.unbuilt(c.x("copies"), "copies under %s are not built yet; partitioned keeps some", s.Architecture)
	} else if n := architecture.Count(s, s.Copies); s.Copies > n {
		c.bad(c.x("copies"), "want at most as many copies as instances, %d; have %d", n, s.Copies)
	}
	if s.Copies > 1 && isKV(s) && s.Data.Kind != system.DataHard && !c.found.faulty(c.x("copies")) {
		c.bad(c.x("data"), "copies are kept on disks: want hard, have %s", s.Data.Kind)
	}
	for _, rule := range []string{"read", "write"} {
		switch at := c.x(rule); {
		case !c.exact(at):
		case !isKV(s):
			c.bad(at, "read and write rules are of builtin: kv; the service is of the kind %s", s.Software.Kind)
		case c.row.Copies == architecture.Never:
			c.bad(at, "%s keeps no copies of keys; these do: %s", s.Architecture, words(withCopies()))
		}
	}
	if at := c.x("cas"); s.CAS {
		switch {
		case !isKV(s):
			c.bad(at, "compare-and-set is of builtin: kv; the service is of the kind %s", s.Software.Kind)
		case s.Architecture == system.Single && !s.Tied():
			c.bad(at, "compare-and-set needs data: hard; with %s data two instances may run for a moment", s.Data.Kind)
		case s.Architecture != system.Single && s.Architecture != system.Partitioned:
			c.bad(at, "nobody orders the writes of a key under %s; compare-and-set needs partitioned or single", s.Architecture)
		case s.Data.Kind != system.DataHard && s.Architecture == system.Partitioned:
			c.bad(at, "compare-and-set needs data: hard; what a store promised must outlive it")
		}
	}
	if s.Software.Kind != system.Builtin && !slices.Contains(c.row.Data, s.Data.Kind) {
		at := c.x("data")
		if c.exact(at.key("kind")) {
			at = at.key("kind")
		}
		if !c.exact(at) {
			at = c.at.key("volumes")
		}
		c.bad(at, "%s keeps no %s data; want one of %s", s.Architecture, s.Data.Kind, words(c.row.Data))
	}
	if s.Topology != "" && s.Architecture != system.Unstructured {
		c.bad(c.x("topology"), "topology is of an unstructured overlay; the architecture is %s", s.Architecture)
	}
}

func withCopies() []system.Architecture {
	var all []system.Architecture
	for _, r := range architecture.Table {
		if r.Copies != architecture.Never {
			all = append(all, r.Word)
		}
	}
	return all
}

// counts checks replicas and scale against the architecture's row.
func (c checker) counts() {
	s, sc := c.s, c.x("scale")
	at := c.replicasAt(string(s.Name))
	if s.Scale.Max > 0 && s.Scale.Min > s.Scale.Max {
		c.bad(sc.key("min"), "want at most max, %d; have %d", s.Scale.Max, s.Scale.Min)
	}
	switch c.row.Where {
	case architecture.OneNode:
		if s.Replicas > 1 {
			c.bad(at, "%s has one instance, have %d replicas; for more say architecture: replicated", s.Architecture, s.Replicas)
		}
		if s.Scale.Min > 1 || s.Scale.Max > 1 {
			c.bad(sc, "%s has one instance; for more say architecture: replicated", s.Architecture)
		}
	case architecture.SomeNodes:
		if c.exact(sc.key("min")) && s.Scale.Min == 0 {
			c.bad(sc.key("min"), "%s wants at least 1; only function goes down to 0", s.Architecture)
		}
		if s.Replicas > 0 && (s.Replicas < s.Scale.Min || s.Scale.Max > 0 && s.Replicas > s.Scale.Max) {
			c.bad(at, "want replicas within scale, %s; have %d", s.Scale.Bounds(), s.Replicas)
		}
	case architecture.EveryNode:
		if s.Replicas > 0 {
			c.bad(at, "%s has an instance on every eligible node; leave replicas out", s.Architecture)
		}
		if c.exact(sc) {
			c.bad(sc, "%s has an instance on every eligible node; leave scale out", s.Architecture)
		}
	case architecture.WhenCalled:
		if s.Replicas > 0 {
			c.bad(at, "%s has as many instances as calls need; leave replicas out, scale.max bounds them", s.Architecture)
		}
	}
	called := c.row.Where == architecture.WhenCalled
	grows := c.row.Where == architecture.SomeNodes && (s.Scale.Inflight > 0 || s.Scale.CPU > 0 || s.Scale.Latency > 0)
	if idle := sc.key("idle"); c.exact(idle) {
		switch {
		case !called && !grows:
			c.bad(idle, "%s keeps its instances, called or not, without scale.inflight, scale.cpu or scale.latency; only function lets them go", s.Architecture)
		case s.Scale.Idle < time.Second:
			c.bad(idle, "want at least 1s, have %s", s.Scale.Idle)
		}
	}
	if warm := sc.key("warm"); c.exact(warm) {
		switch {
		case !called:
			c.bad(warm, "%s has its instances before it is called; leave warm out", s.Architecture)
		case s.Scale.Min > 0:
			c.bad(warm, "with scale.min %d one is always warm; leave one of them out", s.Scale.Min)
		case s.Scale.Warm <= cmp.Or(s.Scale.Idle, architecture.CallsIdle) || s.Scale.Warm > 12*time.Hour:
			c.bad(warm, "want more than scale.idle, %s, and at most 12h; have %s", cmp.Or(s.Scale.Idle, architecture.CallsIdle), s.Scale.Warm)
		}
	}
	inflight := sc.key("inflight")
	switch {
	case !grows || called || s.Scale.Inflight == 0:
	case s.Architecture != system.Replicated:
		c.unbuilt(inflight, "%s is not scaled by a goal yet; replicated is, and function", s.Architecture)
	case s.Scale.Max <= architecture.Count(s, 0):
		c.bad(inflight, "want scale.max above %d, the number at least: there is no room for the goal", architecture.Count(s, 0))
	case s.Switch.By != system.ByRequest:
		c.bad(inflight, "requests are counted where they are switched: want switch.by: request")
	}
	if s.Scale.Inflight > 0 && c.row.Where == architecture.OneNode {
		c.bad(inflight, "%s has one instance; for more say architecture: replicated", s.Architecture)
	}
	if p := sc.key("latency"); c.exact(p) {
		switch {
		case s.Architecture != system.Replicated:
			c.unbuilt(p, "%s is not scaled by latency yet; replicated is", s.Architecture)
		case s.Scale.Max <= architecture.Count(s, 0):
			c.bad(p, "want scale.max above %d, the number at least: there is no room for the goal", architecture.Count(s, 0))
		case s.Switch.By != system.ByRequest:
			c.bad(p, "answers are timed where requests are switched: want switch.by: request")
		case s.Scale.Latency < time.Millisecond:
			c.bad(p, "want at least 1ms, have %s", s.Scale.Latency)
		}
	}
	if p := sc.key("cpu"); c.exact(p) {
		switch k := s.Software.Kind; {
		case k != system.Process && k != system.Image && k != system.VM:
			c.bad(p, "what a %s uses is its node's; processor time is a goal for a process, an image and a vm", k)
		case s.Architecture != system.Replicated:
			c.unbuilt(p, "%s is not scaled by processor time yet; replicated is", s.Architecture)
		case s.Scale.Max <= architecture.Count(s, 0):
			c.bad(p, "want scale.max above %d, the number at least: there is no room for the goal", architecture.Count(s, 0))
		case s.Scale.CPU <= 0:
			c.bad(p, "want more than 0")
		}
	}
}

// switching checks the layer at which requests are switched, and what stands on it.
func (c checker) switching() {
	s, sw := c.s, c.x("switch")
	by := sw.key("by")
	if !slices.Contains(c.row.By, s.Switch.By) {
		c.bad(by, "%s is switched by %s, have %s", s.Architecture, strings.ReplaceAll(words(c.row.By), ", ", " or "), s.Switch.By)
	}
	if s.Switch.By != system.ByRequest {
		if len(s.Routes) > 0 {
			c.bad(c.x("route"), "a route is of requests, and the service is switched by %s", s.Switch.By)
		}
		if s.Key != "" && s.Key != notation.Source {
			c.bad(c.x("key"), "a service that is switched by %s has only the key source, have %q", s.Switch.By, s.Key)
		}
		if s.Switch.Sticky == "cookie" {
			c.bad(sw.key("sticky"), "a cookie is of requests, and the service is switched by %s", s.Switch.By)
		}
	}
	if s.Switch.Sticky == "key" && s.Key == "" {
		c.bad(sw.key("sticky"), "the service has no key to stick to")
	}
	if s.Switch.Proxy != "" && s.Switch.Proxy != "none" && s.Switch.By != system.ByConnection {
		c.bad(sw.key("proxy"), "it is said once for a connection, and this service is switched by %s; by request the client stands in X-Forwarded-For", s.Switch.By)
	}
	c.named(sw)
	if t := s.Switch.Sticky; t != "" && t != "none" && c.row.Key == architecture.Must {
		c.bad(sw.key("sticky"), "under %s the owner of a request's key answers; want none, have %s", s.Architecture, t)
	}
	if s.Switch.Model == "fsm" && s.Switch.By != "" && s.Switch.By != system.ByRequest {
		c.unbuilt(sw.key("model"), "fsm where the service is switched by %s is not built yet; threads and one are, and fsm by request", s.Switch.By)
	}
}

// named checks what is said of switching by name.
func (c checker) named(sw path) {
	s, ttl := c.s, sw.key("ttl")
	if s.Switch.By != system.ByName {
		if c.exact(ttl) {
			c.bad(ttl, "a lifetime is of names, and the service is switched by %s; want switch.by: name", s.Switch.By)
		}
		return
	}
	if err := notation.Label(string(s.Name)); err != nil {
		c.bad(sw.key("by"), "clients look for a service by its name: %s", err)
	}
	if err := notation.Label(c.all.Name); err != nil && !c.found.faulty(path{"name"}) {
		c.bad(sw.key("by"), "the system's name is that of the zone, NAME.internal: %s", err)
	}
	switch s.Switch.Policy {
	case "p2c", "leastconn":
		c.bad(sw.key("policy"), "a name server sees no connections, so it cannot go by how many there are; want one of weighted, roundrobin, random, nearest, hash, maglev, have %s", s.Switch.Policy)
	}
	if t := s.Switch.TTL; t%time.Second != 0 || t > mostTTL {
		c.bad(ttl, "want whole seconds up to %s, as the DNS has them, have %s", mostTTL, t)
	}
}

// mostTTL is the longest lifetime of an answer. Beyond it a client would hear of nothing for longer than anyone waits.
const mostTTL = time.Hour

// suits checks software and cache against what the architecture does.
func (c checker) suits() {
	k := c.s.Software.Kind
	if k != "" {
		switch c.s.Architecture {
		case system.Swarm:
			if k != system.Files {
				c.bad(c.x("architecture"), "swarm distributes files, have %s", k)
			}
		case system.Function:
			if k == system.Files || k == system.Origin || k == system.VM || k == system.Builtin {
				c.bad(c.x("architecture"), "function starts a program when it is called, have %s", k)
			}
		case system.Partitioned, system.Ring, system.Chord, system.Pastry, system.Kademlia, system.Unstructured, system.Superpeer:
			if k == system.Files || k == system.Origin {
				c.bad(c.x("architecture"), "%s divides the keys of a program, have %s", c.s.Architecture, k)
			}
		}
	}
	if c.s.Cache != nil && c.s.Architecture != system.Edge {
		c.bad(c.x("cache"), "the cache is of an edge service; the architecture is %s", c.s.Architecture)
	}
}

// together finds contradictions between services.
func (f *file) together(s *system.System) {
	f.cycles(s)
	f.published(s)
	f.secured(s)
	routes, vars := map[[2]string]system.Service{}, map[string]system.ServiceName{}
	for _, one := range s.Services {
		for i, r := range one.Routes {
			at := path{"services", string(one.Name), "x-servent", "route"}
			if len(one.Routes) > 1 {
				at = at.item(i)
			}
			if first, ok := routes[[2]string{r.Host, r.Path}]; ok {
				f.found.problem(r.Pos, at, "%s%s is also a route of %s", r.Host, r.Path, first.Name)
			}
			routes[[2]string{r.Host, r.Path}] = one
		}
		if first, ok := vars[one.Name.EnvName()]; ok {
			f.found.problem(one.Pos, path{"services", string(one.Name)}, "its variables %s_… are also those of %s; give it another name", one.Name.EnvName(), first)
		}
		vars[one.Name.EnvName()] = one.Name
	}
}

// published finds two services on one port.
func (f *file) published(s *system.System) {
	var taken []system.Port
	var of []system.ServiceName // each
	for _, one := range s.Services {
		for i, p := range one.Ports {
			if p.Published == 0 {
				continue
			}
			at := path{"services", string(one.Name), "ports"}.item(i)
			if d := slices.IndexFunc(taken, p.Clashes); d >= 0 {
				who := "service " + string(of[d])
				if of[d] == one.Name {
					who = "this service"
				}
				f.found.problem(p.Pos, at, "port %d/%s is already published by %s at %s", p.Published, p.Protocol, who, taken[d].Pos)
			}
			taken, of = append(taken, p), append(of, one.Name)
		}
	}
}

// cycles reports services that wait for one another.
func (f *file) cycles(s *system.System) {
	for _, loop := range s.Cycles() {
		at := path{"services", string(loop[len(loop)-2]), "depends_on", string(loop[0])}
		f.found.problem(f.pos(at), at, "services wait for one another: %s", strings.ReplaceAll(words(loop), ", ", " → "))
	}
}
