package cli

import (
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
	"servent/system/sysfile/edit"
)

func (e *env) applyCmd() *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{
		Use:   "apply VARIANT",
		Short: "Write a variant of the last comparison into the file",
		Long: "Apply changes the values of the variant in your file, each one word in its place: comments and layout stay.\n" +
			"A variant whose answers were WRONG, or that was refused, is applied only with --yes.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return e.apply(args[0], dry, yes) },
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "apply it although its answers were wrong")
	return cmd
}

func (e *env) apply(name string, dry, yes bool) error {
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
	file, err := mainFile(e.dir, res.Files)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(v.Set)) {
		whole := sysfile.AbsolutePath(res.Service, path)
		next, pos, err := edit.Set(text, whole, v.Set[path])
		if pos.File = near(file); err != nil {
			return fmt.Errorf("%s: %w", pos, err)
		}
		fmt.Fprintf(e.out, "%s  %s: %s\n", pos, whole, v.Set[path])
		text = next
	}
	if dry {
		return nil
	}
	if err := blob.Replace(file, text, info.Mode().Perm()); err != nil {
		return fmt.Errorf("write your file: %w", err)
	}
	fmt.Fprintf(e.err, "next: servent%s up\n", e.where())
	return nil
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

// mainFile is the file that is changed: the first that was read.
func mainFile(dir string, files []string) (string, error) {
	if len(files) == 0 {
		return "", errors.New("the last comparison names no file")
	}
	file := filepath.Join(dir, filepath.Base(files[0]))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return files[0], nil
}
