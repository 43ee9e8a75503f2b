package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"servent/launch"
	"servent/system"
)

func (e *env) backupCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "backup [FILE]",
		Short: "Write what this system needs to begin anew on another disk",
		Long: "Backup writes the system's authority, all that control has, the bytes that the plan names, the history and the audit into one file, while the system runs or not.\n" +
			"Without a FILE it has a name of its own; - is standard output. What services wrote is not in it. Whoever has the file can be this system: keep it as\n" +
			"you keep passwords.",
		Example: "  servent backup\n  servent backup - | ssh backup@elsewhere 'cat > shop.backup'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "-" {
				out, stop := e.passing(cmd.Context(), "written")
				defer stop()
				out.w = e.out
				about, err := launch.Backup(cmd.Context(), e.folder(), out, Version)
				if err == nil {
					fmt.Fprintln(e.err, madeOf(about))
				}
				return err
			}
			path := e.folder().BackupName(time.Now())
			if len(args) == 1 {
				path = args[0]
			}
			about, size, err := e.backup(cmd.Context(), path)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(struct {
					launch.About
					File  string `json:"file"`
					Bytes int64  `json:"bytes"`
				}{about, path, size})
			}
			fmt.Fprintln(e.out, path)
			fmt.Fprintf(e.err, "%s, %.1f MiB; on another machine: servent restore %s\n", madeOf(about), float64(size)/(1<<20), filepath.Base(path))
			return nil
		},
	}
}

// backup writes the file whole or not at all. One that is there stays.
func (e *env) backup(ctx context.Context, path string) (about launch.About, size int64, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return about, 0, &system.Hint{Err: fmt.Errorf("%s is there already", path), Next: "servent backup   (takes a name of its own)"}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".servent-backup-") // of mode 0600
	if err != nil {
		return about, 0, err
	}
	defer os.Remove(f.Name())
	out, stop := e.passing(ctx, "written")
	defer stop()
	out.w = f
	about, err = launch.Backup(ctx, e.folder(), out, Version)
	size = out.n.Load()
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return about, size, err
	}
	return about, size, os.Rename(f.Name(), path)
}

// passing is bytes on their way, which end with ctx and are told of when they take long.
type passing struct {
	ctx context.Context
	w   io.Writer
	r   io.Reader
	n   atomic.Int64
}

const passingEvery = 2 * time.Second // that it is told how far they are

// passing begins to tell; call stop when they have passed.
func (e *env) passing(ctx context.Context, word string) (p *passing, stop func()) {
	p = &passing{ctx: ctx}
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(passingEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				fmt.Fprintf(e.err, "%.0f MiB %s …\n", float64(p.n.Load())/(1<<20), word)
			}
		}
	}()
	return p, sync.OnceFunc(func() {
		close(ended)
		<-told
	})
}

// Write implements [io.Writer].
func (p *passing) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	p.n.Add(int64(n))
	return n, err
}

// Read implements [io.Reader].
func (p *passing) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.n.Add(int64(n))
	return n, err
}

func madeOf(a launch.About) string {
	return fmt.Sprintf("%s as %s has it at %s; %s", a.Cluster, a.Node, a.Made.Local().Format(time.DateTime), count(a.Blobs, "part")+" of software")
}

func (e *env) restoreCmd() *cobra.Command {
	o, servers := launch.RestoreOptions{}, []string(nil)
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make this folder's system that of a backup",
		Long: "Restore makes a folder without a system the first machine's of a backup; then servent up runs it. If other servers of its fleet agree, they have all that came after\n" +
			"the backup, and this machine is one of them again. If they do not, control begins anew from the backup with --alone, and the others, should they come back,\n" +
			"give up what they agreed on since. A FILE of - is standard input.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := e.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			o.Folder = e.folder()
			for _, text := range servers {
				s, err := launch.ServerAt(text)
				if err != nil {
					return misuse{fmt.Errorf("--server: %w", err)}
				}
				o.Servers = append(o.Servers, s)
			}
			from, stop := e.passing(cmd.Context(), "read")
			defer stop()
			from.r = in
			done, err := launch.Restore(cmd.Context(), from, o)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(done)
			}
			fmt.Fprintln(e.err, "restored: "+madeOf(done.About))
			var others []string
			for _, id := range done.Others {
				others = append(others, string(id))
			}
			switch names := strings.Join(others, " and "); {
			case done.Rejoins:
				fmt.Fprintf(e.err, "%s agree and have what came after that; this machine is one of them again\n", names)
			case len(others) > 0:
				fmt.Fprintf(e.err, "what was changed after that is lost; if %s come back, they begin anew as learners\n", names)
			}
			fmt.Fprintln(e.err, "what services had written here is not in a backup")
			fmt.Fprintln(e.err, "next: servent"+e.where()+" up   (with the system's file in this folder)")
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Alone, "alone", false, "there is no other server, or they are gone for good: control begins anew from the backup, and what was changed since is lost")
	cmd.Flags().StringArrayVar(&servers, "server", nil, "`NAME=ADDRESS[:PORT]` of another server, which the backup does not know, or not where it is")
	return cmd
}
