package etcd_test

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"servent/control"
	"servent/control/controltest"
	"servent/control/etcd"
)

func itoa(n int) string { return strconv.Itoa(n) }

// serveStock is an etcd as a user runs it: etcd's own settings, TLS with client certificates.
func serveStock(in io.Reader, out io.Writer) error {
	var o etcd.Options
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = o.Dir, "error"
	door := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{door}, []url.URL{door}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: o.Cert, KeyFile: o.Key, TrustedCAFile: o.CA, ClientCertAuth: true}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Fprintln(out, e.Clients[0].Addr())
	io.Copy(io.Discard, lines)
	return nil
}

// TestUsersEtcd runs the suite on an etcd that is not ours, reached by its URL.
func TestUsersEtcd(t *testing.T) {
	t.Parallel()
	t.Run("stock", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		o := etcd.Options{Dir: filepath.Join(dir, "data")}
		words := keys(t, dir, &o)
		cmd := exec.Command(program(t), "stock")
		cmd.Stderr = t.Output()
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		options, _ := json.Marshal(o)
		fmt.Fprintf(in, "%s\n", options)
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("the server did not answer")
		}
		usersSuite(t, "etcd://"+lines.Text()+"?"+words)
	})
	t.Run("program", func(t *testing.T) {
		t.Parallel()
		path, err := exec.LookPath("etcd")
		if err != nil {
			t.Skip("no program etcd here")
		}
		dir := t.TempDir()
		var o etcd.Options
		words := keys(t, dir, &o)
		door, peers := free(t), free(t)
		cmd := exec.Command(path, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
			"--listen-client-urls", "https://"+door, "--advertise-client-urls", "https://"+door,
			"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers,
			"--initial-cluster", "default=http://"+peers,
			"--cert-file", o.Cert, "--key-file", o.Key, "--trusted-ca-file", o.CA, "--client-cert-auth")
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		soon(t, "etcd listens", func() bool {
			c, err := net.Dial("tcp", door)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		usersSuite(t, "etcd://"+door+"?"+words)
	})
}

// usersSuite runs the suite below prefixes beside keys of the user's own.
func usersSuite(t *testing.T, address string) {
	store := func(t *testing.T, prefix string) *etcd.Store {
		o, err := etcd.ParseURL(address + "&prefix=" + prefix)
		if err != nil {
			t.Fatal(err)
		}
		s, err := etcd.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	users := store(t, "/servent")
	put(t, users, "!", "the user's own")
	put(t, users, "0", "the user's own")
	controltest.Run(t, func(t *testing.T) (control.Store, controltest.Features) {
		s := store(t, fmt.Sprintf("/servent/test-%d/", prefixes.Add(1)))
		return s, controltest.Features{Compact: s.Compact}
	})
	if kvs, _, err := users.Range(t.Context(), "0"); err != nil || len(kvs) != 1 {
		t.Errorf("the user's own keys are %v, %v, want them untouched", kvs, err)
	}
}

// keys makes a server's and a client's keys and returns the URL's words that name the client's.
func keys(t *testing.T, dir string, o *etcd.Options) string {
	t.Helper()
	client, err := etcd.MakeKeys(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(client.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"client.pem": {Type: "CERTIFICATE", Bytes: client.Certificates[0].Certificate[0]},
		"client.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join([]string{"ca=" + url.QueryEscape(o.CA),
		"cert=" + url.QueryEscape(filepath.Join(dir, "client.pem")),
		"key=" + url.QueryEscape(filepath.Join(dir, "client.key"))}, "&")
}

func free(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
