package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"servent/placement"
)

func (e *env) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "explain SERVICE|INSTANCE|NODE",
		Short:             "Say why something is where it is, what every other node would have cost, and how requests are spread",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: e.completed(1, several(services, instances, machines)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			x, err := client.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.print(x)
			}
			if s, err := client.State(cmd.Context()); err == nil {
				fmt.Fprintln(e.err, headline(s))
			}
			if x.Number != "" {
				fmt.Fprintf(e.out, "%s has %s\n", x.What, x.Number)
			}
			for _, c := range x.Choices {
				e.choice(c)
			}
			if x.Switched != "" {
				fmt.Fprintf(e.out, "%s is switched %s\n", x.What, x.Switched)
			}
			if len(x.Choices) == 0 && x.Number == "" {
				fmt.Fprintf(e.out, "%s runs nothing\n", x.What)
			}
			return nil
		},
	}
}

func (e *env) choice(c placement.Choice) {
	switch {
	case c.Instance == "":
		fmt.Fprintf(e.out, "one more has no place: %s\n", c.Reason)
	case c.Waits != "":
		fmt.Fprintf(e.out, "%s belongs to %s and waits: %s\n", c.Instance, c.Node, c.Waits)
	default:
		fmt.Fprintf(e.out, "%s is on %s: %s\n", c.Instance, c.Node, c.Reason)
	}
	var rows [][]string
	for _, n := range c.Nodes {
		word := "fits"
		if n.Node == c.Node {
			word = "here"
		} else if n.Why != "" {
			word = "no"
		}
		rows = append(rows, []string{"  " + string(n.Node), word, n.Why, n.Cost.String()})
	}
	table(e.out, rows)
}
