// Command dns measures the name server beside NSD: the same questions by dnsperf, one server at a time in turns, each on a
// processor of its own, dnsperf on the other. It prints the server's processor time a query, which other load on the machine
// shifts least. Linux only: it reads /proc and pins by taskset.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
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

	"servent/lab/host"
	"servent/request/dns"
	"servent/route"
	"servent/system"
)

const (
	services = 1000
	turn     = 2 // seconds
	tick     = 100
	zone     = "bench.internal"
	seldom   = 1_000_000_000 // answers a second to one network: the bound is there, and bounds nothing
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "dns:", err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 11, "turns of each")
	flag.Parse()
	if err := run(*rounds); err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		os.Exit(1)
	}
}

// serve is the server that is measured: a thousand services of three instances, each with an answer chosen by weight and a
// bound on what one network gets.
func serve(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := dns.Spec{Origin: zone, Serial: 1}
	for i := range 3 {
		s.Nodes = append(s.Nodes, dns.Node{ID: system.NodeID(fmt.Sprint("n", i)), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Names: true})
	}
	for i := range services {
		svc := dns.Service{Name: system.ServiceName(fmt.Sprint("s", i)), TTL: dns.TTL}
		for j, n := range s.Nodes {
			svc.At = append(svc.At, dns.Place{Instance: route.Instance{ID: system.Instance(svc.Name, j+1), Node: n.ID, Weight: float64(j + 1)}, Addr: n.Addr, Port: 8080})
		}
		s.Services = append(s.Services, svc)
	}
	z, err := dns.NewZone(s)
	if err != nil {
		return err
	}
	return dns.New(dns.Options{Zone: func() *dns.Zone { return z }, Rate: seldom, Exempt: func(netip.Addr) bool { return false }}).Serve(ctx, addr, nil)
}

// nsd writes NSD's configuration and a zone with the same names.
func nsd(dir string, port int) (string, error) {
	var z strings.Builder
	fmt.Fprintf(&z, "$ORIGIN %s.\n$TTL 2\n@ 60 IN SOA n0.node hostmaster 1 60 10 86400 1\n@ 60 IN NS n0.node\n", zone)
	for i := range 3 {
		fmt.Fprintf(&z, "n%d.node 60 IN A 10.0.0.%d\n", i, i+1)
	}
	for i := range services {
		fmt.Fprintf(&z, "s%d IN A 10.0.0.%d\n", i, i%3+1)
		for j := range 3 {
			fmt.Fprintf(&z, "_s%d._tcp IN SRV 10 %d 8080 n%d.node\n", i, 100*(j+1), j)
		}
	}
	conf := fmt.Sprintf(`server:
  ip-address: 127.0.0.1
  port: %d
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: %q
  database: ""
  pidfile: %q
  xfrdfile: %q
  zonelistfile: %q
  logfile: %q
  rrl-ratelimit: %d
  verbosity: 0
remote-control:
  control-enable: no
zone:
  name: %q
  zonefile: "zone"
`, port, dir, dir+"/pid", dir+"/xfrd", dir+"/list", dir+"/log", seldom, zone)
	at := filepath.Join(dir, "nsd.conf")
	return at, errors.Join(os.WriteFile(filepath.Join(dir, "zone"), []byte(z.String()), 0o600), os.WriteFile(at, []byte(conf), 0o600))
}

// workload is a list of questions.
type workload struct {
	name  string
	edns  bool
	lines func(io.Writer)
}

var workloads = []workload{
	{"one A record, without EDNS", false, func(w io.Writer) { fmt.Fprintf(w, "s1.%s A\n", zone) }},
	{"A of 1000 names, a tenth that are none, EDNS", true, func(w io.Writer) {
		for i := range services {
			name := fmt.Sprint("s", i*7919%services)
			if i%10 == 9 {
				name = fmt.Sprint("none", i)
			}
			fmt.Fprintf(w, "%s.%s A\n", name, zone)
		}
	}},
	{"SRV with three instances and their addresses, EDNS", true, func(w io.Writer) {
		for i := range services {
			fmt.Fprintf(w, "_s%d._tcp.%s SRV\n", i*7919%services, zone)
		}
	}},
}

// figures are of one turn.
type figures struct{ cpu, rate float64 } // µs a query, queries a second

func run(rounds int) error {
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		return errors.New("want Linux and two processors")
	}
	for _, p := range []string{"nsd", "dnsperf", "taskset"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w (apt install nsd dnsperf util-linux)", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-dns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	before := host.Loads()
	got := make([][2][]figures, len(workloads))
	for i, w := range workloads {
		var questions bytes.Buffer
		w.lines(&questions)
		file := filepath.Join(dir, "questions")
		if err := os.WriteFile(file, questions.Bytes(), 0o600); err != nil {
			return err
		}
		for round := range rounds {
			for k := range 2 {
				which := (round + k) % 2 // who is first changes
				port, err := free()
				if err != nil {
					return err
				}
				cmd := exec.Command("taskset", "-c", "0", self, "serve", fmt.Sprint("127.0.0.1:", port))
				if which == 1 {
					conf, err := nsd(dir, port)
					if err != nil {
						return err
					}
					cmd = exec.Command("taskset", "-c", "0", "nsd", "-d", "-c", conf)
				}
				f, err := measure(cmd, port, file, w.edns)
				if err != nil {
					return fmt.Errorf("%s: %w", cmd.Args[3], err)
				}
				got[i][which] = append(got[i][which], f)
				fmt.Fprintf(os.Stderr, "%s, round %d: %s %.2f µs, %.0f/s\n", w.name, round+1, []string{"servent", "nsd"}[which], f.cpu, f.rate)
			}
		}
	}
	table(got, rounds, before)
	return nil
}

// measure starts a server, warms it up, and asks.
func measure(cmd *exec.Cmd, port int, file string, edns bool) (f figures, err error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := cmd.Start(); err != nil {
		return f, err
	}
	pid := cmd.Process.Pid
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // NSD ends its children
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", port), time.Second)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			return f, fmt.Errorf("it does not listen: %s", said.String())
		}
	}
	if _, _, err := perf(port, file, edns, 1); err != nil {
		return f, err
	}
	was, err := cpu(pid)
	if err != nil {
		return f, err
	}
	answered, rate, err := perf(port, file, edns, turn)
	if err != nil {
		return f, err
	}
	now, err := cpu(pid)
	return figures{(now - was) * 1e6 / answered, rate}, err
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	lost      = regexp.MustCompile(`Queries lost:\s+(\d+)`)
	perSecond = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
)

// perf asks for so many seconds.
func perf(port int, file string, edns bool, seconds int) (answered, rate float64, err error) {
	args := []string{"-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(port), "-d", file, "-c", "4", "-q", "200", "-l", strconv.Itoa(seconds)}
	if edns {
		args = append(args, "-e")
	}
	b, err := exec.Command("taskset", args...).CombinedOutput()
	find := func(re *regexp.Regexp) float64 {
		m := re.FindSubmatch(b)
		if m == nil {
			err = errors.Join(err, fmt.Errorf("dnsperf says nothing of %s: %s", re, b))
			return 0
		}
		v, _ := strconv.ParseFloat(string(m[1]), 64)
		return v
	}
	answered, rate = find(completed), find(perSecond)
	if n := find(lost); n > answered/1000 {
		err = errors.Join(err, fmt.Errorf("%v of %v queries lost", n, answered))
	}
	return answered, rate, err
}

// cpu is the processor time so far of a process and all below it, in seconds.
func cpu(pid int) (sum float64, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	parent, taken := map[string]string{}, map[string]float64{}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		one := filepath.Base(filepath.Dir(path))
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		parent[one], taken[one] = fields[1], (user+system)/tick
	}
	top := strconv.Itoa(pid)
	for one := range parent {
		at := one
		for at != top && at != "" && at != "0" {
			at = parent[at]
		}
		if at == top {
			sum += taken[one]
		}
	}
	if sum == 0 {
		err = errors.New("the server has taken no processor time")
	}
	return sum, err
}

func free() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// spread is a median with the least and the greatest.
func spread(all []float64, form string) string {
	s := slices.Sorted(slices.Values(all))
	return fmt.Sprintf(form+" ("+form+"–"+form+")", middle(s), s[0], s[len(s)-1])
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func table(got [][2][]figures, rounds int, before string) {
	version := func(name string, args ...string) string {
		b, _ := exec.Command(name, args...).CombinedOutput() // what it says is enough
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		return line
	}
	build, _ := exec.Command("nsd", "-v").CombinedOutput()
	batched := "built to take many datagrams at a call (recvmmsg)"
	if bytes.Contains(build, []byte("--disable-recvmmsg")) {
		batched = "built by Debian to take one datagram at a call (--disable-recvmmsg)"
	}
	fmt.Printf("# The name server beside NSD\n\n`make bench-dns` · %s · %d CPUs · load average %s before, %s after\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), before, host.Loads())
	fmt.Printf("One server at a time on one processor, `dnsperf -c 4 -q 200 -l %d` on another, over loopback, after a second of the same. %d turns of each, who is\n", turn, rounds)
	fmt.Printf("first changes: medians (least to greatest). CPU is the server's processes', user and system. NSD / ours is the median of the rounds' own\nratios: above 1, ours takes less. Both bound what one network gets, with a bound that is never reached. Ours chooses each answer by weight among three instances;\nNSD's never changes.\n\n")
	fmt.Printf("| questions | ours, µs CPU a query | NSD | NSD / ours | ours, queries/s | NSD |\n|---|---|---|---|---|---|\n")
	for i, w := range workloads {
		var cpus, rates [2][]float64
		var ratio []float64
		for k := range rounds {
			for s := range 2 {
				cpus[s] = append(cpus[s], got[i][s][k].cpu)
				rates[s] = append(rates[s], got[i][s][k].rate)
			}
			ratio = append(ratio, cpus[1][k]/cpus[0][k])
		}
		fmt.Printf("| %s | %s | %s | **%s** | %s | %s |\n", w.name, spread(cpus[0], "%.2f"), spread(cpus[1], "%.2f"), spread(ratio, "%.2f"), spread(rates[0], "%.0f"), spread(rates[1], "%.0f"))
	}
	fmt.Printf("\nWhere dnsperf's processor is the busy one, queries a second are its bound.\n\n- ours: %s\n- NSD: %s, %s\n- dnsperf: %s\n", runtime.Version(), version("nsd", "-v"), batched, version("sh", "-c", "dnsperf -h 2>&1 | grep Version"))
}
