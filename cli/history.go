package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"servent/system"
)

func (e *env) historyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "history", Short: "List what was wanted, the last 20 times", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := client.History(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.print(all)
			}
			rows := [][]string{{"REVISION", "SINCE", "WHAT"}}
			for _, r := range all {
				n := strconv.Itoa(r.N)
				if r.Now {
					n += " now"
				}
				rows = append(rows, []string{n, ago(r.At), r.What})
			}
			table(e.out, rows)
			return nil
		},
	}
}

func (e *env) rollbackCmd() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "rollback [REVISION]",
		Short: "Go back to what was wanted before, without a failed request",
		Long: "Rollback makes the system of a revision, by default the one before the last, what is wanted, with the very bytes that it had.\n" +
			"It is a change like any other, and gets a number of its own. Data is not taken back, and the file is not touched.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) == 1 {
				var err error
				if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
					return misuse{&system.Hint{Err: fmt.Errorf("want the number of a revision, have %q", args[0]), Next: "servent history"}}
				}
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			if err := client.Rollback(cmd.Context(), n); err != nil {
				return err
			}
			return e.settle(cmd.Context(), client, o)
		},
	}
	cmd.Flags().DurationVar(&o.wait, "wait", time.Minute, "how long the system may take until all is ready")
	return cmd
}
