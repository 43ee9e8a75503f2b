package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/system"
	"servent/system/notation"
)

func (e *env) faultCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Kill, pause, cut off or slow down nodes, to see what holds",
		Long: "A fault works on nodes of this machine while their system runs. It is there when the command returns, and ends by itself:\n" +
			"after --for, with servent fault heal, or with the system. Nothing has to stay open for that.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var verbs []string
			for _, sub := range cmd.Commands() {
				verbs = append(verbs, sub.Name())
			}
			return fmt.Errorf("fault: want one of %s, have %q%s", strings.Join(verbs, ", "), args[0], notation.Suggest(args[0], verbs))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.faultKillCmd(), e.faultPauseCmd(), e.faultCutCmd(), e.faultSlowCmd(), e.faultHealCmd(), e.faultLsCmd())
	return cmd
}

func (e *env) faultKillCmd() *cobra.Command {
	t := admin.Trouble{Kind: admin.FaultKill}
	cmd := e.troubleCmd(&t, cobra.ExactArgs(1), 1)
	cmd.Use, cmd.Short = "kill NODE", "Kill a node's process, as kill -9 does"
	cmd.Long = "The node's process ends at once, and all it runs with it. It comes back after --for, or, without it, with servent fault heal,\n" +
		"servent restart NODE or the next servent up."
	cmd.Example = "  servent fault kill node-2 --for 5s"
	cmd.Flags().DurationVar(&t.For, "for", 0, "how long the node stays dead; 0s: until it is healed")
	return cmd
}

func (e *env) faultPauseCmd() *cobra.Command {
	t := admin.Trouble{Kind: admin.FaultPause}
	cmd := e.troubleCmd(&t, cobra.ExactArgs(1), 1)
	cmd.Use, cmd.Short = "pause NODE", "Stop a node's process where it is; it goes on afterwards"
	cmd.Example = "  servent fault pause node-2 --for 10s"
	cmd.Flags().DurationVar(&t.For, "for", admin.FaultFor, "how long")
	return cmd
}

func (e *env) faultCutCmd() *cobra.Command {
	t := admin.Trouble{Kind: admin.FaultCut}
	cmd := e.troubleCmd(&t, cobra.RangeArgs(1, 2), 2)
	cmd.Use, cmd.Short = "cut NODE [NODE]", "Let nothing pass between two nodes, or between one and all others"
	cmd.Example = "  servent fault cut node-1 node-2 --for 10s\n  servent fault cut node-2"
	cmd.Flags().DurationVar(&t.For, "for", admin.FaultFor, "how long")
	cmd.Flags().BoolVar(&t.OneWay, "one-way", false, "only what the first one sends")
	return cmd
}

func (e *env) faultSlowCmd() *cobra.Command {
	t := admin.Trouble{Kind: admin.FaultSlow}
	rate := ""
	cmd := e.troubleCmd(&t, cobra.RangeArgs(1, 2), 2)
	cmd.Use, cmd.Short = "slow NODE [NODE]", "Let what passes between two nodes be late, or little, or between one and all others"
	cmd.Example = "  servent fault slow node-1 node-2 --latency 100ms --jitter 10ms --rate 1Mbit --for 10s"
	cmd.Flags().DurationVar(&t.For, "for", admin.FaultFor, "how long")
	cmd.Flags().DurationVar(&t.Latency, "latency", 0, "more delay, one way; a request pays it twice")
	cmd.Flags().DurationVar(&t.Jitter, "jitter", 0, "the delay is the latency ± up to `DURATION`")
	cmd.Flags().StringVar(&rate, "rate", "", "pass at most `BITS` a second each way, as 1Mbit")
	cmd.Flags().BoolVar(&t.OneWay, "one-way", false, "only what the first one sends")
	trouble := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if rate != "" {
			if t.Rate, err = notation.Bits(rate); err != nil {
				return misuse{&system.Hint{Err: fmt.Errorf("--rate: %w", err), Next: cmd.CommandPath() + " --help"}}
			}
		}
		return trouble(cmd, args)
	}
	return cmd
}

// troubleCmd is what all verbs that make a fault share: up to two nodes, and when it begins.
func (e *env) troubleCmd(t *admin.Trouble, args cobra.PositionalArgs, most int) *cobra.Command {
	cmd := &cobra.Command{
		Args:              args,
		ValidArgsFunction: e.completed(most, machines),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.Node = system.NodeID(args[0])
			if len(args) > 1 {
				t.Peer = system.NodeID(args[1])
			}
			if err := t.Check(); err != nil {
				return misuse{&system.Hint{Err: err, Next: cmd.CommandPath() + " --help"}}
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			f, err := client.Trouble(cmd.Context(), *t)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(f)
			}
			table(e.out, [][]string{faultRow(f, time.Now())})
			fmt.Fprintf(e.err, "sooner: servent%s fault heal %d\n", e.where(), f.ID)
			return nil
		},
	}
	cmd.Flags().DurationVar(&t.After, "after", 0, "begin so much later; the command does not wait for it")
	return cmd
}

func (e *env) faultHealCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "heal [FAULT|NODE]",
		Short:             "End a fault by its number, all of a node, or all",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: e.completed(1, machines),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			what := ""
			if len(args) == 1 {
				what = args[0]
			}
			healed, err := client.Heal(cmd.Context(), what)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(healed)
			}
			for _, f := range healed {
				fmt.Fprintf(e.out, "%d  %s  healed\n", f.ID, f.Trouble)
			}
			if len(healed) == 0 {
				fmt.Fprintln(e.err, "there was no fault")
			}
			return nil
		},
	}
}

func (e *env) faultLsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the faults that are, and those to come",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return e.faultLs(cmd.Context()) },
	}
}

func (e *env) faultLs(ctx context.Context) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	fs, err := client.Faults(ctx)
	if err != nil {
		return err
	}
	if e.json {
		return e.print(fs)
	}
	if len(fs) == 0 {
		fmt.Fprintln(e.err, "no fault\nnext: servent fault kill NODE | pause NODE | cut NODE NODE | slow NODE NODE --latency 100ms")
		return nil
	}
	rows, now := [][]string{{"FAULT", "WHAT", "TIME"}}, time.Now()
	for _, f := range fs {
		rows = append(rows, faultRow(f, now))
	}
	table(e.out, rows)
	return nil
}

// faultRow is a fault with the time that is left of it, or left until it begins.
func faultRow(f admin.Fault, now time.Time) []string {
	var when string
	if wait := f.Begins.Sub(now); wait > 0 {
		when = "in " + short(wait) + ", "
	}
	switch {
	case f.Ends.IsZero():
		when += "until it is healed"
	case when != "":
		when += "for " + f.For.String()
	default:
		when = short(max(0, f.Ends.Sub(now))) + " left"
	}
	return []string{fmt.Sprint(f.ID), f.Trouble.String(), when}
}
