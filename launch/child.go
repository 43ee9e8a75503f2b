package launch

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"servent/admin"
	"servent/identity"
	"servent/node"
	"servent/system"
)

const (
	comeBack    = 5 * time.Second // a node that died comes back after this, then after twice as long, …
	comeBackMax = time.Minute
	stopGrace   = 20 * time.Second // its instances' own grace is 10s
	maxNodeLog  = 8 << 20          // bytes; the log before is kept as .1
)

// child is one node's process: started, watched, started again when it dies.
type child struct {
	id      system.NodeID
	command []string                  // program and arguments that become a node
	boot    func() (node.Boot, error) // what it is told, as the file stands at its start
	logFile string
	changed func()           // tells that State did
	refused func(system.Act) // hears what the node refused to others; nil: nobody does
	log     *slog.Logger
	cancel  context.CancelFunc // ends Run

	again chan struct{}            // room for one: a restart is asked for
	creds chan identity.Credential // room for one: its next certificate

	servers chan []node.Server // room for one: who answers for control from now on

	ways chan struct{} // room for one: its faults changed

	mu      sync.Mutex // guards what follows
	state   admin.NodeState
	failed  error // why it is gone; nil: it is not
	process *os.Process
	trouble trouble
	heard   int64 // the turn of the faults that its link has
}

// Run keeps the node running until ctx ends, then stops it in good order and waits; once kill is closed
// it ends it without waiting for anything.
func (c *child) Run(ctx context.Context, kill <-chan struct{}) {
	for wait := comeBack; ctx.Err() == nil; {
		if !c.mayLive(ctx) {
			break
		}
		began := time.Now()
		c.set("starting", "", 0)
		asked, err := c.life(ctx, kill)
		if ctx.Err() != nil {
			break
		}
		if asked || c.down() {
			wait = comeBack
			continue
		}
		if time.Since(began) > comeBackMax {
			wait = comeBack
		}
		c.log.Warn("node ended", "node", c.id, "err", err, "back_in", wait)
		c.mu.Lock()
		c.failed = err
		c.mu.Unlock()
		c.set("gone", fmt.Sprintf("%v; it comes back in %s", err, wait), 0)
		select {
		case <-ctx.Done():
		case <-c.again:
			wait = comeBack
		case <-time.After(wait):
			wait = min(2*wait, comeBackMax)
		}
	}
	c.set("stopped", "", 0)
}

// life is one process from start to end. It says whether it ended because a restart was asked for, and
// if not, why.
func (c *child) life(ctx context.Context, kill <-chan struct{}) (asked bool, err error) {
	boot, err := c.boot()
	if err != nil {
		return false, err
	}
	boot.Faults = c.faults()
	out, err := OpenLog(c.logFile)
	if err != nil {
		return false, err
	}
	defer out.Close()
	cmd := exec.Command(c.command[0], c.command[1:]...)
	ownGroup(cmd)
	cmd.Stderr = out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start node: %w", err)
	}
	c.set("starting", "", cmd.Process.Pid)
	defer c.born(cmd.Process)()
	ended := make(chan error, 1) // buffered: read once
	go func() {                  // ends with the process
		failed := c.listen(stdout, cmd.Process.Pid)
		err := cmd.Wait()
		if failed != "" {
			err = errors.New(failed)
		} else {
			err = fmt.Errorf("the process ended: %w", cmp.Or(err, errClean))
		}
		ended <- err
	}()
	words := json.NewEncoder(stdin)
	if err := words.Encode(boot); err != nil {
		_ = cmd.Process.Kill() // it may have died by itself, and says why
		return false, errors.Join(<-ended, fmt.Errorf("tell the node what it is: %w", err))
	}
	for {
		select {
		case err := <-ended:
			return false, err
		case cred := <-c.creds:
			_ = words.Encode(node.Word{Credential: &cred}) // one that just died gets a new one at its start
			continue
		case servers := <-c.servers:
			_ = words.Encode(node.Word{Servers: servers}) // as with a certificate
			continue
		case <-c.ways:
			c.tell(words)
			continue
		case <-c.again:
			asked = true
		case <-ctx.Done():
		}
		break
	}
	_ = proceed(cmd.Process) // who is paused hears nothing
	_ = stdin.Close()        // the end of its input asks it to stop
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case err := <-ended:
		return asked, err
	case <-kill:
	case <-late.C:
		c.log.Warn("node does not stop; it is killed", "node", c.id)
	}
	_ = cmd.Process.Kill() // it has ended by itself
	return asked, <-ended
}

var errClean = errors.New("exit 0")

// listen reads what the node tells until its output closes, and returns why it failed, if it said so.
func (c *child) listen(r io.Reader, pid int) (failed string) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		var told node.Told
		if json.Unmarshal(sc.Bytes(), &told) != nil {
			continue // a library's stray line: it is no word of ours
		}
		if told.Failed != "" {
			failed = told.Failed
		}
		if told.Serving {
			c.set("up", "", pid)
		}
		if told.Refused != nil && c.refused != nil {
			c.refused(*told.Refused)
		}
		if told.Heard > 0 {
			c.hears(told.Heard)
		}
	}
	_, _ = io.Copy(io.Discard, r) // after an overlong line: a node must never wait for a reader
	return failed
}

// Renew hands the node its next certificate. It does not wait.
func (c *child) Renew(cred identity.Credential) { hand(c.creds, cred) }

// Servers tells the node who answers for control from now on. It does not wait.
func (c *child) Servers(all []node.Server) { hand(c.servers, all) }

// hand puts what is newest into a channel with room for one.
func hand[T any](to chan T, what T) {
	select {
	case <-to: // one that was never taken
	default:
	}
	select {
	case to <- what:
	default: // a newer one is there
	}
}

// Restart ends the process if there is one; it starts again at once. It does not wait.
func (c *child) Restart() {
	select {
	case c.again <- struct{}{}:
	default: // asked for already
	}
}

// Failed is why the process ended by itself; nil when it runs.
func (c *child) Failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// State is what is known of the node from outside.
func (c *child) State() admin.NodeState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	if s.State == "up" && c.trouble.why != "" {
		s.Why = c.trouble.why
		if c.trouble.paused {
			s.State = "paused"
		}
	}
	return s
}

func (c *child) set(state, why string, pid int) {
	c.mu.Lock()
	if state != "gone" {
		c.failed = nil
	}
	if c.state.State != state {
		c.state.Since = time.Now()
	}
	c.state.State, c.state.Why, c.state.Pid = state, why, pid
	c.mu.Unlock()
	c.changed()
}

// OpenLog opens a process's log to append, after it set an overlong one aside.
func OpenLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxNodeLog {
		_ = os.Rename(path, path+".1") // a log that cannot be set aside only grows
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
