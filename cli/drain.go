package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/system"
)

func (e *env) drainCmd() *cobra.Command {
	wait := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Empty a node, without a failed request",
		Long: "Drain moves what runs on a node elsewhere: each instance's successor is ready before it goes. Services that are tied to their data stay.\n" +
			"The node gets nothing new until servent uncordon.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: e.completed(1, machines),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			node := system.NodeID(args[0])
			if err := client.Drain(cmd.Context(), node); err != nil {
				return err
			}
			return e.emptied(cmd.Context(), client, node, wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long it may take; 0s: do not wait")
	return cmd
}

var errStill = errors.New("still there")

// emptied waits until only what is tied to its data is left on a node, and says what that is.
func (e *env) emptied(ctx context.Context, client *admin.Client, node system.NodeID, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errStill)
	defer cancel()
	var moving, stay []string
	seen := ""
	err := client.Watch(ctx, func(s admin.State) error {
		moving, stay = nil, nil
		for _, in := range s.Instances {
			switch {
			case in.Node != node:
			case in.Tied:
				stay = append(stay, string(in.Instance))
			default:
				moving = append(moving, string(in.Instance))
			}
		}
		if left := strings.Join(moving, ", "); left != seen && left != "" {
			seen = left
			fmt.Fprintf(e.err, "%s still runs %s\n", node, left)
		}
		if len(moving) == 0 {
			return errSettled
		}
		return nil
	})
	switch {
	case errors.Is(err, errSettled) && len(stay) > 0:
		fmt.Fprintf(e.err, "%s is drained; %s stay with their data\n", node, strings.Join(stay, ", "))
		return nil
	case errors.Is(err, errSettled):
		fmt.Fprintf(e.err, "%s is empty\n", node)
		return nil
	case errors.Is(context.Cause(ctx), errStill):
		return &system.Hint{Err: fmt.Errorf("after %s %s still runs %s", wait, node, strings.Join(moving, ", ")), Next: "servent explain " + moving[0]}
	}
	return err
}

func (e *env) uncordonCmd() *cobra.Command {
	return &cobra.Command{
		Use: "uncordon NODE", Short: "Let a drained node get instances again", Args: cobra.ExactArgs(1), ValidArgsFunction: e.completed(1, machines),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.Uncordon(cmd.Context(), system.NodeID(args[0]))
		},
	}
}
