package etcd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Child is a server in a process of its own. It outlives neither its parent nor [Child.Run].
type Child struct {
	opts ChildOptions
	up   chan struct{} // closed when the server has answered for the first time

	mu     sync.Mutex
	server Options     // the door keeps the port that it first got
	lent   string      // folder of sockets outside the own one; empty: none
	client *tls.Config // nil: the door is a unix socket
	last   error       // why it does not run
	pid    int
}

// ChildOptions of a [Child].
type ChildOptions struct {
	Argv []string // program and arguments that end in [ServeChild]
	Dir  string   // absolute folder of the data; made 0700
	Name string   // of this voter among the others; empty: it is alone

	Others []string // of a learner that starts for the first time, see [Options.Others]

	Log  io.Writer   // gets the server's own lines; nil discards
	Died func(error) // called after each end that nobody asked for, before the next start; may be nil
}

// NewChild returns a child that [Child.Run] starts.
func NewChild(o ChildOptions) *Child { return &Child{opts: o, up: make(chan struct{})} }

const (
	firstTries  = 3 // starts that may fail before it has ever answered
	startWithin = 30 * time.Second
	stopWithin  = 5 * time.Second
	readyLine   = "ready "
	socketNames = "door-%s.sock"
	peersName   = "voters"
	socketPath  = 100 // bytes; Linux takes 107, macOS 103
)

// Run starts the server, starts it again whenever it dies, at first after 50 ms and at most after 5 s,
// and stops it when ctx ends; it returns nil then. A server that never answered in three starts is an error.
func (c *Child) Run(ctx context.Context) error {
	if err := c.Prepare(); err != nil {
		return err
	}
	defer c.giveBack()
	const first, longest = 50 * time.Millisecond, 5 * time.Second
	for wait, try := first, 1; ; try++ {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.mu.Lock()
		c.last = err
		c.mu.Unlock()
		select {
		case <-c.up:
		default:
			if try == firstTries {
				return fmt.Errorf("start etcd in %s, %d times: %w", c.opts.Dir, try, err)
			}
		}
		if c.opts.Died != nil {
			c.opts.Died(err)
		}
		if time.Since(began) > 2*longest {
			wait = first
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, longest)
		}
	}
}

// Open waits until the server has answered once and returns a store of the keys below prefix.
func (c *Child) Open(ctx context.Context, prefix string) (*Store, error) {
	select {
	case <-c.up:
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, fmt.Errorf("open etcd in %s: %w", c.opts.Dir, errors.Join(ctx.Err(), c.last))
	}
	return Open(StoreOptions{Endpoints: []string{c.Door()}, TLS: c.tls(), Prefix: prefix})
}

// Door is where the server answers, as an endpoint of [Open]; it is known when [Child.Open] has returned.
func (c *Child) Door() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return "unix://" + filepath.ToSlash(c.server.Door)
	}
	return c.server.Door
}

func (c *Child) tls() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client
}

// Prepare makes the folders, so that [Child.Peer] has an answer before the server starts; [Child.Run] does it if nobody has.
func (c *Child) Prepare() error {
	c.mu.Lock()
	done := c.server.Dir != ""
	c.mu.Unlock()
	if done {
		return nil
	}
	if err := c.prepare(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	return nil
}

// prepare chooses the door: a unix socket where the system guards it by its folder's mode and its path
// is short enough, else loopback with a certificate on both sides.
func (c *Child) prepare() error {
	dir, err := filepath.Abs(c.opts.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if err := forget(filepath.Join(dir, fmt.Sprintf(socketNames, "*"))); err != nil {
		return err
	}
	// The name is this child's alone: the server of a parent that was killed removes its own when it ends, and that may be a while from now.
	server := Options{Dir: dataDir(dir), Door: filepath.Join(dir, fmt.Sprintf(socketNames, strings.ToLower(rand.Text()[:6])))}
	var client *tls.Config
	if runtime.GOOS == "windows" || len(server.Door) > socketPath {
		server.Door = "127.0.0.1:0"
		if client, err = makeKeys(dir, &server); err != nil {
			return err
		}
	}
	if c.opts.Name != "" {
		server.Name, server.Others = c.opts.Name, c.opts.Others
		if server.Peers, err = peersFolder(dir); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.client = server, client
	if server.Peers != "" && filepath.Dir(server.Peers) != dir {
		c.lent = server.Peers
	}
	return nil
}

// forget removes files.
func forget(pattern string) error {
	old, err := filepath.Glob(pattern)
	for _, path := range old {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// dataDir is the server's own folder in [ChildOptions.Dir].
func dataDir(dir string) string { return filepath.Join(dir, "etcd") }

// peersFolder is the folder of the voters' sockets, empty: the own one's, or one of the system's temporary folder when their paths would be too long.
func peersFolder(dir string) (string, error) {
	own := filepath.Join(dir, peersName)
	if err := os.RemoveAll(own); err != nil {
		return "", err
	}
	if len(own)+1+maxName+len(socketOf("")) > socketPath {
		return os.MkdirTemp("", "servent-voters-")
	}
	return own, os.Mkdir(own, 0o700)
}

const maxName = 40 // bytes of a usual node's name

// giveBack removes a folder that is not in the own one.
func (c *Child) giveBack() {
	c.mu.Lock()
	lent := c.lent
	c.mu.Unlock()
	if lent != "" {
		_ = os.RemoveAll(lent) // sockets of a process that has ended
	}
}

// Peer is the socket of a voter: the own one's server listens there, and for every other one somebody else must, who joins what comes with that
// voter's socket on its machine. Empty before [Child.Prepare].
func (c *Child) Peer(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.Peers == "" {
		return ""
	}
	return filepath.Join(c.server.Peers, socketOf(name))
}

// once runs the server until it ends.
func (c *Child) once(ctx context.Context) error {
	c.mu.Lock()
	options, err := json.Marshal(c.server)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.opts.Argv[0], c.opts.Argv[1:]...)
	// Half of Go's usual garbage: control's writes are rare, its memory is always there.
	cmd.Env = append(os.Environ(), "GOGC=50")
	tail := &tail{also: c.opts.Log}
	cmd.Stderr = tail
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Cancel, cmd.WaitDelay = in.Close, stopWithin // the end of its input asks it to stop
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.setPid(cmd.Process.Pid)
	defer c.setPid(0)
	slow := time.AfterFunc(c.startWithin(), func() { cmd.Process.Kill() })
	defer slow.Stop()
	_, err = fmt.Fprintf(in, "%s\n", options)
	for lines := bufio.NewScanner(out); err == nil && lines.Scan(); {
		if door, ok := strings.CutPrefix(lines.Text(), readyLine); ok && slow.Stop() {
			c.ready(door)
		}
	}
	in.Close()
	if err = cmd.Wait(); err == nil {
		err = errors.New("ended by itself")
	}
	if last := tail.last(); last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return fmt.Errorf("etcd: %w", err)
}

// startWithin is when a server that has not answered is taken for hanging: one of several may wait for the others as long as it takes.
func (c *Child) startWithin() time.Duration {
	if c.opts.Name != "" {
		return math.MaxInt64
	}
	return startWithin
}

// Pid is the server's process, or 0 while it does not run.
func (c *Child) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

func (c *Child) setPid(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
}

func (c *Child) ready(door string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		c.server.Door = door
	}
	c.last = nil
	select {
	case <-c.up:
	default:
		close(c.up)
	}
}

// ServeChild is what the child's process does: it reads its options from in, serves, says on out when
// it answers, and ends when in does, for then its parent has stopped or died. An interrupt from the
// terminal, which goes to parent and child alike, is left to the parent.
func ServeChild(ctx context.Context, in io.Reader, out, log io.Writer) error {
	signal.Ignore(os.Interrupt)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lines := bufio.NewReaderSize(in, 16<<10)
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("serve etcd: read options: %w", err)
	}
	var o Options
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("serve etcd: read options: %w", err)
	}
	go func() { // ends with the process: a read of a pipe cannot be called off
		io.Copy(io.Discard, lines)
		stop()
	}()
	o.Log = log
	o.Ready = func(door string) { fmt.Fprintf(out, "%s%s\n", readyLine, door) }
	return Serve(ctx, o)
}

// tail passes lines on and remembers why the server ended: the last thing that it called fatal, else its
// last line. (A panic's last line is one of its stack.)
type tail struct {
	also io.Writer

	mu    sync.Mutex // guards what follows
	part  []byte     // of a line
	line  string
	fatal string
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10 // of one line; what is longer is cut off in front
	t.mu.Lock()
	t.part = append(t.part, p...)
	for {
		line, rest, ended := bytes.Cut(t.part, []byte("\n"))
		if !ended {
			break
		}
		t.part = rest
		t.hear(bytes.TrimSpace(line))
	}
	t.part = bytes.Clone(t.part[max(0, len(t.part)-most):])
	t.mu.Unlock()
	if t.also == nil {
		return len(p), nil
	}
	return t.also.Write(p)
}

// hear takes one line. mu is held.
func (t *tail) hear(line []byte) {
	if len(line) > 0 {
		t.line = string(line)
	}
	var said struct{ Level, Msg, Error string }
	if json.Unmarshal(line, &said) == nil && (said.Level == "panic" || said.Level == "fatal") {
		t.fatal = strings.TrimSuffix(said.Msg+": "+said.Error, ": ")
	}
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.fatal, strings.TrimSpace(string(t.part)), t.line)
}
