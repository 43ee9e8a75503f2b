package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
)

func (e *env) psCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List the instances: where they run, how they are, why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := e.state(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.print(s.Instances)
			}
			e.ps(s)
			return nil
		},
	}
}

// headline says which system answers, and on what.
func headline(s admin.State) string {
	up := 0
	for _, n := range s.Nodes {
		if n.State == "up" {
			up++
		}
	}
	return fmt.Sprintf("%s · %s · %d of %s up · plan %d", orDash(s.System), s.Context, up, count(len(s.Nodes), "node"), s.Generation)
}

func (e *env) ps(s admin.State) {
	fmt.Fprintln(e.err, headline(s))
	if s.Control != "" {
		fmt.Fprintf(e.err, "control does not answer (%s); this is the last that was seen, and requests go on\n", s.Control)
	}
	if s.Survives != "" && len(s.Nodes) > 1 {
		fmt.Fprintln(e.err, s.Survives)
	}
	for _, n := range s.Nodes {
		if n.State != "up" {
			fmt.Fprintf(e.err, "%s is %s: %s\n", n.Node, n.State, orDash(n.Why))
		}
	}
	e.alarms(s)
	rows := [][]string{{"INSTANCE", "NODE", "ARCHITECTURE", "STATE", "SINCE", "RESTARTS", "URL"}}
	next := ""
	for _, in := range s.Instances {
		state := string(in.State)
		if in.Why != "" {
			state += " " + in.Why
		}
		if in.Next != "" && next == "" {
			next = in.Next
		}
		rows = append(rows, []string{string(in.Instance), string(in.Node), string(in.Architecture), state, ago(in.Since), fmt.Sprint(in.Restarts), orDash(in.URL)})
	}
	table(e.out, rows)
	for _, svc := range s.Services {
		if svc.Called != nil && svc.Called.Want == 0 {
			fmt.Fprintf(e.out, "%s: %s\n", svc.Service, asleep(svc))
		}
	}
	for _, r := range s.Refused {
		fmt.Fprintf(e.out, "%s lacks %s: %s\n", r.Service, count(r.Missing, "instance"), r.Reason)
		next = "servent explain " + string(r.Service)
	}
	if next != "" {
		fmt.Fprintf(e.err, "next: %s\n", next)
	}
}

// alarms says what will hurt nodes before long.
func (e *env) alarms(s admin.State) {
	for _, n := range s.Nodes {
		for _, a := range n.Alarms {
			fmt.Fprintf(e.err, "alarm: %s: %s\n", n.Node, a.Text)
		}
	}
}

// asleep says of a function that nobody calls how it is.
func asleep(svc admin.ServiceState) string {
	switch {
	case svc.Why != "":
		return "0 instances, cannot wake: " + svc.Why
	case svc.Preparing > 0:
		return "0 instances, is being prepared on " + count(svc.Preparing, "node")
	}
	return fmt.Sprintf("0 instances, wakes when called; woken %s so far", count(svc.Called.Wakes, "time"))
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
