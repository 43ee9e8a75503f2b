package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/admin"
)

const echoing = `import os, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers.get("X-Forwarded-For", "nobody").encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), H).serve_forever()
`

// TestTrustedProxy: HAProxy on another machine says who its clients are. Its word counts where the file names it; nobody else's does.
func TestTrustedProxy(t *testing.T) {
	have(t, "haproxy", "curl", "python3")
	ms := fleetOf(t, 3)
	a, proxy, client := ms[0], ms[1], ms[2]
	a.write("app.py", echoing)
	file := func(trust string) string {
		return fmt.Sprintf(`
name: who
services:
  app:
    ports: ["0.0.0.0:8080:8080"]
    x-servent: {process: [python3, app.py], architecture: single, switch: {by: request}, route: /*}
x-servent:
  web: {http: "0.0.0.0:8081"%s}
`, trust)
	}
	a.write("compose.yaml", file(""))
	t.Cleanup(a.end)
	if out, err := a.run("up", "-d"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
	}
	conf := filepath.Join(proxy.dir, "haproxy.cfg")
	text := "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n option forwardfor\n"
	for _, port := range []string{"8080", "8081"} {
		text += fmt.Sprintf("listen p%s\n bind %s:%s\n server a %s:%s\n", port, proxy.host, port, a.host, port)
		text += fmt.Sprintf("listen one%s\n bind %s:1%s\n server a %s:%s send-proxy\n", port, proxy.host, port, a.host, port)
		text += fmt.Sprintf("listen two%s\n bind %s:2%s\n server a %s:%s send-proxy-v2\n", port, proxy.host, port, a.host, port)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	front := exec.Command("ip", "netns", "exec", proxy.ns, "haproxy", "-db", "-f", conf)
	front.Stderr = t.Output()
	if err := front.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = front.Process.Kill()
		_ = front.Wait()
	})
	ask := func(host, port string, more ...string) string {
		t.Helper()
		args := append([]string{"netns", "exec", client.ns, "curl", "-sS", "--fail", "-m", "15", "--retry", "20", "--retry-delay", "1", "--retry-connrefused"}, more...)
		out, err := exec.Command("ip", append(args, "http://"+host+":"+port+"/")...).Output()
		if err != nil {
			t.Fatalf("curl: %v %s", err, out)
		}
		return string(out)
	}
	forged := []string{"-H", "X-Forwarded-For: 192.0.2.66"}
	for _, port := range []string{"8080", "8081"} {
		if got := ask(proxy.host, port); got != proxy.host {
			t.Errorf("port %s, through a proxy that is not named: %q, want the proxy, %s", port, got, proxy.host)
		}
		if got := ask(a.host, port, forged...); got != client.host {
			t.Errorf("port %s, forged: %q, want the client, %s", port, got, client.host)
		}
	}
	edited := func() {
		t.Helper()
		before := a.state().Generation
		if out, err := a.run("up"); err != nil {
			t.Fatalf("up: %v\n%s", err, out)
		}
		a.until("the plan has it", time.Minute, func(s admin.State) bool { return s.Settled && s.Generation > before })
	}
	a.write("compose.yaml", file(fmt.Sprintf(", trust: [%s, 10.99.0.0/16]", proxy.host)))
	edited()
	for _, port := range []string{"8080", "8081"} {
		if got, want := ask(proxy.host, port), client.host+", "+proxy.host; got != want {
			t.Errorf("port %s, through the proxy that is named: %q, want %q", port, got, want)
		}
		if got := ask(a.host, port, forged...); got != client.host {
			t.Errorf("port %s, forged beside the proxy: %q, want the client, %s", port, got, client.host)
		}
		if got, want := ask(proxy.host, port, forged...), client.host+", "+proxy.host; !strings.HasSuffix(got, want) {
			t.Errorf("port %s, forged before the proxy: %q, want that it ends in %q", port, got, want)
		}
	}
	a.write("compose.yaml", file(fmt.Sprintf(", proxy: true, trust: [%s]", proxy.host)))
	edited()
	for _, port := range []string{"8080", "8081"} {
		for _, version := range []string{"1", "2"} {
			if got := ask(proxy.host, version+port, forged...); got != client.host {
				t.Errorf("port %s, by the PROXY protocol, version %s: %q, want the client, %s", port, version, got, client.host)
			}
		}
		if got := ask(a.host, port); got != client.host {
			t.Errorf("port %s, beside the proxy: %q, want the client, %s", port, got, client.host)
		}
		out, err := exec.Command("ip", "netns", "exec", client.ns, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "15", "http://"+proxy.host+":"+port+"/").Output()
		if code := string(out); err != nil || code != "502" && code != "503" {
			t.Errorf("port %s, a proxy that does not say who its client is: %s, %v; want it refused", port, code, err)
		}
		out, err = exec.Command("ip", "netns", "exec", client.ns, "curl", "-sS", "--haproxy-protocol", "-o", "/dev/null", "-w", "%{http_code}", "-m", "15", "http://"+a.host+":"+port+"/").Output()
		if code := string(out); code != "400" {
			t.Errorf("port %s, a client that says it is another: %s, %v; want 400", port, code, err)
		}
	}
}

const knowing = `cat > nginx.conf <<END
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  server { listen $HOST:$PORT proxy_protocol; location / { return 200 "\$proxy_protocol_addr"; } }
}
END
exec nginx -p . -c nginx.conf
`

// TestProgramLearnsItsClient: nginx, as the user's program behind a door by connection, learns the client by the PROXY protocol, on this node and through a tunnel.
func TestProgramLearnsItsClient(t *testing.T) {
	have(t, "nginx", "curl")
	ms := fleetOf(t, 2)
	a, client := ms[0], ms[1]
	a.write("run.sh", knowing)
	t.Cleanup(a.end)
	for _, version := range []string{"v1", "v2"} {
		a.write("compose.yaml", fmt.Sprintf(`
name: who
services:
  app:
    ports: ["0.0.0.0:8090:8090"]
    x-servent: {process: [sh, run.sh], architecture: replicated, scale: {min: 2}, switch: {by: connection, proxy: %s, policy: roundrobin}}
x-servent: {nodes: {node: {count: 2}}}
`, version))
		if out, err := a.run("up", "-d"); err != nil {
			t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
		}
		for range 6 { // both instances, from both nodes
			out, err := exec.Command("ip", "netns", "exec", client.ns, "curl", "-sS", "--fail", "-m", "15", "--retry", "20", "--retry-delay", "1", "--retry-connrefused", "http://"+a.host+":8090/").Output()
			if err != nil || string(out) != client.host {
				t.Errorf("%s: nginx says %q, %v; want the client, %s\n%s", version, out, err, client.host, a.logs())
			}
		}
		a.end()
	}
}
