package cli

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// sections are the parts of a page by their headings.
func sections(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for part := range strings.SplitSeq(string(b), "\n## ") {
		head, text, _ := strings.Cut(part, "\n")
		out[strings.Trim(head, "`")] = text
	}
	return out
}

// docs/commands.md names every verb with its words, every flag, and nothing else.
func TestCommandsAreDocumented(t *testing.T) {
	const general = "Flags of every verb"
	page := sections(t, "../docs/commands.md")
	root := (&env{in: strings.NewReader(""), out: io.Discard, err: io.Discard}).root()
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpFlag()
	flags := func(set *pflag.FlagSet, text, of string) {
		set.VisitAll(func(f *pflag.Flag) {
			want := "`--" + f.Name
			if f.Shorthand != "" {
				want = "`-" + f.Shorthand + "`, " + want
			}
			if !strings.Contains(text, "| "+want+" ") && !strings.Contains(text, "| "+want+"`") {
				t.Errorf("%s: the flag %s does not stand there", of, want)
			}
		})
	}
	flags(root.PersistentFlags(), page[general], general)
	flags(root.Flags(), page[general], general)
	known := map[string]bool{}
	for _, cmd := range verbs(root) {
		head := strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use
		if cmd.Name() == "completion" {
			head = "servent completion SHELL"
		}
		known[head] = true
		text, ok := page[head]
		if !ok {
			t.Errorf("no section %q", head)
			continue
		}
		own := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "file" {
				own.AddFlag(f)
			}
		})
		flags(own, text, head)
		for _, word := range strings.Fields(text) {
			if name, ok := strings.CutPrefix(strings.Trim(word, "`|,"), "--"); ok && strings.Trim(name, "-|") != "" && !hasFlag(cmd, name) {
				t.Errorf("%s: --%s is no flag of it", head, name)
			}
		}
	}
	for head := range page {
		if strings.HasPrefix(head, "servent ") && !known[head] {
			t.Errorf("%s stands there, and is no verb", head)
		}
	}
}

// verbs are all that a user may say, those of verbs like fault, too.
func verbs(cmd *cobra.Command) (out []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		if sub.Hidden || sub.Name() == "help" {
			continue
		}
		out = append(out, sub)
		if sub.Name() != "completion" { // SHELL stands for all of them
			out = append(out, verbs(sub)...)
		}
	}
	return out
}

func hasFlag(cmd *cobra.Command, flag string) bool {
	return cmd.Flags().Lookup(flag) != nil || cmd.InheritedFlags().Lookup(flag) != nil
}
