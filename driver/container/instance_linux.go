package container

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"servent/blob"
	"servent/driver"
	"servent/system"
)

const (
	look       = 2 * time.Millisecond   // between looks whether runc has made the container
	killAllow  = 10 * time.Second       // that the system may need to end a killed container
	outputWait = 500 * time.Millisecond // for output that a stranger holds open
)

// instance is one container. attend is its goroutine: it ends when nothing is left.
type instance struct {
	d     *Driver
	p     *prepared
	spec  driver.Spec
	id    string
	dir   string      // of its configuration and the layer that it writes
	runc  string      // folder of runc's notes
	pid   int         // of its first process, as the node sees it
	first *os.Process // that process; nil as long as there is none
	room  *room
	ways  *ways
	front net.Listener // its own port on the node; nil: none
	cmd   *exec.Cmd
	guard *guard

	exit chan driver.Exit
	over chan struct{} // closed when nothing is left
}

// Start implements [driver.Prepared].
func (p *prepared) Start(ctx context.Context, s driver.Spec) (driver.Instance, error) {
	var i driver.Instance
	var err error
	if p.engine != nil {
		i, err = p.dock(ctx, s)
	} else {
		i, err = p.start(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Instance, err)
	}
	return i, nil
}

func (p *prepared) start(ctx context.Context, s driver.Spec) (started *instance, err error) {
	dir, err := filepath.Abs(filepath.Join(s.Dir, ".container"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(blob.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("make the container's folder: %w", err)
	}
	i := &instance{d: p.d, p: p, spec: s, id: freshID(s.Instance), dir: dir,
		exit: make(chan driver.Exit, 1), over: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.leave())
		}
	}()
	if i.runc, err = p.d.runcRoot(); err != nil {
		return nil, err
	}
	if i.room, err = newRoom(furnished); err != nil {
		return nil, err
	}
	if err := p.layer(i.room, dir); err != nil {
		return nil, err
	}
	if i.ways, err = openWays(i.room, s.Ways, p.egress()); err != nil {
		return nil, err
	}
	if s.Port != 0 {
		if i.front, err = net.Listen("tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port))); err != nil {
			return nil, fmt.Errorf("port %d: %w", s.Port, err)
		}
	}
	spec, err := p.spec(i.id, dir, s, i.ways)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if i.guard, err = newGuard("/bin/sh", "-c", guardScript, i.runc, i.id); err != nil {
		return nil, err
	}
	if err := i.run(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// freshID names a container: the instance, and what makes this life of it one of a kind.
func freshID(of system.InstanceID) string {
	return strings.ReplaceAll(string(of), "/", "-") + "-" + strings.ToLower(rand.Text()[:12])
}

// run starts runc in the room and waits until the container exists. runc stays for as long as it does, passes
// signals on and ends as it ended.
func (i *instance) run(ctx context.Context) error {
	pidFile, logFile := filepath.Join(i.dir, "pid"), filepath.Join(i.dir, "runc.log")
	cmd := exec.Command("runc", "--root", i.runc, "--log", logFile, "run", "--keep", "--bundle", i.dir, "--pid-file", pidFile, i.id)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = i.spec.Stdout, i.spec.Stderr, outputWait
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // with the room's thread
	if err := i.d.remember(i); err != nil {
		return err
	}
	i.cmd = cmd
	if err := i.room.do(cmd.Start); err != nil {
		i.cmd = nil
		i.d.forget(i)
		return fmt.Errorf("runc: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		b, _ := os.ReadFile(pidFile)
		if n, err := strconv.Atoi(string(b)); err == nil {
			i.pid = n
			i.first, _ = os.FindProcess(n) // by a descriptor: never a stranger with the same number
			go i.attend(ended)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			i.kill()
			<-ended
			i.d.forget(i)
			return ctx.Err()
		case err := <-ended:
			if b, _ := os.ReadFile(pidFile); len(b) > 0 { // it has run, and ended before it was looked at
				ended <- err
				go i.attend(ended)
				return nil
			}
			i.d.forget(i)
			said := &driver.Ending{}
			if f, err := os.Open(logFile); err == nil {
				io.Copy(said, f)
				f.Close()
			}
			if last := message(said.Last()); last != "" {
				err = errors.New(last)
			}
			return fmt.Errorf("runc: %w", err)
		}
	}
}

// message takes what runc says out of a line of its log: time="…" level=error msg="…".
func message(line string) string {
	if _, after, ok := strings.Cut(line, "msg="); ok {
		if text, err := strconv.Unquote(strings.TrimSpace(after)); err == nil {
			return text
		}
	}
	return line
}

// attend waits for the end, clears up and tells.
func (i *instance) attend(ended <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	var passing sync.WaitGroup
	passing.Go(func() { i.ways.serve(ctx, i.d.opts.Log) })
	if i.front != nil {
		passing.Go(func() { pass(ctx, i.front, i.dial) })
	}
	err := <-ended
	exit := exitOf(i.cmd.ProcessState, err)
	exit.OOM = !exit.OK() && cgroups.killedForMemory(i.id)
	cancel()
	i.ways.close()
	if i.front != nil {
		i.front.Close()
	}
	passing.Wait()
	if err := i.leave(); err != nil {
		i.d.opts.Log.Warn("a container is not cleared away", "instance", i.spec.Instance, "err", err)
	}
	i.d.forget(i)
	close(i.over)
	i.exit <- exit
}

// remember notes what Close has to stop.
func (d *Driver) remember(i driver.Instance) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the container driver is closed")
	}
	d.running[i] = true
	return nil
}

func (d *Driver) forget(i driver.Instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, i)
}

// leave gives back all that start took, as far as it came.
func (i *instance) leave() (err error) {
	if i.cmd != nil {
		if out, bad := exec.Command("runc", "--root", i.runc, "delete", "--force", i.id).CombinedOutput(); bad != nil && !bytes.Contains(out, []byte("does not exist")) {
			err = fmt.Errorf("runc delete: %w: %s", bad, bytes.TrimSpace(out))
		}
	}
	if i.guard != nil {
		i.guard.dismiss()
	}
	if i.ways != nil {
		i.ways.close()
	}
	if i.front != nil {
		i.front.Close()
	}
	if i.room != nil {
		i.room.close()
	}
	return errors.Join(err, blob.RemoveAll(i.dir))
}

// exitOf reads runc's own end, which is the program's: as with a shell, 128 and more stand for a signal.
func exitOf(state *os.ProcessState, err error) driver.Exit {
	if state == nil {
		return driver.Exit{Err: err}
	}
	if st, ok := state.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return driver.Exit{Code: -1, Signal: word(st.Signal())}
	}
	if n := state.ExitCode() - 128; n > 0 && n < 65 {
		return driver.Exit{Code: -1, Signal: word(syscall.Signal(n))}
	}
	return driver.Exit{Code: state.ExitCode()}
}

func word(s syscall.Signal) string { return s.String() }

func (i *instance) ID() string { return i.id }

func (i *instance) Pid() int { return i.pid }

func (i *instance) Wait() <-chan driver.Exit { return i.exit }

// Endpoint implements [driver.Instance]: the node's switches dial in the instance's network, others at its port
// on the node.
func (i *instance) Endpoint() driver.Endpoint {
	return driver.Endpoint{Address: net.JoinHostPort(i.spec.Host, strconv.Itoa(i.spec.Port)), Dial: i.dial}
}

func (i *instance) dial(ctx context.Context) (net.Conn, error) { return i.room.dial(ctx, i.p.port()) }

// Stats implements [driver.Instance].
func (i *instance) Stats(context.Context) (driver.Stats, error) {
	select {
	case <-i.over:
		return driver.Stats{}, fmt.Errorf("container %s has ended", i.id)
	default:
		return cgroups.stats(i.id)
	}
}

// kill ends the container's first process, and with it all others, or runc while there is none.
func (i *instance) kill() {
	if i.first != nil {
		_ = i.first.Kill()
		return
	}
	_ = exec.Command("runc", "--root", i.runc, "kill", i.id, "KILL").Run()
	_ = i.cmd.Process.Kill()
}

// Stop implements [driver.Instance]: the signal is the file's, the image's, or SIGTERM.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-i.over:
		return nil
	default:
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	if grace > 0 && ctx.Err() == nil {
		if err := i.ask(); err != nil {
			timer.Reset(0)
		}
		select {
		case <-i.over:
			return nil
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	i.kill()
	timer.Reset(killAllow)
	select {
	case <-i.over:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop container %s: still there %v after it was killed", i.id, killAllow)
	}
}

// ask sends the polite signal to runc, which passes it on: runc's number is its own for as long as we wait.
func (i *instance) ask() error {
	signal, err := signalOf(i.p.stopSignal(i.spec))
	if err != nil {
		return err
	}
	return i.cmd.Process.Signal(signal)
}

// stopSignal is the word of the polite signal; "" is SIGTERM.
func (p *prepared) stopSignal(s driver.Spec) string { return cmp.Or(s.Stop.Signal, p.image.StopSignal) }

// signalOf reads SIGTERM, TERM or 15; "" is SIGTERM.
func signalOf(said string) (syscall.Signal, error) {
	if said == "" {
		return syscall.SIGTERM, nil
	}
	if n, err := strconv.Atoi(said); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(said), "SIG")
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s, nil
	}
	after, ok := strings.CutPrefix(name, "RTMIN+")
	if n, err := strconv.Atoi(after); ok && err == nil && n >= 0 && n <= 30 {
		return syscall.Signal(34 + n), nil
	}
	return 0, fmt.Errorf("signal %q is not known here", said)
}

// Exec runs a command in the container, as its user and in its environment.
func (i *instance) Exec(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("run a command: none is given")
	}
	select {
	case <-i.over:
		return fmt.Errorf("run %s: container %s has ended", args[0], i.id)
	default:
	}
	pid, err := os.CreateTemp(i.dir, "exec-*.pid")
	if err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	pid.Close()
	defer os.Remove(pid.Name())
	cmd := exec.CommandContext(ctx, "runc", append([]string{"--root", i.runc, "exec", "--pid-file", pid.Name(), i.id}, args...)...)
	cmd.Cancel = func() error { // a killed runc would leave the command running
		b, _ := os.ReadFile(pid.Name())
		if n, err := strconv.Atoi(string(b)); err == nil && n > 0 {
			return syscall.Kill(n, syscall.SIGKILL)
		}
		return cmd.Process.Kill()
	}
	said := &driver.Ending{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = said, said, outputWait
	// From the room: runc joins what is in the container's configuration, and its network is not.
	if err = i.room.do(cmd.Start); err == nil {
		err = cmd.Wait()
	}
	switch last := message(said.Last()); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("run %s: %w", args[0], ctx.Err())
	case last != "":
		return fmt.Errorf("run %s: %w: %s", args[0], err, last)
	}
	return fmt.Errorf("run %s: %w", args[0], err)
}

// Docker's defaults of a HEALTHCHECK (docs.docker.com/reference/dockerfile, HEALTHCHECK).
const (
	checkEvery   = 30 * time.Second // interval, and timeout
	checkRetries = 3
)

// Declared implements [driver.Declarer].
func (i *instance) Declared() system.Health { return i.p.declared() }

// declared is the image's HEALTHCHECK, in its SHELL.
func (p *prepared) declared() system.Health {
	c := p.image.Healthcheck
	if c == nil || len(c.Test) < 2 {
		return system.Health{}
	}
	h := system.Health{Interval: cmp.Or(c.Interval, checkEvery), Timeout: cmp.Or(c.Timeout, checkEvery),
		Retries: cmp.Or(c.Retries, checkRetries), StartPeriod: c.StartPeriod}
	switch {
	case c.Test[0] == "CMD":
		h.Command = slices.Clone(c.Test)
	case c.Test[0] == "CMD-SHELL" && len(p.image.Shell) > 0:
		h.Command = append(append([]string{"CMD"}, p.image.Shell...), c.Test[1:]...)
	case c.Test[0] == "CMD-SHELL":
		h.Command = slices.Clone(c.Test)
	}
	return h
}

// guard is a process of its own session, a shell beside runc, that outlives a killed node for a moment: when its input ends without a
// word, it ends the container.
type guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

const guardScript = `trap '' HUP INT QUIT TERM PIPE TSTP TTIN TTOU
read -r word && exit 0
for round in 1 2 3 4 5; do runc --root "$0" delete --force "$1" 2>/dev/null && exit 0; sleep 1; done
`

func newGuard(command string, args ...string) (*guard, error) {
	cmd := exec.Command(command, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &guard{cmd, in}, nil
}

// dismiss lets the guard go: the container is gone.
func (g *guard) dismiss() {
	_, _ = io.WriteString(g.in, "gone\n")
	_ = g.in.Close()
	_ = g.cmd.Wait()
}
