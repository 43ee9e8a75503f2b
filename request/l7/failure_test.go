package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"servent/driver"
	"servent/link"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// vanish cuts the program's connection after the request was read, before or in the middle of an answer.
func vanish(after string, length int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		if length >= 0 {
			fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, after)
		} else if after != "" {
			fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(after), after)
		}
		_ = buf.Flush()
		reset(conn)
	}
}

func TestRetries(t *testing.T) {
	type want struct {
		status int
		hits   int64 // at the instance that fails
	}
	for _, tt := range []struct {
		name   string
		method string
		body   string
		fail   http.HandlerFunc // nil: nobody listens
		want   want
	}{
		{"GET refused", "GET", "", nil, want{200, 0}},
		{"POST refused", "POST", "x", nil, want{200, 0}},
		{"POST refused, long body", "POST", strings.Repeat("x", 3*replay), nil, want{200, 0}},
		{"GET broken before the answer", "GET", "", vanish("", -1), want{200, 1}},
		{"PUT broken before the answer", "PUT", "x", vanish("", -1), want{200, 1}},
		{"GET broken in the answer", "GET", "", vanish("part", 9), want{200, 1}},
		{"GET broken in a chunked answer", "GET", "", vanish("part", -1), want{200, 1}},
		{"POST broken before the answer", "POST", "x", vanish("", -1), want{502, 1}},
		{"POST broken in the answer", "POST", "x", vanish("part", 9), want{502, 1}},
		{"PATCH broken before the answer", "PATCH", "x", vanish("", -1), want{502, 1}},
		{"PUT broken, body too long to keep", "PUT", strings.Repeat("x", 3*replay), vanish("", -1), want{502, 1}},
	} {
		for _, place := range []struct {
			name string
			node system.NodeID // of the instance that fails
		}{{"local", "node-1"}, {"remote", "node-2"}} {
			t.Run(tt.name+"/"+place.name, func(t *testing.T) {
				f := newFleet(t, 3)
				bad := newProgram(t, tt.fail)
				if tt.fail == nil {
					bad.kill()
				}
				f.place(place.node, 1, driver.Endpoint{Address: bad.addr})
				f.change(func() { f.service("api").Switch.Policy = "roundrobin" }) // the bad one first
				good := f.run("node-3", 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, _ := io.Copy(io.Discard, r.Body)
					fmt.Fprint(w, n)
				}))
				door, c := f.door("node-1"), client(t)
				res, body := ask(t, c, tt.method, door, strings.NewReader(tt.body))
				if res.StatusCode != tt.want.status || bad.hits.Load() != tt.want.hits {
					t.Errorf("got %d after %d hits of the one that fails, want %+v: %s", res.StatusCode, bad.hits.Load(), tt.want, body)
				}
				if res.StatusCode == 200 && body != fmt.Sprint(len(tt.body)) {
					t.Errorf("the other one read %s bytes, want %d", body, len(tt.body))
				}
				if res.StatusCode == 502 && (!strings.Contains(body, "api/1 on "+string(place.node)) || good.hits.Load() > 0) {
					t.Errorf("asked the other one %d times; %s", good.hits.Load(), body)
				}
				// Who failed is avoided now.
				before := bad.hits.Load()
				for range 4 {
					if res, _ := ask(t, c, "POST", door, strings.NewReader("y")); res.StatusCode != 200 {
						t.Errorf("the suspect was asked again: %d", res.StatusCode)
					}
				}
				if bad.hits.Load() != before {
					t.Error("the suspect was asked again")
				}
			})
		}
	}
}

// An answer that is too long to be kept back cannot be asked for again: the client sees that it broke.
func TestLongAnswerBreaks(t *testing.T) {
	long := strings.Repeat("x", replay+1)
	for name, fail := range map[string]http.HandlerFunc{"length": vanish(long, 3*replay), "chunked": vanish(long, -1)} {
		for _, node := range []system.NodeID{"node-1", "node-2"} {
			f := newFleet(t, 2)
			p := f.run(node, 1, fail)
			res, err := client(t).Get(f.door("node-1"))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil || p.hits.Load() != 1 {
				t.Errorf("%s at %s: read to a clean end after %d attempts", name, node, p.hits.Load())
			}
			n := f.nodes["node-1"]
			eventually(t, "it counts as an error", func() bool { return meter.Total(n.meter.Snapshot()).Errors == 1 })
		}
	}
}

// When a node refuses, none of its instances is tried next.
func TestUnreachableNode(t *testing.T) {
	f := newFleet(t, 3)
	for n := range 4 {
		f.place("node-2", n+1, driver.Endpoint{})
	}
	f.run("node-3", 5, text("x"))
	f.nodes["node-2"].peer.Close()
	f.change(func() { f.service("api").Switch.Policy = "roundrobin" })
	if res, body := ask(t, client(t), "POST", f.door("node-1"), nil); res.StatusCode != 200 {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	if n := meter.Total(f.nodes["node-1"].meter.Snapshot()).Retries; n > 1 {
		t.Errorf("node-2 was tried %d times, want its instances avoided together", n)
	}
}

func TestRetriesAreBounded(t *testing.T) {
	for _, tt := range []struct{ retries, want int }{{0, 3}, {-1, 1}, {1, 2}} {
		f := newFleet(t, 1, func(o *Options) { o.Retries = tt.retries })
		var programs []*program
		for n := range 5 {
			programs = append(programs, f.run("node-1", n+1, vanish("", -1)))
		}
		res, body := ask(t, client(t), "GET", f.door("node-1"), nil)
		var hits int64
		for _, p := range programs {
			hits += p.hits.Load()
			if p.hits.Load() > 1 {
				t.Error("one instance was asked twice while there were others")
			}
		}
		if res.StatusCode != 502 || hits != int64(tt.want) || !strings.Contains(body, "next: servent logs api") {
			t.Errorf("Retries %d: %d after %d attempts, want 502 after %d: %s", tt.retries, res.StatusCode, hits, tt.want, body)
		}
	}
}

func TestTheOnlyInstanceIsAskedAgain(t *testing.T) {
	f := newFleet(t, 1)
	var n atomic.Int64
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			vanish("", -1)(w, r)
		}
	}))
	if res, _ := ask(t, client(t), "GET", f.door("node-1"), nil); res.StatusCode != 200 || n.Load() != 2 {
		t.Errorf("%d after %d attempts, want 200 after 2", res.StatusCode, n.Load())
	}
}

func TestHold(t *testing.T) {
	f := newFleet(t, 1, func(o *Options) { o.Hold = 5 * time.Second; o.Waiters = 1 })
	f.change(func() { f.service("api").Coming = true; f.service("api").Why = "api/1 is starting" })
	door, c := f.door("node-1"), client(t)
	type answer struct {
		status int
		body   string
	}
	got := make(chan answer, 1)
	go func() {
		res, err := c.Post(door, "text/plain", strings.NewReader("x"))
		if err != nil {
			got <- answer{0, err.Error()}
			return
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		got <- answer{res.StatusCode, string(body)}
	}()
	sw := f.nodes["node-1"].sw
	eventually(t, "a request waits", func() bool { return sw.waiting.Load() == 1 })
	res, body := ask(t, c, "GET", door, nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(body, "too many requests wait") {
		t.Errorf("one more than may wait: %d %q, want 503", res.StatusCode, body)
	}
	f.change(func() {}) // a table that changes nothing
	f.run("node-1", 1, text("at last"))
	if a := <-got; a != (answer{200, "at last"}) {
		t.Errorf("the one that waited got %+v, want 200 at last", a)
	}
	if n := sw.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestNobodyAnswers(t *testing.T) {
	f := newFleet(t, 1, func(o *Options) { o.Hold = 20 * time.Millisecond })
	door, c := f.door("node-1"), client(t)
	dead := newProgram(t, nil)
	dead.kill()
	for _, tt := range []struct {
		name string
		edit func(*route.Service)
		want string
	}{
		{"nothing is coming", func(s *route.Service) { s.Why = "no instance is planned" }, "no instance is planned\n"},
		{"not in time", func(s *route.Service) { s.Coming, s.Why = true, "api/1 on node-1 is starting" }, "api/1 on node-1 is starting; waited 20ms for it\n"},
		{"all refuse", func(s *route.Service) {
			s.Instances = []route.Instance{{ID: "api/1", Node: "node-1"}}
			f.nodes["node-1"].local["api/1"] = driver.Endpoint{Address: dead.addr}
		}, "connection refused; waited 20ms for it\n"},
		{"the table is ahead of the node", func(s *route.Service) {
			s.Instances = []route.Instance{{ID: "api/1", Node: "node-1"}}
			delete(f.nodes["node-1"].local, "api/1")
		}, "api/1 on node-1: it does not run here; waited 20ms for it\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.change(func() { *f.service("api") = route.Service{Name: "api"}; tt.edit(f.service("api")) })
			res, body := ask(t, c, "GET", door, nil)
			if timing := res.Header.Get("Server-Timing"); !strings.HasPrefix(timing, `node;desc="node-1", hops;desc="0", total;dur=`) {
				t.Errorf("Server-Timing %q", timing)
			}
			if res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" || !strings.Contains(body, tt.want) || !strings.HasSuffix(body, "next: servent explain api\n") {
				t.Errorf("%d %v %q, want 503, Retry-After, …%q", res.StatusCode, res.Header, body, tt.want)
			}
		})
	}
}

// A paused node is found out by its lease: what was asked of it is asked elsewhere then.
func TestLostNode(t *testing.T) {
	for _, tt := range []struct {
		method string
		status int
	}{{"GET", 200}, {"POST", 502}} {
		t.Run(tt.method, func(t *testing.T) {
			f := newFleet(t, 3, func(o *Options) { o.Retries = -1 }) // a lost node does not count as one
			f.run("node-2", 1, text("paused"))
			f.run("node-2", 2, text("paused"))
			f.pause("node-2")
			door, c := f.door("node-1"), client(t)
			done := make(chan string, 1)
			go func() {
				r, _ := http.NewRequest(tt.method, door, strings.NewReader(""))
				if tt.method == "POST" {
					r.Body = io.NopCloser(strings.NewReader("x"))
					r.ContentLength = 1
				}
				res, err := c.Do(r)
				if err != nil {
					done <- err.Error()
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				done <- fmt.Sprint(res.StatusCode, " ", string(body))
			}()
			load := func() int {
				l := &f.nodes["node-1"].sw.loads
				return l.Of("api/1", time.Now(), nil).Inflight + l.Of("api/2", time.Now(), nil).Inflight
			}
			eventually(t, "the request hangs at node-2", func() bool { return load() == 1 })
			f.run("node-3", 3, text("alive"))
			f.change(func() {}) // another swap does not cancel it
			select {
			case got := <-done:
				t.Fatalf("answered before the node was lost: %s", got)
			default:
			}
			f.lose("node-2")
			got := <-done
			if want := map[string]string{"GET": "200 alive", "POST": "502 servent: api/"}[tt.method]; !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if tt.method == "POST" && !strings.Contains(got, "its node is lost; the request may have been carried out") {
				t.Errorf("got %q, want why", got)
			}
		})
	}
}

func TestClientAbortCancelsUpstream(t *testing.T) {
	for _, node := range []system.NodeID{"node-1", "node-2"} {
		f := newFleet(t, 2)
		began, ended := make(chan bool, 1), make(chan bool, 1)
		f.run(node, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			began <- true
			<-r.Context().Done()
			ended <- true
		}))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		r, _ := http.NewRequestWithContext(ctx, "GET", f.door("node-1"), nil)
		if _, err := client(t).Do(r); !errors.Is(err, context.Canceled) {
			t.Errorf("Do() = %v, want Canceled", err)
		}
		<-ended
		sw := f.nodes[node].sw
		eventually(t, "nothing in flight", func() bool { return sw.Inflight("api/1") == 0 })
		entry := f.nodes["node-1"]
		load := func() route.Load { return entry.sw.loads.Of("api/1", time.Now(), entry.table.Load()) }
		eventually(t, "nothing in flight where it entered", func() bool { return load().Inflight == 0 })
		if load().Suspect {
			t.Error("the instance is suspect though it was the client who left")
		}
	}
}

func TestClientBodyBreaks(t *testing.T) {
	f := newFleet(t, 2)
	p := f.run("node-2", 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	door := strings.TrimPrefix(f.door("node-1"), "http://")
	for _, head := range []string{"Content-Length: 10", "Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", door)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n3\r\nabc", head)
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("%s: %s", head, answer)
		}
	}
	if load := f.nodes["node-1"].sw.loads.Of("api/1", time.Now(), f.nodes["node-1"].table.Load()); load.Suspect {
		t.Errorf("the instance is suspect for the client's fault after %d hits", p.hits.Load())
	}
}

// Instances and nodes die and come back at random under load: no GET fails, no POST is carried out twice.
func TestChurn(t *testing.T) {
	f := newFleet(t, 3)
	var mu sync.Mutex
	posts := map[string]int{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			id, _ := io.ReadAll(r.Body)
			mu.Lock()
			posts[string(id)]++
			mu.Unlock()
		}
		switch rand.IntN(3) {
		case 0:
			w.Header().Set("Content-Length", "8000")
		case 1:
			_ = http.NewResponseController(w).Flush()
		}
		for range 8 {
			_, _ = w.Write(make([]byte, 1000))
		}
	})
	var programs [3]*program
	start := func(n int) {
		node := f.nodes[system.NodeID(fmt.Sprintf("node-%d", min(n+1, 2)))] // two nodes run them, the third is the door
		programs[n] = newProgram(t, handler)
		node.mu.Lock()
		node.local[system.Instance("api", n+1)] = driver.Endpoint{Address: programs[n].addr}
		node.mu.Unlock()
	}
	for n := range programs {
		start(n)
		f.change(func() {
			svc := f.service("api")
			svc.Instances = append(svc.Instances, route.Instance{ID: system.Instance("api", n+1), Node: system.NodeID(fmt.Sprintf("node-%d", min(n+1, 2)))})
		})
	}
	doors := []string{f.door("node-3"), f.door("node-1")}
	c := client(t)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var gets, failed, posted, refusedPosts atomic.Int64
	for w := range 6 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if w%3 == 2 {
					id := fmt.Sprint(w, "-", i)
					res, err := c.Post(doors[w%2], "text/plain", strings.NewReader(id))
					if err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						if posted.Add(1); res.StatusCode != 200 {
							refusedPosts.Add(1)
						}
					}
					continue
				}
				gets.Add(1)
				res, err := c.Get(doors[w%2])
				if err != nil {
					failed.Add(1)
					t.Errorf("GET: %v", err)
					continue
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || n != 8000 || res.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("GET: %d, %d bytes, %v", res.StatusCode, n, err)
				}
			}
		})
	}
	rounds := 25
	if testing.Short() {
		rounds = 8
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	for range rounds {
		victim, before := rnd.IntN(3), gets.Load()
		programs[victim].kill() // the tables do not know
		eventually(t, "requests go on", func() bool { return gets.Load() > before+20 })
		if rnd.IntN(2) == 0 {
			f.change(func() {})
		}
		start(victim)
		eventually(t, "requests go on", func() bool { return gets.Load() > before+40 })
	}
	cancel()
	load.Wait()
	mu.Lock()
	defer mu.Unlock()
	for id, n := range posts {
		if n > 1 {
			t.Errorf("POST %s was carried out %d times", id, n)
		}
	}
	t.Logf("%d kills: %d GETs, %d failed; %d POSTs, %d not answered", rounds, gets.Load(), failed.Load(), posted.Load(), refusedPosts.Load())
	if failed.Load() > 0 || gets.Load() < 100 {
		t.Errorf("%d of %d GETs failed", failed.Load(), gets.Load())
	}
}

// A whole node is killed under load, with more instances than there are retries: its link breaks, then
// refuses, and only later do the tables know. No GET fails.
func TestNodeKilledUnderLoad(t *testing.T) {
	f := newFleet(t, 3)
	var dying []*program
	for n := range 4 {
		dying = append(dying, f.run("node-3", 2*n+1, text("x")))
	}
	f.run("node-1", 2, text("x"))
	f.run("node-2", 4, text("x"))
	doors, c := []string{f.door("node-1"), f.door("node-2")}, client(t)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var gets atomic.Int64
	for w := range 6 {
		load.Go(func() {
			for ctx.Err() == nil {
				if res, err := c.Get(doors[w%2]); err != nil {
					t.Errorf("GET: %v", err)
				} else {
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if res.StatusCode != 200 || string(body) != "x" || err != nil {
						t.Errorf("GET: %d %q %v", res.StatusCode, body, err)
					}
				}
				gets.Add(1)
			}
		})
	}
	more := func() {
		before := gets.Load()
		eventually(t, "requests go on", func() bool { return gets.Load() > before+50 })
	}
	more()
	node := f.nodes["node-3"]
	_ = node.peer.Listener.Close()
	node.peer.CloseClientConnections()
	for _, p := range dying {
		p.kill()
	}
	more()
	f.lose("node-3")
	more()
	cancel()
	load.Wait()
}

// The instance's node is charged for serving, the node that a request enters by for sending it onward; an
// answer leaves no sooner than the station allows.
func TestStation(t *testing.T) {
	const turn = 40 * time.Millisecond
	stations := map[system.NodeID]*link.Station{}
	f := newFleet(t, 2, func(o *Options) {
		stations[o.Self] = link.NewStation(system.Capacity{Rate: float64(time.Second / turn), Pass: 100})
		o.Station = stations[o.Self]
	})
	for name, size := range map[string]int{"whole": 10, "long": 5 * replay, "inside": 10} {
		var reached time.Duration // after the request was sent
		var sent time.Time
		var mu sync.Mutex
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			reached = time.Since(sent)
			mu.Unlock()
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = w.Write(make([]byte, size))
		})
		f.change(func() { f.service("api").Instances = nil })
		if name == "inside" {
			f.place("node-2", 1, driver.Endpoint{Handler: h})
		} else {
			f.run("node-2", 1, h)
		}
		for _, tt := range []struct {
			door   system.NodeID
			passed int64
		}{{"node-1", 1}, {"node-2", 0}} {
			door, c := f.door(tt.door), client(t)
			for _, s := range stations {
				s.Reset()
			}
			mu.Lock()
			sent = time.Now()
			mu.Unlock()
			ask(t, c, "POST", door, nil)
			took := time.Since(sent)
			one, two := stations["node-1"].Report(), stations["node-2"].Report()
			if one.Passed != tt.passed || one.Served != 0 || two.Served != 1 || two.Passed != 0 {
				t.Errorf("%s at %s: node-1 passed %d and served %d, node-2 %d and %d", name, tt.door, one.Passed, one.Served, two.Passed, two.Served)
			}
			if took < turn {
				t.Errorf("%s at %s: answered after %v, want %v or more", name, tt.door, took, turn)
			}
			mu.Lock()
			if pass := time.Duration(tt.passed) * 10 * time.Millisecond; reached < pass {
				t.Errorf("%s at %s: reached the program after %v, want %v or more", name, tt.door, reached, pass)
			}
			mu.Unlock()
		}
	}
}

// A write on a condition is not sent twice: the first one may have made its condition false.
func TestConditionalWriteIsSentOnce(t *testing.T) {
	for header, hits := range map[string]int64{"If-Match": 1, "If-None-Match": 1, "If-Modified-Since": 2, "Of-Ordered": 1} {
		f := newFleet(t, 2, func(o *Options) { o.Retries = 1 })
		p := f.run("node-2", 1, vanish("", -1))
		f.change(func() { f.service("api").Once = header == "Of-Ordered" })
		r, err := http.NewRequest("PUT", f.door("node-1"), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(header, `"a"`)
		res, err := client(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 502 || p.hits.Load() != hits || hits == 1 && !strings.Contains(string(body), "not sent twice") {
			t.Errorf("%s: %d after %d tries, want 502 after %d: %s", header, res.StatusCode, p.hits.Load(), hits, body)
		}
	}
}

// A handler inside the process that says "moved" has done nothing: it is asked again, and nothing of its word is passed on.
func TestInsideMoves(t *testing.T) {
	for _, node := range []system.NodeID{"node-1", "node-2"} {
		f := newFleet(t, 2)
		asked := 0
		f.place(node, 1, driver.Endpoint{Address: "inside", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked <= 3 {
				w.Header().Set("X-Word", "no")
				w.Header().Set(headerMoved, "another one does")
				http.Error(w, "another one does", http.StatusMisdirectedRequest)
				return
			}
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		})})
		res, body := ask(t, client(t), "POST", f.door("node-1"), strings.NewReader("x"))
		if res.StatusCode != 200 || body != "x" || asked != 4 || res.Header.Get("X-Word") != "" {
			t.Errorf("at %s: %d %q after %d times, %v", node, res.StatusCode, body, asked, res.Header)
		}
	}
	f := newFleet(t, 2, func(o *Options) { o.Hold = 50 * time.Millisecond })
	f.place("node-2", 1, driver.Endpoint{Address: "inside", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerMoved, "another one does")
		w.WriteHeader(http.StatusMisdirectedRequest)
	})})
	res, body := ask(t, client(t), "GET", f.door("node-1"), nil)
	if res.StatusCode != 503 || !strings.Contains(body, "another one does") || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %q, want 503 that says why", res.StatusCode, body)
	}
}
