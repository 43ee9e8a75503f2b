// Command kv measures the built-in key-value store beside redis-server with appendfsync always and etcd: the same clients,
// keys and values, every write synced to the same disk before it is answered, one server at a time in turns. It prints
// requests per second of the server's processor time, which other load on the machine shifts least. Linux only: it
// reads /proc.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"servent/control"
	"servent/control/etcd"
	"servent/lab/host"
	"servent/store"
)

const (
	clients = 32
	keys    = 10_000
	size    = 256 // bytes of a value
	turn    = 4 * time.Second
	tick    = 100 // of /proc/PID/stat a second (USER_HZ)
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "kv:", err)
			os.Exit(1)
		}
		return
	}
	redis := flag.String("redis", "redis-server", "the program (Debian's redis-server)")
	etcd := flag.String("etcd", "etcd", "the program (Debian's etcd-server)")
	rounds := flag.Int("rounds", 5, "turns of each")
	dir := flag.String("dir", "", "where the databases are made; all on this one disk")
	flag.Parse()
	if err := run(*redis, *etcd, *dir, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		os.Exit(1)
	}
}

// serve is our store behind net/http: what an instance is, without the doors in front of it.
func serve(dir, address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s, err := store.Open(dir, store.Options{Name: "bench"})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	srv := &http.Server{Handler: s}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = s.Run(ctx) }() // ends with ctx, and returns nil
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return s.Close()
}

// client is one connection to a server.
type client interface {
	put(key, value string) error
	get(key string) error
	io.Closer
}

// engine is one server to be measured.
type engine struct {
	name    string
	version string
	command func(dir string, port int) *exec.Cmd
	dial    func(port int) (client, error)
	puts    []figures
	gets    []figures
}

// figures of one turn.
type figures struct{ perCPU, perWall float64 }

func run(redis, etcd, dir string, rounds int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	engines := []*engine{
		{name: "builtin: kv", version: runtime.Version(), dial: dialHTTP, command: func(dir string, port int) *exec.Cmd {
			return exec.Command(self, "serve", dir, fmt.Sprintf("127.0.0.1:%d", port))
		}},
		{name: "redis-server, appendfsync always", version: version(redis), dial: dialRedis, command: func(dir string, port int) *exec.Cmd {
			return exec.Command(redis, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
		}},
		{name: "etcd, one member", version: version(etcd), dial: dialEtcd, command: func(dir string, port int) *exec.Cmd {
			peers := fmt.Sprintf("http://127.0.0.1:%d", port+1)
			url := fmt.Sprintf("http://127.0.0.1:%d", port)
			return exec.Command(etcd, "--data-dir", dir, "--listen-client-urls", url, "--advertise-client-urls", url,
				"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers, "--log-level", "error")
		}},
	}
	top, err := os.MkdirTemp(dir, "bench-kv")
	if err != nil {
		return err
	}
	defer os.RemoveAll(top)
	before := host.Loads()
	for round := range rounds {
		for i := range engines { // another one first in each round
			e := engines[(i+round)%len(engines)]
			home := filepath.Join(top, fmt.Sprintf("%d-%d", round, (i+round)%len(engines)))
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			if err := e.measure(home); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, e.name)
		}
	}
	print(engines, rounds, before)
	return nil
}

func version(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// measure starts the server on an empty folder, fills it, and measures puts and gets.
func (e *engine) measure(dir string) error {
	port, err := free()
	if err != nil {
		return err
	}
	cmd := e.command(dir, port)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	all, err := e.connect(port)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said.String())
	}
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	value := strings.Repeat("v", size)
	var next atomic.Int64
	if _, err := drive(cmd.Process.Pid, all, time.Hour, func(c client, _ *rand.Rand) error { // every key is there
		if n := next.Add(1); n <= keys {
			return c.put(name(int(n-1)), value)
		}
		return io.EOF
	}); err != nil {
		return err
	}
	put, err := drive(cmd.Process.Pid, all, turn, func(c client, rnd *rand.Rand) error { return c.put(name(rnd.IntN(keys)), value) })
	if err != nil {
		return err
	}
	get, err := drive(cmd.Process.Pid, all, turn, func(c client, rnd *rand.Rand) error { return c.get(name(rnd.IntN(keys))) })
	e.puts, e.gets = append(e.puts, put), append(e.gets, get)
	return err
}

func name(n int) string { return fmt.Sprintf("key-%06d", n) }

func free() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// connect waits until the server answers, and opens all connections.
func (e *engine) connect(port int) (all []client, err error) {
	for end := time.Now().Add(15 * time.Second); len(all) < clients; {
		c, err := e.dial(port)
		if err == nil {
			if len(all) == 0 {
				err = c.put("first", "x")
			}
			if err == nil {
				all = append(all, c)
				continue
			}
			_ = c.Close()
		}
		if time.Now().After(end) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return all, nil
}

// drive lets every client do one thing after the other for a time, or until it says io.EOF.
func drive(pid int, all []client, lasts time.Duration, do func(client, *rand.Rand) error) (figures, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	spent, err := cpu(pid)
	if err != nil {
		return figures{}, err
	}
	begin := time.Now()
	for i, c := range all {
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for time.Since(begin) < lasts {
				switch err := do(c, rnd); {
				case err == io.EOF:
					return
				case err != nil:
					errs[i] = err
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	wall := time.Since(begin)
	now, err := cpu(pid)
	if err := errors.Join(append(errs, err)...); err != nil {
		return figures{}, err
	}
	return figures{float64(n.Load()) / max(now-spent, 1.0/tick), float64(n.Load()) / wall.Seconds()}, nil
}

// cpu is the processor time of a process so far, in seconds: fields 14 and 15 of proc_pid_stat(5).
func cpu(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / tick, err
}

type httpClient struct {
	base string
	http *http.Client
}

func dialHTTP(port int) (client, error) {
	return httpClient{fmt.Sprintf("http://127.0.0.1:%d/kv/", port), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}}, nil
}

func (c httpClient) do(method, key string, body io.Reader) error {
	r, err := http.NewRequest(method, c.base+key, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %w", method, key, res.StatusCode, err)
	}
	return nil
}

func (c httpClient) put(key, value string) error { return c.do("PUT", key, strings.NewReader(value)) }
func (c httpClient) get(key string) error        { return c.do("GET", key, nil) }

func (c httpClient) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// redisClient speaks RESP 2.
type redisClient struct {
	net.Conn
	in *bufio.Reader
}

func dialRedis(port int) (client, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return redisClient{conn, bufio.NewReader(conn)}, nil
}

func (c redisClient) put(key, value string) error {
	if _, err := fmt.Fprintf(c, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if err == nil && line != "+OK\r\n" {
		err = fmt.Errorf("SET: %q", line)
	}
	return err
}

func (c redisClient) get(key string) error {
	if _, err := fmt.Fprintf(c, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.Trim(line, "$\r\n"))
	if err != nil || n != size {
		return fmt.Errorf("GET: %q", line)
	}
	_, err = c.in.Discard(n + 2)
	return err
}

// etcdClient is the client that Servent itself speaks to etcd with.
type etcdClient struct{ *etcd.Store }

func dialEtcd(port int) (client, error) {
	s, err := etcd.Open(etcd.StoreOptions{Endpoints: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Prefix: "/bench/"})
	return etcdClient{s}, err
}

func (c etcdClient) put(key, value string) error {
	_, _, err := c.Commit(context.Background(), control.Txn{Ops: []control.Op{{Key: key, Value: []byte(value)}}})
	return err
}

func (c etcdClient) get(key string) error {
	all, _, err := c.Range(context.Background(), key)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("range %s: %d keys", key, len(all))
	}
	return err
}

func print(engines []*engine, rounds int, before string) {
	fmt.Printf("# The built-in key-value store beside Redis and etcd\n\n")
	fmt.Printf("`make bench-kv` · %s · %d CPUs · load average %s before, %s after\n\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), before, host.Loads())
	fmt.Printf("%d connections, one request at a time on each, %d keys, values of %d bytes; every write synced before it is answered, all on one\n"+
		"disk. Turns of %v, one server at a time, %d turns of each in rotating order: medians (least to greatest). CPU is the server's\n"+
		"own, user and system. The generator shares the machine, so requests per second of wall clock are bounded by it, too.\n\n", clients, keys, size, turn, rounds)
	fmt.Println("| server | puts per CPU-second | ours / it | gets per CPU-second | ours / it | puts/s wall | gets/s wall |")
	fmt.Println("|---|---|---|---|---|---|---|")
	ours := engines[0]
	perCPU, perWall := func(f figures) float64 { return f.perCPU }, func(f figures) float64 { return f.perWall }
	for _, e := range engines {
		fmt.Printf("| %s | %s | %.2f | %s | %.2f | %s | %s |\n", e.name,
			spread(e.puts, perCPU), median(ours.puts, perCPU)/median(e.puts, perCPU),
			spread(e.gets, perCPU), median(ours.gets, perCPU)/median(e.gets, perCPU),
			spread(e.puts, perWall), spread(e.gets, perWall))
	}
	fmt.Println()
	for _, e := range engines {
		fmt.Printf("- %s: %s\n", e.name, e.version)
	}
	fmt.Println("\nOurs speaks HTTP/1.1 through net/http (without the doors that stand before an instance), Redis RESP, etcd gRPC: a\n" +
		"transaction of one put, a linearizable range of one key. Redis keeps all data in memory and syncs a log; ours and etcd keep it on disk in bbolt.")
}

func sorted(all []figures, of func(figures) float64) []float64 {
	var v []float64
	for _, f := range all {
		v = append(v, of(f))
	}
	slices.Sort(v)
	return v
}

func median(all []figures, of func(figures) float64) float64 {
	v := sorted(all, of)
	return v[len(v)/2]
}

func spread(all []figures, of func(figures) float64) string {
	v := sorted(all, of)
	return fmt.Sprintf("%.0f (%.0f–%.0f)", median(all, of), v[0], v[len(v)-1])
}
