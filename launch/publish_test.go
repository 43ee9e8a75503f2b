package launch

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"servent/control"
	"servent/system"
)

// front is a publisher before doors that the test opens.
type front struct {
	*publisher
	now  atomic.Pointer[control.View]
	news news
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{}
	f.news.init()
	f.now.Store(&control.View{})
	f.publisher = &publisher{view: func() (*control.View, error) { return f.now.Load(), nil }, changed: f.news.wait, log: slog.New(slog.DiscardHandler)}
	t.Cleanup(f.Close)
	return f
}

// door opens a node's door of a service that greets with a name and sends back what it gets.
func (f *front) door(t *testing.T, offset int, service system.ServiceName, name string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, name)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	old := f.now.Load()
	v := &control.View{Plan: &system.Plan{}}
	if old.Plan != nil {
		*v.Plan = *old.Plan
	}
	v.Plan.Doors = append(v.Plan.Doors[:len(v.Plan.Doors):len(v.Plan.Doors)], system.Door{Service: service, Offset: offset})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	n, _ := strconv.Atoi(port)
	v.Seen = []system.Seen{{Node: "node-1", Address: "127.0.0.1", PortBase: n - offset}}
	f.now.Store(v)
	f.news.tell()
}

func publishes(service system.ServiceName, port int) system.Service {
	return system.Service{Name: service, Switch: system.Switch{By: system.ByConnection}, Ports: []system.Port{{Published: port, Target: 80}}}
}

// say sends a line through a published port and returns all that comes back.
func say(t *testing.T, url, text string) string {
	t.Helper()
	_, addr, _ := strings.Cut(url, "://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A client that comes before there is any door waits for it; then bytes pass both ways, and each side's
// end reaches the other.
func TestPublishedPortHolds(t *testing.T) {
	f := newFront(t)
	sys := &system.System{Services: []system.Service{publishes("echo", 0)}}
	if err := f.Set(sys); err != nil {
		t.Fatal(err)
	}
	ways := f.Published(sys)
	if len(ways) != 1 || !strings.HasPrefix(ways[0].URL, "tcp://127.0.0.1:") {
		t.Fatalf("Published = %v", ways)
	}
	got := make(chan string, 1)
	go func() { got <- say(t, ways[0].URL, "hello") }()
	f.door(t, 7, "echo", "node-1")
	select {
	case got := <-got:
		if want := "node-1\nhello"; got != want {
			t.Errorf("through the port: %q, want %q", got, want)
		}
	case <-time.After(holdFor):
		t.Fatal("the connection was not passed on")
	}
}

// A port that another service publishes after an edit stays open: it changes hands.
func TestPublishedPortChangesHands(t *testing.T) {
	f := newFront(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	if err := f.Set(&system.System{Services: []system.Service{publishes("old", port)}}); err != nil {
		t.Fatal(err)
	}
	f.door(t, 7, "new", "the new one")
	sys := &system.System{Services: []system.Service{publishes("new", port)}}
	if err := f.Set(sys); err != nil {
		t.Fatalf("the port moves from old to new: %v", err)
	}
	if got := say(t, f.Published(sys)[0].URL, ""); got != "the new one\n" {
		t.Errorf("at the port: %q, want the new service", got)
	}
	if err := f.Set(&system.System{}); err != nil {
		t.Fatal(err)
	}
	if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Errorf("a port that is published no more is still held: %v", err)
	} else {
		ln.Close()
	}
}

// One port that cannot be had: the error says who has it, and nothing else was changed.
func TestPublishedPortTaken(t *testing.T) {
	f := newFront(t)
	theirs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	port := theirs.Addr().(*net.TCPAddr).Port
	before := &system.System{Services: []system.Service{publishes("a", 0)}}
	if err := f.Set(before); err != nil {
		t.Fatal(err)
	}
	was := f.Published(before)
	err = f.Set(&system.System{Services: []system.Service{publishes("b", 0), publishes("c", port)}})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "which c publishes, is in use by") || system.Next(err) == "" {
		t.Fatalf("Set = %v, want who has the port, and what to do", err)
	}
	if who := holder(port); who != "" && !strings.Contains(who, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("holder(%d) = %q, want this process", port, who)
	}
	if now := f.Published(before); len(now) != 1 || now[0] != was[0] {
		t.Errorf("after the failure: %v, want %v as before", now, was)
	}
}

func TestWebDoor(t *testing.T) {
	f := newFront(t)
	routed := system.Service{Name: "web", Routes: []system.Route{{Path: "/*"}, {Path: "/api/*"}}}
	sys := &system.System{Services: []system.Service{routed}}
	if err := f.Set(sys); err != nil {
		t.Fatal(err)
	}
	ways := f.Published(sys)
	base := fmt.Sprintf("http://127.0.0.1:%d", f.Web())
	if len(ways) != 2 || ways[0].URL != base || ways[1].URL != base+"/api/" {
		t.Errorf("Published = %v, want %s and its /api/", ways, base)
	}
	if f.Published(nil) != nil {
		t.Error("something is published for no system")
	}
}

// Who may not listen on a port is told where the file says it, and what would help.
func TestPortOfRoots(t *testing.T) {
	err := taken(way{host: "0.0.0.0", port: 443, scheme: "https", where: "web.https", pos: system.Pos{File: "compose.yaml", Line: 7, Col: 12}}, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", fs.ErrPermission)})
	if text := err.Error(); !strings.HasPrefix(text, "compose.yaml:7:12: web.https: 0.0.0.0:443") || !strings.Contains(system.Next(err), "above 1023") {
		t.Errorf("%v; next %q", err, system.Next(err))
	}
}

// A port of TLS closes though a client of it has said nothing yet.
func TestPortOfTLSCloses(t *testing.T) {
	f := newFront(t)
	s := publishes("site", 0)
	s.Switch.By, s.Ports[0].App = system.ByRequest, "https"
	sys := &system.System{Services: []system.Service{s}}
	if err := f.Set(sys); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.Published(sys)[0].URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	closed := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { f.Close(); close(closed) }) // it is accepted by then
	select {
	case <-closed:
	case <-time.After(5 * time.Second): // the client would have twice as long
		t.Error("it waits for the client")
	}
}
