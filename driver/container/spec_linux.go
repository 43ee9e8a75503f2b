package container

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"servent/driver"
)

// What a container is denied, as Docker's defaults have it (moby, oci/defaults.go).
var (
	masked = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
	unwritable = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

const (
	defaultPort = 8080 // of a program whose image and file name none: it is told by PORT
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// port is where the program listens: what the file says, its PORT, what the image says, or 8080.
func (p *prepared) port() int {
	if c := p.software.Container; c != nil && len(c.Ports) > 0 {
		return c.Ports[0]
	}
	return defaultPort
}

// egress says that an instance may reach the outside.
func (p *prepared) egress() bool { return p.software.Container != nil && p.software.Container.Egress }

// spec is the OCI configuration of one instance.
func (p *prepared) spec(id, dir string, s driver.Spec, w *ways) (*specs.Spec, error) {
	args, err := p.args()
	if err != nil {
		return nil, err
	}
	said, cwd, host, readOnly := p.image.User, p.image.WorkingDir, "", false
	var tmpfs []string
	if c := p.software.Container; c != nil {
		if c.User != "" {
			said = c.User
		}
		if c.WorkingDir != "" {
			cwd = c.WorkingDir
		}
		host, readOnly, tmpfs = c.Hostname, c.ReadOnly, c.Tmpfs
	}
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	who, err := user(root, said)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = strings.ReplaceAll(string(s.Instance), "/", "-")
	}
	mounts, err := p.mounts(s, tmpfs, who.User)
	if err != nil {
		return nil, err
	}
	if err := names(dir, host, w.hosts); err != nil {
		return nil, err
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		mounts = append(mounts, bind(filepath.Join(dir, name), "/etc/"+name, false))
	}
	caps, err := p.software.Container.Capabilities()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", driver.ErrArtifact, err)
	}
	out := &specs.Spec{
		Version:  "1.0.2",
		Hostname: host,
		Root:     &specs.Root{Path: "layer/root", Readonly: readOnly},
		Mounts:   mounts,
		Process: &specs.Process{
			User: who.User, Args: args, Cwd: path.Join("/", cwd), Env: p.environment(s.Env, who.home, host, w.inside),
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + id,
			// No network here: runc is started in the instance's own, which the container shares.
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}},
			MaskedPaths: masked, ReadonlyPaths: unwritable,
			Resources: resources(s),
			Seccomp:   seccomp(),
		},
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		out.Linux.Namespaces = append(out.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if n := uint64(s.Limits.OpenFiles); s.Limits.OpenFiles > 0 {
		out.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
	}
	return out, nil
}

// resources are the limits of the file and the devices of every container.
func resources(s driver.Spec) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if n := s.Limits.Memory; n > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &n}
		if cgroups.swaps() {
			r.Memory.Swap = &n // memory and swap together
		}
	}
	if s.Limits.CPUs > 0 {
		period := uint64(100_000) // microseconds
		quota := max(1000, int64(s.Limits.CPUs*float64(period)))
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if n := s.Limits.Pids; n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r
}

// environment is the image's, the service's over it, and the port that the program must listen on.
func (p *prepared) environment(env []string, home, host, inside string) []string {
	var names []string
	values := map[string]string{}
	var proxies []string
	if p.egress() {
		proxies = egressEnv(inside)
	}
	layers := [][]string{{defaultPath, "HOME=" + home, "HOSTNAME=" + host}, p.image.Env, proxies, env, {"PORT=" + strconv.Itoa(p.port())}}
	for _, layer := range layers {
		for _, kv := range layer {
			k, v, ok := strings.Cut(kv, "=")
			if !ok || k == "" {
				continue
			}
			if _, ok := values[k]; !ok {
				names = append(names, k)
			}
			values[k] = v
		}
	}
	for i, k := range names {
		names[i] = k + "=" + values[k]
	}
	return names
}

func bind(from, to string, readOnly bool) specs.Mount {
	m := specs.Mount{Type: "bind", Source: from, Destination: to, Options: []string{"rbind", "rprivate", "nosuid", "nodev"}}
	if readOnly {
		m.Options = append(m.Options, "ro")
	}
	return m
}

func (p *prepared) mounts(s driver.Spec, tmpfs []string, who specs.User) ([]specs.Mount, error) {
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	for _, one := range tmpfs {
		at, options, _ := strings.Cut(one, ":")
		m := specs.Mount{Destination: path.Join("/", at), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "nodev"}}
		if options != "" {
			m.Options = append(m.Options, strings.Split(options, ",")...)
		}
		ms = append(ms, m)
	}
	for _, one := range s.Mounts {
		if !path.IsAbs(one.Target) || path.Clean(one.Target) == "/" {
			return nil, fmt.Errorf("%w: mount %q: want an absolute path below /", driver.ErrArtifact, one.Target)
		}
		if one.Kind == "tmpfs" {
			ms = append(ms, specs.Mount{Destination: one.Target, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "nodev"}})
			continue
		}
		from, err := filepath.Abs(one.Source)
		if err != nil {
			return nil, err
		}
		switch one.Kind {
		case "volume":
			err = fill(p.root, from, one.Target)
		case "data":
			err = os.Lchown(from, int(who.UID), int(who.GID))
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", one.Target, err)
		}
		ms = append(ms, bind(from, one.Target, one.ReadOnly))
	}
	slices.SortStableFunc(ms, func(a, b specs.Mount) int { return depth(a) - depth(b) }) // what is above comes first
	return ms, nil
}

func depth(m specs.Mount) int { return strings.Count(path.Clean(m.Destination), "/") }

// names writes the files by which an instance finds itself and others. There is nobody to ask for a name.
func names(dir, host string, ways []string) error {
	hosts := "127.0.0.1\tlocalhost " + host + "\n::1\tlocalhost ip6-localhost ip6-loopback\n" + strings.Join(ways, "")
	for name, text := range map[string]string{"hosts": hosts, "hostname": host + "\n", "resolv.conf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
