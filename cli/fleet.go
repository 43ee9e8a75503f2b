package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/identity"
	"servent/launch"
	"servent/system"
)

func (e *env) tokenCmd() *cobra.Command {
	role, ttl := "", time.Duration(0)
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token by which one machine joins this fleet",
		Long: "Token prints the command that another machine joins by. The token counts once, and for as long as --ttl says.\n" +
			"It holds the fingerprint of the fleet's authority, so that its secret is never sent to anybody else.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			t, err := client.Token(cmd.Context(), role, ttl)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(t)
			}
			fmt.Fprintf(e.out, "servent join %s %s\n", t.Address, t.Token)
			fmt.Fprintf(e.err, "on the other machine, once, before %s\n", t.Expires.Local().Format("15:04:05"))
			return nil
		},
	}
	cmd.Flags().StringVar(&role, "role", string(identity.Node), "what it will be: `node`, which also commands the fleet; server, which also keeps the plan with the first machine; or edge, which runs what names it and sees nothing else")
	cmd.Flags().DurationVar(&ttl, "ttl", 15*time.Minute, "how long the token counts, to 24h")
	return cmd
}

func (e *env) joinCmd() *cobra.Command {
	var o launch.JoinOptions
	var labels []string
	cmd := &cobra.Command{
		Use:   "join [ADDRESS TOKEN]",
		Short: "Make this machine one of a fleet, and run its part until Ctrl-C",
		Long: "Join makes this machine a node of the fleet whose first machine is at ADDRESS, and runs what the plan has it run. On that machine,\n" +
			"servent token prints the whole command; a TOKEN of - is read from standard input. Without words it goes on as the member\n" +
			"that this folder's machine is. Ctrl-C stops the node, which stays a member until servent leave.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return misuse{&system.Hint{Err: fmt.Errorf("want ADDRESS and TOKEN, or neither; have %d words", len(args)), Next: "on the fleet's first machine: servent token"}}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Folder = e.folder()
			if len(args) == 2 {
				var err error
				if o.Labels, err = labelled(labels); err != nil {
					return err
				}
				if err = e.joins(cmd.Context(), o, args[0], args[1]); err != nil {
					return err
				}
			}
			return e.member(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.As, "as", "", "the machine's `NAME` in the fleet; its own by default")
	cmd.Flags().StringVar(&o.Host, "host", "", "`ADDRESS` by which the others reach this machine; by default the one that it reaches the fleet from")
	cmd.Flags().StringVar(&o.Site, "site", "", "where it stands: `SITE`")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "`NAME=VALUE` that placement constraints may ask for")
	return cmd
}

// joins makes this machine a member.
func (e *env) joins(ctx context.Context, o launch.JoinOptions, address, text string) (err error) {
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(e.in, 1<<10))
		if err != nil {
			return err
		}
		text = string(b)
	}
	o.Address = address
	if o.Token, err = identity.ParseToken(text); err != nil {
		return misuse{&system.Hint{Err: err, Next: "on the fleet's first machine: servent token"}}
	}
	who, err := launch.Join(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "joined %s as %s\n", who.Cluster, who.Node)
	return nil
}

// member runs this machine's node.
func (e *env) member(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if !e.folder().Joined() {
		return &system.Hint{Err: fmt.Errorf("this folder's machine is in no fleet"), Next: "servent join ADDRESS TOKEN"}
	}
	file, err := launch.OpenLog(e.folder().Log("member"))
	if err != nil {
		return err
	}
	defer file.Close()
	defer unheard()()
	told := false
	err = launch.RunMember(ctx, launch.MemberOptions{Folder: e.folder(), Command: []string{exe, nodeVerb}, Kill: e.kill,
		Log: slog.New(slog.NewTextHandler(file, nil)),
		Tell: func(id system.NodeID, words string) {
			fmt.Fprintf(e.err, "%s  %s\n", id, words)
			if !told && words == "up" {
				fmt.Fprintln(e.err, "stop: Ctrl-C; it stays a member until: servent"+e.where()+" leave")
				told = true
			}
		}})
	if err == nil {
		fmt.Fprintln(e.err, "stopped")
	}
	return err
}

func (e *env) leaveCmd() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "End this machine's membership of its fleet",
		Long:  "Leave ends the membership: what ran here is started elsewhere, and the machine's certificate counts no more. Data stays in the folder.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := launch.Leave(cmd.Context(), e.folder(), force)
			if err != nil {
				return err
			}
			fmt.Fprintln(e.err, strings.TrimSpace("left "+who.Cluster))
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "here alone, when the fleet does not answer")
	return cmd
}

func (e *env) auditCmd() *cobra.Command {
	last, refused := 0, false
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Say who did what to this fleet, and what was refused",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 0 {
				return misuse{fmt.Errorf("--last: want a whole number from 0, have %d", last)}
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			rows := [][]string{{"TIME", "WHO", "WHAT", "OF", "FROM", "REFUSED"}}
			err = client.Audit(cmd.Context(), last, func(a system.Act) error {
				switch {
				case refused && a.Why == "":
				case e.json:
					return e.line(a)
				default:
					rows = append(rows, []string{a.Time.Local().Format(time.DateTime), orDash(a.Who), orDash(a.What), orDash(a.Of), orDash(a.From), a.Why})
				}
				return nil
			})
			if err == nil && !e.json {
				for _, row := range rows {
					for i := range row { // names and words of strangers may hold what would move the cursor
						row[i] = strings.Map(printable, row[i])
					}
				}
				table(e.out, rows)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&last, "last", 50, "the last `N` acts; 0: all that are kept, up to 10000")
	cmd.Flags().BoolVar(&refused, "refused", false, "of these only what was refused")
	return cmd
}

func (e *env) nodeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "The machines of the system: list, label, remove, run by systemd",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{Use: "ls", Short: "List the nodes, also those that do not answer", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		s, err := e.state(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.print(s.Nodes)
		}
		e.nodes(s)
		return nil
	}}
	label := &cobra.Command{
		Use: "label NODE NAME=VALUE…", Short: "Set labels that placement constraints may ask for; NAME= removes one",
		Example: "  servent node label b disk=ssd gpu=", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := labelled(args[1:])
			if err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.Label(cmd.Context(), system.NodeID(args[0]), labels)
		},
	}
	rm := &cobra.Command{
		Use: "rm NODE", Short: "Put a machine out of the fleet: its certificate counts no more", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.Remove(cmd.Context(), system.NodeID(args[0]))
		},
	}
	cmd.AddCommand(ls, label, rm, e.installCmd(), e.uninstallCmd())
	return cmd
}

// nodes prints the machines of a system.
func (e *env) nodes(s admin.State) {
	fmt.Fprintln(e.err, headline(s))
	if s.Survives != "" {
		fmt.Fprintln(e.err, s.Survives)
	}
	e.alarms(s)
	rows := [][]string{{"NODE", "ROLE", "STATE", "ADDRESS", "SITE", "LABELS", "INSTANCES", "PLAN", "SINCE"}}
	for _, n := range s.Nodes {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
			labels = append(labels, k+"="+n.Labels[k])
		}
		on := 0
		for _, in := range s.Instances {
			if in.Node == n.Node {
				on++
			}
		}
		state := n.State
		if n.Drained {
			state += ", drained"
		}
		if n.Why != "" {
			state += ": " + n.Why
		}
		rows = append(rows, []string{string(n.Node), orDash(n.Role), state, n.Address, orDash(string(n.Site)), orDash(strings.Join(labels, " ")), fmt.Sprint(on), fmt.Sprint(n.Plan), ago(n.Since)})
	}
	table(e.out, rows)
}

// labelled reads NAME=VALUE words.
func labelled(words []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, misuse{fmt.Errorf("want NAME=VALUE, have %q", w)}
		}
		labels[k] = v
	}
	return labels, nil
}
