package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"servent/placement"
	"servent/route"
	"servent/system"
)

func (e *env) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "explain SERVICE|INSTANCE|NODE [KEY]",
		Short:             "Say why something is where it is, what every other node would have cost, and how requests are spread",
		Example:           "  servent explain hits\n  servent explain hits ada   (whose the key ada is)",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: e.completed(1, several(services, instances, machines)),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			x, err := client.Explain(cmd.Context(), args[0], args[1:]...)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(x)
			}
			if s, err := client.State(cmd.Context()); err == nil {
				fmt.Fprintln(e.err, headline(s))
			}
			if x.Key != nil {
				fmt.Fprintln(e.out, belongs(*x.Key))
				return nil
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

// belongs says whose a key is: ada belongs to hits/2 on node-3: partition 17 of 4096; copies: hits/3 on node-1.
func belongs(b route.Belonging) string {
	if len(b.Owners) == 0 {
		return b.Key + " belongs to nobody yet: no instance has a place"
	}
	text := fmt.Sprintf("%s belongs to %s on %s: ", b.Key, b.Owners[0].Instance, b.Owners[0].Node)
	if b.Partition != nil {
		text += fmt.Sprintf("partition %d of %d", *b.Partition, system.Partitions)
	} else {
		text += "place " + b.Place + " on the circle of 2^64"
	}
	sep := "; copies: "
	for _, o := range b.Owners[1:] {
		text += fmt.Sprintf("%s%s on %s", sep, o.Instance, o.Node)
		sep = ", "
	}
	return text
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
