package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
)

const (
	firstLook  = 2 * time.Millisecond // between looks whether a group is empty,
	lastLook   = 50 * time.Millisecond
	killAllow  = 5 * time.Second        // that the system may need to end a killed group
	outputWait = 500 * time.Millisecond // for output that a stranger holds open
	portTries  = 4                      // looks at a port that seems taken,
	portPause  = 50 * time.Millisecond  // so far apart
	watchEvery = 250 * time.Millisecond // the memory of an instance without a cgroup
)

type prepared struct {
	d *Driver
	a driver.Artifact
}

func (p *prepared) Close() error { return nil }

// Start makes the process. It refuses a port that somebody listens on already: the instance's checks
// and requests would go to a stranger.
func (p *prepared) Start(ctx context.Context, s driver.Spec) (driver.Instance, error) {
	i, err := p.start(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Instance, err)
	}
	return i, nil
}

func (p *prepared) start(ctx context.Context, s driver.Spec) (*instance, error) {
	program, args, err := p.d.resolve(p.a.Software.Run, p.a.Dir, s.Env)
	if err != nil {
		return nil, err
	}
	if err := knownSignal(s.Stop.Signal); err != nil {
		return nil, err
	}
	if s.Dir != "" {
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("private folder: %w", err)
		}
	}
	if err := free(ctx, s.Host, s.Port); err != nil {
		return nil, err
	}
	i := &instance{d: p.d, spec: s, token: token(), bundle: p.a.Dir,
		exit: make(chan driver.Exit, 1), over: make(chan struct{}), stopping: make(chan struct{})}
	outputs, err := newPipes(s.Stdout, s.Stderr)
	if err != nil {
		return nil, err
	}
	refused := p.d.do(func() {
		if !p.d.add(i) {
			err = errClosed
			return
		}
		i.cmd, i.group, err = p.d.spawn(s, i.token, func() *exec.Cmd {
			return &exec.Cmd{Path: program, Args: args, Env: i.environment(), Dir: s.Dir,
				Stdout: outputs[0].far(), Stderr: outputs[1].far()}
		})
		if err != nil {
			p.d.remove(i)
		}
	})
	if err = errors.Join(refused, err); err != nil {
		closePipes(outputs)
		return nil, err
	}
	go i.attend(outputs)
	return i, nil
}

// free says who has the port, if somebody has. It looks more than once: a child that somebody is just
// making holds all our sockets until its exec, one that was closed meanwhile too.
func free(ctx context.Context, host string, port int) error {
	if port == 0 {
		return nil
	}
	var lc net.ListenConfig
	for try := 1; ; try++ {
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return ln.Close()
		}
		if try < portTries && ctx.Err() == nil {
			time.Sleep(portPause)
			continue
		}
		if who := holder(port); who != "" {
			return fmt.Errorf("port %d is in use by %s: %w", port, who, err)
		}
		return fmt.Errorf("port %d: %w", port, err)
	}
}

// instance is one process group. attend is its goroutine: it ends when nothing is left, and
// [Driver.Close] makes it end.
type instance struct {
	d      *Driver
	spec   driver.Spec
	token  string
	bundle string
	cmd    *exec.Cmd
	group  *group

	exit     chan driver.Exit
	over     chan struct{} // closed when nothing is left
	stopping chan struct{} // closed by the first Stop
	once     sync.Once
	killing  atomic.Bool // no more grace
	tooLarge atomic.Bool // killed for its memory
}

func (i *instance) ID() string { return strconv.Itoa(i.Pid()) }

func (i *instance) Pid() int { return i.cmd.Process.Pid }

func (i *instance) Endpoint() driver.Endpoint {
	return driver.Endpoint{Address: net.JoinHostPort(i.spec.Host, strconv.Itoa(i.spec.Port))}
}

func (i *instance) Wait() <-chan driver.Exit { return i.exit }

func (i *instance) Stats(context.Context) (driver.Stats, error) {
	select {
	case <-i.over:
		return driver.Stats{}, fmt.Errorf("process %d has ended", i.Pid())
	default:
		return i.group.stats()
	}
}

func (i *instance) environment() []string {
	return append(append([]string(nil), i.spec.Env...), i.token)
}

// attend waits for the program, ends what it left behind, and tells.
func (i *instance) attend(outputs [2]*pipe) {
	var watch sync.WaitGroup
	ended := make(chan struct{})
	if i.group.watched && i.spec.Limits.Memory > 0 {
		watch.Go(func() { i.watchMemory(ended) })
	}
	err := i.cmd.Wait()
	for pause := firstLook; i.group.alive(); pause = min(2*pause, lastLook) {
		select {
		case <-i.stopping: // asked politely: the rest of the group has the rest of the grace
			if i.killing.Load() {
				i.group.kill()
			}
		default:
			i.group.kill()
		}
		time.Sleep(pause)
	}
	for end := time.Now().Add(killAllow); i.group.strays() > 0 && time.Now().Before(end); {
		time.Sleep(firstLook)
	}
	close(ended)
	watch.Wait()
	for _, p := range outputs {
		p.drain()
	}
	exit := exitOf(i.cmd.ProcessState, err)
	exit.OOM = i.tooLarge.Load() || !exit.OK() && i.group.oom()
	i.d.do(func() { i.d.forget(i.group) }) // a closed driver has forgotten all
	i.d.remove(i)
	close(i.over)
	i.exit <- exit
}

// watchMemory kills an instance that has more than it may, where no cgroup does.
func (i *instance) watchMemory(ended <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if i.group.private() > i.spec.Limits.Memory {
				i.tooLarge.Store(true)
				i.killing.Store(true)
				i.group.kill()
			}
		case <-ended:
			return
		}
	}
}

// Stop signals the group, waits grace or until ctx ends, and kills it.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	i.once.Do(func() { close(i.stopping) })
	select {
	case <-i.over: // and its number may be another's
		return nil
	default:
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	if grace > 0 && ctx.Err() == nil {
		if err := i.group.signal(i.spec.Stop.Signal); err != nil {
			timer.Reset(0) // it cannot be asked
		}
		select {
		case <-i.over:
			return nil
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	i.killing.Store(true)
	i.group.kill()
	timer.Reset(killAllow)
	select {
	case <-i.over:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop process %d: still there %v after it was killed", i.Pid(), killAllow)
	}
}

// Exec runs a command with the instance's environment in its folder; ctx kills it.
func (i *instance) Exec(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("run a command: none is given")
	}
	program, args, err := i.d.resolve(args, i.bundle, i.spec.Env)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Args, cmd.Env, cmd.Dir = args, i.environment(), i.spec.Dir
	said := &driver.Ending{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = outputWait
	lead(cmd)
	select {
	case <-i.over:
		return fmt.Errorf("run %s: process %d has ended", args[0], i.Pid())
	default:
	}
	var started error
	if err := errors.Join(i.d.do(func() { started = cmd.Start() }), started); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	if err := cmd.Wait(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", args[0], ctx.Err())
	} else if err != nil {
		if last := said.Last(); last != "" {
			return fmt.Errorf("run %s: %w: %s", args[0], err, last)
		}
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	return nil
}

// pipe carries one stream of output from the process to a writer. exec.Cmd could, but would wait
// for children that hold the far end before anybody ends them.
type pipe struct {
	read, write *os.File
	done        chan struct{}
}

func newPipes(writers ...io.Writer) (pipes [2]*pipe, err error) {
	for n, w := range writers {
		if w == nil {
			continue
		}
		r, f, err := os.Pipe()
		if err != nil {
			closePipes(pipes)
			return pipes, fmt.Errorf("pipe for the output: %w", err)
		}
		p := &pipe{r, f, make(chan struct{})}
		pipes[n] = p
		go func() {
			defer close(p.done)
			if _, err := io.Copy(w, r); err != nil { // at the last far end's close there is none
				io.Copy(io.Discard, r) // the program must not wait for us
			}
		}()
	}
	return pipes, nil
}

func closePipes(pipes [2]*pipe) {
	for _, p := range pipes {
		p.drain()
	}
}

// far is what the process writes to: nil, a discarding file, when nobody listens.
func (p *pipe) far() io.Writer {
	if p == nil {
		return nil
	}
	return p.write
}

// drain closes our end of the far side and reads the rest.
func (p *pipe) drain() {
	if p == nil {
		return
	}
	p.write.Close()
	stop := time.AfterFunc(outputWait, func() { p.read.Close() })
	<-p.done
	stop.Stop()
	p.read.Close()
}
