package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
)

// completed completes a verb's words with what choose picks from the running system; nothing when none
// runs or it does not answer soon: a shell waits.
func (e *env) completed(most int, choose func(admin.State) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		how := cobra.ShellCompDirectiveNoFileComp
		client, err := e.client()
		if err != nil || most > 0 && len(args) >= most {
			return nil, how
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
		defer cancel()
		s, err := client.State(ctx)
		if err != nil {
			return nil, how
		}
		words := choose(s)
		return slices.DeleteFunc(words, func(w string) bool { return slices.Contains(args, w) }), how
	}
}

func services(s admin.State) (out []string) {
	for _, svc := range s.Services {
		out = append(out, string(svc.Service))
	}
	return out
}

func instances(s admin.State) (out []string) {
	for _, in := range s.Instances {
		out = append(out, string(in.Instance))
	}
	return out
}

func machines(s admin.State) (out []string) {
	for _, n := range s.Nodes {
		out = append(out, string(n.Node))
	}
	return out
}

// several joins choices.
func several(chosen ...func(admin.State) []string) func(admin.State) []string {
	return func(s admin.State) (out []string) {
		for _, choose := range chosen {
			out = append(out, choose(s)...)
		}
		return out
	}
}
