package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/blob"
	"servent/console"
	"servent/launch"
	"servent/system"
)

func (e *env) upCmd() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up [FOLDER|FILE]",
		Short: "Run the system, or change the running one to what the file says",
		Long: "Up builds what is older than its sources, starts the file's nodes on this machine, and runs every service on them.\n" +
			"While it runs, edit the file and say up again from another terminal: only what changed is changed.\n" +
			"Ctrl-C stops everything; data stays in .servent beside the file.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.at(args); err != nil {
				return err
			}
			return e.up(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "leave it running and return when all is ready")
	cmd.Flags().DurationVar(&o.wait, "wait", time.Minute, "how long the system may take until all is ready; builds do not count")
	cmd.Flags().StringVar(&o.control, "control", "", "keep the plan in an etcd of yours: `etcd://HOST:PORT`")
	cmd.Flags().StringVar(&o.listen, "listen", "", "be the first machine of a fleet, known to the others by `ADDRESS[:PORT]`; as the last time by default")
	cmd.Flags().StringVar(&o.as, "as", "", "this machine's `NAME` in its fleet; its own by default")
	return cmd
}

type upOptions struct {
	detach  bool
	wait    time.Duration
	control string
	listen  string
	as      string
}

func (e *env) up(ctx context.Context, o upOptions) error {
	if e.folder().Joined() && (o.listen != "" || o.as != "" || o.control != "") {
		return misuse{&system.Hint{Err: errors.New("--listen, --as and --control make the first machine of a fleet; this folder's has joined one"), Next: "servent up"}}
	}
	res, err := e.load(ctx)
	if err != nil {
		return err
	}
	if e.folder().Joined() {
		return e.upAfar(ctx, res.System, o)
	}
	if err := e.bundle(ctx, res.System); err != nil {
		return err
	}
	client, running := e.folder().Answers(ctx)
	if running {
		return e.change(ctx, client, res.System, o)
	}
	if o.detach {
		return e.upDetached(ctx, res.System, o)
	}
	return e.upHere(ctx, res.System, o)
}

// bundle builds and packs, and shows what takes time.
func (e *env) bundle(ctx context.Context, sys *system.System) error {
	if err := e.folder().Make(); err != nil {
		return err
	}
	return launch.Bundle(ctx, sys, &blob.Store{Dir: e.folder().Blobs()}, func(s launch.Step) {
		if s.Done {
			fmt.Fprintf(e.err, "%s  built  %s\n", s.Service, short(s.Took))
		} else {
			fmt.Fprintf(e.err, "%s  %s …\n", s.Service, s.Text)
		}
	})
}

// change hands an edited file to the running system and shows it settle.
func (e *env) change(ctx context.Context, client *admin.Client, sys *system.System, o upOptions) error {
	if o.listen != "" {
		if s, err := client.State(ctx); err != nil {
			return err
		} else if s.Context != "fleet" {
			return &system.Hint{Err: errors.New("this system runs on emulated nodes of one machine; it cannot become a fleet"), Next: "in a new folder: servent up --listen " + o.listen}
		}
	}
	lines, err := client.Plan(ctx, sys)
	if err != nil {
		return err
	}
	if changes(lines) {
		e.replaces(ctx, client)
	}
	if err := client.Want(ctx, sys); err != nil {
		return err
	}
	if !changes(lines) {
		fmt.Fprintln(e.err, "runs already; nothing changed")
	}
	return e.settle(ctx, client, o)
}

// upAfar hands the file to the fleet that this folder's machine is of.
func (e *env) upAfar(ctx context.Context, sys *system.System, o upOptions) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	if _, err := client.State(ctx); err != nil { // before builds, which take time
		return err
	}
	if err := e.bundle(ctx, sys); err != nil {
		return err
	}
	if err := e.folder().Send(ctx, sys); err != nil {
		return err
	}
	return e.change(ctx, client, sys, o)
}

// replaces says that the file takes the place of one that another machine of the fleet commanded: who starts a machine again should know.
func (e *env) replaces(ctx context.Context, client *admin.Client) {
	if s, err := client.State(ctx); err != nil || s.Context != "fleet" {
		return
	}
	var last system.Act
	_ = client.Audit(ctx, 0, func(a system.Act) error { // without it there is no note
		if a.What == "PUT /v1/wanted" && a.Why == "" {
			last = a
		}
		return nil
	})
	if last.Who != "" && last.Who != e.folder().Self() {
		fmt.Fprintf(e.err, "note: this file replaces what %s said at %s\n", last.Who, last.Time.Local().Format(time.DateTime))
	}
}

// upHere runs the system in this process until Ctrl-C.
func (e *env) upHere(ctx context.Context, sys *system.System, o upOptions) error {
	log, err := e.ownLog()
	if err != nil {
		return err
	}
	defer log.Close()
	defer unheard()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.runLaptop(ctx, log, o) }()
	client, err := e.folder().Await(ctx, ended)
	if err != nil { // it has ended, or ends now
		cancel()
		return errors.Join(err, <-ended)
	}
	e.replaces(ctx, client)
	if err = client.Want(ctx, sys); err == nil {
		err = e.settle(ctx, client, o)
	}
	if err != nil {
		e.stopping()
		cancel()
		return errors.Join(err, <-ended)
	}
	fmt.Fprintln(e.err, "stop: Ctrl-C      more: servent"+e.where()+" ps | logs -f | console")
	watch, stopWatch := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_ = e.tell(watch, client) // it ends with the system
	}()
	select {
	case err = <-ended: // by servent down from elsewhere
	case <-ctx.Done():
		e.stopping()
		err = <-ended
	}
	stopWatch()
	<-shown
	if err == nil {
		fmt.Fprintln(e.err, "stopped; data stays in "+near(string(e.folder())))
	}
	return err
}

// stopping is the word between Ctrl-C and the end.
func (e *env) stopping() {
	line := "stopping: requests under way are answered first; Ctrl-C again ends everything at once"
	if terminal(e.err) {
		line = "\r\x1b[2K" + line // over the terminal's ^C
	}
	fmt.Fprintln(e.err, line)
}

// runLaptop is the process that keeps a laptop's system.
func (e *env) runLaptop(ctx context.Context, log *os.File, o upOptions) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return launch.Run(ctx, launch.Options{Folder: e.folder(), Version: Version, Command: []string{exe, nodeVerb}, Control: o.control, Listen: o.listen, As: o.as,
		Console: console.Handler(), Kill: e.kill, Log: slog.New(slog.NewTextHandler(log, nil))})
}

func (e *env) ownLog() (*os.File, error) {
	if err := e.folder().Make(); err != nil {
		return nil, err
	}
	return launch.OpenLog(e.folder().Log("laptop"))
}

// upDetached starts a process that keeps the system, and leaves when all is ready.
func (e *env) upDetached(ctx context.Context, sys *system.System, o upOptions) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := e.ownLog()
	if err != nil {
		return err
	}
	defer log.Close()
	ended, err := launch.Detach(log, exe, "--dir", e.dir, laptopVerb, "--control", o.control, "--listen", o.listen, "--as", o.as)
	if err != nil {
		return err
	}
	client, err := e.folder().Await(ctx, ended)
	if err != nil {
		return err
	}
	e.replaces(ctx, client)
	if err = client.Want(ctx, sys); err == nil {
		err = e.settle(ctx, client, o)
	}
	if err != nil {
		// A system that never was ready is not left behind.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_ = client.Stop(stop, false) // it may have ended by itself
		e.awaitEnd(stop)
	}
	return err
}

// awaitEnd returns when the folder's system has ended.
func (e *env) awaitEnd(ctx context.Context) {
	for !e.folder().Free() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// where repeats the folder in commands to try, when it is not this one.
func (e *env) where() string {
	if e.dir == "." {
		return ""
	}
	return " -C " + e.dir
}

var errSettled = errors.New("settled")

// settle shows the system until it is ready, or says why it does not become so.
func (e *env) settle(ctx context.Context, client *admin.Client, o upOptions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.wait, errNotReady)
	defer cancel()
	view := newTree(e)
	var last admin.State
	err := client.Watch(ctx, func(s admin.State) error {
		last = s
		view.show(s)
		if s.Settled {
			return errSettled
		}
		return s.Hopeless()
	})
	view.end()
	switch {
	case errors.Is(err, errSettled):
		e.urls(last)
		return nil
	case errors.Is(context.Cause(ctx), errNotReady):
		return notReady(e.folder(), last, o.wait)
	}
	return err
}

var errNotReady = errors.New("not ready")

// notReady is all that is known of why a system did not become ready in time.
func notReady(f launch.Folder, s admin.State, wait time.Duration) error {
	var late []string
	next := "servent doctor"
	for _, in := range s.Instances {
		if !in.Healthy && in.State != system.StateDone {
			late = append(late, fmt.Sprintf("%s is %s on %s: %s", in.Instance, in.State, in.Node, orDash(in.Why)))
			if in.Next != "" {
				next = in.Next
			}
		}
	}
	for _, svc := range s.Services {
		if svc.Preparing > 0 {
			late = append(late, fmt.Sprintf("%s is being prepared on %s", svc.Service, count(svc.Preparing, "node")))
		}
	}
	if s.Control != "" {
		late = append(late, "control does not answer: "+s.Control)
	}
	if f.Full() {
		var why string
		why, next = noSpace(f)
		late = append(late, why)
	}
	if len(late) == 0 {
		late = append(late, "the plan is not yet what is asked for")
	}
	return &system.Hint{Err: fmt.Errorf("not ready after %s: %s", wait, strings.Join(late, "; ")), Next: next}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// urls prints the ways in: the answer of up.
func (e *env) urls(s admin.State) {
	if e.json {
		_ = e.print(s) // the reader is gone
		return
	}
	var rows [][]string
	for _, p := range s.Published {
		for _, svc := range s.Services {
			if svc.Service == p.Service {
				rows = append(rows, []string{p.URL, string(p.Service) + " · " + string(svc.Architecture) + " · " + where(s, p.Service)})
			}
		}
	}
	table(e.out, rows)
}

// where says how many nodes a service is on.
func where(s admin.State, service system.ServiceName) string {
	on := map[system.NodeID]bool{}
	for _, svc := range s.Services {
		if svc.Service == service && svc.Called != nil && svc.Called.Want == 0 {
			return "wakes when called"
		}
	}
	for _, in := range s.Instances {
		if in.Service == service {
			on[in.Node] = true
		}
	}
	return fmt.Sprintf("%d of %d nodes", len(on), len(s.Nodes))
}

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}
