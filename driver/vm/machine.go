package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/driver"
	"servent/system"
)

// prepared is a machine that can be started.
type prepared struct {
	d      *Driver
	q      qemu
	m      system.Machine
	digest system.Digest

	disk, kernel, initrd, userData string // files of the bundle
	format                         string // of disk
	template                       *template
}

func (p *prepared) Close() error { return nil }

// Start starts QEMU. The guest boots, or goes on from where the template was saved.
func (p *prepared) Start(ctx context.Context, s driver.Spec) (driver.Instance, error) {
	m, err := p.start(ctx, s, p.template)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Instance, err)
	}
	return m, nil
}

func (p *prepared) start(ctx context.Context, s driver.Spec, from *template) (_ *machine, err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("private folder: %w", err)
	}
	m := &machine{host: s.Host, port: s.Port, guest: p.port()}
	if m.dir, err = os.MkdirTemp("", "servent-vm"); err != nil { // a socket's path must be short
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(m.dir)
		}
	}()
	if err := os.WriteFile(envFile(s.Dir), []byte(strings.Join(guestEnv(s.Env, p.port()), "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	args, err := p.arguments(s, m, from)
	if err != nil {
		return nil, err
	}
	q := s
	q.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + m.dir}
	q.Limits.Memory = 0 // the guest has no more than its own, and QEMU needs some beside
	q.Mounts, q.Ways, q.Stop.Signal = nil, nil, ""
	run, err := p.d.o.Process.Prepare(ctx, driver.Artifact{Software: system.Software{Kind: system.Process, Run: args}})
	if err != nil {
		return nil, err
	}
	if m.Instance, err = run.Start(ctx, q); err != nil {
		return nil, err
	}
	m.exit = make(chan driver.Exit, 1)
	go m.follow()
	if from != nil {
		err = m.resume(ctx)
	}
	if err != nil {
		_ = m.Instance.Stop(context.WithoutCancel(ctx), 0) // what went wrong before is told
		return nil, err
	}
	return m, nil
}

// arguments are QEMU's. Whatever the guest's own image decides, is the same for the template and all that start from it.
func (p *prepared) arguments(s driver.Spec, m *machine, from *template) ([]string, error) {
	accel := []string{"-accel", "tcg,thread=multi"}
	cpu := "max"
	if noKVM() == "" {
		accel, cpu = []string{"-accel", "kvm"}, "host"
	}
	kind := map[string]string{"x86_64": "q35", "aarch64": "virt"}[p.q.arch]
	args := append([]string{p.q.program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", kind}, accel...)
	args = append(args, "-cpu", cpu, "-m", strconv.FormatInt(cmp.Or(p.m.Memory, defaultMemory)>>20, 10), "-smp", strconv.Itoa(max(1, p.m.CPUs)),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-qmp", "unix:"+escape(m.socket())+",server=on,wait=off",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-netdev", p.network(s), "-device", "virtio-net-pci,netdev=net,romfile=")
	if p.q.arch == "x86_64" {
		args = append(args, "-device", "vmgenid,guid=auto") // a guest that is started twice from one state must not draw the same numbers
	}
	if p.kernel != "" {
		line := strings.TrimSpace("console=" + p.q.console + " panic=-1 " + p.m.Append)
		if from == nil && s.Instance != "" {
			line += told(s.Env, p.port())
		}
		args = append(args, "-kernel", p.kernel, "-append", line)
	}
	if p.initrd != "" {
		args = append(args, "-initrd", p.initrd)
	}
	if p.disk != "" {
		disk, err := p.overlay(s.Dir, from)
		if err != nil {
			return nil, err
		}
		args = append(args, "-drive", "if=none,id=disk,format=qcow2,file="+escape(disk), "-device", "virtio-blk-pci,drive=disk,bootindex=1")
	}
	if p.userData != "" || p.disk != "" {
		seed, err := p.seed(s)
		if err != nil {
			return nil, err
		}
		args = append(args, "-blockdev", "driver=vvfat,node-name=seed,read-only=on,label=CIDATA,dir="+escape(seed), "-device", "virtio-blk-pci,drive=seed")
	}
	if from != nil {
		args = append(args, "-incoming", "exec:cat '"+from.state()+"'")
	}
	return args, nil
}

// escape doubles commas, which end a value of QEMU's.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (p *prepared) port() int { return cmp.Or(p.m.Port, defaultPort) }

// network is QEMU's own, made without root: what arrives at the instance's port goes to the guest's, and the guest reaches what is
// named here and nothing else.
func (p *prepared) network(s driver.Spec) string {
	net0 := fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:%s-:%d", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), p.port())
	if len(p.d.o.Self) == 0 {
		return net0
	}
	var seen []string
	way := func(port, to string) {
		if !slices.Contains(seen, port) {
			seen = append(seen, port)
			net0 += fmt.Sprintf(",guestfwd=tcp:%s:%s-cmd:%s", driver.Gate, port, escape(words(append(slices.Clone(p.d.o.Self), to))))
		}
	}
	way(toldPort, envFile(s.Dir))
	for _, w := range s.Ways {
		if _, port, err := net.SplitHostPort(w.To); err == nil {
			way(port, w.To)
		}
	}
	return net0
}

// envFile is what the guest is told when it asks.
func envFile(dir string) string { return filepath.Join(dir, "servent.env") }

// words quotes a command line as QEMU's library reads it, which is a shell's.
func words(command []string) string {
	quoted := make([]string, len(command))
	for i, w := range command {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

const lineMostTold = 1200 // bytes: a kernel's command line has 2,048, and its init no more than 32 variables
const toldMost = 24

// told is the part of the environment that stands on the kernel's command line: what the kernel does not know, it gives to init.
func told(env []string, port int) string {
	line, n := "", 0
	for _, kv := range guestEnv(env, port) {
		name, value, _ := strings.Cut(kv, "=")
		if strings.ContainsAny(value, " \t\n\"'") || strings.ContainsAny(name, ".") || len(line)+len(kv) > lineMostTold || n == toldMost {
			continue
		}
		line, n = line+" "+kv, n+1
	}
	return line
}

// guestEnv is what the guest is told: its own port instead of the node's.
func guestEnv(env []string, port int) []string {
	out := []string{"PORT=" + strconv.Itoa(port)}
	for _, kv := range env {
		if !strings.HasPrefix(kv, "PORT=") {
			out = append(out, kv)
		}
	}
	return out
}

// overlay is the instance's own disk: what it writes, over the image that nobody writes to.
func (p *prepared) overlay(dir string, from *template) (string, error) {
	base, format, name := p.disk, p.format, "disk.qcow2"
	if from != nil {
		base, format = from.disk(), "qcow2"
	}
	path := filepath.Join(dir, name)
	mark := filepath.Join(dir, "disk.of")
	if was, err := os.ReadFile(mark); err == nil {
		if string(was) != base {
			return "", fmt.Errorf("%w: its disk was begun over another image, %s", driver.ErrArtifact, filepath.Base(filepath.Dir(string(was))))
		}
		return path, nil
	}
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", format, path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: make its disk: %w: %s", driver.ErrArtifact, err, strings.TrimSpace(string(out)))
	}
	return path, os.WriteFile(mark, []byte(base), 0o600)
}

// seed is a folder that the guest finds as a disk named CIDATA: cloud-init's NoCloud.
func (p *prepared) seed(s driver.Spec) (string, error) {
	dir := filepath.Join(s.Dir, "seed")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	user := []byte("#cloud-config\n{}\n")
	if p.userData != "" {
		var err error
		if user, err = os.ReadFile(p.userData); err != nil {
			return "", err
		}
	}
	name := strings.ReplaceAll(string(s.Instance), "/", "-")
	return dir, errors.Join(os.WriteFile(filepath.Join(dir, "user-data"), user, 0o600),
		os.WriteFile(filepath.Join(dir, "meta-data"), []byte("instance-id: "+name+"\nlocal-hostname: "+name+"\n"), 0o600))
}

// machine is a running one: its process, and the way to QEMU's monitor.
type machine struct {
	driver.Instance // the process
	host            string
	port            int              // on the node
	guest           int              // in the guest
	dir             string           // of the monitor's socket
	exit            chan driver.Exit // of capacity 1
}

func (m *machine) socket() string { return filepath.Join(m.dir, "qmp") }

// Pid is QEMU's.
func (m *machine) Pid() int {
	if p, ok := m.Instance.(interface{ Pid() int }); ok {
		return p.Pid()
	}
	return 0
}

// Wait receives once, when QEMU has ended and nothing of it is left.
func (m *machine) Wait() <-chan driver.Exit { return m.exit }

// follow ends with QEMU.
func (m *machine) follow() {
	e := <-m.Instance.Wait()
	_ = os.RemoveAll(m.dir) // only a socket
	m.exit <- e
}

// resume lets a machine go on that was loaded from a template.
func (m *machine) resume(ctx context.Context) error {
	q, err := dial(ctx, m.socket())
	if err != nil {
		return err
	}
	defer q.close()
	for {
		state, err := q.status(ctx)
		switch {
		case err != nil:
			return err
		case state != "inmigrate":
			return q.do(ctx, "cont", nil, nil)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Check says whether the guest takes connections at its port. QEMU does before there is a guest, so one is made and QEMU is asked
// what became of it.
func (m *machine) Check(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(m.host, strconv.Itoa(m.port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	q, err := dial(ctx, m.socket())
	if err != nil {
		return err
	}
	defer q.close()
	for {
		text, err := q.human(ctx, "info usernet")
		if err != nil || established(text, m.guest) {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // an open connection has one
		switch _, err := conn.Read(make([]byte, 1)); {
		case err == nil: // a guest that speaks first
			return nil
		case ctx.Err() != nil:
			return errors.New("the guest does not answer yet")
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("the guest refuses connections")
		}
	}
}

// established says that the guest has taken a connection from outside: TCP[ESTABLISHED] 22 127.0.0.1 20010 10.0.2.15 8080 0 0. The table
// says which port of ours they came in by, not from whom.
func established(table string, guest int) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 6 && f[0] == "TCP[ESTABLISHED]" && f[5] == strconv.Itoa(guest) {
			return true
		}
	}
	return false
}

// Stop presses the machine's power button, waits grace, and ends it.
func (m *machine) Stop(ctx context.Context, grace time.Duration) error {
	if conn, err := net.Dial("unix", m.socket()); err == nil && grace > 0 && ctx.Err() == nil {
		q := newMonitor(conn)
		err := q.greet(ctx)
		if err == nil {
			err = q.do(ctx, "system_powerdown", nil, nil)
		}
		q.close()
		if err == nil && m.ended(ctx, grace) {
			return m.Instance.Stop(ctx, time.Second) // nothing is left in a moment
		}
	} else if err == nil {
		conn.Close()
	}
	return m.Instance.Stop(ctx, 0)
}

// ended waits until QEMU's monitor is gone.
func (m *machine) ended(ctx context.Context, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for {
		conn, err := net.Dial("unix", m.socket())
		if err != nil {
			return true
		}
		conn.Close()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Exec implements [driver.Instance]: nothing runs in a guest but what it starts itself.
func (m *machine) Exec(context.Context, []string) error {
	return fmt.Errorf("run a command in a virtual machine: %w", driver.ErrUnsupported)
}
