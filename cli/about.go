package cli

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"servent/launch"
	"servent/system"
)

// Version of this program; `make dist` sets it.
var Version = "0.1.0-dev"

func (e *env) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"servent": Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "revision": revision()}
			if e.json {
				return e.print(v)
			}
			fmt.Fprintf(e.out, "servent %s  %s  %s  %s\n", v["servent"], v["revision"], v["go"], v["platform"])
			return nil
		},
	}
}

func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "unknown"
}

func (e *env) consoleCmd() *cobra.Command {
	quiet := false
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Open the running system's page in a browser",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.folder().Own("console"); err != nil {
				return err
			}
			s, err := e.state(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.print(map[string]string{"url": s.Console})
			}
			fmt.Fprintln(e.out, s.Console)
			if !quiet && browse(s.Console) != nil {
				fmt.Fprintln(e.err, "next: open this page in a browser on this machine; the part after # is your key to it")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&quiet, "no-browser", false, "only print the address")
	return cmd
}

// browse opens a page with the desktop's own program.
func browse(url string) error {
	switch runtime.GOOS {
	case "darwin":
		return exec.Command("open", url).Start()
	case "windows":
		return exec.Command("rundll32", "url.dll,FileProtocolHandler", url).Start()
	}
	return exec.Command("xdg-open", url).Start()
}

func (e *env) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, what not, and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := launch.Doctor(cmd.Context(), e.folder())
			if e.json {
				if err := e.print(checks); err != nil {
					return err
				}
			}
			failed, alarms := 0, 0
			var rows [][]string
			for _, c := range checks {
				word := "ok"
				switch {
				case c.Alarm:
					word = "ALARM"
					alarms++
				case !c.OK:
					word = "MISSING"
					failed++
				}
				rows = append(rows, []string{word, c.Name, c.Text})
				if c.Next != "" {
					rows = append(rows, []string{"", "", "next: " + c.Next})
				}
			}
			if !e.json {
				table(e.out, rows)
			}
			if failed > 0 {
				return &system.Hint{Err: errors.New("something is missing that a system needs"), Next: "see above"}
			}
			if alarms > 0 {
				return &system.Hint{Err: errors.New("something will not work for long"), Next: "see above"}
			}
			return nil
		},
	}
}

func man(root *cobra.Command, dir string) error {
	return doc.GenManTree(root, &doc.GenManHeader{Title: "SERVENT", Section: "1", Source: "servent " + Version}, dir)
}
