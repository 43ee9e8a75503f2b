// Package cli is the command line: one file a verb, each of which reads its words, asks launch or the
// admin door, and prints. It decides nothing about a system. Answers go to stdout, the story to stderr;
// with --json stdout is JSON only. Start at [Main].
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitMisuse = 2 // the command line or the user's file is wrong
)

// misuse marks an error of the command line.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

// env is what every verb gets.
type env struct {
	in       io.Reader
	out      io.Writer // the answer
	err      io.Writer // the story
	json     bool
	files    []string
	dir      string
	profiles []string
	name     string
	kill     <-chan struct{} // closed by the second interrupt; the first one ends the verb's ctx
}

// Main runs one command line and returns its exit code.
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	ctx, kill, stop := interrupts()
	defer stop()
	e := &env{in: in, out: out, err: errw, kill: kill}
	root := e.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	return e.explainFailure(err)
}

// explainFailure prints an error and the next command to try, and returns the exit code.
func (e *env) explainFailure(err error) int {
	code, next := exitFailed, system.Next(err)
	var problems system.Problems
	switch {
	case errors.As(err, &problems):
		code = exitMisuse
		fmt.Fprintln(e.err, problems.Error())
		fmt.Fprintf(e.err, "%s\n", count(len(problems), "mistake"))
		if next == "" {
			next = "mend the file, then: servent validate"
		}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(e.err, "stopped")
		return exitFailed
	default:
		if _, ok := errors.AsType[misuse](err); ok {
			code = exitMisuse
			if next == "" {
				next = "servent --help"
			}
		}
		if errors.Is(err, admin.ErrNotRunning) {
			err, next = admin.ErrNotRunning, "servent up"
		}
		fmt.Fprintf(e.err, "servent: %v\n", err)
	}
	if next != "" {
		fmt.Fprintf(e.err, "next: %s\n", next)
	}
	return code
}

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "servent",
		Short:         "Run your Compose file under any architecture, and measure which one scales",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.TraverseChildren = true
	e.fileFlag(root)
	flags := root.PersistentFlags()
	flags.BoolVar(&e.json, "json", false, "print JSON on stdout")
	flags.StringVarP(&e.dir, "dir", "C", ".", "act on the system of `FOLDER`")
	flags.StringArrayVar(&e.profiles, "profile", nil, "Compose `PROFILE` to take in")
	flags.StringVarP(&e.name, "name", "p", "", "`NAME` of the system, instead of the file's")
	root.AddCommand(e.initCmd(), e.fileFlag(e.validateCmd()), e.schemaCmd(), e.fileFlag(e.planCmd()), e.fileFlag(e.upCmd()), e.downCmd(), e.psCmd(), e.logsCmd(),
		e.explainCmd(), e.eventsCmd(), e.scaleCmd(), e.restartCmd(), e.fileFlag(e.compareCmd()), e.applyCmd(), e.loadCmd(), e.simulateCmd(), e.faultCmd(), e.fnCmd(), e.tokenCmd(), e.joinCmd(), e.leaveCmd(), e.nodeCmd(), e.auditCmd(), e.drainCmd(), e.uncordonCmd(), e.historyCmd(), e.rollbackCmd(), e.certificatesCmd(), e.backupCmd(), e.restoreCmd(), e.doctorCmd(), e.consoleCmd(), e.versionCmd(), e.manCmd())
	root.AddCommand(e.hidden()...)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return misuse{&system.Hint{Err: err, Next: cmd.CommandPath() + " --help"}}
	})
	wrapArgs(root)
	return root
}

// fileFlag is before the verb, as docker compose has it, and after those verbs that read the file.
func (e *env) fileFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringArrayVarP(&e.files, "file", "f", e.files, "Compose `FILE`, more than once to merge; default compose.yaml")
	return cmd
}

// wrapArgs marks wrong numbers of words as misuse, for every verb.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return misuse{&system.Hint{Err: err, Next: cmd.CommandPath() + " --help"}}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// folder is where the system's state lies. Programs run in it, so its path must be whole.
func (e *env) folder() launch.Folder {
	dir, err := filepath.Abs(e.dir)
	if err != nil { // the working folder is gone
		dir = e.dir
	}
	return launch.FolderOf(dir)
}

// near is a path as seen from the working folder, when that is shorter.
func near(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
			return rel
		}
	}
	return path
}

// client reaches the system that runs in the folder.
func (e *env) client() (*admin.Client, error) { return e.folder().Client() }

// state is the system that runs in the folder, as it is now.
func (e *env) state(ctx context.Context) (admin.State, error) {
	client, err := e.client()
	if err != nil {
		return admin.State{}, err
	}
	return client.State(ctx)
}

// print writes an answer as JSON, indented.
func (e *env) print(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// line writes one JSON document on a line of its own: for answers that go on.
func (e *env) line(v any) error { return json.NewEncoder(e.out).Encode(v) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// table prints columns padded to their widest cell; the last one is not padded.
func table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
