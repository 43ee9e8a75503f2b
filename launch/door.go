package launch

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/fleet"
)

// adminDoor is the open admin door: a loopback port with a token, and where files have modes a socket.
type adminDoor struct {
	folder  Folder
	servers []*http.Server
	opened  []net.Listener
	private string // folder of the socket outside the state folder; empty: none
}

const privateName = "servent-"

// door opens the admin door and writes down how to reach it.
func (l *laptop) door() (_ *adminDoor, err error) {
	d := &adminDoor{folder: l.opt.Folder}
	defer func() {
		if err != nil {
			d.close()
			err = fmt.Errorf("open the admin door: %w", err)
		}
	}()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.opened = append(d.opened, tcp)
	info := Info{Pid: os.Getpid(), URL: "http://" + tcp.Addr().String(), Token: rand.Text(), Started: time.Now()}
	door := &admin.Door{Cluster: l.us.control, View: l.look, Changed: l.news.wait, Machines: l, Nodes: &nodeDoor{rt: l.us.http2}, Context: "laptop",
		Console: l.opt.Console, URL: info.URL + "/#token=" + info.Token, Log: l.opt.Log}
	if l.fleet != nil {
		door.Fleet, door.Context = l.fleet, "fleet"
		answers := door.Handler()
		l.fleet.door.Commands = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // the page stays here: it is for who sits at this machine
			who := admin.Caller{Who: fleet.MemberFrom(r.Context()).String(), From: r.RemoteAddr}
			answers.ServeHTTP(w, r.WithContext(admin.As(r.Context(), who)))
		})
	}
	d.servers = append(d.servers, &http.Server{Handler: door.Guarded(info.Token), ReadHeaderTimeout: 10 * time.Second})
	if sockets {
		if info.Socket, err = d.socket(); err != nil {
			return nil, err
		}
		d.servers = append(d.servers, &http.Server{Handler: door.Handler(), ReadHeaderTimeout: 10 * time.Second})
	}
	return d, l.opt.Folder.write(runName, info)
}

// socket opens the door's socket in the state folder, or, where that path is too long for the kernel (104
// bytes on macOS, 108 on Linux), in a private folder of the system's temporary one.
func (d *adminDoor) socket() (string, error) {
	path := d.folder.path("admin.sock")
	d.sweep()
	if len(path) >= 100 {
		dir, err := os.MkdirTemp("", privateName)
		if err != nil {
			return "", err
		}
		d.private, path = dir, filepath.Join(dir, "admin.sock")
	}
	_ = os.Remove(path) // left by one that was killed; the folder's lock says that nobody uses it
	unix, err := net.Listen("unix", path)
	if err != nil {
		return "", err
	}
	d.opened = append(d.opened, unix)
	return path, os.Chmod(path, 0o600)
}

// sweep removes the socket that a killed process of this folder left in the temporary folder. One that
// somebody answers on is another folder's: this one was copied.
func (d *adminDoor) sweep() {
	was, err := d.folder.Info()
	dir := filepath.Dir(was.Socket)
	if err != nil || filepath.Dir(dir) != filepath.Clean(os.TempDir()) || !strings.HasPrefix(filepath.Base(dir), privateName) {
		return
	}
	if conn, err := net.Dial("unix", was.Socket); err == nil {
		conn.Close()
		return
	}
	_ = os.Remove(was.Socket)
	_ = os.Remove(dir) // goes when it is empty
}

// serve answers until ctx ends, which also ends answers that go on, and closes the door.
func (d *adminDoor) serve(ctx context.Context) {
	var wg sync.WaitGroup
	for i, s := range d.servers {
		s.BaseContext = func(net.Listener) context.Context { return ctx }
		wg.Go(func() { _ = s.Serve(d.opened[i]) }) // it ends by being closed
	}
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, s := range d.servers {
		if s.Shutdown(grace) != nil {
			_ = s.Close() // cuts who does not let go
		}
	}
	wg.Wait()
	d.close()
}

// close frees what the open door has.
func (d *adminDoor) close() {
	_ = os.Remove(d.folder.path(runName)) // what stays names a process that does not answer
	for _, ln := range d.opened {
		_ = ln.Close() // a server has closed it already
	}
	if d.private != "" {
		_ = os.RemoveAll(d.private) // an empty folder
	}
}
