package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"servent/blob"
	"servent/lab"
	"servent/lab/check"
	"servent/lab/result"
	"servent/system"
	"servent/system/sysfile"
)

func (e *env) applyCmd() *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{
		Use:   "apply VARIANT",
		Short: "Write a variant of the last comparison into the file",
		Long: "Apply changes the values of the variant in your file, each one word in its place: comments and layout stay. Of several\n" +
			"files (-f before the verb) the one is changed that has the value, the last one first.\n" +
			"A variant whose answers were WRONG, or that was refused, is applied only with --yes.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return e.apply(cmd.Context(), args[0], dry, yes) },
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "apply it although its answers were wrong")
	return cmd
}

func (e *env) apply(ctx context.Context, name string, dry, yes bool) error {
	dir := lab.Latest(string(e.folder()))
	if dir == "" {
		return &system.Hint{Err: errors.New("nothing was compared here yet"), Next: "servent" + e.where() + " compare"}
	}
	res, err := result.Read(dir)
	if err != nil {
		return err
	}
	v, err := chosen(res, name, yes)
	if err != nil {
		return err
	}
	switch {
	case v.File != "":
		return &system.Hint{Err: fmt.Errorf("%s is a whole file, %s: there is no value to change in another; run it, or copy it over yours", name, v.File),
			Next: fmt.Sprintf("servent up %s   (or cp %[1]s %s)", shellWord(v.File), shellWord(res.Files[0]))}
	case v.Up:
		return &system.Hint{Err: fmt.Errorf("%s is one node with as many workers as the others have nodes: a machine, not a word in the file", name), Next: "servent apply " + shellWord(strings.TrimSuffix(name, " up"))}
	case len(e.files) == 0:
		e.files = res.Given
	}
	base, err := sysfile.Load(ctx, e.source())
	if err != nil {
		return err
	}
	edition, err := e.edit(ctx, base.System, res.Service, v.Set)
	if err != nil {
		return err
	}
	for _, c := range edition.Changes {
		e.changed(c)
	}
	if dry {
		return nil
	}
	for _, file := range slices.Sorted(maps.Keys(edition.Texts)) {
		if err := rewrite(file, edition.Texts[file]); err != nil {
			return fmt.Errorf("write your file: %w", err)
		}
	}
	fmt.Fprintf(e.err, "next: servent%s up\n", e.where())
	return nil
}

// changed tells of one value: compose.yaml:7:21  services.web.x-servent.architecture: single → ring.
func (e *env) changed(c sysfile.Change) {
	old := c.Old
	c.Pos.File = near(c.Pos.File)
	switch {
	case c.Added:
		fmt.Fprintf(e.out, "%s  %s: %s (added)\n", c.Pos, c.Path, c.New)
		return
	case c.Old == c.New:
		fmt.Fprintf(e.out, "%s  %s: %s, as it is\n", c.Pos, c.Path, c.New)
		return
	case old == "":
		old = "nothing"
	}
	fmt.Fprintf(e.out, "%s  %s: %s → %s\n", c.Pos, c.Path, old, c.New)
}

// rewrite replaces a file that is there, where a link to it leads.
func rewrite(file string, text []byte) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return blob.Replace(file, text, info.Mode().Perm())
}

// chosen is the variant of that name, if it may be applied.
func chosen(res *result.Result, name string, yes bool) (*result.Variant, error) {
	var names []string
	for i := range res.Variants {
		v := &res.Variants[i]
		names = append(names, v.Name)
		if v.Name != name {
			continue
		}
		again := "servent apply --yes " + shellWord(name)
		switch {
		case yes:
		case v.Refused != "":
			return nil, &system.Hint{Err: fmt.Errorf("%s was refused: %s", name, v.Refused), Next: again}
		case v.Answers.Verdict == check.Wrong:
			return nil, &system.Hint{Err: fmt.Errorf("the answers of %s were WRONG: %s", name, v.Answers.Text), Next: again}
		}
		return v, nil
	}
	return nil, misuse{&system.Hint{Err: fmt.Errorf("the last comparison has no variant %q; it has %s", name, strings.Join(names, ", ")), Next: "servent apply " + shellWord(names[0])}}
}
