package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

func (e *env) downCmd() *cobra.Command {
	volumes := false
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop everything; data stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.folder().Own("down"); err != nil {
				return err
			}
			client, running := e.folder().Answers(cmd.Context())
			switch {
			case running:
			case !e.folder().Free():
				return &system.Hint{Err: errors.New("the system starts or stops just now, or hangs"), Next: "cat " + near(e.folder().Log("laptop"))}
			case volumes:
				if err := e.folder().Remove(cmd.Context()); err != nil {
					return err
				}
				fmt.Fprintln(e.err, "nothing ran here; data is removed")
				return nil
			default:
				return admin.ErrNotRunning
			}
			if err := client.Stop(cmd.Context(), volumes); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			e.awaitEnd(ctx)
			if err := ctx.Err(); err != nil {
				return &system.Hint{Err: fmt.Errorf("not down yet: %w", err), Next: "cat " + near(e.folder().Log("laptop"))}
			}
			if volumes {
				fmt.Fprintln(e.err, "stopped; data is removed")
			} else {
				fmt.Fprintln(e.err, "stopped; data stays in "+near(string(e.folder())))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&volumes, "volumes", false, "remove the data, too")
	return cmd
}

func (e *env) scaleCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "scale SERVICE=N…",
		Short:   "Set numbers of instances until the next up",
		Example: "  servent scale api=4",
		Args:    cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			names, how := e.completed(0, services)(cmd, args, word)
			for i := range names {
				names[i] += "="
			}
			return names, how | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			counts := map[system.ServiceName]int{}
			for _, arg := range args {
				name, num, ok := strings.Cut(arg, "=")
				n, err := strconv.Atoi(num)
				if !ok || err != nil {
					return misuse{&system.Hint{Err: fmt.Errorf("scale: want SERVICE=N, have %q", arg), Next: "servent scale " + name + "=2"}}
				}
				counts[system.ServiceName(name)] = n
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			if err := client.Scale(cmd.Context(), counts); err != nil {
				return e.full(err)
			}
			return e.settle(cmd.Context(), client, upOptions{wait: wait})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long it may take")
	return cmd
}

func (e *env) restartCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:               "restart SERVICE|NODE",
		Short:             "Restart a service without a failed request, or a node",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: e.completed(1, several(services, machines)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			if err := client.Restart(cmd.Context(), args[0]); err != nil {
				return e.full(err)
			}
			return e.settle(cmd.Context(), client, upOptions{wait: wait})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long it may take")
	return cmd
}

// full says that the disk is full, if it is, beside an error that may come of it: control then only falls silent.
func (e *env) full(err error) error {
	if !e.folder().Full() {
		return err
	}
	why, next := noSpace(e.folder())
	return &system.Hint{Err: fmt.Errorf("%w; %s", err, why), Next: next}
}

// noSpace is what is said of a full disk, and where to look.
func noSpace(f launch.Folder) (why, next string) {
	return "no space left on the disk of " + near(string(f)), "df -h " + near(string(f))
}
