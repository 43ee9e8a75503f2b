package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"servent/examples"
	"servent/launch"
	"servent/placement"
	"servent/system"
	"servent/system/sysfile/schema"
)

func (e *env) initCmd() *cobra.Command {
	names := func() []string {
		var out []string
		for _, ex := range examples.List() {
			out = append(out, ex.Name)
		}
		return out
	}
	cmd := &cobra.Command{
		Use:       "init NAME",
		Short:     "Make the folder NAME with an example: " + strings.Join(names(), ", "),
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names(),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := filepath.Join(e.dir, args[0])
			if err := examples.Write(args[0], dir); err != nil {
				return err
			}
			fmt.Fprintf(e.out, "cd %s\n", dir)
			fmt.Fprintf(e.err, "next: cd %s && servent up\n", dir)
			return nil
		},
	}
	return cmd
}

func (e *env) validateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "validate [FOLDER|FILE]",
		Short: "Check the file: every mistake at once, with its place",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.at(args); err != nil {
				return err
			}
			res, err := e.load(cmd.Context())
			if problems := (system.Problems)(nil); e.json && errors.As(err, &problems) {
				_ = e.print(map[string]any{"valid": false, "problems": problems})
				return err
			}
			if err != nil {
				return err
			}
			if e.json {
				return e.print(map[string]any{"valid": true, "notes": nonNil(res.Notes), "not_compose": append([]system.ServiceName{}, res.NotCompose...), "system": res.System})
			}
			fmt.Fprintf(e.out, "%s is valid: %s on %s\n", res.System.Name, count(len(res.System.Services), "service"), nodes(res.System))
			if len(res.NotCompose) == 0 {
				fmt.Fprintln(e.out, "docker compose accepts it, too: every service has image or build")
			} else {
				fmt.Fprintf(e.out, "docker compose does not accept it: no image or build in %s\n", names(res.NotCompose))
			}
			return nil
		},
	}
}

func names(services []system.ServiceName) string {
	var out []string
	for _, s := range services {
		out = append(out, string(s))
	}
	return strings.Join(out, ", ")
}

func nonNil(p system.Problems) system.Problems {
	if p == nil {
		return system.Problems{}
	}
	return p
}

func nodes(sys *system.System) string {
	n := 0
	for _, g := range sys.Nodes {
		n += g.Count
	}
	return count(n, "node")
}

func (e *env) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := e.out.Write(schema.JSON())
			return err
		},
	}
}

func (e *env) planCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [FOLDER|FILE]",
		Short: "Say what up would change, and why, without changing it",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.at(args); err != nil {
				return err
			}
			res, err := e.load(cmd.Context())
			if err != nil {
				return err
			}
			if err := e.bundle(cmd.Context(), res.System); err != nil {
				return err
			}
			var lines []placement.Line
			if client, running := e.folder().Answers(cmd.Context()); running || e.folder().Joined() {
				if client == nil {
					_, err = e.client() // which says why
					return err
				}
				lines, err = client.Plan(cmd.Context(), res.System)
			} else {
				lines = placement.Diff(nil, placement.Next(placement.Input{System: res.System, Nodes: launch.Preview(cmd.Context(), res.System)}).Plan)
			}
			if err != nil {
				return err
			}
			if e.json {
				return e.print(lines)
			}
			for _, l := range lines {
				if l.Op != "=" {
					fmt.Fprintf(e.out, "%s %s\n", l.Op, planLine(l))
				}
			}
			if !changes(lines) {
				fmt.Fprintln(e.out, "nothing would change")
			} else {
				fmt.Fprintln(e.err, "next: servent up")
			}
			return nil
		},
	}
}

func planLine(l placement.Line) string {
	var parts []string
	for _, p := range []string{string(l.Instance), string(l.Node), l.Text} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if l.Instance == "" {
		parts = append([]string{string(l.Service)}, parts...)
	}
	return strings.Join(parts, "  ")
}

func changes(lines []placement.Line) bool {
	for _, l := range lines {
		if l.Op != "=" {
			return true
		}
	}
	return false
}

func (e *env) manCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages into FOLDER",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return man(cmd.Root(), args[0])
		},
	}
}
