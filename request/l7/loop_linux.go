package l7

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"servent/request/h1"
	"servent/request/proxy"
)

const eventsBuilt = true

const (
	eventsMost = 256                    // taken from the kernel at once
	acceptMost = 64                     // connections accepted before others have their turn
	lightWait  = 1                      // ms that a loop waits without giving its processor away
	lightMost  = 10                     // such waits in a row that bring nothing
	soon       = 10 * time.Millisecond  // between two looks at what is under way
	seldom     = 250 * time.Millisecond // at what waits for a request
)

// loop is one of the switch's threads: it waits for events of its sockets alone, and each moves a machine by a step.
// All that it has it touches alone, but for what post guards.
type loop struct {
	epoll, bell int
	sockets     []*socket // by descriptor
	gens        []int32   // of the descriptor: an event of an earlier one is stale
	open        int
	doors       map[int]*engine // by the descriptor of a listener
	flying      []*machine      // those that are not waiting for a request
	idle        map[string][]*reach
	now         time.Time
	light       int       // waits without an event
	looked      time.Time // at what is under way
	swept       time.Time // at the others
	ended       bool
	lent        atomic.Int64 // connections that goroutines have for now
	rung        atomic.Bool

	mu   sync.Mutex // guards what follows
	todo []func()
}

// newLoops leaves one processor to goroutines, if there are more.
func newLoops() ([]*loop, error) {
	var all []*loop
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		l := &loop{doors: map[int]*engine{}, idle: map[string][]*reach{}, epoll: -1}
		var err error
		if l.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
			if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
				err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.bell)})
			}
		}
		all = append(all, l)
		if err != nil {
			for _, l := range all {
				l.close()
			}
			return nil, os.NewSyscallError("epoll", err)
		}
	}
	return all, nil
}

func (l *loop) close() {
	_ = unix.Close(l.bell)
	_ = unix.Close(l.epoll)
}

// post has the loop do something.
func (l *loop) post(do func()) {
	l.mu.Lock()
	l.todo = append(l.todo, do)
	l.mu.Unlock()
	if l.rung.CompareAndSwap(false, true) {
		_, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot be full
	}
}

// run returns after end.
func (l *loop) run() {
	defer l.close()
	events := make([]unix.EpollEvent, eventsMost)
	rested := time.Now()
	for !l.ended {
		n := l.wait(events)
		l.now = time.Now()
		for i := range events[:n] {
			l.event(&events[i])
		}
		if l.now.Sub(l.looked) >= soon {
			l.look()
		}
		if l.now.Sub(rested) > time.Millisecond {
			rested = l.now
			runtime.Gosched() // goroutines may have been waiting
		}
	}
}

// wait waits for events. One that gives its processor away has to wait for it again, which takes longer than most
// requests: with requests coming a loop keeps it, unless goroutines have some of them.
func (l *loop) wait(events []unix.EpollEvent) int {
	most := -1
	switch {
	case len(l.flying) > 0 || len(l.idle) > 0:
		most = int(soon / time.Millisecond)
	case l.open > 0:
		most = int(seldom / time.Millisecond)
	}
	if l.light < lightMost && l.lent.Load() == 0 {
		n, _, err := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), eventsMost, lightWait, 0, 0)
		if err == 0 && n > 0 {
			l.light = 0
			return int(n)
		}
		l.light++
		runtime.Gosched()
		return 0
	}
	n, _ := unix.EpollWait(l.epoll, events, most) // interrupted: it comes again
	if n > 0 {
		l.light = 0
	}
	return max(n, 0)
}

func (l *loop) event(ev *unix.EpollEvent) {
	fd := int(ev.Fd)
	if fd == l.bell {
		l.heed()
		return
	}
	if e := l.doors[fd]; e != nil {
		l.accept(fd, e)
		return
	}
	if fd >= len(l.sockets) || l.sockets[fd] == nil || l.gens[fd] != ev.Pad {
		return
	}
	s := l.sockets[fd]
	if ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readable = true
	}
	if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.hung = true
	}
	s.owner.ready()
}

// heed does what was posted.
func (l *loop) heed() {
	var count [8]byte
	_, _ = unix.Read(l.bell, count[:])
	l.rung.Store(false)
	l.mu.Lock()
	todo := l.todo
	l.todo = nil
	l.mu.Unlock()
	for _, do := range todo {
		do()
	}
}

// join has the loop wait for a socket's events: once for each change, so that nothing needs to be said about what is of interest.
func (l *loop) join(s *socket, fd int, owner interface{ ready() }) error {
	for fd >= len(l.sockets) {
		l.sockets, l.gens = append(l.sockets, nil), append(l.gens, 0)
	}
	l.gens[fd]++
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: l.gens[fd]}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.l, s.fd, s.owner = l, fd, owner
	l.sockets[fd] = s
	l.open++
	return nil
}

// forget is called when a socket is no longer the loop's.
func (l *loop) forget(s *socket) {
	if l.sockets[s.fd] == s {
		l.sockets[s.fd] = nil
		l.open--
	}
}

// look looks after what has lasted too long.
func (l *loop) look() {
	for i := len(l.flying) - 1; i >= 0; i-- { // who goes is replaced by the last one, which was looked at
		if i < len(l.flying) {
			l.flying[i].late()
		}
	}
	l.reap(l.now.Add(-idleFor))
	l.looked = l.now
	if l.now.Sub(l.swept) < seldom {
		return
	}
	l.swept = l.now
	for _, s := range l.sockets {
		if s == nil {
			continue
		}
		if m, ok := s.owner.(*machine); ok && m.at == onRequest {
			m.late()
		}
	}
}

// listen has the loop accept connections of a door; false: it cannot.
func (l *loop) listen(ln net.Listener, e *engine) bool {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return false
	}
	fd, err := dup(tcp)
	if err != nil {
		return false
	}
	// What is accepted has the listener's options.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	if unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(fd)}) != nil {
		_ = unix.Close(fd)
		return false
	}
	l.doors[fd] = e
	return true
}

func (l *loop) unlisten(e *engine) {
	for fd, of := range l.doors {
		if of == e {
			delete(l.doors, fd)
			_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
			_ = unix.Close(fd)
		}
	}
}

func (l *loop) accept(ln int, e *engine) {
	for range acceptMost {
		fd, from, err := unix.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err == unix.EMFILE || err == unix.ENFILE {
			runtime.Gosched() // some come back
		}
		if err != nil {
			return
		}
		l.serve(fd, e, address(from))
	}
}

func address(from unix.Sockaddr) string {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return "@"
}

// adopt takes over a connection that a goroutine has; false: it stays.
func (l *loop) adopt(nc net.Conn, e *engine, remote string) bool {
	tcp, ok := proxy.TCP(nc)
	if !ok {
		return false
	}
	fd, err := dup(tcp)
	if err != nil {
		return false
	}
	_ = tcp.Close() // the duplicate stays
	l.post(func() { l.serve(fd, e, remote) })
	return true
}

// serve begins with a connection.
func (l *loop) serve(fd int, e *engine, remote string) {
	m := &machine{e: e, remote: remote, by: l.now.Add(e.s.headFor)}
	if !e.enter() {
		_ = unix.Close(fd)
		return
	}
	if l.join(&m.socket, fd, m) != nil {
		_ = unix.Close(fd)
		e.exit()
		return
	}
	m.in = h1.NewReader(&m.socket)
}

// mine are the machines of a door.
func (l *loop) mine(e *engine) (all []*machine) {
	for _, s := range l.sockets {
		if s == nil {
			continue
		}
		if m, ok := s.owner.(*machine); ok && m.e == e {
			all = append(all, m)
		}
	}
	return all
}

// quieten closes a door: what is idle ends now, what is not after its answer.
func (l *loop) quieten(e *engine) {
	l.unlisten(e)
	for _, m := range l.mine(e) {
		if m.at == onRequest {
			m.close()
		}
	}
}

// cut closes all of a door.
func (l *loop) cut(e *engine) {
	l.unlisten(e)
	for _, m := range l.mine(e) {
		m.close()
	}
}

// end closes what is left: connections to instances.
func (l *loop) end() {
	l.reap(l.now.Add(time.Hour))
	l.ended = true
}
