package container

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"servent/driver"
	"servent/driver/container/engine"
)

// Where the cable finds its things, in its container.
const (
	cableRoot      = "/.servent"
	cableFile      = "cable.json"    // what it has to do
	doorsSocket    = "doors.sock"    // the node listens: what comes out of the instance
	instanceSocket = "instance.sock" // the cable listens: what goes in
	readyWord      = "ready"
)

// Words of [Main].
const (
	cableWord = "cable"
	guardWord = "guard"
)

// laid is what a cable has to do.
type laid struct {
	Port   int          // at which the instance listens
	Ways   []driver.Way // to their numbers
	Egress bool
	Fill   []string // targets of volumes, which lie at fillAt(0), fillAt(1), …

	hostname string
	volumes  []string
}

func fillAt(n int) string { return cableRoot + "/volume/" + strconv.Itoa(n) }

// Kinds of connections out of a cable: the first byte, with the number of the way in two more.
const (
	callWay   = 'w'
	callHTTP  = 'h'
	callSocks = 's'
)

func readCall(c net.Conn) (kind byte, n uint16, err error) {
	var b [3]byte
	_ = c.SetReadDeadline(time.Now().Add(askWait))
	_, err = io.ReadFull(c, b[:])
	_ = c.SetReadDeadline(time.Time{})
	return b[0], binary.BigEndian.Uint16(b[1:]), err
}

// Main is a process beside an instance that another engine runs: "cable" holds its network, in a container, and ends
// with the node; "guard SOCKET LABEL" is a process of the node's that outlives it for a moment.
func Main(ctx context.Context, args []string, in io.Reader) error {
	switch {
	case len(args) == 1 && args[0] == cableWord:
		return holdCable(ctx, filepath.Join(cableRoot, "cable"))
	case len(args) == 3 && args[0] == guardWord:
		return keepGuard(args[1], args[2], in)
	}
	return fmt.Errorf("want cable or guard SOCKET LABEL, have %q", args)
}

// keepGuard ends what has a label when its input ends without a word.
func keepGuard(socket, label string, in io.Reader) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGTSTP)
	if n, _ := in.Read(make([]byte, 1)); n > 0 {
		return nil
	}
	e := engine.At(socket)
	var err error
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), killAllow)
		err = removeAll(ctx, e, label)
		cancel()
		if err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	return err
}

// holdCable fills volumes, lays the ways and passes connections until the node lets go.
func holdCable(ctx context.Context, dir string) error {
	life, err := net.Dial("unix", filepath.Join(dir, doorsSocket))
	if err != nil {
		return err
	}
	defer life.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, w, ln, err := lay(dir)
	if err != nil {
		_, _ = fmt.Fprintln(life, err) // the node reads it, or is gone
		return err
	}
	if _, err := fmt.Fprintln(life, readyWord); err != nil {
		return err
	}
	call := func(kind byte, n uint16) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", filepath.Join(dir, doorsSocket))
			if err == nil {
				if _, err = c.Write(binary.BigEndian.AppendUint16([]byte{kind}, n)); err != nil {
					c.Close()
				}
			}
			return c, err
		}
	}
	var all sync.WaitGroup
	for at, one := range w.listeners {
		n, err := strconv.ParseUint(w.to[at], 10, 16)
		if err != nil {
			return err
		}
		all.Go(func() { pass(ctx, one, call(callWay, uint16(n))) })
	}
	if l.Egress {
		all.Go(func() { pass(ctx, w.http, call(callHTTP, 0)) })
		all.Go(func() { pass(ctx, w.socks, call(callSocks, 0)) })
	}
	all.Go(func() { each(ctx, ln, func(c net.Conn) { enter(ctx, c, l.Port) }) })
	_, err = io.Copy(io.Discard, life) // until the node is gone
	cancel()
	w.close()
	ln.Close()
	all.Wait()
	return err
}

func lay(dir string) (l laid, w *ways, ln net.Listener, err error) {
	b, err := os.ReadFile(filepath.Join(dir, cableFile))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return l, nil, nil, err
	}
	for n, target := range l.Fill {
		if err := fill("/", fillAt(n), target); err != nil {
			return l, nil, nil, fmt.Errorf("fill the volume at %s: %w", target, err)
		}
	}
	hall, err := newRoom(func() error { return nil }) // this one: the instance's
	if err != nil {
		return l, nil, nil, err
	}
	defer hall.close()
	if w, err = openWays(hall, l.Ways, l.Egress); err != nil {
		return l, nil, nil, err
	}
	at := filepath.Join(dir, instanceSocket)
	if ln, err = net.Listen("unix", at); err == nil {
		err = os.Chmod(at, 0o666)
	}
	return l, w, ln, err
}

// enter joins a connection of the node's to the program, and says first that there is one.
func enter(ctx context.Context, c net.Conn, port int) {
	d := net.Dialer{Timeout: dialWait}
	up, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)).String())
	if err == nil {
		if _, err = c.Write([]byte{'+'}); err == nil {
			both(ctx, c, up, nil)
			return
		}
		up.Close()
	}
	c.Close()
}
