package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"servent/admin"
	"servent/system"
)

// tree shows a system while it settles: on a terminal a picture that is drawn anew in place, elsewhere
// one line per thing that changed.
type tree struct {
	w       io.Writer
	live    bool
	began   time.Time
	drawn   int                                // lines of the picture that stands
	shown   map[system.InstanceID]system.State // elsewhere: what was told
	nodes   map[system.NodeID]string
	since   map[system.InstanceID]time.Time // first sight, for the time it took
	trouble string
}

func newTree(e *env) *tree {
	f, ok := e.err.(*os.File)
	live := ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &tree{w: e.err, live: live, began: time.Now(), shown: map[system.InstanceID]system.State{},
		nodes: map[system.NodeID]string{}, since: map[system.InstanceID]time.Time{}}
}

func (t *tree) show(s admin.State) {
	for _, in := range s.Instances {
		if _, ok := t.since[in.Instance]; !ok {
			t.since[in.Instance] = time.Now()
		}
	}
	if t.live {
		t.draw(s)
		return
	}
	for _, n := range s.Nodes {
		if was := t.nodes[n.Node]; was != n.State && (was != "" || n.State == "gone") {
			fmt.Fprintf(t.w, "%s  %s  %s\n", n.Node, n.State, n.Why)
		}
		t.nodes[n.Node] = n.State
	}
	if s.Control != t.trouble && s.Control != "" && t.trouble != "" {
		fmt.Fprintf(t.w, "control  away  %s\n", s.Control)
	}
	t.trouble = s.Control
	for _, in := range s.Instances {
		if t.shown[in.Instance] == in.State || quiet(in.State) {
			continue
		}
		t.shown[in.Instance] = in.State
		fmt.Fprintln(t.w, strings.TrimRight(fmt.Sprintf("%s  %s  %s  %s  %s", in.Instance, in.Node, in.State, t.took(in), in.Why), " "))
	}
}

// quiet states are steps on the way that nobody needs on a line of its own.
func quiet(s system.State) bool {
	return s == system.StatePreparing || s == system.StateStarting
}

func (t *tree) took(in admin.InstanceState) string {
	if in.State != system.StateReady {
		return ""
	}
	return short(in.Since.Sub(t.since[in.Instance]).Abs())
}

var (
	green  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	red    = lipgloss.NewStyle().Foreground(lipgloss.Red)
	faint  = lipgloss.NewStyle().Faint(true)
)

func (t *tree) draw(s admin.State) {
	lines := t.lines(s)
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn) // to the first line of the picture
	}
	for _, l := range lines {
		b.WriteString("\x1b[2K" + l + "\n")
	}
	b.WriteString("\x1b[J") // what a longer picture left below
	t.drawn = len(lines)
	_, _ = io.WriteString(t.w, b.String()) // the terminal is gone
}

func (t *tree) lines(s admin.State) []string {
	up := 0
	for _, n := range s.Nodes {
		if n.State == "up" {
			up++
		}
	}
	head := fmt.Sprintf("%s · %d of %s up · EMULATED on this machine · %s", orDash(s.System), up, count(len(s.Nodes), "node"), short(time.Since(t.began)))
	lines := []string{head}
	for _, svc := range s.Services {
		lines = append(lines, fmt.Sprintf("%s  %s", svc.Service, faint.Render(string(svc.Architecture))))
		for _, in := range s.Instances {
			if in.Service == svc.Service {
				lines = append(lines, strings.TrimRight(fmt.Sprintf("  %s  %s  %s  %s  %s", mark(in.State)+" "+string(in.Instance), in.Node, in.State, t.took(in), faint.Render(in.Why)), " "))
			}
		}
	}
	return lines
}

func mark(s system.State) string {
	switch s {
	case system.StateReady, system.StateDone:
		return green.Render("●")
	case system.StateFailed, system.StateBackoff, system.StateUnhealthy:
		return red.Render("●")
	case system.StateWaiting, system.StateDraining:
		return yellow.Render("○")
	}
	return faint.Render("◌")
}

func (t *tree) end() { t.drawn = 0 }

// tell prints what happens to a running system, a line each, until ctx ends.
func (e *env) tell(ctx context.Context, client *admin.Client) error {
	began := time.Now()
	return client.Events(ctx, true, func(ev system.Event) error {
		if ev.Time.Before(began) {
			return nil
		}
		return e.event(ev)
	})
}
