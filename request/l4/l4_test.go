package l4

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/driver"
	"servent/link"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// increment answers every line n with n+1, as the course's server does.
func increment(c *net.TCPConn) {
	r := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanln(r, &n); err != nil {
			return
		}
		fmt.Fprintln(c, n+1)
	}
}

// say greets with a name, then sends everything back, and says goodbye after the client's end.
func say(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name+"\n")
		_, _ = io.Copy(c, c)
		_, _ = io.WriteString(c, "bye")
	}
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// greeted says who answers a new connection, or "" when it was cut off.
func greeted(t testing.TB, addr string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return ""
	} else if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(line, "\n")
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

var places = map[string]system.NodeID{"local": "node-1", "remote": "node-2"}

// Bytes of every length pass unchanged, and each side's end by itself.
func TestBytesPass(t *testing.T) {
	for name, node := range places {
		for _, emulated := range []bool{false, true} {
			for _, size := range []int{0, 1, spliceAfter - 1, spliceAfter, 3<<20 + 7} {
				t.Run(fmt.Sprintf("%s/emulated=%v/%d", name, emulated, size), func(t *testing.T) {
					f := newFleet(t, 2, func(o *Options) {
						if emulated {
							o.Station = link.NewStation(system.Capacity{Rate: 1e6})
						}
					})
					f.run(node, 1, say("api/1"))
					c := dial(t, f.door("node-1"))
					data := make([]byte, size)
					for i := range data {
						data[i] = byte(rand.Uint32())
					}
					var writing sync.WaitGroup
					writing.Go(func() {
						_, _ = c.Write(data)
						_ = c.CloseWrite()
					})
					got, err := io.ReadAll(c)
					writing.Wait()
					if want := "api/1\n" + string(data) + "bye"; err != nil || string(got) != want {
						t.Errorf("%d bytes back, %v, want %d", len(got), err, len(want))
					}
					n := f.nodes["node-1"]
					eventually(t, "the connection is counted", func() bool { return meter.Total(n.meter.Snapshot()).Requests == 1 })
					row := n.meter.Snapshot()[0]
					row.Latency = nil
					want := meter.Row{Service: "api", Instance: "api/1", Requests: 1, In: int64(size), Out: int64(size) + 9}
					eventually(t, "nothing in flight", func() bool {
						row.Inflight = n.meter.Snapshot()[0].Inflight
						return row.Inflight == 0 && f.nodes[node].sw.Inflight("api/1") == 0
					})
					if diff := cmp.Diff(want, row); diff != "" {
						t.Errorf("counted (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

func TestAnotherInstanceIsTried(t *testing.T) {
	for name, node := range places {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3)
			dead := newProgram(t, nil)
			dead.kill()
			f.place(node, 1, driver.Endpoint{Address: dead.addr})
			f.place(node, 2, driver.Endpoint{Handler: http.NotFoundHandler()}) // speaks HTTP alone
			f.run("node-3", 3, say("api/3"))
			door := f.door("node-1")
			for range 6 {
				if got := greeted(t, door); got != "api/3" {
					t.Errorf("got %q, want api/3", got)
				}
			}
			row := meter.Total(f.nodes["node-1"].meter.Snapshot())
			if row.Retries == 0 || row.Retries > 4 || row.Refused > 0 {
				t.Errorf("%d retries, %d refused, want those who refuse avoided", row.Retries, row.Refused)
			}
		})
	}
}

// Connections of one host stay with one instance, by whichever node they enter, until it is gone.
func TestSourceSticks(t *testing.T) {
	for _, sw := range []system.Switch{{Sticky: "source"}, {Sticky: "key"}, {Policy: "maglev"}} {
		f := newFleet(t, 3)
		programs := map[string]*program{}
		for n := 1; n <= 3; n++ {
			id := fmt.Sprint("api/", n)
			programs[id] = f.run(system.NodeID(fmt.Sprint("node-", n)), n, say(id))
		}
		f.change(func(api *route.Service) { api.Switch = sw })
		doors := []string{f.door("node-1"), f.door("node-2"), f.door("node-3")}
		first := greeted(t, doors[0])
		for i := range 9 {
			if got := greeted(t, doors[i%3]); got != first {
				t.Errorf("%+v: connection %d by door %d is with %s, want %s", sw, i, i%3, got, first)
			}
		}
		programs[first].kill()
		second := greeted(t, doors[0])
		for i := range 6 {
			if got := greeted(t, doors[i%3]); got == first || got != second {
				t.Errorf("%+v: after a death by door %d with %s, want %s", sw, i%3, got, second)
			}
		}
	}
}

func TestUnreachableNode(t *testing.T) {
	f := newFleet(t, 3, func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, to system.NodeID) (net.Conn, error) {
			if to == "node-2" {
				return nil, syscall.ECONNREFUSED
			}
			return dial(ctx, to)
		}
	})
	for n := 1; n <= 4; n++ {
		f.place("node-2", n, driver.Endpoint{})
	}
	f.run("node-3", 5, say("api/5"))
	if got := greeted(t, f.door("node-1")); got != "api/5" {
		t.Errorf("got %q, want api/5", got)
	}
	if n := meter.Total(f.nodes["node-1"].meter.Snapshot()).Retries; n > 1 {
		t.Errorf("node-2 was tried %d times, want its instances avoided together", n)
	}
}

func TestHold(t *testing.T) {
	f := newFleet(t, 2, func(o *Options) { o.Waiters = 1 })
	f.change(func(api *route.Service) { api.Coming = true })
	door, sw := f.door("node-1"), f.nodes["node-1"].sw
	waits := dial(t, door)
	eventually(t, "a connection waits", func() bool { return sw.waiting.Load() == 1 })
	if got := greeted(t, door); got != "" {
		t.Errorf("one more than may wait: got %q, want it cut off", got)
	}
	f.run("node-2", 1, say("api/1"))
	if line, err := bufio.NewReader(waits).ReadString('\n'); line != "api/1\n" {
		t.Errorf("the one that waited got %q, %v", line, err)
	}
	if n := sw.waiting.Load(); n != 0 {
		t.Errorf("%d wait though joined", n)
	}
	row := meter.Total(f.nodes["node-1"].meter.Snapshot())
	if row.Held != 1 || row.Refused != 1 {
		t.Errorf("held %d, refused %d, want 1, 1", row.Held, row.Refused)
	}
}

func TestNobodyAnswers(t *testing.T) {
	f := newFleet(t, 2, func(o *Options) { o.Hold = 20 * time.Millisecond })
	door := f.door("node-1")
	for name, edit := range map[string]func(*route.Service){
		"nothing is coming": func(*route.Service) {},
		"not in time":       func(api *route.Service) { api.Coming = true },
		"all refuse": func(api *route.Service) {
			api.Instances = []route.Instance{{ID: "api/1", Node: "node-2"}, {ID: "api/2", Node: "node-1"}}
		},
	} {
		f.change(edit)
		if got := greeted(t, door); got != "" {
			t.Errorf("%s: got %q, want it cut off", name, got)
		}
	}
}

func TestServeTo(t *testing.T) {
	f := newFleet(t, 2, func(o *Options) { o.Hold = 20 * time.Millisecond })
	f.run("node-1", 1, say("api/1"))
	f.run("node-2", 2, say("api/2"))
	for of, want := range map[system.InstanceID]string{"api/1": "api/2", "api/2": "api/1"} {
		ln := listen(t)
		f.start(func(ctx context.Context) error {
			return f.nodes["node-1"].sw.ServeTo(ctx, ln, func(t *route.Table) (route.Instance, bool) { return t.Next(of) })
		})
		for range 3 {
			if got := greeted(t, ln.Addr().String()); got != want {
				t.Errorf("the next of %s is %q, want %q", of, got, want)
			}
		}
	}
	ln := listen(t)
	f.start(func(ctx context.Context) error {
		return f.nodes["node-1"].sw.ServeTo(ctx, ln, func(t *route.Table) (route.Instance, bool) { return t.Instance("api/9") })
	})
	if got := greeted(t, ln.Addr().String()); got != "" {
		t.Errorf("api/9 is %q, want nobody", got)
	}
}

// Who talks to a lost instance is told at once.
func TestLostInstance(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		f := newFleet(t, 2)
		f.run("node-2", 1, say("api/1"))
		c := dial(t, f.door("node-1"))
		r := bufio.NewReader(c)
		_, _ = r.ReadString('\n')
		f.change(func(*route.Service) {}) // another swap does no harm
		fmt.Fprintln(c, "still here")
		if line, err := r.ReadString('\n'); line != "still here\n" {
			t.Fatalf("after a swap: %q, %v", line, err)
		}
		f.change(func(*route.Service) { f.gone["node-2"] = true })
		if _, err := r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %v, want a reset", err)
		}
		eventually(t, "it counts as an error", func() bool { return meter.Total(f.nodes["node-1"].meter.Snapshot()).Errors == 1 })
	})
	t.Run("node, while a tunnel opens", func(t *testing.T) {
		silent := listen(t) // takes connections and says nothing, as a paused node does
		defer silent.Close()
		tried := make(chan bool, 1)
		f := newFleet(t, 3, func(o *Options) {
			dial := o.Dial
			o.Dial = func(ctx context.Context, to system.NodeID) (net.Conn, error) {
				if to == "node-2" {
					tried <- true
					return net.Dial("tcp", silent.Addr().String())
				}
				return dial(ctx, to)
			}
		})
		f.place("node-2", 1, driver.Endpoint{})
		door := f.door("node-1")
		got := make(chan string, 1)
		go func() { got <- greeted(t, door) }()
		<-tried
		f.run("node-3", 2, say("api/2"))
		f.change(func(*route.Service) { f.gone["node-2"] = true })
		if name := <-got; name != "api/2" {
			t.Errorf("got %q, want api/2", name)
		}
	})
	t.Run("program", func(t *testing.T) {
		f := newFleet(t, 1)
		p := f.run("node-1", 1, say("api/1"))
		c := dial(t, f.door("node-1"))
		r := bufio.NewReader(c)
		_, _ = r.ReadString('\n')
		p.kill()
		if _, err := r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %v, want a reset: a break is no end", err)
		}
	})
	t.Run("client", func(t *testing.T) {
		f := newFleet(t, 2)
		ended := make(chan error, 1)
		f.run("node-2", 1, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "hello\n")
			_, err := c.Read(make([]byte, 1))
			ended <- err
		})
		c := dial(t, f.door("node-1"))
		_, _ = bufio.NewReader(c).ReadString('\n')
		reset(c)
		if err := <-ended; err == nil {
			t.Error("the program was not told that the client broke")
		}
	})
}

func TestStationChargesTurns(t *testing.T) {
	for name, node := range places {
		t.Run(name, func(t *testing.T) {
			stations := map[system.NodeID]*link.Station{}
			f := newFleet(t, 2, func(o *Options) {
				stations[o.Self] = link.NewStation(system.Capacity{Rate: 100})
				o.Station = stations[o.Self]
			})
			f.run(node, 1, increment)
			c := dial(t, f.door("node-1"))
			r := bufio.NewReader(c)
			start := time.Now()
			for i := range 5 {
				fmt.Fprintln(c, i)
				if line, err := r.ReadString('\n'); line != fmt.Sprintln(i+1) {
					t.Fatalf("%d: %q, %v", i, line, err)
				}
			}
			if took := time.Since(start); took < 50*time.Millisecond {
				t.Errorf("5 turns at 100/s took %v, want 50ms or more", took)
			}
			if got := stations[node].Report().Served; got != 5 {
				t.Errorf("its node served %d turns, want 5", got)
			}
			want := map[string]int64{"local": 0, "remote": 5}[name]
			if got := stations["node-1"].Report().Passed; got != want {
				t.Errorf("the node that it entered by passed %d on, want %d", got, want)
			}
		})
	}
}

// A message in many pieces is one turn; so are many answers to it.
func TestTurns(t *testing.T) {
	var taken int
	turns := turns{take: func(context.Context) (link.Turn, error) { taken++; return link.Turn{}, nil }}
	for i, step := range []struct {
		do    func(context.Context) error
		taken int
	}{{turns.answer, 0}, {turns.ask, 1}, {turns.ask, 1}, {turns.answer, 1}, {turns.answer, 1}, {turns.ask, 2}} {
		if err := step.do(t.Context()); err != nil || taken != step.taken {
			t.Errorf("step %d: %d turns, %v, want %d", i, taken, err, step.taken)
		}
	}
}

func TestServeDrains(t *testing.T) {
	f := newFleet(t, 2)
	f.run("node-2", 1, say("api/1"))
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.nodes["node-1"].sw.Serve(ctx, ln, "api") }()
	c := dial(t, ln.Addr().String())
	r := bufio.NewReader(c)
	_, _ = r.ReadString('\n')
	cancel()
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	fmt.Fprint(c, "last words\n")
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(r); string(rest) != "last words\nbye" || err != nil {
		t.Errorf("the open connection got %q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
	if err := f.nodes["node-1"].sw.Serve(t.Context(), ln, "api"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener = %v, want ErrClosed", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	f := newFleet(t, 1, func(o *Options) { o.Conns = 2 })
	p := f.run("node-1", 1, say("api/1"))
	door := f.door("node-1")
	var open []*net.TCPConn
	for range 2 {
		c := dial(t, door)
		_, _ = bufio.NewReader(c).ReadString('\n')
		open = append(open, c)
	}
	third := dial(t, door)
	_ = third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || p.hits.Load() != 2 {
		t.Errorf("the third read %d bytes, %v, with %d at the program, want it to wait", n, err, p.hits.Load())
	}
	_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
	open[0].Close()
	if line, err := bufio.NewReader(third).ReadString('\n'); line != "api/1\n" {
		t.Errorf("after one has ended: %q, %v", line, err)
	}
}

// One that waits for its turn to be accepted is cut off when the door closes.
func TestStopWhileFull(t *testing.T) {
	f := newFleet(t, 1, func(o *Options) { o.Conns = 1 })
	f.run("node-1", 1, say("api/1"))
	ln, sw := listen(t), f.nodes["node-1"].sw
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sw.Serve(ctx, ln, "api") }()
	first := dial(t, ln.Addr().String())
	_, _ = bufio.NewReader(first).ReadString('\n')
	second := dial(t, ln.Addr().String())
	cancel()
	if n, err := second.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v, want it cut off", n, err)
	}
	first.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
}

// Instances die and come back under load: a client that connects anew gets an answer at once.
func TestChurn(t *testing.T) {
	f := newFleet(t, 3)
	var programs [3]*program
	start := func(n int) {
		at := f.nodes[system.NodeID(fmt.Sprintf("node-%d", n+1))]
		programs[n] = newProgram(t, increment)
		at.mu.Lock()
		at.local[system.Instance("api", n+1)] = driver.Endpoint{Address: programs[n].addr}
		at.mu.Unlock()
	}
	for n := range programs {
		start(n)
		f.change(func(api *route.Service) {
			api.Instances = append(api.Instances, route.Instance{ID: system.Instance("api", n+1), Node: system.NodeID(fmt.Sprintf("node-%d", n+1))})
		})
	}
	door := f.door("node-1")
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var answers, broken atomic.Int64
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				line := ""
				c, err := net.Dial("tcp", door)
				if err == nil {
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					fmt.Fprintln(c, 41)
					line, err = bufio.NewReader(c).ReadString('\n')
					c.Close()
				}
				switch {
				case line == "42\n":
					answers.Add(1)
				case errors.Is(err, syscall.ECONNRESET) || err == io.EOF:
					broken.Add(1) // joined to an instance that died meanwhile
				default:
					t.Errorf("got %q, %v", line, err)
				}
			}
		})
	}
	for i := range 12 {
		before := answers.Load()
		programs[i%3].kill()
		eventually(t, "answers go on", func() bool { return answers.Load() > before+10 })
		start(i % 3)
	}
	cancel()
	load.Wait()
	t.Logf("%d answers, %d connections broke with their instance", answers.Load(), broken.Load())
	if broken.Load() > 12*4 {
		t.Errorf("%d connections broke in 12 kills", broken.Load())
	}
}

func TestPeerRefuses(t *testing.T) {
	f := newFleet(t, 1)
	f.run("node-1", 1, say("api/1"))
	for _, tt := range []struct{ line, want string }{
		{"servent-l4 1 api/1 1\n", "ok\n"},
		{"servent-l4 1 api/2 1\n", "no it does not run here\n"},
		{"servent-l4 1 api/1 2\n", "no want 1…1 hops, have \"2\"\n"},
		{"servent-l4 2 api/1 1\n", "no want \"servent-l4 1\" INSTANCE HOPS, have \"servent-l4 2 api/1 1\"\n"},
		{"GET / HTTP/1.1\r\n", "no want \"servent-l4 1\" INSTANCE HOPS, have \"GET / HTTP/1.1\\r\"\n"},
		{strings.Repeat("x", maxLine), ""},
	} {
		c := dial(t, f.nodes["node-1"].tunnels.Addr().String())
		_, _ = io.WriteString(c, tt.line)
		got, _ := bufio.NewReader(c).ReadString('\n')
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
		c.Close()
	}
}

func FuzzPreamble(f *testing.F) {
	for _, s := range []string{"servent-l4 1 api/1 1", "servent-l4 1 shop-api/12 1", "servent-l4 1 api/1 01", "servent-l4 1 api/+1 1", "servent-l4 1 a b/1 1", "servent-l4 1  1", ""} {
		f.Add([]byte(s + "\nrest"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		line, err := readLine(r)
		if err != nil {
			if i := bytes.IndexByte(data, '\n'); i >= 0 && i < maxLine {
				t.Fatalf("readLine(%q) = %v", data, err)
			}
			return
		}
		if rest := data[len(data)-r.Len():]; line+"\n"+string(rest) != string(data) {
			t.Fatalf("readLine took %q and left %q of %q", line, rest, data)
		}
		p, err := parsePreamble(line)
		if err != nil {
			return
		}
		if p.String() != line {
			t.Errorf("%q was read as %q", line, p)
		}
		if _, _, err := p.instance.Split(); err != nil || p.hops < 1 || p.hops > maxHops {
			t.Errorf("%q gave %+v", line, p)
		}
	})
}

// BenchmarkEcho measures one short message and its answer: directly, through a door, and through a tunnel.
func BenchmarkEcho(b *testing.B) {
	f := newFleet(b, 2)
	p := f.run("node-1", 1, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	for name, addr := range map[string]string{"direct": p.addr, "local": f.door("node-1"), "remote": f.door("node-2")} {
		b.Run(name, func(b *testing.B) {
			c := dial(b, addr)
			buf := make([]byte, 64)
			for b.Loop() {
				_, _ = c.Write(buf)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			c.Close()
		})
	}
}
