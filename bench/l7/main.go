//go:build linux

// Command l7 measures what a request costs that goes through a door of Servent's engine, beside HAProxy, nginx and Caddy, and beside
// the reference door on net/http: one proxy after the other, on one processor, the load and the server behind on another. It needs wrk,
// nginx and haproxy; caddy is left out where it is not installed.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"servent/driver"
	"servent/lab/host"
	"servent/meter"
	"servent/request/l7"
	"servent/route"
	"servent/system"
)

var (
	rounds = flag.Int("rounds", 10, "rounds of each row")
	each   = flag.Duration("each", time.Second, "length of one measurement")
	only   = flag.String("only", "", "proxies to measure, separated by semicolons; empty: all")
	secure = flag.Bool("tls", false, "clients come by TLS")
)

func main() {
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "serve":
		err = serve(flag.Arg(1), flag.Arg(2), flag.Arg(3), flag.Arg(4))
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "l7:", err)
		os.Exit(1)
	}
}

// serve is a door of Servent's: to the instance at an address, as a node serves it; by TLS if there is the file of a certificate and its key.
func serve(engine, listen, instance, pair string) error {
	var conf *tls.Config
	if pair != "" {
		c, err := tls.LoadX509KeyPair(pair, pair)
		if err != nil {
			return err
		}
		conf = &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2", "http/1.1"}}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	in := route.Instance{ID: "web/1", Node: "node-1", Local: true, Address: instance}
	service := &route.Service{Name: "web", Instances: []route.Instance{in}}
	if engine == route.ModelEvents {
		service.Switch.Model = engine
	}
	table := &route.Table{Self: "node-1", Generation: 1, Nodes: []system.NodeID{"node-1"}, Services: map[system.ServiceName]*route.Service{"web": service}}
	s := l7.New(l7.Options{Self: "node-1", Table: func() *route.Table { return table }, Meter: &meter.Book{}, TLS: conf, Reference: engine == "reference",
		Local: func(id system.InstanceID) (driver.Endpoint, bool) {
			return driver.Endpoint{Address: instance}, id == in.ID
		}})
	defer s.Close()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return s.Serve(ctx, ln, s.Door("web"))
}

// proxy is a program that is measured.
type proxy struct {
	name, version string
	start         func(listen string) *exec.Cmd
}

// load is one kind of requests.
type load struct {
	name  string
	path  string
	conns int
	args  []string
}

var loads = []load{
	{"1 KiB, keep-alive, 64 connections", "/small", 64, nil},
	{"1 KiB, keep-alive, 1 connection", "/small", 1, nil},
	{"1 KiB, a new connection each, 64 at a time", "/small", 64, []string{"-H", "Connection: close"}},
	{"1 MiB, keep-alive, 16 connections", "/big", 16, nil},
}

// sample is one measurement.
type sample struct {
	rate, cpu float64 // requests a second, µs of processor time a request
	p50       string
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	before := host.Loads()
	idlers := idleConns()
	held := max(4096, idlers+500) // that a proxy may have
	dir, err := os.MkdirTemp("", "l7")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, size := range map[string]int{"small": 1 << 10, "big": 1 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			return err
		}
	}
	for _, program := range []string{"wrk", "nginx", "haproxy", "taskset"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w; next: apt-get install wrk nginx-light haproxy util-linux", err)
		}
	}
	pair, bind := "", ""
	if *secure {
		pair = filepath.Join(dir, "pair.pem")
		bind = " ssl crt " + pair + " alpn h2,http/1.1"
		out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=bench",
			"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pair+".key", "-out", pair+".crt").CombinedOutput()
		if err != nil {
			return fmt.Errorf("openssl: %w\n%s", err, out)
		}
		var both []byte
		for _, half := range []string{".crt", ".key"} {
			b, err := os.ReadFile(pair + half)
			if err != nil {
				return err
			}
			both = append(both, b...)
		}
		if err := os.WriteFile(pair, both, 0o600); err != nil {
			return err
		}
	}
	backend, err := free()
	if err != nil {
		return err
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			panic(err)
		}
		return path
	}
	const nginx = "daemon off; master_process off; worker_processes 1; error_log stderr crit; pid %[1]s/%[2]s.pid;\nevents { worker_connections 24000; }\n" +
		"http { access_log off; keepalive_requests 1000000000; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;\n%[3]s }\n"
	own := "" // else it would drop its rights to nobody's, who may not read the folder
	if os.Geteuid() == 0 {
		own = "user root;\n"
	}
	origin := file("origin.conf", own+fmt.Sprintf(nginx, dir, "origin", fmt.Sprintf("sendfile on; tcp_nopush off; open_file_cache max=10; server { listen %s backlog=4096; root %s; }", backend, dir)))
	server, err := start(pinned(1, "nginx", "-c", origin), backend)
	if err != nil {
		return err
	}
	defer end(server)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours := func(engine string) func(string) *exec.Cmd {
		return func(listen string) *exec.Cmd {
			cmd := pinned(0, self, "serve", engine, listen, backend, pair)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
			return cmd
		}
	}
	ssl := ""
	if *secure {
		ssl = fmt.Sprintf(" ssl; ssl_certificate %[1]s; ssl_certificate_key %[1]s; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off", pair)
	}
	proxies := []*proxy{
		{"HAProxy", version("haproxy", "-v"), func(listen string) *exec.Cmd {
			return pinned(0, "haproxy", "-db", "-f", file("haproxy.cfg", fmt.Sprintf("global\n nbthread 1\n maxconn %d\n tune.pool-high-fd-ratio 90\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n http-reuse always\n option forwardfor\n retries 2\nfrontend f\n bind %s backlog 4096%s\n default_backend b\nbackend b\n balance random(2)\n server s %s\n", held, listen, bind, backend)))
		}},
		{"nginx", version("nginx", "-v"), func(listen string) *exec.Cmd {
			return pinned(0, "nginx", "-c", file("proxy.conf", own+fmt.Sprintf(nginx, dir, "proxy", fmt.Sprintf("upstream b { random two least_conn; server %s; keepalive 512; keepalive_requests 1000000000; }\n server { listen %s backlog=4096%s; location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_max_temp_file_size 0; } }", backend, listen, ssl))))
		}},
	}
	if _, err := exec.LookPath("caddy"); err == nil && !*secure {
		proxies = append(proxies, &proxy{"Caddy", version("caddy", "version"), func(listen string) *exec.Cmd {
			text := fmt.Sprintf("{\n admin off\n auto_https off\n storage file_system %s\n}\nhttp://%s {\n reverse_proxy %s {\n  lb_policy random_choose 2\n  transport http {\n   keepalive_idle_conns_per_host 4096\n   compression off\n  }\n }\n}\n", dir, listen, backend)
			cmd := pinned(0, "caddy", "run", "--adapter", "caddyfile", "--config", file("Caddyfile", text))
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
			return cmd
		}})
	}
	if !*secure { // it knows no TLS
		proxies = append(proxies, &proxy{"Servent on net/http", runtime.Version(), ours("reference")})
	}
	proxies = append(proxies, &proxy{"Servent", runtime.Version(), ours("engine")})
	if !*secure && runtime.GOOS == "linux" { // machines speak no TLS
		proxies = append(proxies, &proxy{"Servent, fsm", runtime.Version(), ours(route.ModelEvents)})
	}
	if *only != "" {
		proxies = slices.DeleteFunc(proxies, func(p *proxy) bool { return !slices.Contains(strings.Split(*only, ";"), p.name) })
	}
	got := map[string][][]sample{} // load → proxy → rounds
	for _, l := range loads {
		got[l.name] = make([][]sample, len(proxies))
	}
	for round := range *rounds {
		for i, p := range proxies {
			listen, err := free()
			if err != nil {
				return err
			}
			cmd, err := start(p.start(listen), listen)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			for _, l := range loads {
				s, err := measure(ctx, cmd.Process.Pid, l, listen)
				if err != nil {
					end(cmd)
					return fmt.Errorf("%s, %s: %w", p.name, l.name, err)
				}
				got[l.name][i] = append(got[l.name][i], s)
			}
			end(cmd)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, *rounds)
	}
	kept := make([][]sample, len(proxies))
	for range min(*rounds, 3) {
		for i, p := range proxies {
			listen, err := free()
			if err != nil {
				return err
			}
			cmd, err := start(p.start(listen), listen)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			each, err := keeps(cmd.Process.Pid, listen, idlers)
			end(cmd)
			if err != nil {
				return fmt.Errorf("%s, idle connections: %w", p.name, err)
			}
			kept[i] = append(kept[i], sample{cpu: each})
		}
	}
	report(before, proxies, got)
	fmt.Printf("\n## Memory of an idle connection\n\nOf %d that have had an answer of 1 KiB each; resident memory of the proxy, after less before.\n\n| | KiB |\n|---|---|\n", idlers)
	for i, p := range proxies {
		fmt.Printf("| %s | %.1f |\n", p.name, median(kept[i], func(s sample) float64 { return s.cpu }))
	}
	return nil
}

func report(before string, proxies []*proxy, got map[string][][]sample) {
	title, target := "Switching requests", "bench-l7"
	if *secure {
		title, target = "Switching requests of clients that come by TLS", "bench-tls"
	}
	fmt.Printf("# %s\n\n`make %s` · %s · %d CPUs · %s · load average %s before, %s after\n\n", title, target, time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), before, host.Loads())
	fmt.Printf("Proxy on one processor and with one thread, wrk and the server behind (nginx, files) on another; all over loopback. Medians of %d rounds of %v, the proxies in turns within each round, each a new process. "+
		"CPU is processor time of the proxy, from `/proc/PID/task/*/schedstat`. Efficiency is a peer's CPU a request divided by the row's, the median over rounds: above 1 the row needs less.\n\n", *rounds, *each)
	fmt.Println("All keep connections to the server behind, balance (of two drawn at random the less busy) over one server, add X-Forwarded-For, and log nothing. Servent adds Forwarded and Server-Timing, counts, and keeps retry budgets, too.")
	if *secure {
		fmt.Println("\nTLS 1.3 with a certificate of P-256; a new connection makes a whole handshake. HAProxy and nginx use the system's OpenSSL.")
	}
	var versions []string
	for _, p := range proxies {
		if !strings.HasPrefix(p.name, "Servent") {
			versions = append(versions, p.name+" "+p.version)
		}
	}
	fmt.Printf("\nVersions: %s, wrk %s, OpenSSL %s.\n", strings.Join(versions, ", "), version("wrk", "-v"), version("openssl", "version"))
	for _, l := range loads {
		fmt.Printf("\n## %s\n\n| | CPU µs a request | requests/s | p50", l.name)
		for _, p := range proxies {
			if peers(p) {
				fmt.Printf(" | efficiency against %s", strings.TrimPrefix(p.name, "Servent on "))
			}
		}
		fmt.Printf(" |\n|---|---|---|---%s|\n", strings.Repeat("|---", len(slices.DeleteFunc(slices.Clone(proxies), func(p *proxy) bool { return !peers(p) }))))
		for i, p := range proxies {
			all := got[l.name][i]
			fmt.Printf("| %s | %.1f | %.0f | %s", p.name, median(all, func(s sample) float64 { return s.cpu }), median(all, func(s sample) float64 { return s.rate }), middle(all).p50)
			for j, peer := range proxies {
				if !peers(peer) {
					continue
				}
				ratios := make([]sample, len(all))
				for r := range all {
					ratios[r].cpu = got[l.name][j][r].cpu / all[r].cpu
				}
				fmt.Printf(" | %.2f", median(ratios, func(s sample) float64 { return s.cpu }))
			}
			fmt.Println(" |")
		}
	}
}

// peers says that others are compared with it.
func peers(p *proxy) bool { return !strings.HasPrefix(p.name, "Servent,") && p.name != "Servent" }

func median(all []sample, of func(sample) float64) float64 {
	var xs []float64
	for _, s := range all {
		xs = append(xs, of(s))
	}
	slices.Sort(xs)
	n := len(xs)
	return (xs[(n-1)/2] + xs[n/2]) / 2
}

// middle is the round of median rate.
func middle(all []sample) sample {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b sample) int { return cmp.Compare(a.rate, b.rate) })
	return sorted[len(sorted)/2]
}

var (
	requests = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m),`)
	faults   = regexp.MustCompile(`Non-2xx|Socket errors: connect [1-9]|read [1-9]|write [1-9]`)
	p50      = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)`)
)

func measure(ctx context.Context, pid int, l load, listen string) (sample, error) {
	wrk := func(seconds time.Duration) (string, error) {
		args := append([]string{"-t1", fmt.Sprint("-c", l.conns), "--latency", "-d" + strconv.Itoa(max(1, int(seconds.Seconds()))) + "s"}, l.args...)
		cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", "1", "wrk"}, append(args, scheme()+listen+l.path)...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("wrk: %w\n%s", err, out)
		}
		return string(out), nil
	}
	// The first requests, outside the measurement: connections, pools, a heap.
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // a certificate of its own
	for range 20 {
		res, err := c.Get(scheme() + listen + l.path)
		if err != nil {
			return sample{}, err
		}
		res.Body.Close()
	}
	c.CloseIdleConnections()
	cpu := used(pid)
	out, err := wrk(*each)
	if err != nil {
		return sample{}, err
	}
	cpu = used(pid) - cpu
	m := requests.FindStringSubmatch(out)
	if m == nil || faults.MatchString(out) {
		return sample{}, fmt.Errorf("want answers alone, have\n%s", out)
	}
	n, _ := strconv.ParseFloat(m[1], 64)
	took, err := time.ParseDuration(m[2] + m[3])
	if err != nil || n == 0 {
		return sample{}, errors.New("no requests in\n" + out)
	}
	s := sample{rate: n / took.Seconds(), cpu: float64(cpu.Nanoseconds()) / 1000 / n, p50: "?"}
	if m := p50.FindStringSubmatch(out); m != nil {
		s.p50 = m[1]
	}
	return s, nil
}

func scheme() string {
	if *secure {
		return "https://"
	}
	return "http://"
}

// used is the processor time of a process, all its threads together.
func used(pid int) (all time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		fields := strings.Fields(string(b))
		if err != nil || len(fields) == 0 {
			continue // a thread that has ended
		}
		n, _ := strconv.ParseInt(fields[0], 10, 64)
		all += time.Duration(n)
	}
	return all
}

func pinned(cpu int, program string, args ...string) *exec.Cmd {
	cmd := exec.Command("taskset", append([]string{"-c", strconv.Itoa(cpu % runtime.NumCPU()), program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a program and waits until it accepts connections.
func start(cmd *exec.Cmd, listen string) (*exec.Cmd, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if c, err := net.Dial("tcp", listen); err == nil {
			c.Close()
			return cmd, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	end(cmd)
	return nil, fmt.Errorf("%s does not listen on %s\n%s", cmd, listen, out.String())
}

func end(cmd *exec.Cmd) { _ = cmd.Process.Kill(); _ = cmd.Wait() }

// free is an address that nobody listens on.
func free() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

var number = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

func version(program string, args ...string) string {
	out, _ := exec.Command(program, args...).CombinedOutput() // wrk fails as it says it
	return cmp.Or(number.FindString(string(out)), "unknown")
}
