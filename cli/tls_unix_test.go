//go:build unix

package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
)

const secured = `name: shop
services:
  site:
    ports: [{target: 80, published: %[3]s, app_protocol: https}]
    x-servent: {files: ./public, architecture: replicated, route: [/*, shop.example.org/*, www.example.org/*]}
x-servent:
  web: {http: %[1]s, https: %[2]s, redirect: true%[4]s}
`

// beside runs a program next to the test, and says what it has written.
func beside(t *testing.T, env []string, name string, args ...string) (said func() string) {
	t.Helper()
	var mu sync.Mutex
	var out strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	pipe, err := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := pipe.Read(buf)
			mu.Lock()
			out.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait() // it was killed
	})
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
}

// soon waits for what no state of the system shows.
func soon(t *testing.T, what string, within time.Duration, holds func() error) {
	t.Helper()
	err := holds()
	for end := time.Now().Add(within); err != nil && time.Now().Before(end); err = holds() {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// certified makes a certificate for a name that nobody has signed, in two files.
func certified(t *testing.T, dir, name, host string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	model := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, model, model, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+ext), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func trusting(text string) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(text))
	return roots
}

func (w *world) certificates() (out admin.Certificates) {
	w.t.Helper()
	text, err := w.run("certificates", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &out)
	}
	if err != nil {
		w.t.Fatalf("certificates: %v\n%s", err, text)
	}
	return out
}

// The web door and a port speak TLS by the system's own authority, with HTTP/2 and 1.1, and by the user's certificates; a change of them
// drops no connection.
func TestTLS(t *testing.T) {
	t.Parallel()
	have(t, "curl")
	w := &world{t: t, dir: t.TempDir()}
	plain, secure, port := free(t), free(t), free(t)
	w.write("public/index.html", "hello\n")
	w.write("compose.yaml", fmt.Sprintf(secured, plain, secure, port, ""))
	w.up()
	ca, err := w.run("certificates", "--ca")
	if err != nil {
		t.Fatal(err)
	}
	w.write("ca.pem", ca)
	ask := func(args ...string) string {
		t.Helper()
		args = append([]string{"-s", "--max-time", "20", "--noproxy", "*", "--cacert", filepath.Join(w.dir, "ca.pem"), "--connect-to", "shop.example.org:" + secure + ":127.0.0.1:" + secure}, args...)
		out, err := exec.Command("curl", args...).CombinedOutput()
		if err != nil {
			return fmt.Sprint(string(out), err)
		}
		return string(out)
	}
	const version = "%{http_version} %{response_code}"
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"hello\n2 200", []string{"-w", version, "https://localhost:" + secure + "/"}},
		{"hello\n1.1 200", []string{"-w", version, "--http1.1", "https://127.0.0.1:" + secure + "/"}},
		{"hello\n2 200", []string{"-w", version, "https://shop.example.org:" + secure + "/"}},
		{"hello\n2 200", []string{"-w", version, "https://localhost:" + port + "/"}},
		{"1.1 308 https://localhost:" + secure + "/a?b=c", []string{"-o", "/dev/null", "-w", version + " %{redirect_url}", "http://localhost:" + plain + "/a?b=c"}},
		{"1.1 400", []string{"-o", "/dev/null", "-w", version, "http://localhost:" + secure + "/"}},
		{"1.1 400", []string{"-o", "/dev/null", "-w", version, "http://localhost:" + port + "/"}},
	} {
		if got := ask(tt.args...); got != tt.want {
			t.Errorf("curl %s:\n%q, want\n%q", strings.Join(tt.args, " "), got, tt.want)
		}
	}
	if out := ask("--tls-max", "1.1", "https://localhost:"+secure+"/"); strings.Contains(out, "hello") {
		t.Error("TLS 1.1 is spoken")
	}

	// The user's own certificate, for one name; a connection that is open stays so.
	kept, err := tls.Dial("tcp", "127.0.0.1:"+secure, &tls.Config{RootCAs: trusting(ca), ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	get := func() string {
		fmt.Fprint(kept, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		buf := make([]byte, 12)
		_ = kept.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := io.ReadFull(kept, buf)
		rest := make([]byte, 4096)
		_, _ = kept.Read(rest)
		return fmt.Sprint(string(buf), err)
	}
	if got := get(); got != "HTTP/1.1 200<nil>" {
		t.Fatal(got)
	}
	leaf := certified(t, w.dir, "mine", "shop.example.org")
	w.write("compose.yaml", fmt.Sprintf(secured, plain, secure, port, ", certificates: [{cert: mine.pem, key: mine.key}]"))
	if out, err := w.run("up", "-d"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	serves := func(name string) string {
		c, err := tls.Dial("tcp", "127.0.0.1:"+secure, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	soon(t, "the door has the user's certificate", 20*time.Second, func() error {
		if got := serves("shop.example.org"); got != leaf.SerialNumber.String() {
			return errors.New(got)
		}
		return nil
	})
	if serves("www.example.org") == leaf.SerialNumber.String() {
		t.Error("it is shown for a name that it is not for")
	}
	if got := get(); got != "HTTP/1.1 200<nil>" {
		t.Errorf("the connection that was open: %s", got)
	}

	// What cannot be a certificate is refused before anything changes, and control holds no key that can be read.
	w.write("mine.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	if out, err := w.run("up", "-d"); err == nil || !strings.Contains(out, "compose.yaml:7:") || !strings.Contains(out, "mine.pem") {
		t.Errorf("a broken key: %v\n%s", err, out)
	}
	_ = filepath.WalkDir(filepath.Join(w.dir, ".servent", "control"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(path); strings.Contains(string(b), "PRIVATE KEY") {
				t.Errorf("%s has a private key in the clear", path)
			}
		}
		return nil
	})
}

// An authority that we did not write certifies names to who answers under them, by TLS and, where that fails, by HTTP.
func TestACME(t *testing.T) {
	t.Parallel()
	have(t, "pebble", "pebble-challtestsrv")
	for _, tt := range []struct{ name, works string }{{"by TLS", "tls-alpn-01"}, {"by HTTP", "http-01"}} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: t.TempDir()}
			plain, secure, port, at, management, dns, unused := free(t), free(t), free(t), free(t), free(t), free(t), free(t)
			w.write("public/index.html", "hello\n")
			certified(t, w.dir, "pebble", "pebble")
			config := map[string]any{"listenAddress": "127.0.0.1:" + at, "managementListenAddress": "127.0.0.1:" + management,
				"certificate": filepath.Join(w.dir, "pebble.pem"), "privateKey": filepath.Join(w.dir, "pebble.key"), "httpPort": json.Number(plain), "tlsPort": json.Number(secure)}
			if tt.works == "http-01" {
				config["tlsPort"] = json.Number(unused)
			}
			settings, err := json.Marshal(map[string]any{"pebble": config})
			if err != nil {
				t.Fatal(err)
			}
			w.write("pebble.json", string(settings))
			beside(t, nil, "pebble-challtestsrv", "-dns01", "127.0.0.1:"+dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:"+unused, "-defaultIPv6", "")
			said := beside(t, []string{"PEBBLE_VA_NOSLEEP=1"}, "pebble", "-config", filepath.Join(w.dir, "pebble.json"), "-dnsserver", "127.0.0.1:"+dns)
			text, err := os.ReadFile(filepath.Join(w.dir, "pebble.pem"))
			if err != nil {
				t.Fatal(err)
			}
			trust := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusting(string(text))}}}
			var roots string
			soon(t, "the authority answers", 20*time.Second, func() error {
				res, err := trust.Get("https://127.0.0.1:" + management + "/roots/0")
				if err != nil {
					return err
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				roots = string(b)
				return err
			})
			w.write("compose.yaml", fmt.Sprintf(secured, plain, secure, port, ", acme: {directory: 'https://127.0.0.1:"+at+"/dir', trust: pebble.pem, email: ops@example.org}"))
			w.up()
			shows := func(name string) error {
				c, err := tls.Dial("tcp", "127.0.0.1:"+secure, &tls.Config{ServerName: name, RootCAs: trusting(roots)})
				if err == nil {
					c.Close()
				}
				return err
			}
			for _, name := range []string{"shop.example.org", "www.example.org"} {
				soon(t, name, time.Minute, func() error {
					if err := shows(name); err != nil {
						return fmt.Errorf("%w\n%v\n%s", err, w.certificates().Certificates, said())
					}
					return nil
				})
			}
			if byHTTP := strings.Contains(said(), "validate w/ HTTP"); byHTTP != (tt.works == "http-01") {
				t.Errorf("pebble asked by HTTP: %v, want the proof %s\n%s", byHTTP, tt.works, said())
			}
			all, err := w.run("certificates")
			if err != nil || !strings.Contains(all, "acme/shop.example.org  Pebble") || !strings.Contains(all, "own ") {
				t.Errorf("certificates: %v\n%s", err, all)
			}
		})
	}
}
