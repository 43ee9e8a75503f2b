package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"servent/control/etcd"
	"servent/driver/container"
	"servent/driver/vm"
	"servent/examples"
	"servent/node"
)

// Verbs by which the program starts itself.
const (
	nodeVerb    = "__node"
	etcdVerb    = "__etcd"
	laptopVerb  = "__laptop"
	connectVerb = "__connect"
)

// hidden verbs are the program's own: nodes, control's engine, a virtual machine's way to a door, a container's cable, the keeper of a detached system, and the
// examples' programs that need no compiler.
func (e *env) hidden() []*cobra.Command {
	return []*cobra.Command{
		{Use: nodeVerb, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return e.node(cmd.Context()) }},
		{Use: etcdVerb, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return etcd.ServeChild(cmd.Context(), e.in, e.out, e.err)
		}},
		e.laptopCmd(),
		{Use: connectVerb, Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return vm.Connect(cmd.Context(), args[0], e.in, e.out)
		}},
		{Use: container.Verb, Hidden: true, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
			return container.Main(cmd.Context(), args, e.in)
		}},
		{Use: "example NAME [ARGUMENTS]", Short: "Run the program of an example: needs no compiler", Args: cobra.MinimumNArgs(1), DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				return examples.Run(cmd.Context(), args[0], args[1:], e.out, e.err)
			}},
	}
}

func (e *env) laptopCmd() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{Use: laptopVerb, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		log, err := e.ownLog()
		if err != nil {
			return err
		}
		defer log.Close()
		return e.runLaptop(cmd.Context(), log, o)
	}}
	cmd.Flags().StringVar(&o.control, "control", "", "")
	cmd.Flags().StringVar(&o.listen, "listen", "", "")
	cmd.Flags().StringVar(&o.as, "as", "", "")
	return cmd
}

// node is a node's whole life: it is told what it is on standard input and ends with it.
func (e *env) node(ctx context.Context) error {
	out := json.NewEncoder(e.out)
	boot, words, err := node.ReadBoot(e.in)
	if err == nil {
		log := slog.New(slog.NewTextHandler(e.err, nil)).With("node", boot.ID)
		var one sync.Mutex // line at a time
		err = node.Run(ctx, boot, words, node.Options{EtcdVerb: etcdVerb, ConnectVerb: connectVerb, Log: log, Tell: func(t node.Told) {
			one.Lock()
			defer one.Unlock()
			_ = out.Encode(t) // who started it is gone
		}})
	}
	if err != nil {
		_ = out.Encode(node.Told{Failed: err.Error()})
	}
	return err
}
