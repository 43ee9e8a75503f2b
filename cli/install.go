package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"servent/launch"
	"servent/system"
)

// installOptions are the words of servent node install, as they were typed.
type installOptions struct {
	listen, as, user, unit string
	dry                    bool
}

const unitFolder = "/etc/systemd/system"

var unitName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

func (e *env) installCmd() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have systemd run this folder's machine, now and after every start",
		Long: "Install writes a unit for the member that this folder's machine is (servent join), or with --listen for a fleet's first machine, enables\n" +
			"it and starts it. It runs as a user of its own, which is made if there is none, may write the folder alone, and gains no privileges.",
		Example: "  servent join 10.0.0.1:7077 TOKEN   # once; Ctrl-C\n  sudo servent node install\n  servent node install --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return e.install(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "", "for the first machine: `ADDRESS` by which the others reach it")
	f.StringVar(&o.as, "as", "", "the first machine's `NAME` in the fleet; its own by default")
	f.StringVar(&o.user, "user", "servent", "`USER` that it runs as; root for containers by runc")
	f.StringVar(&o.unit, "unit", "servent", "`NAME` of the unit")
	f.BoolVar(&o.dry, "dry-run", false, "only print the unit")
	return cmd
}

func (e *env) uninstallCmd() *cobra.Command {
	unit := "servent"
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the unit away that install wrote; the machine stays a member, its data stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := filepath.Join(unitFolder, unit+".service")
			b, err := os.ReadFile(path)
			switch {
			case !unitName.MatchString(unit):
				return misuse{fmt.Errorf("--unit: %q is no name of a unit", unit)}
			case errors.Is(err, fs.ErrNotExist):
				return &system.Hint{Err: fmt.Errorf("there is no %s", path), Next: "servent node install"}
			case err != nil:
				return err
			case !launch.IsUnit(string(b)):
				return fmt.Errorf("%s was not written by servent node install; it is left alone", path)
			}
			if err := e.told(cmd.Context(), "systemctl", "disable", "--now", unit); err != nil {
				return err
			}
			if err := os.Remove(path); err != nil {
				return err
			}
			return e.told(cmd.Context(), "systemctl", "daemon-reload")
		},
	}
	cmd.Flags().StringVar(&unit, "unit", unit, "`NAME` of the unit")
	return cmd
}

func (e *env) install(ctx context.Context, o installOptions) error {
	if runtime.GOOS != "linux" {
		return &system.Hint{Err: fmt.Errorf("systemd is a thing of Linux, and this is %s", runtime.GOOS), Next: "servent join   (by a service manager of your own)"}
	}
	if !unitName.MatchString(o.unit) {
		return misuse{fmt.Errorf("--unit: %q is no name of a unit", o.unit)}
	}
	unit, err := e.unit(o)
	if err != nil {
		return err
	}
	if o.dry {
		fmt.Fprint(e.out, unit.Text())
		return nil
	}
	if os.Geteuid() != 0 {
		return &system.Hint{Err: errors.New("systemd's units are root's to write"), Next: "sudo servent node install   (or --dry-run, to see the unit)"}
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return &system.Hint{Err: errors.New("this machine does not run systemd"), Next: "servent node install --dry-run   (to see the unit)"}
	}
	path := filepath.Join(unitFolder, o.unit+".service")
	if b, err := os.ReadFile(path); err == nil && !launch.IsUnit(string(b)) {
		return &system.Hint{Err: fmt.Errorf("%s is there and was not written by servent", path), Next: "servent node install --unit NAME"}
	}
	if err := e.owned(ctx, unit); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(unit.Text()), 0o644); err != nil {
		return err
	}
	if err := e.told(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	if err := e.told(ctx, "systemctl", "enable", "--now", o.unit); err != nil {
		return err
	}
	fmt.Fprintf(e.err, "next: systemctl status %s, journalctl -u %s\n", o.unit, o.unit)
	return nil
}

// unit is what is to be run.
func (e *env) unit(o installOptions) (launch.Unit, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return launch.Unit{}, err
	}
	dir, err := filepath.Abs(e.dir)
	if err != nil {
		return launch.Unit{}, err
	}
	u := launch.Unit{Program: exe, Folder: dir, User: o.user, Words: []string{"join"}}
	switch {
	case e.folder().Joined() && o.listen == "":
	case e.folder().Joined():
		return u, misuse{errors.New("this folder's machine is a member of a fleet; --listen is for a fleet's first machine")}
	case o.listen == "":
		return u, &system.Hint{Err: errors.New("this folder's machine is in no fleet"), Next: "servent join ADDRESS TOKEN   (or, of a fleet's first machine: servent node install --listen ADDRESS)"}
	default:
		u.Words = []string{"up", "--listen", o.listen}
		if o.as != "" {
			u.Words = append(u.Words, "--as", o.as)
		}
	}
	return u, nil
}

// owned makes the user, if there is none, and gives it what the node keeps.
func (e *env) owned(ctx context.Context, u launch.Unit) error {
	if u.User == "root" {
		return nil
	}
	if _, err := user.Lookup(u.User); err != nil {
		if err := e.told(ctx, "useradd", "--system", "--user-group", "--home-dir", u.Folder, "--no-create-home", "--shell", "/usr/sbin/nologin", u.User); err != nil {
			return err
		}
	}
	state := filepath.Join(u.Folder, ".servent") // the rest of the folder stays its owner's
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return e.told(ctx, "chown", "-R", u.User+":", state)
}

// told runs a command and says so.
func (e *env) told(ctx context.Context, name string, args ...string) error {
	fmt.Fprintln(e.err, name, strings.Join(args, " "))
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
