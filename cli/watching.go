package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/system"
)

func (e *env) logsCmd() *cobra.Command {
	q := admin.LogQuery{}
	cmd := &cobra.Command{
		Use:               "logs [SERVICE|INSTANCE]",
		Short:             "Print what the programs wrote",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: e.completed(1, several(services, instances)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Of = args[0]
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			err = client.Logs(cmd.Context(), q, func(l admin.LogLine) error {
				if e.json {
					return e.line(l)
				}
				_, err := fmt.Fprintf(e.out, "%s  %s  %s\n", l.Time.Format("15:04:05.000"), l.Instance, l.Text)
				return err
			})
			return untilStopped(cmd.Context(), err)
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().IntVar(&q.Tail, "tail", 100, "the last `N` lines of each instance; -1: all that are kept")
	return cmd
}

func (e *env) eventsCmd() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened: placements, moves, starts, ends, with reasons",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return untilStopped(cmd.Context(), client.Events(cmd.Context(), follow, e.event))
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	return cmd
}

func (e *env) event(ev system.Event) error {
	if e.json {
		return e.line(ev)
	}
	_, err := fmt.Fprintf(e.out, "%s  %s  %s\n", ev.Time.Format("15:04:05.000"), subject(ev), ev.Text)
	return err
}

// subject is what an event is about: the narrowest name that it has.
func subject(ev system.Event) string {
	return cmp.Or(string(ev.Instance), string(ev.Service), string(ev.Node), ev.Kind)
}

// untilStopped makes Ctrl-C the ordinary end of an answer that goes on.
func untilStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
