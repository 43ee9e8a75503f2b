package container

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"servent/blob"
	"servent/driver"
	"servent/driver/container/engine"
	"servent/system"
)

const (
	instanceLabel = "servent.container" // on an instance and its cable
	cableLabel    = "servent.cable"     // on the cable alone
	nodeLabel     = "servent.node"      // digest of the node's folder
	lost          = 10 * time.Second    // after which an engine that does not answer has lost an instance
	keptOutput    = "1m"                // of what an instance said, by the engine: the node has its own ring
)

// docked is an instance that the engine runs. Beside it lives its cable: a container of the same image that holds their
// network and runs this program. attend is the instance's goroutine: it ends when nothing is left.
type docked struct {
	d      *Driver
	p      *prepared
	spec   driver.Spec
	name   string   // ours, of this life
	id     string   // the engine's
	dir    string   // of the cable's sockets
	at     *os.File // that folder: a socket's path must be short
	doors  *net.UnixListener
	front  net.Listener // its own port on the node; nil: none
	guard  *guard
	logged chan struct{}

	exit chan driver.Exit
	over chan struct{} // closed when nothing is left
}

// dock starts an instance by the engine.
func (p *prepared) dock(ctx context.Context, s driver.Spec) (_ driver.Instance, err error) {
	dir, err := filepath.Abs(filepath.Join(s.Dir, ".container"))
	if err != nil {
		return nil, err
	}
	i := &docked{d: p.d, p: p, spec: s, name: freshID(s.Instance), dir: dir, logged: make(chan struct{}), exit: make(chan driver.Exit, 1), over: make(chan struct{})}
	defer func() {
		if err != nil {
			p.d.forget(i)
			err = errors.Join(err, i.leave())
		}
	}()
	if err := p.d.remember(i); err != nil {
		return nil, err
	}
	if err := i.room(); err != nil {
		return nil, fmt.Errorf("make the container's folder: %w", err)
	}
	if s.Port != 0 {
		if i.front, err = net.Listen("tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port))); err != nil {
			return nil, fmt.Errorf("port %d: %w", s.Port, err)
		}
	}
	self := p.d.opts.Self
	if i.guard, err = newGuard(self[0], append(self[1:len(self):len(self)], guardWord, p.engine.Socket(), instanceLabel+"="+i.name)...); err != nil {
		return nil, err
	}
	like, hold, err := i.container()
	if err != nil {
		return nil, err
	}
	life, err := i.lay(ctx, hold)
	if err != nil {
		return nil, err
	}
	like.HostConfig.NetworkMode = "container:" + i.name + "-cable"
	if i.id, err = p.engine.Create(ctx, i.name, like); err == nil {
		err = p.engine.Start(ctx, i.id)
	}
	if err != nil {
		life.Close()
		return nil, refused(err)
	}
	go i.attend(life)
	return i, nil
}

// refused tells an image that cannot start from an engine that does not answer.
func refused(err error) error {
	no, ok := errors.AsType[*engine.Refusal](err)
	if ok && (no.Status == http.StatusBadRequest || strings.Contains(no.Words, "unable to find user") || strings.Contains(no.Words, "unable to find group")) {
		return fmt.Errorf("%w: %w", driver.ErrArtifact, err)
	}
	return err
}

// room makes the folder that the cable shares with the node. Others cannot come to it: the one above is the node's.
func (i *docked) room() error {
	shared := filepath.Join(i.dir, "cable")
	if err := errors.Join(blob.RemoveAll(i.dir), os.MkdirAll(i.dir, 0o700), os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777)); err != nil {
		return err
	}
	var err error
	if i.at, err = os.Open(shared); err != nil {
		return err
	}
	if i.doors, err = net.ListenUnix("unix", &net.UnixAddr{Name: i.socket(doorsSocket)}); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(shared, doorsSocket), 0o666) // root of the cable may be nobody here
}

func (i *docked) socket(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", i.at.Fd(), name)
}

// container is what the engine is asked for, and what the cable has to do.
func (i *docked) container() (engine.Container, laid, error) {
	p, s := i.p, i.spec
	args, err := p.args()
	if err != nil {
		return engine.Container{}, laid{}, err
	}
	hold := laid{Port: p.port(), Egress: p.egress()}
	c := engine.Container{Image: p.name, Entrypoint: args[:1], Cmd: args[1:], Labels: i.labels(), StopSignal: p.stopSignal(s)}
	c.Healthcheck.Test = []string{"NONE"}
	h := &c.HostConfig
	h.Tmpfs = map[string]string{}
	if said := p.software.Container; said != nil {
		c.User, c.WorkingDir, h.ReadonlyRootfs, hold.hostname = said.User, said.WorkingDir, said.ReadOnly, said.Hostname
		for _, one := range said.Tmpfs {
			at, options, _ := strings.Cut(one, ":")
			h.Tmpfs[path.Join("/", at)] = options
		}
	}
	hold.hostname = cmp.Or(hold.hostname, strings.ReplaceAll(string(s.Instance), "/", "-"))
	if p.d.name == "podman" { // Docker takes the cable's, and refuses to be told
		c.Hostname = hold.hostname
	}
	for n, w := range s.Ways {
		hold.Ways = append(hold.Ways, driver.Way{Name: w.Name, Port: w.Port, To: strconv.Itoa(n)})
	}
	for _, kv := range p.environment(s.Env, "", hold.hostname, reached(namesOf(s.Ways))) {
		if kv != "HOME=" { // the engine knows better
			c.Env = append(c.Env, kv)
		}
	}
	if h.CapAdd, err = p.software.Container.Capabilities(); err != nil {
		return c, hold, fmt.Errorf("%w: %w", driver.ErrArtifact, err)
	}
	h.CapDrop = []string{"ALL"}
	h.SecurityOpt = []string{"no-new-privileges"}
	h.Memory, h.MemorySwap, h.NanoCpus = s.Limits.Memory, s.Limits.Memory, int64(s.Limits.CPUs*1e9)
	if n := s.Limits.Pids; n > 0 {
		h.PidsLimit = &n
	}
	if n := s.Limits.OpenFiles; n > 0 {
		h.Ulimits = []engine.Ulimit{{Name: "nofile", Soft: n, Hard: n}}
	}
	if err := names(i.dir, hold.hostname, hostsOf(namesOf(s.Ways))); err != nil {
		return c, hold, err
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		h.Mounts = append(h.Mounts, engine.Mount{Type: "bind", Source: filepath.Join(i.dir, name), Target: "/etc/" + name})
	}
	h.LogConfig.Type, h.LogConfig.Config = "json-file", map[string]string{"max-size": keptOutput}
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return c, hold, fmt.Errorf("%w: mount %q: want an absolute path below /", driver.ErrArtifact, m.Target)
		}
		if m.Kind == "tmpfs" {
			h.Tmpfs[m.Target] = ""
			continue
		}
		from, err := filepath.Abs(m.Source)
		if err != nil {
			return c, hold, err
		}
		switch m.Kind {
		case "volume":
			hold.Fill = append(hold.Fill, m.Target)
			hold.volumes = append(hold.volumes, from)
		case "data": // for whatever user; nobody else comes to the folder above
			if err := os.Chmod(from, 0o777); err != nil {
				return c, hold, err
			}
		}
		h.Mounts = append(h.Mounts, engine.Mount{Type: "bind", Source: from, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	return c, hold, nil
}

func (i *docked) labels() map[string]string {
	return map[string]string{instanceLabel: i.name, nodeLabel: i.d.label(), "servent.instance": string(i.spec.Instance)}
}

// lay starts the cable and waits until it is ready. It ends when life is closed.
func (i *docked) lay(ctx context.Context, hold laid) (life net.Conn, err error) {
	b, err := json.Marshal(hold)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(i.dir, "cable", cableFile), b, 0o644); err != nil {
		return nil, err
	}
	self, err := filepath.EvalSymlinks(i.d.opts.Self[0])
	if err != nil {
		return nil, err
	}
	c := engine.Container{Image: i.p.name, User: "0:0", Hostname: hold.hostname, WorkingDir: "/", Labels: i.labels(),
		Entrypoint: []string{cableRoot + "/servent"}, Cmd: append(i.d.opts.Self[1:len(i.d.opts.Self):len(i.d.opts.Self)], cableWord)}
	c.Labels[cableLabel] = "1"
	c.Healthcheck.Test = []string{"NONE"}
	h := &c.HostConfig
	h.NetworkMode = "none"
	h.CapDrop = []string{"ALL"}
	h.CapAdd = []string{"NET_ADMIN", "SYS_ADMIN", "CHOWN", "FOWNER", "DAC_OVERRIDE", "NET_BIND_SERVICE"} // it makes networks, and fills volumes
	h.SecurityOpt = []string{"no-new-privileges"}
	h.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	h.LogConfig.Type = "json-file"
	h.Mounts = []engine.Mount{{Type: "bind", Source: self, Target: cableRoot + "/servent", ReadOnly: true},
		{Type: "bind", Source: filepath.Join(i.dir, "cable"), Target: cableRoot + "/cable"}}
	for n, from := range hold.volumes {
		h.Mounts = append(h.Mounts, engine.Mount{Type: "bind", Source: from, Target: fillAt(n)})
	}
	id, err := i.p.engine.Create(ctx, i.name+"-cable", c)
	if err == nil {
		err = i.p.engine.Start(ctx, id)
	}
	if err != nil {
		return nil, fmt.Errorf("lay a cable: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = i.doors.SetDeadline(time.Now()) })
	defer stop()
	ended := make(chan struct{})
	go func() { // a cable that cannot even start says nothing
		defer close(ended)
		if i.p.engine.Wait(ctx, id) == nil {
			_ = i.doors.SetDeadline(time.Now())
		}
	}()
	said := &driver.Ending{}
	if life, err = i.doors.Accept(); err == nil {
		r := bufio.NewReader(io.LimitReader(life, 4096))
		var line string
		if line, err = r.ReadString('\n'); err == nil && line != readyWord+"\n" {
			err = fmt.Errorf("%w: %s", driver.ErrArtifact, strings.TrimSpace(line))
		}
	} else if ctx.Err() == nil {
		<-ended
		_ = i.p.engine.Logs(ctx, id, said, said)
		err = fmt.Errorf("it ended: %s", said.Last())
	}
	if err != nil {
		if life != nil {
			life.Close()
		}
		return nil, fmt.Errorf("lay a cable: %w", cmp.Or(ctx.Err(), err))
	}
	return life, nil
}

// attend passes connections until the instance has ended, clears up and tells.
func (i *docked) attend(life net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(i.logged)
		if err := i.p.engine.Logs(ctx, i.id, i.spec.Stdout, i.spec.Stderr); err != nil && ctx.Err() == nil {
			i.d.opts.Log.Warn("the output of a container is cut", "instance", i.spec.Instance, "err", err)
		}
	}()
	var passing sync.WaitGroup
	passing.Go(func() { i.serve(ctx) })
	if i.front != nil {
		passing.Go(func() { pass(ctx, i.front, i.dial) })
	}
	exit := i.ended(ctx)
	select {
	case <-i.logged:
	case <-time.After(outputWait):
	}
	cancel()
	i.doors.Close()
	if i.front != nil {
		i.front.Close()
	}
	life.Close()
	passing.Wait()
	<-i.logged
	if err := i.leave(); err != nil {
		i.d.opts.Log.Warn("a container is not cleared away", "instance", i.spec.Instance, "err", err)
	}
	i.d.forget(i)
	close(i.over)
	i.exit <- exit
}

// ended waits until the engine says so, or has not answered for long.
func (i *docked) ended(ctx context.Context) driver.Exit {
	for last := time.Now(); ; {
		err := i.p.engine.Wait(ctx, i.id)
		state, no := i.p.engine.State(ctx, i.id)
		if no == nil && !state.Running {
			exit := driver.Exit{Code: state.ExitCode, OOM: state.OOMKilled && state.ExitCode != 0}
			if n := state.ExitCode - 128; n > 0 && n < 65 {
				exit = driver.Exit{Code: -1, Signal: word(syscall.Signal(n)), OOM: state.OOMKilled}
			}
			return exit
		}
		if no == nil {
			last = time.Now()
		}
		if _, gone := errors.AsType[*engine.Refusal](no); gone || time.Since(last) > lost {
			return driver.Exit{Err: fmt.Errorf("the engine has lost the container: %w", errors.Join(err, no))}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// serve brings what comes out of the cable to the doors of the node.
func (i *docked) serve(ctx context.Context) {
	proxied := &handed{make(chan net.Conn), ctx.Done(), i.doors.Addr()}
	p := newProxy(dialOutside, i.d.opts.Log)
	var all sync.WaitGroup
	if i.p.egress() {
		all.Go(func() { p.serve(ctx, proxied) })
	}
	each(ctx, i.doors, func(c net.Conn) {
		switch kind, n, err := readCall(c); {
		case err != nil:
			c.Close()
		case kind == callWay && int(n) < len(i.spec.Ways):
			join(ctx, c, func(ctx context.Context) (net.Conn, error) { return dialDoor(ctx, i.spec.Ways[n].To) })
		case kind == callHTTP && i.p.egress():
			proxied.hand(c)
		case kind == callSocks && i.p.egress():
			p.socks(ctx, c)
		default:
			c.Close()
		}
	})
	all.Wait()
}

// handed is a listener of connections that another accepted.
type handed struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

func (h *handed) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { return nil }
func (h *handed) Addr() net.Addr { return h.addr }

// leave gives back all that start took, as far as it came.
func (i *docked) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), killAllow)
	defer cancel()
	err := removeAll(ctx, i.p.engine, instanceLabel+"="+i.name)
	if i.guard != nil && err == nil {
		i.guard.dismiss()
	}
	if i.doors != nil {
		i.doors.Close()
	}
	if i.front != nil {
		i.front.Close()
	}
	if i.at != nil {
		i.at.Close()
	}
	return errors.Join(err, blob.RemoveAll(i.dir))
}

func (i *docked) ID() string { return i.name }

func (i *docked) Wait() <-chan driver.Exit { return i.exit }

// Endpoint implements [driver.Instance].
func (i *docked) Endpoint() driver.Endpoint {
	return driver.Endpoint{Address: net.JoinHostPort(i.spec.Host, strconv.Itoa(i.spec.Port)), Dial: i.dial}
}

// dial opens a connection to the instance, through the cable.
func (i *docked) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", i.socket(instanceSocket))
	if err != nil {
		return nil, fmt.Errorf("dial the container: %w", err)
	}
	var answer [1]byte // that the program accepts
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	_, err = io.ReadFull(c, answer[:])
	if !stop() || err != nil {
		c.Close()
		return nil, fmt.Errorf("dial port %d of the container: refused", i.p.port())
	}
	return c, nil
}

// Stats implements [driver.Instance].
func (i *docked) Stats(ctx context.Context) (driver.Stats, error) {
	select {
	case <-i.over:
		return driver.Stats{}, fmt.Errorf("container %s has ended", i.name)
	default:
	}
	s, err := i.p.engine.Stats(ctx, i.id)
	return driver.Stats{CPU: s.CPU, Memory: s.Memory, Pids: s.Pids}, err
}

// Stop implements [driver.Instance].
func (i *docked) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-i.over:
		return nil
	default:
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	if grace > 0 && ctx.Err() == nil {
		if err := i.p.engine.Kill(ctx, i.id, cmp.Or(i.p.stopSignal(i.spec), "SIGTERM")); err != nil {
			timer.Reset(0)
		}
		select {
		case <-i.over:
			return nil
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	kill, cancel := context.WithTimeout(context.Background(), killAllow)
	defer cancel()
	err := i.p.engine.Kill(kill, i.id, "SIGKILL")
	select {
	case <-i.over:
		return nil
	case <-kill.Done():
		return errors.Join(fmt.Errorf("stop container %s: still there %v after it was killed", i.name, killAllow), err)
	}
}

// Exec runs a command in the container, as its user and in its environment.
func (i *docked) Exec(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("run a command: none is given")
	}
	select {
	case <-i.over:
		return fmt.Errorf("run %s: container %s has ended", args[0], i.name)
	default:
	}
	said := &driver.Ending{}
	code, err := i.p.engine.Exec(ctx, i.id, args, said)
	switch last := said.Last(); {
	case err != nil:
		return fmt.Errorf("run %s: %w", args[0], cmp.Or(ctx.Err(), err))
	case code == 0:
		return nil
	case last != "":
		return fmt.Errorf("run %s: exit status %d: %s", args[0], code, last)
	}
	return fmt.Errorf("run %s: exit status %d", args[0], code)
}

// Declared implements [driver.Declarer].
func (i *docked) Declared() system.Health { return i.p.declared() }
