//go:build unix

package process

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// guard is a shell of its own session that outlives a killed node for a moment. It reads from a pipe
// which instances run: the token of each before it starts, its group as soon as there is one. When the
// pipe ends without a word, the node is dead, however it died, and the guard kills what is left: groups,
// and on Linux whoever has a token in its environment. A group that was told gone is never killed: its
// number may be another's by then.
type guard struct {
	in     *os.File
	cmd    *exec.Cmd
	gone   chan struct{}  // closed when the shell has ended
	groups map[string]int // token → group, 0 before there is one
	warned bool
}

const shellPath = "/bin/sh"

const guardScript = `trap '' HUP INT QUIT TERM PIPE TSTP TTIN TTOU
list=' '
while read -r op token pgid; do
	kept=' '
	for e in $list; do [ "${e%%:*}" = "$token" ] || kept="$kept$e "; done
	list=$kept
	[ "$op" = + ] && list="$list$token:$pgid "
done
for e in $list; do
	[ "${e##*:}" = 0 ] || kill -9 "-${e##*:}"
done
[ -r /proc/self/environ ] || exit 0
for round in 1 2 3; do
	for e in $list; do
		for p in $(grep -ls -e "${e%%:*}" /proc/[0-9]*/environ); do
			p=${p#/proc/}; kill -9 "${p%/environ}"
		done
	done
done
`

// guardMissing names what is lost where no guard can run.
func guardMissing() map[string]string {
	if _, err := os.Stat(shellPath); err != nil {
		return map[string]string{"guard": "no " + shellPath + ": children of instances outlive a killed node until it starts again"}
	}
	return nil
}

// add names an instance, and its group once there is one. All methods run on the keeper.
func (g *guard) add(d *Driver, token string, pgid int) {
	if g.groups == nil {
		g.groups = map[string]int{}
	}
	g.groups[token] = pgid
	if g.alive() && g.tell("+ %s %d\n", token, pgid) == nil {
		return
	}
	g.close()
	err := g.start()
	for token, pgid := range g.groups {
		if err == nil {
			err = g.tell("+ %s %d\n", token, pgid)
		}
	}
	if err != nil && !g.warned {
		g.warned = true
		d.opts.Log.Warn("no guard: children of instances outlive a killed node until it starts again", "err", err)
	}
}

func (g *guard) remove(token string) {
	delete(g.groups, token)
	if g.alive() {
		g.tell("- %s\n", token) // a guard that cannot be told is dead; the next add makes another
	}
}

func (g *guard) alive() bool {
	if g.cmd == nil {
		return false
	}
	select {
	case <-g.gone:
		return false
	default:
		return true
	}
}

func (g *guard) tell(format string, args ...any) error {
	if err := g.in.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell the guard: %w", err)
	}
	if _, err := fmt.Fprintf(g.in, format, args...); err != nil {
		return fmt.Errorf("tell the guard: %w", err)
	}
	return nil
}

func (g *guard) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	defer r.Close()
	cmd := &exec.Cmd{Path: shellPath, Args: []string{shellPath, "-c", guardScript, "servent-guard"}, Dir: "/",
		Env: []string{"PATH=/usr/bin:/bin"}, Stdin: r, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start the guard: %w", err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		cmd.Wait() // close waits for us
	}()
	g.in, g.cmd, g.gone = w, cmd, gone
	return nil
}

// close ends the guard. What was told and not taken back is killed.
func (g *guard) close() {
	if g.cmd == nil {
		return
	}
	g.in.Close()
	<-g.gone
	g.cmd = nil
}
