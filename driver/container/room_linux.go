package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// room is a network and a view of the file systems of an instance's own: those of one thread, which belongs to
// the room until it is closed. What is started by that thread lives in there; a socket that it makes stays in
// there, whoever uses it. Its mounts are gone with it, also when the node is killed.
type room struct {
	jobs chan func()
	quit chan struct{}
	gone chan struct{}
}

var errClosed = errors.New("the container has ended")

// newRoom makes a room, whose thread is given what it has of its own by furnish.
func newRoom(furnish func() error) (*room, error) {
	r := &room{make(chan func()), make(chan struct{}), make(chan struct{})}
	ready := make(chan error)
	go r.keep(furnish, ready)
	if err := <-ready; err != nil {
		<-r.gone
		return nil, err
	}
	return r, nil
}

// keep is the room's goroutine. It never unlocks its thread, which therefore ends with it.
func (r *room) keep(furnish func() error, ready chan<- error) {
	defer close(r.gone)
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() { // the main thread cannot end, and is what /proc shows of the process
		next := make(chan struct{})
		go func() { defer close(next); r.stay(furnish, ready) }() // on another: this one is taken
		<-next
		runtime.UnlockOSThread()
		return
	}
	r.stay(furnish, ready)
}

func (r *room) stay(furnish func() error, ready chan<- error) {
	runtime.LockOSThread()
	err := furnish()
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case job := <-r.jobs:
			job()
		case <-r.quit:
			return
		}
	}
}

// furnished gives the calling thread its own network and its own mounts.
func furnished() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	return networked()
}

// networked gives the calling thread its own network alone, with loopback up.
func networked() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	// As with Docker: in a network of one's own any user may listen on port 80.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	return nil
}

// do runs f on the room's thread and waits for it.
func (r *room) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case r.jobs <- func() { done <- f() }:
		return <-done
	case <-r.quit:
		return errClosed
	}
}

// close ends the thread. It is called once.
func (r *room) close() {
	close(r.quit)
	<-r.gone
}

// dial opens a connection to a port of the room's loopback. Only the socket is made by the thread; nothing
// keeps it waiting.
func (r *room) dial(ctx context.Context, port int) (net.Conn, error) {
	fd := -1
	err := r.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial port %d of the container: %w", port, err)
	}
	if err := connect(ctx, fd, port); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("dial port %d of the container: %w", port, err)
	}
	f := os.NewFile(uintptr(fd), "container")
	defer f.Close() // the connection has a descriptor of its own
	return net.FileConn(f)
}

// connect waits until a socket is connected. On loopback it is at once, unless the program has no place for
// one more.
func connect(ctx context.Context, fd, port int) error {
	const look = 50 * time.Millisecond
	limit := time.Now().Add(5 * time.Second)
	err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err != unix.EINPROGRESS && err != unix.EINTR {
		return err
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(look.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && code != 0 {
				err = unix.Errno(code)
			}
			return err
		}
		if time.Now().After(limit) {
			return unix.ETIMEDOUT
		}
	}
	return ctx.Err()
}

// listen opens a listener in the room.
func (r *room) listen(address string) (ln net.Listener, err error) {
	err = r.do(func() error {
		var lc net.ListenConfig
		ln, err = lc.Listen(context.Background(), "tcp4", address) // a literal address: nothing is looked up, nothing waits
		return err
	})
	return ln, err
}
