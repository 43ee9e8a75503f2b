package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/blob"
	"servent/control/etcd"
	"servent/identity"
	"servent/launch/backup"
	"servent/link"
	"servent/node"
	"servent/system"
)

// RestoreOptions of [Restore].
type RestoreOptions struct {
	Folder Folder
	Alone  bool // there is no other server, or they are gone for good: control begins anew from the backup

	Servers []node.Server // of the fleet, as a person knows them: those that joined after the backup, or have moved
}

// ServerAt reads NAME=ADDRESS[:PORT], the port being that of the server's link.
func ServerAt(text string) (s node.Server, err error) {
	name, at, ok := strings.Cut(text, "=")
	if _, _, err := net.SplitHostPort(at); err != nil {
		at = net.JoinHostPort(at, strconv.Itoa(portsFrom))
	}
	if addr, err := netip.ParseAddrPort(at); !ok || name == "" || err != nil || addr.Port() == 0 {
		return s, fmt.Errorf("want NAME=ADDRESS, or NAME=ADDRESS:PORT, have %q", text)
	}
	return node.Server{Node: system.NodeID(name), Link: at}, nil
}

// Restored is what [Restore] made.
type Restored struct {
	About
	Others   []system.NodeID `json:"others,omitempty"` // servers of the fleet beside this one
	Rejoins  bool            `json:"rejoins"`          // control comes from the others, which agree: nothing that they agreed on is lost
	Revision int64           `json:"revision"`         // of control at the backup; 0 when it rejoins
}

// Restore makes the folder that of a backup's system, which does not run yet. The folder has none before; until the last step it has none, and a Restore that was cut off
// is begun again.
func Restore(ctx context.Context, r io.Reader, o RestoreOptions) (done Restored, err error) {
	f := o.Folder
	if f.Joined() {
		return done, &system.Hint{Err: errMember, Next: "restore in another folder, or first: servent leave"}
	}
	if _, err := os.Stat(f.path(keptName)); err == nil {
		return done, &system.Hint{Err: errors.New("this folder has a system already"), Next: fmt.Sprintf("keep it aside: mv %s %s.old", f, f)}
	}
	if err := f.Make(); err != nil {
		return done, err
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return done, err
	}
	defer unlock()
	dir := f.path("restoring")
	if err := os.RemoveAll(dir); err != nil {
		return done, err
	}
	defer os.RemoveAll(dir)
	parts, err := backup.Read(r, dir, mayBe)
	if err != nil {
		return done, f.hint(fmt.Errorf("read the backup: %w", err))
	}
	from := Folder(dir)
	k, err := from.readBackup(&done)
	if err != nil {
		return done, err
	}
	if err := done.rejoin(ctx, k, from, o); err != nil {
		return done, err
	}
	if err := f.restoreData(k, from, parts, &done); err != nil {
		return done, err
	}
	how := "control begins anew from it"
	if done.Rejoins {
		how = "control comes from the other servers"
	}
	(&audit{file: f.Log("audit"), log: slog.New(slog.DiscardHandler)}).write(system.Act{Time: time.Now().UTC(), Who: f.Self(), What: "restore",
		Of: fmt.Sprintf("backup of %s, %s; %s", done.Made.Format(time.RFC3339), done.Cluster, how)})
	return done, f.write(keptName, k)
}

// mayBe says whether a backup has a part of that name.
func mayBe(name string) bool {
	switch name {
	case partAbout, partKept, partControl, partServers, partAudit:
		return true
	}
	return strings.HasPrefix(name, partHistory) && strings.HasSuffix(name, ".json") || strings.HasPrefix(name, partBlobs)
}

// readBackup reads what a backup says, which lies in this folder.
func (f Folder) readBackup(done *Restored) (*kept, error) {
	k := new(kept)
	if err := errors.Join(f.read(partAbout, &done.About), f.read(partKept, k)); err != nil {
		return nil, fmt.Errorf("read the backup: %w", err)
	}
	if done.Format != aboutFormat {
		return nil, &system.Hint{Err: fmt.Errorf("the backup is of format %d; this program reads %d", done.Format, aboutFormat), Next: "use the program that made it: " + done.Version}
	}
	ca, err := identity.ParseAuthority(k.Authority)
	if err == nil && (ca.Cluster() != k.Cluster || done.Cluster != k.Cluster) {
		err = errors.New("its parts are of several clusters")
	}
	if err != nil {
		return nil, fmt.Errorf("read the backup: %w", err)
	}
	return k, nil
}

const meetWithin = 4 * time.Second // that the other servers have to say that they agree

// rejoin finds out whether the other servers agree on something: then control is theirs, with all that came after the backup. Servers that joined after it are not in it: that
// there are none to be asked only a person can know.
func (done *Restored) rejoin(ctx context.Context, k *kept, from Folder, o RestoreOptions) error {
	if k.Fleet == nil {
		return nil
	}
	known, err := node.ReadServers(from.path(partServers))
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	for _, s := range slices.Concat(known, o.Servers) {
		known = slices.DeleteFunc(known, func(k node.Server) bool { return k.Node == s.Node })
		if s.Node != k.Server {
			known = append(known, s)
		}
	}
	for _, s := range known {
		done.Others = append(done.Others, s.Node)
	}
	agree, err := k.agree(ctx, known)
	if err != nil {
		return err
	}
	names, lost := strings.Join(text(done.Others), " and "), fmt.Sprintf("servent restore --alone FILE   (what was changed after %s is lost)", done.Made.Local().Format(time.DateTime))
	switch done.Rejoins = len(agree) > 0; {
	case done.Rejoins && o.Alone:
		return &system.Hint{Err: fmt.Errorf("%s agree, without this machine, and have all that came after the backup: it is one of them again, and not alone", strings.Join(text(agree), " and ")),
			Next: "the same without --alone"}
	case done.Rejoins:
		return from.write(partServers, known)
	case o.Alone:
		return nil
	case len(known) == 0:
		return &system.Hint{Err: errors.New("the backup knows of no other server of this fleet. If one joined after it was made it has what came after, and it and this machine would be two fleets"),
			Next: "name it: servent restore --server NAME=ADDRESS FILE. If there is none: " + lost}
	}
	return &system.Hint{Err: fmt.Errorf("the other servers, %s, do not say that they agree. If they live where this machine does not see them, they and it would be two fleets", names),
		Next: "start them, and restore again. Are they gone for good: " + lost}
}

func text(ids []system.NodeID) (words []string) {
	for _, id := range ids {
		words = append(words, string(id))
	}
	return words
}

// agree are those of the servers that have a majority.
func (k *kept) agree(ctx context.Context, servers []node.Server) (ids []system.NodeID, err error) {
	way, err := k.operator(backupName, func(id system.NodeID) (link.Address, bool) {
		for _, s := range servers {
			if s.Node == id {
				return link.Address{Host: s.Link, Site: s.Site}, true
			}
		}
		return link.Address{}, false
	})
	if err != nil {
		return nil, err
	}
	defer way.http2.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	var mu sync.Mutex // guards ids
	var all sync.WaitGroup
	for _, s := range servers {
		all.Go(func() {
			body, err := (&nodeDoor{rt: way.http2}).ask(ctx, s.Node, node.VotersPath)
			if err != nil {
				return
			}
			body.Close()
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, s.Node)
		})
	}
	all.Wait()
	slices.Sort(ids)
	return ids, nil
}

// restoreData puts everything in its place but what makes the folder a system's.
func (f Folder) restoreData(k *kept, from Folder, parts []string, done *Restored) error {
	if err := errors.Join(f.removeData(), os.MkdirAll(f.node(k.Server), 0o700), os.MkdirAll(f.history(), 0o700), os.MkdirAll(f.control(), 0o700)); err != nil {
		return f.hint(err)
	}
	if !done.Rejoins {
		name := ""
		if k.Fleet != nil {
			name = string(k.Server)
		}
		at, _, err := etcd.Restore(etcd.RestoreOptions{Snapshot: from.path(partControl), Unsummed: done.Stopped, Dir: f.control(), Name: name})
		if err != nil {
			return f.hint(err)
		}
		done.Revision = int64(at)
	}
	store := &blob.Store{Dir: f.Blobs()}
	for _, part := range parts {
		file := filepath.Join(string(from), filepath.FromSlash(part))
		var err error
		switch dir, name, _ := strings.Cut(part, "/"); {
		case dir+"/" == partHistory:
			err = os.Rename(file, filepath.Join(f.history(), name))
		case dir+"/" == partBlobs:
			err = keepBlob(store, system.Digest(strings.Replace(name, "-", ":", 1)), file)
		case part == partAudit:
			err = os.Rename(file, f.Log("audit"))
		}
		if err != nil {
			return f.hint(fmt.Errorf("restore %s: %w", part, err))
		}
	}
	if done.Rejoins { // else it is the only server until others join it
		return f.hint(os.Rename(from.path(partServers), filepath.Join(f.node(k.Server), node.ServersFile)))
	}
	return nil
}

func keepBlob(store *blob.Store, d system.Digest, file string) error {
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	return store.PutAs(d, r)
}
