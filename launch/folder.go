package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/system"
)

// Folder is the .servent folder beside a user's file: all that a laptop's system keeps.
type Folder string

// FolderOf returns the state folder of a project.
func FolderOf(project string) Folder { return Folder(filepath.Join(project, ".servent")) }

// Blobs is where bytes lie by their digest.
func (f Folder) Blobs() string { return filepath.Join(string(f), "blobs") }

// Log is where the processes of Servent itself write.
func (f Folder) Log(name string) string { return filepath.Join(string(f), "log", name+".log") }

func (f Folder) nodes() string { return filepath.Join(string(f), "nodes") }

func (f Folder) node(id system.NodeID) string { return filepath.Join(f.nodes(), string(id)) }

func (f Folder) control() string { return filepath.Join(string(f), "control") }

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

const (
	lockName = "lock"
	keptName = "laptop.json"
	runName  = "run.json"
)

// Info says how to reach a running system.
type Info struct {
	Pid     int       `json:"pid"`
	Socket  string    `json:"socket,omitempty"`
	URL     string    `json:"url"` // of the loopback door
	Token   string    `json:"token"`
	Started time.Time `json:"started"`
}

// Info reads how to reach the folder's running system, or what one that was killed left. It returns
// [admin.ErrNotRunning] when there is nothing to read.
func (f Folder) Info() (Info, error) {
	var info Info
	err := f.read(runName, &info)
	if errors.Is(err, fs.ErrNotExist) {
		return info, admin.ErrNotRunning
	}
	return info, err
}

// Client returns a client of the folder's running system, [admin.ErrNotRunning] when none runs; of the fleet's, when the folder's machine
// is a member. A folder that was copied while its system ran names that system's door, but not its lock.
func (f Folder) Client() (*admin.Client, error) {
	if f.Joined() {
		return f.afar()
	}
	if f.Free() {
		return nil, admin.ErrNotRunning
	}
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	return admin.Dial(info.Socket, info.URL, info.Token), nil
}

// Make makes the folder, private and out of version control: what is kept here is secret and large.
func (f Folder) Make() error {
	for _, dir := range []string{string(f), f.Blobs(), filepath.Dir(f.Log("x")), f.control()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return f.hint(fmt.Errorf("make the state folder: %w", err))
		}
	}
	if err := os.WriteFile(f.path(".gitignore"), []byte("*\n"), 0o600); err != nil {
		return f.hint(fmt.Errorf("make the state folder: %w", err))
	}
	return nil
}

// hint adds what helps against a folder that cannot be written.
func (f Folder) hint(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &system.Hint{Err: err, Next: "ls -ld " + filepath.Dir(string(f)) + "   (Servent keeps its state beside your file)"}
	case isFull(err):
		return &system.Hint{Err: err, Next: "df -h " + filepath.Dir(string(f))}
	}
	return err
}

// Free says that no process runs the folder's system.
func (f Folder) Free() bool {
	file, err := os.OpenFile(f.path(lockName), os.O_RDWR, 0)
	if err != nil {
		return true
	}
	defer file.Close()
	ok, err := lockFile(file)
	return ok && err == nil
}

// lockWithin is how long the lock may be in the hands of one that only looks whether it is free.
const lockWithin = time.Second

// lock makes this process the only one that runs the folder's system, until it calls unlock or dies.
func (f Folder) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(f.path(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, f.hint(err)
	}
	late := time.After(lockWithin)
	for {
		ok, err := lockFile(file)
		if ok && err == nil {
			return func() { file.Close() }, nil
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		select {
		case <-late:
			file.Close()
			return nil, &system.Hint{Err: ErrRunning, Next: "servent ps"}
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Remove deletes the data of a system that does not run: its nodes' folders and its control.
func (f Folder) Remove(ctx context.Context) error {
	if _, err := os.Stat(string(f)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return f.removeData()
}

func (f Folder) removeData() error {
	var errs []error
	for _, dir := range []string{f.nodes(), f.control()} {
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove data: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (f Folder) read(name string, into any) error {
	b, err := os.ReadFile(f.path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", f.path(name), err)
	}
	return nil
}

// write replaces a file whole: after a crash it is the old or the new one.
func (f Folder) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := blob.Replace(f.path(name), b, 0o600); err != nil {
		return f.hint(fmt.Errorf("write %s: %w", f.path(name), err))
	}
	return nil
}
