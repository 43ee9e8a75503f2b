package launch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/control/etcd"
	"servent/identity"
	"servent/launch/backup"
	"servent/link"
	"servent/node"
	"servent/system"
)

// The parts of a backup.
const (
	partAbout   = "backup.json"
	partKept    = keptName
	partControl = "control.db"
	partServers = node.ServersFile // of the machine's node; not there when it knows no other server
	partAudit   = "audit.log"
	partHistory = "history/"
	partBlobs   = "blobs/"
)

// About is what a backup says of itself.
type About struct {
	Format  int           `json:"format"` // 1
	Cluster string        `json:"cluster"`
	Node    system.NodeID `json:"node"` // whose control it is
	Made    time.Time     `json:"made"`
	Version string        `json:"version"`
	// Stopped: the system did not run, so that control's part is its file as it lay there.
	Stopped bool `json:"stopped,omitempty"`
	Blobs   int  `json:"blobs"` // bundles, configs, secrets and others that the plan names
}

const aboutFormat = 1

// BackupName is the name of a backup made now, of a system.
func (f Folder) BackupName(now time.Time) string {
	k := new(kept)
	_ = f.read(keptName, k) // else it has a short name
	return fmt.Sprintf("%s-%s.backup", cmp.Or(k.Cluster, "servent"), now.UTC().Format("20060102-150405"))
}

// Every hour a fleet's first machine keeps a backup of its own control, without the bytes that lie beside it: against what people do, not against the loss of the disk.
const (
	hourly     = time.Hour
	hourlyKept = 24
	hourlyName = "hourly-"
)

func (f Folder) backups() string { return filepath.Join(string(f), "backups") }

// backUp writes the backup of an hour and forgets the oldest.
func (f Folder) backUp(ctx context.Context, now time.Time, version string) error {
	if err := os.MkdirAll(f.backups(), 0o700); err != nil {
		return f.hint(err)
	}
	path := filepath.Join(f.backups(), hourlyName+now.UTC().Format("20060102-150405"))
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return f.hint(err)
	}
	_, err = save(ctx, f, file, version, false)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return f.hint(errors.Join(err, os.Remove(file.Name())))
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(f.backups(), hourlyName+"*")) // sorted by name, that is, by time
	for ; len(old) > hourlyKept; old = old[1:] {
		err = errors.Join(err, os.Remove(old[0]))
	}
	return err
}

// backUps keeps a backup of each hour until ctx ends.
func (l *laptop) backUps(ctx context.Context) {
	every(ctx, hourly, func(now time.Time) {
		if err := l.opt.Folder.backUp(ctx, now, l.opt.Version); err != nil {
			l.opt.Log.Error("keep a backup of this hour", "err", err)
		}
	})
}

// Backup writes what the folder's system needs to begin anew on another disk: its authority, what control has, the bytes that the plan names, what was wanted before,
// and who did what. What services wrote is not in it. Whoever has it can be this system: it is as secret as the folder.
func Backup(ctx context.Context, f Folder, w io.Writer, version string) (About, error) {
	return save(ctx, f, w, version, true)
}

// save is [Backup], with or without the bytes that the plan names.
func save(ctx context.Context, f Folder, w io.Writer, version string, withBlobs bool) (about About, err error) {
	if err := f.Own("backup"); err != nil {
		return about, err
	}
	k := new(kept)
	if err := f.read(keptName, k); errors.Is(err, fs.ErrNotExist) {
		return about, admin.ErrNotRunning
	} else if err != nil {
		return about, f.unreadable(err)
	}
	if k.Control != "" {
		return about, &system.Hint{Err: fmt.Errorf("control is an etcd of yours, %s, whose snapshots are its own", k.Control), Next: "etcdctl snapshot save, and a copy of " + string(f)}
	}
	about = About{Format: aboutFormat, Cluster: k.Cluster, Node: k.Server, Made: time.Now().UTC().Truncate(time.Second), Version: version}
	temp, err := os.MkdirTemp(string(f), "snapshot-")
	if err != nil {
		return about, f.hint(err)
	}
	defer os.RemoveAll(temp)
	snapshot := filepath.Join(temp, partControl)
	if about.Stopped = f.Free(); about.Stopped {
		unlock, err := f.lock(ctx)
		if err != nil {
			return about, err
		}
		defer unlock()
		if snapshot, err = etcd.Kept(f.control()); err != nil {
			return about, err
		}
	} else if err := f.snapshot(ctx, k, snapshot); err != nil {
		return about, err
	}
	all, err := f.revisions()
	if err != nil {
		return about, err
	}
	store := &blob.Store{Dir: f.Blobs()}
	var blobs []system.Digest
	for _, r := range all {
		_ = named(r.System, func(d system.Digest) error { // it has no errors of its own
			if withBlobs && !slices.Contains(blobs, d) && store.Has(d) {
				blobs = append(blobs, d)
			}
			return nil
		})
	}
	about.Blobs = len(blobs)
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return about, err
	}
	out := backup.NewWriter(w, about.Made)
	errs := []error{out.AddText(partAbout, text), out.AddFile(partKept, f.path(keptName)), out.AddFile(partControl, snapshot)}
	optional := func(name, file string) {
		if err := out.AddFile(name, file); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	optional(partServers, filepath.Join(f.node(k.Server), node.ServersFile))
	optional(partAudit, f.Log("audit"))
	for _, r := range all {
		optional(fmt.Sprintf("%s%08d.json", partHistory, r.N), f.revision(r.N))
	}
	for _, d := range blobs {
		errs = append(errs, addBlob(out, store, d))
	}
	return about, errors.Join(append(errs, out.Close())...)
}

func addBlob(out *backup.Writer, store *blob.Store, d system.Digest) error {
	size, err := store.Size(d)
	if err != nil {
		return err
	}
	r, err := store.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	return out.Add(partBlobs+strings.ReplaceAll(string(d), ":", "-"), size, r)
}

// named calls each with the digests of the bytes that a system is made of, until it fails. Some stand there twice, and those of images are their registries'.
func named(sys *system.System, each func(system.Digest) error) error {
	if sys.Web != nil {
		for _, p := range sys.Web.Certificates {
			if err := each(p.Digest); err != nil {
				return fmt.Errorf("web.certificates: %w", err)
			}
		}
	}
	for i := range sys.Services {
		s := &sys.Services[i]
		if s.Software.Digest != "" {
			if err := each(s.Software.Digest); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
		for _, file := range s.Files {
			if err := each(file.Digest); err != nil {
				return fmt.Errorf("%s: %s %s: %w", s.Name, file.Kind, file.Name, err)
			}
		}
	}
	return nil
}

// snapshot writes what the running system's own engine holds to a file.
func (f Folder) snapshot(ctx context.Context, k *kept, file string) error {
	way, err := k.operator(backupName, func(id system.NodeID) (link.Address, bool) {
		at, ok := k.address(id)
		return link.Address{Host: at}, ok
	}, k.Server)
	if err != nil {
		return err
	}
	defer way.http2.CloseIdleConnections()
	body, err := (&nodeDoor{rt: way.http2}).ask(ctx, k.Server, node.SnapshotPath)
	if err != nil {
		return &system.Hint{Err: fmt.Errorf("take a snapshot of control: %w", err), Next: "servent ps"}
	}
	defer body.Close()
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return f.hint(err)
	}
	_, err = io.Copy(out, body)
	if err = errors.Join(err, out.Close()); err != nil {
		return f.hint(fmt.Errorf("take a snapshot of control: %w", err))
	}
	if _, err := etcd.Look(file, false); err != nil {
		return err
	}
	return nil
}

// backupName is the name of who makes and restores backups on the link.
const backupName = "backup"

// operator is one that speaks to servers of the folder's fleet for a moment.
func (k *kept) operator(name system.NodeID, resolve link.Resolver, servers ...system.NodeID) (*operator, error) {
	ca, err := identity.ParseAuthority(k.Authority)
	if err != nil {
		return nil, err
	}
	return newOperator(name, k.Cluster, ca, func() []system.NodeID { return servers }, resolve, slog.New(slog.DiscardHandler))
}
