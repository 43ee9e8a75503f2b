package launch

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/identity"
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

func (f Folder) node(id system.NodeID) string { return filepath.Join(string(f), "nodes", string(id)) }

func (f Folder) control() string { return filepath.Join(string(f), "control") }

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

// Info says how to reach a running system.
type Info struct {
	Pid     int       `json:"pid"`
	Socket  string    `json:"socket,omitempty"`
	URL     string    `json:"url"` // of the loopback door
	Token   string    `json:"token"`
	Started time.Time `json:"started"`
}

// Info reads how to reach the folder's running system. It returns [admin.ErrNotRunning] when none was
// left; that one answers is not checked.
func (f Folder) Info() (Info, error) {
	var info Info
	err := f.read("run.json", &info)
	if errors.Is(err, fs.ErrNotExist) {
		return info, admin.ErrNotRunning
	}
	return info, err
}

// Client returns a client of the folder's running system.
func (f Folder) Client() (*admin.Client, error) {
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	return admin.Dial(info.Socket, info.URL, info.Token), nil
}

// socket is the path of the admin door: in the folder, or, where that is too long for the kernel
// (104 bytes on macOS, 108 on Linux), in a private folder of the system's temporary one.
func (f Folder) socket() (string, error) {
	if path := f.path("admin.sock"); len(path) < 100 {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "servent-")
	return filepath.Join(dir, "admin.sock"), err
}

// laptop is what must stay the same between two starts.
type laptop struct {
	Cluster   string                `json:"cluster"`
	Authority []byte                `json:"authority"` // PEM: certificate and key
	PortBase  int                   `json:"port_base"` // of node 1
	PortSlice int                   `json:"port_slice"`
	Web       int                   `json:"web,omitempty"`
	Index     map[system.NodeID]int `json:"index"` // from 1; never reused
}

const (
	portsFrom  = 20000
	portsUntil = 32000 // Linux hands out 32768 and above, macOS and Windows 49152 and above
	minSlice   = 128
)

// open reads the folder's state, or makes it. slice is the ports a node needs.
func (f Folder) open(slice int) (*laptop, *identity.Authority, error) {
	for _, dir := range []string{string(f), f.Blobs(), filepath.Dir(f.Log("x")), f.control()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	// What is kept here is private and large: no version control, no backup by accident.
	if err := os.WriteFile(f.path(".gitignore"), []byte("*\n"), 0o600); err != nil {
		return nil, nil, fmt.Errorf("make the state folder: %w", err)
	}
	var l laptop
	err := f.read("laptop.json", &l)
	if errors.Is(err, fs.ErrNotExist) {
		return f.make(slice)
	}
	if err != nil {
		return nil, nil, err
	}
	ca, err := identity.ParseAuthority(l.Authority)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.path("laptop.json"), err)
	}
	l.PortSlice = max(l.PortSlice, slice)
	return &l, ca, nil
}

func (f Folder) make(slice int) (*laptop, *identity.Authority, error) {
	cluster := "laptop-" + strings.ToLower(rand.Text()[:10])
	ca, err := identity.NewAuthority(cluster)
	if err != nil {
		return nil, nil, err
	}
	l := &laptop{Cluster: cluster, Authority: ca.PEM(), PortSlice: slice, Index: map[system.NodeID]int{}}
	return l, ca, f.write("laptop.json", l)
}

// host is the address of the i-th node, counted from 1: its own where the machine has one for each
// (Linux answers on all of 127.0.0.0/8), else the one that all share.
func (l *laptop) host(i int) string {
	own := fmt.Sprintf("127.77.0.%d", i)
	if i > 254 || !ownAddresses() {
		return "127.0.0.1"
	}
	return own
}

var ownAddresses = sync.OnceValue(func() bool {
	ln, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
})

func (l *laptop) portBase(i int) int { return l.PortBase + (i-1)*l.PortSlice }

// choosePorts finds a run of port slices, one a node, in which nobody listens on a node's first ports.
// The last choice is kept while it is free: addresses that do not change are easier to work with.
func (l *laptop) choosePorts() error {
	nodes := 0
	for _, i := range l.Index {
		nodes = max(nodes, i)
	}
	if span := nodes * l.PortSlice; span > portsUntil-portsFrom {
		return fmt.Errorf("%d nodes with %d ports each do not fit between %d and %d; want fewer nodes or instances", nodes, l.PortSlice, portsFrom, portsUntil)
	}
	if l.PortBase != 0 && l.free(l.PortBase) {
		return nil
	}
	for base := portsFrom; base+nodes*l.PortSlice <= portsUntil; base += minSlice {
		if l.free(base) {
			l.PortBase = base
			return nil
		}
	}
	return fmt.Errorf("no %d free ports in a row between %d and %d", nodes*l.PortSlice, portsFrom, portsUntil)
}

// free tries the first ports of every slice: the link's, the web door's, the first doors'.
func (l *laptop) free(base int) bool {
	for _, i := range l.Index {
		for offset := range 4 {
			ln, err := net.Listen("tcp", net.JoinHostPort(l.host(i), strconv.Itoa(base+(i-1)*l.PortSlice+offset)))
			if err != nil {
				return false
			}
			ln.Close()
		}
	}
	return true
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
	tmp, err := os.CreateTemp(string(f), name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), f.path(name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path(name), err)
	}
	return nil
}
