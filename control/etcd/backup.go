package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"

	"servent/control"
)

// Snapshot writes all that this server holds at one revision, with a sum, for [Restore]. The server itself answers, also one that is cut off from the
// others.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	resp, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", s.meaning(ctx, err))
	}
	defer resp.Snapshot.Close()
	if _, err := io.Copy(w, resp.Snapshot); err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}

// ErrNoData: the folder holds nothing of a server's.
var ErrNoData = errors.New("no server has kept anything here")

// Kept is the file in which a server that does not run has what [Restore] takes, without a sum; dir is its [ChildOptions.Dir]. One that was killed may not have
// written the changes of its last tenth of a second into it.
func Kept(dir string) (string, error) {
	path := filepath.Join(dataDir(dir), "member", "snap", "db")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoData, err)
	}
	return path, nil
}

// Look reads of which revision a snapshot's file is; unsummed says that it is one of [Kept]. The sum is looked at before anything else is: the file is mapped into memory, and a
// page that is not there, or points nowhere, ends the process.
func Look(path string, unsummed bool) (control.Rev, error) {
	if !unsummed {
		if err := sum(path); err != nil {
			return 0, fmt.Errorf("read the snapshot: %w", err)
		}
	}
	s, err := snapshot.NewV3(zap.NewNop()).Status(path)
	if err != nil {
		return 0, fmt.Errorf("read the snapshot: %w", err)
	}
	return control.Rev(s.Revision), nil
}

// sum fails if the file is not what its last bytes, a SHA-256 of the others, say.
func sum(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() <= sha256.Size {
		return errTorn
	}
	h, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(h, f, info.Size()-sha256.Size); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return errTorn
	}
	return nil
}

var errTorn = errors.New("it is not whole: its sum is another")

// RestoreOptions of [Restore].
type RestoreOptions struct {
	Snapshot string // file
	Unsummed bool   // it is one of [Kept]
	Dir      string // [ChildOptions.Dir] of the server that will hold it, which has none yet
	Name     string // as in [ChildOptions]
}

// Restore makes the data of a server that is the only voter, and begins the next epoch: see [control.Rev.Epoch]. No server of before agrees with it any more.
func Restore(o RestoreOptions) (from, next control.Rev, err error) {
	from, err = Look(o.Snapshot, o.Unsummed)
	if err != nil {
		return 0, 0, err
	}
	next = from.NextEpoch()
	cfg := embed.NewConfig()
	name, peers := soleName, cfg.AdvertisePeerUrls[0].String()
	if o.Name != "" {
		u := peerURL(o.Name)
		name, peers = o.Name, u.String()
	}
	wal.SegmentSizeBytes = segment
	err = snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: o.Snapshot, SkipHashCheck: o.Unsummed, OutputDataDir: dataDir(o.Dir),
		Name: name, PeerURLs: []string{peers}, InitialCluster: name + "=" + peers, InitialClusterToken: rand.Text(),
		RevisionBump: uint64(next - from), MarkCompacted: true,
	})
	if err != nil {
		return 0, 0, fmt.Errorf("make control's data of the snapshot: %w", err)
	}
	return from, next, nil
}
