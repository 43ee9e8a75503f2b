package launch

import (
	"bufio"
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
	command []string // program and arguments that become a node
	boot    func() (node.Boot, error)
	logFile string
	changed func() // tells the laptop
	log     *slog.Logger

	mu     sync.Mutex // guards what follows
	words  *json.Encoder
	state  admin.NodeState
	proc   *os.Process
	again  chan struct{} // closed to start at once instead of after the back-off; nil: it runs
	asked  bool          // a restart was asked for
	failed string        // what the node told of its end
}

// Run keeps the node running until ctx ends, then stops it in good order and waits.
func (c *child) Run(ctx context.Context) {
	for wait := comeBack; ; {
		began := time.Now()
		c.set("starting", "")
		err := c.life(ctx)
		if ctx.Err() != nil {
			c.set("stopped", "")
			return
		}
		if time.Since(began) > comeBackMax {
			wait = comeBack
		}
		again := c.pause()
		if again == nil {
			continue
		}
		c.log.Warn("node ended", "node", c.id, "err", err, "back_in", wait)
		c.set("gone", fmt.Sprintf("%v; it comes back in %s", err, wait))
		select {
		case <-ctx.Done():
			c.set("stopped", "")
			return
		case <-again:
			c.pause()
			wait = comeBack
		case <-time.After(wait):
			wait = min(2*wait, comeBackMax)
		}
	}
}

// pause returns what a restart that is asked for closes, or nil when one was asked for already.
func (c *child) pause() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked {
		c.asked, c.again = false, nil
		return nil
	}
	c.again = make(chan struct{})
	return c.again
}

// life is one process from start to end.
func (c *child) life(ctx context.Context) error {
	boot, err := c.boot()
	if err != nil {
		return err
	}
	out, err := openLog(c.logFile)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(c.command[0], c.command[1:]...)
	ownGroup(cmd)
	cmd.Stderr = out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	words := json.NewEncoder(stdin)
	c.mu.Lock()
	c.words, c.proc, c.failed = words, cmd.Process, ""
	c.state.Pid = cmd.Process.Pid
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.end(stdin) })
	defer stop()
	if err := words.Encode(boot); err != nil {
		_ = cmd.Process.Kill()
	}
	c.listen(stdout)
	err = cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.words, c.proc, c.state.Pid = nil, nil, 0
	if c.failed != "" {
		return errors.New(c.failed)
	}
	return fmt.Errorf("the process ended: %w", orClean(err))
}

var errClean = errors.New("exit 0")

func orClean(err error) error {
	if err == nil {
		return errClean
	}
	return err
}

// listen reads what the node tells until its output closes.
func (c *child) listen(r io.Reader) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		var told node.Told
		if json.Unmarshal(sc.Bytes(), &told) != nil {
			continue // a library's stray line: it is no word of ours
		}
		if told.Failed != "" {
			c.mu.Lock()
			c.failed = told.Failed
			c.mu.Unlock()
		}
		if told.Serving {
			c.set("up", "")
		}
	}
}

// end asks the node to stop, and kills it when it does not.
func (c *child) end(stdin io.Closer) {
	c.mu.Lock()
	proc, words := c.proc, c.words
	c.mu.Unlock()
	if words != nil {
		_ = words.Encode(node.Word{Stop: true}) // it is gone already
	}
	time.AfterFunc(stopGrace, func() {
		stdin.Close()
		if proc != nil {
			_ = proc.Kill() // it has ended already
		}
	})
}

// Renew hands the node its next certificate.
func (c *child) Renew(cred identity.Credential) {
	c.mu.Lock()
	words := c.words
	c.mu.Unlock()
	if words != nil {
		_ = words.Encode(node.Word{Credential: &cred}) // a node that just died gets a new one at its start
	}
}

// Restart ends the process if there is one; it starts again at once.
func (c *child) Restart() {
	c.mu.Lock()
	words, proc := c.words, c.proc
	c.asked = true
	if c.again != nil {
		close(c.again)
		c.again = nil
	}
	c.mu.Unlock()
	if words != nil {
		_ = words.Encode(node.Word{Stop: true})               // it is gone already
		time.AfterFunc(stopGrace, func() { _ = proc.Kill() }) // it has ended already
	}
}

// State is what is known of the node from outside.
func (c *child) State() admin.NodeState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *child) set(state, why string) {
	c.mu.Lock()
	c.state.State, c.state.Why = state, why
	c.state.Since = time.Now()
	c.mu.Unlock()
	c.changed()
}

// openLog opens a process's log to append, after it set an overlong one aside.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxNodeLog {
		_ = os.Rename(path, path+".1") // a log that cannot be set aside only grows
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
