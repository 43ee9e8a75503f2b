package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"servent/admin"
	"servent/system"
)

// tree shows a system while it settles: on a terminal a picture that is drawn anew in place, elsewhere
// one line per thing that changed.
type tree struct {
	w       io.Writer
	size    func() (width, height int) // of the terminal; nil: there is none
	colour  bool
	began   time.Time
	drawn   int                                // lines of the picture that stands
	shown   map[system.InstanceID]system.State // elsewhere: what was told
	nodes   map[system.NodeID]string
	since   map[system.InstanceID]time.Time // first sight, for the time it took
	trouble string
	head    string // elsewhere: the first line, once it is told
}

func newTree(e *env) *tree {
	t := &tree{w: e.err, began: time.Now(), shown: map[system.InstanceID]system.State{},
		nodes: map[system.NodeID]string{}, since: map[system.InstanceID]time.Time{}}
	if terminal(e.err) {
		t.colour = os.Getenv("NO_COLOR") == ""
		t.size = func() (int, int) {
			width, height, err := term.GetSize(int(e.err.(*os.File).Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		}
	}
	return t
}

// terminal says that w is one whose cursor can be moved.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func (t *tree) show(s admin.State) {
	for _, in := range s.Instances {
		if _, ok := t.since[in.Instance]; !ok {
			t.since[in.Instance] = time.Now()
		}
	}
	if t.size != nil {
		t.draw(s)
		return
	}
	if t.head == "" {
		t.head = headline(s)
		fmt.Fprintln(t.w, t.head)
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
		fmt.Fprintln(t.w, words(string(in.Instance), string(in.Node), string(in.State), t.took(in), in.Why))
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

func (t *tree) draw(s admin.State) {
	width, height := t.size()
	lines := fit(t.lines(s), height-1)
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn) // to the first line of the picture
	}
	for _, l := range lines {
		// A line that wraps would be two lines of the picture: none reaches the last column.
		b.WriteString("\x1b[2K" + lipgloss.NewStyle().MaxWidth(max(1, width-1)).Render(t.paint(l)) + "\n")
	}
	b.WriteString("\x1b[J") // what a longer picture left below
	t.drawn = len(lines)
	_, _ = io.WriteString(t.w, b.String()) // the terminal is gone
}

// leaf is one line of the picture.
type leaf struct {
	state system.State // of an instance; empty: not one
	text  string
	faint string // what follows, less loud
}

func (t *tree) lines(s admin.State) []leaf {
	up := 0
	for _, n := range s.Nodes {
		if n.State == "up" {
			up++
		}
	}
	what := "EMULATED on this machine"
	if s.Context == "fleet" {
		what = "fleet"
	}
	lines := []leaf{{text: fmt.Sprintf("%s · %d of %s up · %s · %s", orDash(s.System), up, count(len(s.Nodes), "node"), what, short(time.Since(t.began)))}}
	for _, svc := range s.Services {
		line := leaf{text: string(svc.Service), faint: string(svc.Architecture)}
		if svc.Called != nil && svc.Called.Want == 0 {
			line.faint += "  " + asleep(svc)
		}
		lines = append(lines, line)
		for _, in := range s.Instances {
			if in.Service == svc.Service {
				lines = append(lines, leaf{in.State, words(string(in.Instance), string(in.Node), string(in.State), t.took(in)), in.Why})
			}
		}
	}
	return lines
}

// words joins those that are not empty.
func words(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(w string) bool { return w == "" }), "  ")
}

// fit leaves out what is well, from the end, until no more than height lines are left, and says how many
// are missing: what is not ready yet is what one looks for.
func fit(lines []leaf, height int) []leaf {
	height = max(height, 2)
	if len(lines) <= height {
		return lines
	}
	missing := len(lines) - (height - 1)
	out := slices.Clone(lines)
	for _, must := range []bool{false, true} { // first what is well, then whatever
		for i := len(out) - 1; i > 0 && len(out) > height-1; i-- {
			if must || out[i].state == system.StateReady || out[i].state == system.StateDone {
				out = slices.Delete(out, i, i+1)
			}
		}
	}
	return append(out, leaf{text: "… and " + count(missing, "line") + " more"})
}

// paint is a line as the terminal gets it. Words of programs may hold what would move the cursor.
func (t *tree) paint(l leaf) string {
	style := func(s lipgloss.Style, text string) string {
		if text = strings.Map(printable, text); !t.colour || text == "" {
			return text
		}
		return s.Render(text)
	}
	text := style(lipgloss.NewStyle(), l.text)
	if l.state != "" {
		symbol, colour := mark(l.state)
		text = "  " + style(colour, symbol) + " " + text
	}
	if l.faint != "" {
		text += "  " + style(lipgloss.NewStyle().Faint(true), l.faint)
	}
	return text
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return ' '
	}
	return r
}

func mark(s system.State) (string, lipgloss.Style) {
	style := lipgloss.NewStyle()
	switch s {
	case system.StateReady, system.StateDone:
		return "●", style.Foreground(lipgloss.Green)
	case system.StateFailed, system.StateBackoff, system.StateUnhealthy:
		return "●", style.Foreground(lipgloss.Red)
	case system.StateWaiting, system.StateDraining:
		return "○", style.Foreground(lipgloss.Yellow)
	}
	return "◌", style.Faint(true)
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
