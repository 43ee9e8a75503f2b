package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// program finds one that a test needs; in continuous integration it must be there.
func program(t *testing.T, name, from string) string {
	t.Helper()
	for _, at := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s: install Debian's %s", name, from)
	}
	t.Skipf("no %s (Debian: %s)", name, from)
	return ""
}

// TestDig asks as people do.
func TestDig(t *testing.T) {
	t.Parallel()
	dig := program(t, "dig", "bind9-dnsutils")
	z := sample(t)
	_, addr := serve(t, Options{Zone: func() *Zone { return z }})
	at := netip.MustParseAddrPort(addr)
	for _, tt := range []struct {
		args string
		want []string // all of them are in the output
	}{
		{"one.shop.internal", []string{"status: NOERROR", "flags: qr aa rd;", "one.shop.internal.\t0\tIN\tA\t10.1.0.2"}},
		{"+tcp one.shop.internal", []string{"status: NOERROR", "10.1.0.2"}},
		{"+noedns one.shop.internal", []string{"status: NOERROR", "10.1.0.2"}},
		{"six.shop.internal AAAA", []string{"2\tIN\tAAAA\t2001:db8:7::1"}},
		{"_heavy._tcp.shop.internal SRV", []string{"10 750 8080 node-1.node.shop.internal.", "node-2.node.shop.internal. 2\tIN\tA\t10.1.0.2"}},
		{"one.shop.internal HTTPS", []string{`1 node-2.node.shop.internal. port=8080 ipv4hint=10.1.0.2`}},
		{"shop.internal SOA", []string{"60\tIN\tSOA\tnode-1.node.shop.internal. hostmaster.shop.internal. 7 60 10 86400 1"}},
		{"shop.internal NS", []string{"NS\tnode-1.node.shop.internal.", "NS\tnode-4.node.shop.internal."}},
		{"random.shop.internal TXT", []string{`"policy=random" "instances=6"`}},
		{"missing.shop.internal", []string{"status: NXDOMAIN", "AUTHORITY: 1", "SOA"}},
		{"none.shop.internal", []string{"status: NOERROR", "ANSWER: 0, AUTHORITY: 1", "SOA"}},
		{"www.example.org", []string{"status: REFUSED"}},
		{"-c CH -t TXT version.bind", []string{"status: REFUSED"}},
		{"crowd.shop.internal ANY +notcp", []string{`HINFO	"RFC8482" ""`}},
		{"shop.internal AXFR", []string{"Transfer failed"}},
		{"+subnet=10.2.0.0/24 nearest.shop.internal", []string{"CLIENT-SUBNET: 10.2.0.0/24/24", "A\t10.2.0."}},
		{"+subnet=0 nearest.shop.internal", []string{"CLIENT-SUBNET: 0", "A\t10.1.0."}},
		{"+subnet=2001:db8:7::/48 nearest.shop.internal SRV", []string{"CLIENT-SUBNET: 2001:db8:7::/48/48"}},
		{"+edns=1 +noednsnegotiation one.shop.internal", []string{"status: BADVERS"}},
		{"+opcode=notify one.shop.internal", []string{"status: NOTIMP"}},
		{"+cookie one.shop.internal", []string{"status: NOERROR", "10.1.0.2"}},
		{"+dnssec one.shop.internal", []string{"flags: do; udp: 1232", "10.1.0.2"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			args := append([]string{"@" + at.Addr().String(), "-p", fmt.Sprint(at.Port()), "+tries=1", "+time=20"}, strings.Fields(tt.args)...)
			b, _ := exec.Command(dig, args...).CombinedOutput() // a refused transfer is a failure to dig, which is what is asked for
			out := strings.NewReplacer("\t\t", "\t").Replace(string(b))
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in\n%s", want, out)
				}
			}
			if strings.Contains(strings.ToLower(out), "malformed") || strings.Contains(out, "Warning: Message") {
				t.Errorf("dig has something against it:\n%s", out)
			}
		})
	}
}

// TestUnbound: a caching resolver takes the zone for what it is, keeps answers for their TTL, and asks again after it.
func TestUnbound(t *testing.T) {
	t.Parallel()
	unbound, dig := program(t, "unbound", "unbound"), program(t, "dig", "bind9-dnsutils")
	z := sample(t)
	s, addr := serve(t, Options{Zone: func() *Zone { return z }})
	if runtime.GOOS != "linux" {
		t.Skip("it takes a loopback address of its own, on which nobody else takes the port meanwhile")
	}
	const own = "127.77.54.1"
	port := free(t, own)
	at := netip.MustParseAddrPort(addr)
	conf := filepath.Join(t.TempDir(), "unbound.conf")
	text := fmt.Sprintf(`server:
  interface: %s@%d
  do-daemonize: no
  chroot: ""
  username: ""
  pidfile: ""
  directory: %q
  use-syslog: no
  verbosity: 1
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "internal." transparent
  domain-insecure: "internal."
stub-zone:
  name: "shop.internal."
  stub-addr: %s@%d
remote-control:
  control-enable: no
`, own, port, filepath.Dir(conf), at.Addr(), at.Port())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(unbound, "-d", "-c", conf)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	ask := func(args ...string) string {
		b, _ := exec.Command(dig, append([]string{"@" + own, "-p", fmt.Sprint(port), "+tries=1", "+time=5"}, args...)...).CombinedOutput()
		return string(b)
	}
	end := time.Now().Add(60 * time.Second)
	for !strings.Contains(ask("one.shop.internal"), "10.1.0.2") {
		if time.Now().After(end) {
			t.Fatalf("no answer through it: %s", ask("one.shop.internal"))
		}
	}
	seen := map[string]bool{}
	before, began := s.Counts().Queries, time.Now()
	for range 20 {
		seen[strings.TrimSpace(ask("+short", "roundrobin.shop.internal"))] = true
	}
	took := time.Since(began)
	asked := int(s.Counts().Queries - before)
	if most := int(took/TTL) + 2; asked > 2*most { // it may ask the other name servers' addresses, which are nobody's here, once
		t.Errorf("20 questions in %s came through as %d: nothing is kept", took, asked)
	}
	if len(seen) > int(took/TTL)+2 {
		t.Errorf("in %s: %v, with a TTL of %s", took, seen, TTL)
	}
	if out := ask("missing.shop.internal"); !strings.Contains(out, "NXDOMAIN") {
		t.Error(out)
	}
	if out := ask("_crowd._tcp.shop.internal", "SRV"); !strings.Contains(out, "ANSWER: 8") {
		t.Error(out)
	}
	for end := time.Now().Add(30 * time.Second); len(seen) < 2; { // the TTL passes, and another one has its turn
		if time.Now().After(end) {
			t.Fatalf("always %v", seen)
		}
		seen[strings.TrimSpace(ask("+short", "roundrobin.shop.internal"))] = true
	}
}

// TestGetent: getaddrinfo of the C library, which programs call, takes the answers. It asks port 53 of what /etc/resolv.conf
// names, so a mount of its own puts ours there: that takes root.
func TestGetent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("it takes root on Linux to give one process another /etc/resolv.conf")
	}
	getent, unshare := program(t, "getent", "libc-bin"), program(t, "unshare", "util-linux")
	z := sample(t)
	const at = "127.77.53.1"
	s := New(Options{Zone: func() *Zone { return z }})
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan netip.AddrPort, 1), make(chan error, 1)
	go func() { done <- s.Serve(ctx, at+":53", func(a netip.AddrPort) { ready <- a }) }()
	defer cancel()
	select {
	case <-ready:
	case err := <-done:
		t.Skip("no port 53 here: ", err)
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+at+"\noptions timeout:20\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(name string) (string, error) {
		b, err := exec.Command(unshare, "-m", "sh", "-c", `mount --bind "$1" "$(readlink -f /etc/resolv.conf)" || exit 77; exec "$2" ahosts "$3"`, "sh", conf, getent, name).CombinedOutput()
		return string(b), err
	}
	out, err := run("one.shop.internal")
	if exit := (&exec.ExitError{}); errors.As(err, &exit) && (exit.ExitCode() == 77 || strings.Contains(out, "unshare")) {
		t.Skip("no mount of its own here: ", out)
	}
	if err != nil || !strings.Contains(out, "10.1.0.2 ") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err = run("six.shop.internal"); err != nil || !strings.Contains(out, "2001:db8:7::1 ") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err = run("missing.shop.internal"); err == nil {
		t.Errorf("a name that there is not: %q", out)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// free is a port that nobody has at an address.
func free(t *testing.T, host string) int {
	t.Helper()
	c, err := net.ListenPacket("udp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}
