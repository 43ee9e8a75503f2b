package sysfile

import (
	"cmp"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"servent/architecture"
	"servent/system"
	"servent/system/notation"
	"servent/system/sysfile/schema"
)

// system reads the merged model into words of package system and checks what more than one value says.
func (f *file) system() *system.System {
	f.names()
	s := &system.System{Name: f.project.Name}
	top := value{f, path{"x-servent"}, f.project.Extensions["x-servent"]}
	s.Nodes = nodes(top.key("nodes"))
	for _, name := range slices.Sorted(maps.Keys(f.project.Services)) {
		s.Services = append(s.Services, f.service(f.project.Services[name]))
	}
	if w := top.key("web"); w.given() {
		s.Web = web(w)
	}
	for i := range s.Services {
		f.check(&s.Services[i], s)
	}
	f.together(s)
	if c := top.key("compare"); c.given() {
		s.Compare = compare(c, s)
	}
	f.notes(s)
	return s
}

// names says when the system's name is not as written.
func (f *file) names() {
	found, depth := spots(f.main, path{"name"})
	if depth == 0 || f.name != "" {
		return
	}
	at := found[len(found)-1]
	if t := first(texts(at.src, follow(at.val))); t != f.project.Name {
		f.found.note(at.pos(), path{"name"}, "read as %q; want %s", f.project.Name, wantName)
	}
}

// service reads one service.
func (f *file) service(c types.ServiceConfig) system.Service {
	at := path{"services", c.Name}
	x := value{f, at.key("x-servent"), c.Extensions["x-servent"]}
	s := system.Service{
		Name:         system.ServiceName(c.Name),
		Pos:          f.keyPos(at),
		Software:     f.software(c, x),
		Architecture: system.Architecture(x.key("architecture").text()),
		Topology:     x.key("topology").text(),
		Key:          read(x.key("key"), notation.Key),
		NoKey:        x.key("nokey").text(),
		Copies:       read(x.key("copies"), notation.Count),
		Read:         x.key("read").text(),
		Write:        x.key("write").text(),
		CAS:          read(x.key("cas"), notation.Truth),
		Idempotent:   read(x.key("idempotent"), notation.Truth),
		Data:         data(x.key("data")),
		Replicas:     f.replicas(c),
		Scale:        scale(x.key("scale")),
		Ports:        f.ports(c),
		Health:       f.health(c, x.key("health")),
		Environment:  environment(c.Environment),
		DependsOn:    f.dependencies(c),
		Near:         x.key("near").text(),
		Limits:       f.limits(c, x.key("limits")),
		Stop:         system.Stop{Signal: c.StopSignal},
		Volumes:      volumes(c.Volumes),
		Files:        f.mounted(c),
		Labels:       maps.Clone(map[string]string(c.Labels)),
	}
	for _, r := range x.key("route").items() {
		one := read(r, notation.Route)
		one.Pos = f.pos(r.at)
		if one.Path != "" {
			s.Routes = append(s.Routes, one)
		}
	}
	if c.Restart != "" {
		s.Restart = read(value{f, at.key("restart"), c.Restart}, notation.Restart)
	}
	if c.StopGracePeriod != nil {
		s.Stop.Grace = time.Duration(*c.StopGracePeriod)
	}
	if c.Deploy != nil {
		f.deploy(&s, c.Deploy, at.key("deploy"))
	}
	if c.MemReservation > 0 && s.Reserve.Memory == 0 {
		s.Reserve.Memory = int64(c.MemReservation)
	}
	if cache := x.key("cache"); cache.given() {
		s.Cache = &system.Cache{
			Size:                 read(cache.key("size"), notation.Size),
			StaleIfError:         read(cache.key("stale-if-error"), notation.Duration),
			StaleWhileRevalidate: read(cache.key("stale-while-revalidate"), notation.Duration),
		}
	}
	s.Flow = f.steps(x.key("flow"))
	s.On = f.triggers(x.key("on"))
	if m := s.Software.Machine; m != nil {
		m.Memory, m.CPUs = s.Limits.Memory, int(math.Ceil(s.Limits.CPUs))
	}
	f.defaults(&s, c, x)
	return s
}

// defaults fills what the file leaves to us: architecture, kind of data, layer of the switch.
func (f *file) defaults(s *system.Service, c types.ServiceConfig, x value) {
	if s.Architecture == "" {
		s.Architecture = system.Single
		if s.Replicas > 1 {
			s.Architecture = system.Replicated
			f.found.note(f.pos(f.replicasAt(c.Name)), f.replicasAt(c.Name), "%d replicas are read as architecture: replicated", s.Replicas)
		}
	}
	if s.Data.Kind == "" {
		s.Data.Kind = system.DataNone
		if len(s.Volumes) > 0 || s.Data.Path != "" || s.Data.Export != "" || isKV(s) || isFlow(s) {
			s.Data.Kind = system.DataHard
		}
	}
	sw := x.key("switch")
	s.Switch = system.Switch{
		By:     system.By(sw.key("by").text()),
		Policy: sw.key("policy").text(),
		Sticky: sw.key("sticky").text(),
		Model:  sw.key("model").text(),
		Proxy:  sw.key("proxy").text(),
	}
	if s.Switch.By == "" {
		s.Switch.By = layer(s, c)
	}
	if ttl := sw.key("ttl"); s.Switch.By == system.ByName {
		if s.Switch.TTL = nameTTL; ttl.given() {
			s.Switch.TTL = read(ttl, notation.Duration)
		}
	}
	if row, _ := architecture.Of(s.Architecture); isKV(s) && s.Key == "" && row.Key != architecture.Never {
		s.Key = kvKey
		if s.NoKey == "" {
			s.NoKey = "any" // a list, which every instance can put together
		}
	}
}

// nameTTL is how long an answer of the name server may be kept: short, because who keeps it hears of nothing meanwhile.
const nameTTL = 2 * time.Second

// layer is where requests are switched when the file does not say: by Compose's app_protocol, else by
// request where there is a key, a route, an HTTP check, software that only speaks HTTP or an
// architecture that knows no other way, else by connection.
func layer(s *system.Service, c types.ServiceConfig) system.By {
	for _, p := range c.Ports {
		switch strings.ToLower(p.AppProtocol) {
		case "http", "https", "http2", "h2c", "grpc", "ws", "wss":
			return system.ByRequest
		case "tcp", "tls", "udp":
			return system.ByConnection
		}
	}
	row, _ := architecture.Of(s.Architecture)
	switch {
	case s.Key != "" && s.Key != notation.Source, len(s.Routes) > 0, s.Health.HTTP != "",
		s.Software.Kind == system.Files, s.Software.Kind == system.Origin, s.Software.Kind == system.Wasm, s.Software.Kind == system.Builtin,
		len(row.By) == 1 && row.By[0] == system.ByRequest:
		return system.ByRequest
	}
	return system.ByConnection
}

// software reads what runs. There must be exactly one; build with image is Compose's build.
func (f *file) software(c types.ServiceConfig, x value) system.Software {
	var said []value
	for _, kind := range kinds {
		if v := x.key(kind); v.given() {
			said = append(said, v)
		}
	}
	at := path{"services", c.Name}
	switch {
	case c.Build != nil:
		said = append(said, value{f, at.key("build"), c.Build.Context})
	case c.Image != "":
		said = append(said, value{f, at.key("image"), c.Image})
	}
	if len(said) == 0 {
		f.noSoftware(c)
		return system.Software{}
	}
	for _, more := range said[1:] {
		more.wrong("want one software, have %s and %s", last(said[0].at), last(more.at))
	}
	v := said[0]
	s := system.Software{Kind: system.SoftwareKind(last(v.at)), From: v.text(), Dir: f.dir(v.at)}
	_, long := v.raw.(map[string]any)
	switch {
	case s.Kind == system.Process && long:
		s.From, s.Run, s.Build, s.Include = "", command(v.key("run")), command(v.key("build")), v.key("include").texts()
	case s.Kind == system.Process:
		s.From, s.Run = "", command(v)
	case c.Build != nil && last(v.at) == "build":
		s.Kind, s.From, s.Recipe = system.Image, "docker-archive:./"+c.Name+".tar", recipe(c.Build)
		fallthrough
	case s.Kind == system.Image:
		s.Container = contained(c)
		s.Container.Egress = read(x.key("egress"), notation.Truth)
	case s.Kind == system.Wasm && long:
		s.From, s.Build = v.key("module").text(), command(v.key("build"))
	case s.Kind == system.VM:
		s.Machine = &system.Machine{Disk: s.From}
		if long {
			s.Machine, s.Build = machine(v), command(v.key("build"))
			s.From = cmp.Or(s.Machine.Kernel, s.Machine.Disk)
		}
	}
	return s
}

// machine reads a virtual machine that is not just a disk.
func machine(v value) *system.Machine {
	return &system.Machine{
		Disk:     v.key("disk").text(),
		Kernel:   v.key("kernel").text(),
		Initrd:   v.key("initrd").text(),
		Append:   v.key("append").text(),
		UserData: v.key("user-data").text(),
		Port:     read(v.key("port"), notation.Target),
		Warm:     read(v.key("warm"), notation.Truth),
	}
}

// recipe is Compose's build. A value that is nowhere is left out, as in an environment.
func recipe(b *types.BuildConfig) *system.Recipe {
	return &system.Recipe{Context: b.Context, Dockerfile: b.Dockerfile, Inline: b.DockerfileInline, Target: b.Target, Args: environment(b.Args)}
}

// contained is what the file says of how an image runs.
func contained(c types.ServiceConfig) *system.Container {
	out := &system.Container{Entrypoint: c.Entrypoint, Command: c.Command, User: c.User, WorkingDir: c.WorkingDir,
		Hostname: c.Hostname, ReadOnly: c.ReadOnly, Tmpfs: slices.Clone([]string(c.Tmpfs)),
		CapAdd: c.CapAdd, CapDrop: c.CapDrop}
	for _, v := range c.Volumes {
		if v.Type == types.VolumeTypeTmpfs {
			one := v.Target
			if t := v.Tmpfs; t != nil && t.Size > 0 {
				one += ":size=" + strconv.FormatInt(int64(t.Size), 10)
			}
			out.Tmpfs = append(out.Tmpfs, one)
		}
	}
	add := func(port string) {
		first, _, _ := strings.Cut(port, "-") // the first of a range
		n, err := notation.Target(first)
		if err == nil && !slices.Contains(out.Ports, n) {
			out.Ports = append(out.Ports, n)
		}
	}
	for _, p := range c.Ports {
		if p.Protocol != "udp" {
			add(strconv.FormatUint(uint64(p.Target), 10))
		}
	}
	for _, e := range c.Expose {
		if port, proto, _ := strings.Cut(e, "/"); proto != "udp" {
			add(port)
		}
	}
	if port := c.Environment["PORT"]; port != nil && len(out.Ports) == 0 {
		add(*port)
	}
	return out
}

// kinds are the keys of x-servent that name software.
var kinds = []string{"process", "wasm", "vm", "files", "origin", "builtin"}

// noSoftware reports a service that says nothing to run, unless what it said was wrong.
func (f *file) noSoftware(c types.ServiceConfig) {
	hint, at := "", path{"services", c.Name}
	said := append([]string{"extends", "image", "build"}, kinds...)
	for _, p := range f.found.problems {
		below, ok := strings.CutPrefix(p.Path, at.String()+".")
		key, inside, deep := strings.Cut(below, ".")
		if key == "x-servent" && deep {
			key, _, _ = strings.Cut(inside, ".")
			ok = ok && (slices.Contains(kinds, key) || schema.Rules().At("services", "a", "x-servent", key) == nil)
		} else {
			ok = ok && (key == "x-servent" || slices.Contains(said, key) || !ofService(key))
		}
		if ok || f.extends(c.Name) && strings.HasSuffix(p.Path, ".extends") {
			return
		}
	}
	for _, ext := range slices.Sorted(maps.Keys(c.Extensions)) {
		if ext != "x-servent" && notation.Nearest(ext, []string{"x-servent"}) != "" {
			hint = " (did you mean x-servent by " + strconv.Quote(ext) + "?)"
		}
	}
	if c.Provider != nil {
		at = at.key("provider")
	}
	f.found.problem(f.keyPos(at), at, "no software: want one of process, files, origin, wasm, vm or builtin under x-servent, or image or build%s", hint)
}

func last(p path) string { return p[len(p)-1] }

// dir is the folder of the file that declared a key.
func (f *file) dir(p path) string {
	found, _ := spots(f.main, p)
	if len(found) == 0 {
		return f.home
	}
	return filepath.Dir(found[len(found)-1].src.file)
}

// command is a line in a shell's words or a list of them.
func command(v value) []string {
	if line, ok := v.raw.(string); ok {
		return read(value{v.f, v.at, line}, notation.CommandLine)
	}
	return v.texts()
}

func data(v value) system.Data {
	if _, long := v.raw.(map[string]any); !long {
		return system.Data{Kind: system.DataKind(v.text())}
	}
	return system.Data{
		Kind:   system.DataKind(v.key("kind").text()),
		Path:   v.key("path").text(),
		Export: read(v.key("export"), notation.KeyRequest),
		Import: read(v.key("import"), notation.KeyRequest),
	}
}

func scale(v value) system.Scale {
	return system.Scale{
		Min:      read(v.key("min"), notation.Count),
		Max:      read(v.key("max"), notation.Count),
		Inflight: read(v.key("inflight"), notation.Count),
		Latency:  read(v.key("latency"), notation.Duration),
		CPU:      read(v.key("cpu"), notation.Share),
		Idle:     read(v.key("idle"), notation.Duration),
		Warm:     read(v.key("warm"), notation.Duration),
	}
}

// health is x-servent's, else Compose's healthcheck.
func (f *file) health(c types.ServiceConfig, v value) system.Health {
	if v.given() {
		if c.HealthCheck != nil {
			at := path{"services", c.Name, "healthcheck"}
			f.found.note(f.pos(at), at, "not used: x-servent.health says when an instance is healthy")
		}
		return system.Health{
			HTTP:        read(v.key("http"), notation.Path),
			TCP:         read(v.key("tcp"), notation.Truth),
			Disabled:    read(v.key("disable"), notation.Truth),
			Interval:    read(v.key("interval"), notation.Duration),
			Timeout:     read(v.key("timeout"), notation.Duration),
			Retries:     read(v.key("retries"), notation.Count),
			StartPeriod: read(v.key("start_period"), notation.Duration),
		}
	}
	var h system.Health
	check := c.HealthCheck
	if check == nil {
		return h
	}
	h.Disabled = check.Disable
	at := path{"services", c.Name, "healthcheck", "test"}
	if test := []string(check.Test); len(test) > 0 {
		switch {
		case test[0] == "NONE":
			h.Disabled = true
		case len(test) < 2 || strings.TrimSpace(strings.Join(test[1:], "")) == "":
			f.found.problem(f.keyPos(at), at, "want a command after %s", test[0])
		case test[0] == "CMD":
			h.Command = test[1:]
		case test[0] == "CMD-SHELL":
			h.Command = []string{"CMD-SHELL", strings.Join(test[1:], " ")}
		default:
			f.found.problem(f.pos(at.item(0)), at, "want CMD, CMD-SHELL or NONE first, have %q", test[0])
		}
	}
	for _, t := range []struct {
		to   *time.Duration
		from *types.Duration
	}{{&h.Interval, check.Interval}, {&h.Timeout, check.Timeout}, {&h.StartPeriod, check.StartPeriod}} {
		if t.from != nil {
			*t.to = time.Duration(*t.from)
		}
	}
	if check.Retries != nil {
		h.Retries = int(*check.Retries)
	}
	return h
}

// environment leaves out what has no value anywhere, as Compose does.
func environment(from types.MappingWithEquals) map[string]string {
	var env map[string]string
	for name, v := range from {
		if v == nil {
			continue
		}
		if env == nil {
			env = map[string]string{}
		}
		env[name] = *v
	}
	return env
}

var conditions = map[string]string{
	types.ServiceConditionStarted:               "started",
	types.ServiceConditionHealthy:               "healthy",
	types.ServiceConditionCompletedSuccessfully: "completed",
}

// dependencies are sorted; an optional one on a service that is off is left out.
func (f *file) dependencies(c types.ServiceConfig) []system.Dependency {
	var all []system.Dependency
	for _, name := range slices.Sorted(maps.Keys(c.DependsOn)) {
		d := c.DependsOn[name]
		if _, off := f.project.DisabledServices[name]; off && !d.Required {
			continue
		}
		all = append(all, system.Dependency{
			Service: system.ServiceName(name), Condition: conditions[d.Condition], Optional: !d.Required,
		})
	}
	return all
}
