package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"servent/launch"
)

// screen is a terminal and what was written on it.
type screen struct {
	master *os.File
	mu     sync.Mutex // guards text
	text   bytes.Buffer
	grown  chan struct{} // room for one
	closed chan struct{}
}

// newScreen opens a pseudo terminal of a size, see pty(7), and returns the program's end of it.
func newScreen(t *testing.T, width, height uint16) (*screen, *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx") // not blocking: closing it ends a read
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{master: master, grown: make(chan struct{}, 1), closed: make(chan struct{})}
	go s.read()
	t.Cleanup(func() { s.close() })
	return s, slave
}

func (s *screen) read() {
	defer close(s.closed)
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.grown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *screen) close() { s.master.Close() }

func (s *screen) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// until waits for a text on the screen.
func (s *screen) until(t *testing.T, text string) {
	t.Helper()
	late := time.After(time.Minute)
	for !strings.Contains(s.seen(), text) {
		select {
		case <-s.grown:
		case <-late:
			t.Fatalf("no %q on the screen:\n%s", text, s.seen())
		}
	}
}

// foreground is `servent up` on a terminal of its own, in a session of its own, as a shell starts it.
func foreground(t *testing.T, compose string, width, height uint16) (*world, *screen, *exec.Cmd) {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", compose)
	s, tty := newScreen(t, width, height)
	cmd := exec.Command(program, "-C", w.dir, "up")
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	t.Cleanup(func() { // when the test failed on its way
		w.down()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.until(t, "stop: Ctrl-C")
	return w, s, cmd
}

func (s *screen) press(t *testing.T, key string) {
	t.Helper()
	if _, err := io.WriteString(s.master, key); err != nil {
		t.Fatal(err)
	}
}

// within waits for a command's end.
func within(t *testing.T, cmd *exec.Cmd, limit time.Duration) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		t.Fatalf("%v has not ended after %v", cmd.Args, limit)
		return nil
	}
}

// left is what of a state folder a stopped system may leave: no door, no word that it runs.
func (w *world) left() {
	w.t.Helper()
	for _, name := range []string{"run.json", "admin.sock"} {
		if _, err := os.Stat(w.dir + "/.servent/" + name); err == nil {
			w.t.Errorf("%s is still there", name)
		}
	}
	if !launch.FolderOf(w.dir).Free() {
		w.t.Error("the folder is still locked")
	}
}

const wide = `name: wide
services:
  a-service-whose-name-is-wider-than-this-terminal:
    deploy: {replicas: 8}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      route: /*
      switch: {by: request}
`

// stubborn does not end when it is asked to. %s is the program.
const stubborn = `name: stubborn
services:
  hits:
    x-servent:
      process: {run: [sh, -c, 'trap "" TERM; %s example counter; while :; do sleep 1; done']}
      route: /*
`

var escape = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

func TestUpOnATerminal(t *testing.T) {
	const width, height = 40, 8
	w, s, cmd := foreground(t, wide, width, height)
	all := w.family()
	if len(all) < 1+3+1+8 {
		t.Errorf("%d processes run, want at least the keeper, three nodes, etcd and eight programs: the test proves nothing", len(all))
	}
	// The picture is drawn anew by going up as many lines as it has: were one wider or the whole
	// higher than the terminal, older pictures would pile up.
	picture, _, _ := strings.Cut(s.seen(), "http://")
	drawn := strings.Split(picture, "\x1b[2K")
	if len(drawn) < 10 {
		t.Errorf("only %d lines were drawn: no live picture\n%q", len(drawn), picture)
	}
	for _, line := range drawn {
		line = strings.TrimRight(escape.ReplaceAllString(line, ""), "\r\n")
		if n := len([]rune(line)); n >= width {
			t.Errorf("a line of %d columns on a terminal of %d: %q", n, width, line)
		}
	}
	for _, up := range regexp.MustCompile("\x1b\\[([0-9]+)A").FindAllStringSubmatch(picture, -1) {
		if n, _ := strconv.Atoi(up[1]); n >= height {
			t.Errorf("the picture has %d lines on a terminal of %d", n, height)
		}
	}
	// A second up in another terminal changes the running one.
	w.write("compose.yaml", strings.Replace(wide, "replicas: 8", "replicas: 9", 1))
	if out, err := w.run("up"); err != nil || !strings.Contains(out, "/9  ") {
		t.Errorf("up elsewhere: %v\n%s", err, out)
	}
	all = w.family()
	s.press(t, "\x03")
	s.until(t, "stopping: ")
	if err := within(t, cmd, 30*time.Second); err != nil {
		t.Errorf("after Ctrl-C: %v, want success", err)
	}
	s.until(t, "stopped; data stays in ")
	ends(t, all)
	w.left()
}

func TestCtrlCTwiceKillsAtOnce(t *testing.T) {
	w, s, cmd := foreground(t, fmt.Sprintf(stubborn, program), 80, 24)
	all := w.family()
	s.press(t, "\x03")
	s.until(t, "stopping: ")
	began := time.Now()
	s.press(t, "\x03")
	_ = within(t, cmd, 30*time.Second)
	if took := time.Since(began); took > 6*time.Second { // its grace alone is 10s
		t.Errorf("ended %v after the second Ctrl-C, want at once", took)
	}
	ends(t, all)
	w.left()
}

func TestClosedTerminalStopsEverything(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("this test was started by nohup or the like: its children ignore the end of their terminal")
	}
	w, s, cmd := foreground(t, wide, 80, 24)
	all := w.family()
	s.close()
	_ = within(t, cmd, 30*time.Second)
	ends(t, all)
	w.left()
}

// Not a terminal: plain lines, no cursor is moved.
func TestUpElsewhereIsPlain(t *testing.T) {
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", wide)
	cmd := exec.Command(program, "-C", w.dir, "up")
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = wr, wr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wr.Close()
	t.Cleanup(w.down)
	s := &screen{master: r, grown: make(chan struct{}, 1), closed: make(chan struct{})}
	go s.read()
	s.until(t, "stop: Ctrl-C")
	all := w.family()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := within(t, cmd, 30*time.Second); err != nil {
		t.Errorf("after an interrupt: %v, want success", err)
	}
	<-s.closed
	ends(t, all)
	w.left()
	if out := s.seen(); strings.ContainsRune(out, 0x1b) || !strings.Contains(out, "/8  node-") || !strings.Contains(out, "stopped; data stays in ") {
		t.Errorf("want plain lines, one an instance:\n%s", out)
	}
}

// The keeper is killed: whatever it started ends by itself within seconds, and the next up finds what it
// left: the same nodes at the same addresses, and their data.
func TestKeeperIsKilled(t *testing.T) {
	w := start(t, fmt.Sprintf(lives, "exec "+program+" example counter"))
	all := w.family()
	info, err := launch.FolderOf(w.dir).Info()
	if err != nil {
		t.Fatal(err)
	}
	was := w.ps()[0]
	kill(t, info.Pid, syscall.SIGKILL)
	ends(t, all)
	if out, err := w.run("ps"); err == nil || !strings.Contains(out, "next: servent up") {
		t.Errorf("ps: %v\n%s", err, out)
	}
	w.up()
	is := w.ps()[0]
	if is.Pid == was.Pid || is.Node != was.Node || !is.Healthy {
		t.Errorf("after the next up: %+v, want it alive on %s", is, was.Node)
	}
	if got := w.births(); got != 2 {
		t.Errorf("the folder saw %d births, want 2: the data of before", got)
	}
}
