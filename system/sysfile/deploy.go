package sysfile

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"servent/system"
	"servent/system/notation"
	"servent/system/sysfile/schema"
)

// replicas is Compose's scale or deploy.replicas; 0 when neither is said.
func (f *file) replicas(c types.ServiceConfig) int {
	at := path{"services", c.Name}
	var said []int
	if c.Scale != nil {
		said = append(said, *c.Scale)
	}
	if c.Deploy != nil && c.Deploy.Replicas != nil {
		said = append(said, *c.Deploy.Replicas)
	}
	if len(said) == 2 && said[0] != said[1] {
		f.found.problem(f.pos(at.key("scale")), at.key("scale"), "want the number of deploy.replicas, %d, or leave one of them out; have %d", said[1], said[0])
	}
	if len(said) == 0 {
		return 0
	}
	if said[0] < 1 {
		p := f.replicasAt(c.Name)
		f.found.problem(f.pos(p), p, "want at least 1; a service is left out with profiles")
	}
	return said[0]
}

// replicasAt is where the number of replicas is written.
func (f *file) replicasAt(service string) path {
	at := path{"services", service}
	if _, depth := spots(f.main, at.key("scale")); depth == 3 {
		return at.key("scale")
	}
	return at.key("deploy", "replicas")
}

// deploy reads what Compose says of a fleet.
func (f *file) deploy(s *system.Service, d *types.DeployConfig, at path) {
	if r := d.Resources.Reservations; r != nil {
		s.Reserve = system.Resources{Memory: int64(r.MemoryBytes), CPUs: cpus(r.NanoCPUs), Pids: r.Pids}
	}
	if p := d.RestartPolicy; p != nil {
		restartPolicy(s, p)
	}
	if u := d.UpdateConfig; u != nil {
		s.Update = system.Update{
			Delay: time.Duration(u.Delay), Order: u.Order, Failure: u.FailureAction, Monitor: time.Duration(u.Monitor),
		}
		if u.Parallelism != nil {
			s.Update.Parallelism = int(min(*u.Parallelism, math.MaxInt32))
			if *u.Parallelism == 0 { // Compose: all at once
				s.Update.Parallelism = math.MaxInt32
			}
		}
	}
	p := at.key("placement")
	for i, line := range d.Placement.Constraints {
		v := value{f, p.key("constraints").item(i), line}
		if c := read(v, notation.Constraint); c.Attribute != "" {
			c.Pos = f.pos(v.at)
			s.Placement.Constraints = append(s.Placement.Constraints, c)
		}
	}
	for i, pref := range d.Placement.Preferences {
		if v := (value{f, p.key("preferences").item(i).key("spread"), pref.Spread}); pref.Spread != "" {
			s.Placement.Spread = append(s.Placement.Spread, read(v, notation.Spread))
		}
	}
	s.Placement.MaxPerNode = int(min(d.Placement.MaxReplicas, math.MaxInt32))
}

func restartPolicy(s *system.Service, p *types.RestartPolicy) {
	if p.Condition != "" {
		s.Restart.Condition = p.Condition
	}
	if p.Delay != nil {
		s.Restart.Delay = time.Duration(*p.Delay)
	}
	if p.MaxAttempts != nil {
		s.Restart.Max = int(min(*p.MaxAttempts, math.MaxInt32))
	}
}

// cpus undoes the way of compose-go's 32-bit number to ours.
func cpus(n types.NanoCPUs) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(n), 'g', -1, 32), 64)
	return f
}

// limits are x-servent's, else those of deploy.resources, else Compose's older keys.
func (f *file) limits(c types.ServiceConfig, x value) system.Limits {
	at := path{"services", c.Name}
	l := system.Limits{
		Resources:   system.Resources{Memory: int64(c.MemLimit), CPUs: cpus(types.NanoCPUs(c.CPUS)), Pids: max(c.PidsLimit, 0)},
		Fuel:        read(x.key("fuel"), notation.Amount),
		Timeout:     read(x.key("timeout"), notation.Duration),
		Output:      read(x.key("output"), notation.Size),
		Concurrency: read(x.key("concurrency"), notation.Count),
	}
	if u := c.Ulimits["nofile"]; u != nil {
		l.OpenFiles = int64(max(u.Single, u.Soft, 0))
	}
	deployed := system.Resources{}
	if c.Deploy != nil && c.Deploy.Resources.Limits != nil {
		d := c.Deploy.Resources.Limits
		deployed = system.Resources{Memory: int64(d.MemoryBytes), CPUs: cpus(d.NanoCPUs), Pids: max(d.Pids, 0)}
	}
	given := system.Resources{
		Memory: read(x.key("memory"), notation.Size), CPUs: read(x.key("cpus"), notation.Amount), Pids: int64(read(x.key("pids"), notation.Count)),
	}
	settle(f, at, "mem_limit", "memory", &l.Memory, deployed.Memory, given.Memory)
	settle(f, at, "cpus", "cpus", &l.CPUs, deployed.CPUs, given.CPUs)
	settle(f, at, "pids_limit", "pids", &l.Pids, deployed.Pids, given.Pids)
	settle(f, at, "ulimits", "files", &l.OpenFiles, 0, int64(read(x.key("files"), notation.Count)))
	return l
}

// settle takes the one bound that is said in up to three places; two that differ are a mistake.
func settle[T int64 | float64](f *file, at path, old, key string, have *T, deployed, given T) {
	told := at.key(old)
	for _, next := range []struct {
		at   path
		said T
	}{{at.key("deploy", "resources", "limits", key), deployed}, {at.key("x-servent", "limits", key), given}} {
		if next.said == 0 {
			continue
		}
		if *have != 0 && *have != next.said {
			f.found.problem(f.pos(next.at), next.at, "want the bound of %s, or leave one of them out; have two that differ", told)
		}
		*have, told = next.said, next.at
	}
}

// ports are the published doors.
func (f *file) ports(c types.ServiceConfig) []system.Port {
	var all []system.Port
	for i, p := range c.Ports {
		list := path{"services", c.Name, "ports"}
		port := system.Port{Host: p.HostIP, Target: int(p.Target), Protocol: p.Protocol, App: strings.ToLower(p.AppProtocol), Pos: f.portPos(list, i, len(c.Ports), p.Published)}
		at := list.item(i)
		var err error
		if port.Published, err = notation.Published(p.Published); err != nil {
			f.found.problem(port.Pos, at, "%s", err)
		}
		if p.Protocol == "udp" && !f.o.AllowUnbuilt {
			f.found.problem(port.Pos, at, "udp is not built yet; runs today: tcp")
		}
		if from, to, ranged := strings.Cut(p.Published, "-"); ranged && from != to {
			f.found.note(port.Pos, at, "of the published ports %s, %s is used", p.Published, from)
		}
		all = append(all, port)
	}
	return all
}

// portPos finds the i-th of the merged ports in the file. A written line can be a range or be overridden;
// where the numbers of lines and of ports differ, it is the last line that names the published port.
func (f *file) portPos(at path, i, ports int, published string) system.Pos {
	lines := 0
	for f.exact(at.item(lines)) {
		lines++
	}
	if lines != ports {
		for i = lines - 1; i >= 0; i-- {
			found, _ := spots(f.main, at.item(i))
			won := found[len(found)-1]
			if text, _, _ := won.src.interpolate(won.val.Value); text != "" && strings.Contains(text, published) {
				break
			}
		}
	}
	return f.pos(at.item(i))
}

// volumes are the folders that outlive an instance. One in memory does not, and is left out with a note.
func volumes(from []types.ServiceVolumeConfig) []system.Volume {
	var all []system.Volume
	for _, v := range from {
		if v.Type == types.VolumeTypeVolume || v.Type == types.VolumeTypeBind {
			all = append(all, system.Volume{Type: v.Type, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
		}
	}
	return all
}

// mounted are configs and secrets, each looked up in its section.
func (f *file) mounted(c types.ServiceConfig) []system.MountedFile {
	var all []system.MountedFile
	at := path{"services", c.Name}
	for i, ref := range c.Configs {
		def, ok := f.project.Configs[ref.Source]
		f.mount(&all, at.key("configs").item(i), "config", "/", types.FileReferenceConfig(ref), types.FileObjectConfig(def), ok)
	}
	for i, ref := range c.Secrets {
		def, ok := f.project.Secrets[ref.Source]
		f.mount(&all, at.key("secrets").item(i), "secret", "/run/secrets/", types.FileReferenceConfig(ref), types.FileObjectConfig(def), ok)
	}
	return all
}

func (f *file) mount(all *[]system.MountedFile, at path, kind, folder string, ref types.FileReferenceConfig, def types.FileObjectConfig, ok bool) {
	if !ok {
		known := f.project.ConfigNames()
		if kind == "secret" {
			known = f.project.SecretNames()
		}
		f.found.problem(f.pos(at), at, "no %s %q at the top of the file%s", kind, ref.Source, undeclared(kind+"s", ref.Source, known))
		return
	}
	if def.External {
		f.found.problem(f.pos(at), at, "%s %q is external, and %s", kind, ref.Source, schema.Treatments()[kind+"s.*.external"].Refused)
		return
	}
	if def.File == "" && def.Environment == "" && def.Content == "" {
		f.found.problem(f.pos(at), at, "%s %q says nothing; give it file or environment", kind, ref.Source)
		return
	}
	m := system.MountedFile{Kind: kind, Name: ref.Source, From: def.File, Env: def.Environment, Text: def.Content, Target: ref.Target}
	if m.Target == "" {
		m.Target = folder + ref.Source
	} else if !strings.HasPrefix(m.Target, "/") && kind == "secret" {
		m.Target = folder + m.Target
	}
	if m.From != "" && !filepath.IsAbs(m.From) {
		m.From = filepath.Join(f.home, m.From)
	}
	*all = append(*all, m)
}
