package etcd

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURL(t *testing.T) {
	dir := t.TempDir()
	var o Options
	if _, err := makeKeys(dir, &o); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(dir, "absent")
	for _, tt := range []struct {
		text      string
		endpoints []string
		prefix    string
		secure    bool
		err       string
	}{
		{text: "etcd://127.0.0.1", endpoints: []string{"127.0.0.1:2379"}, prefix: "/servent/"},
		{text: "etcd://localhost:4001/", endpoints: []string{"localhost:4001"}, prefix: "/servent/"},
		{text: "etcd://[::1],[::1]:5", endpoints: []string{"[::1]:2379", "[::1]:5"}, prefix: "/servent/"},
		{text: "etcd://a.example,b.example:99?prefix=/x", endpoints: []string{"a.example:2379", "b.example:99"}, prefix: "/x", secure: true},
		{text: "etcd://127.0.0.1,10.0.0.1", endpoints: []string{"127.0.0.1:2379", "10.0.0.1:2379"}, prefix: "/servent/", secure: true},
		{text: "etcd://127.0.0.1?ca=" + o.CA + "&cert=" + o.Cert + "&key=" + o.Key, endpoints: []string{"127.0.0.1:2379"}, prefix: "/servent/", secure: true},
		{text: "http://127.0.0.1", err: "want etcd://HOST:PORT"},
		{text: "etcd://", err: `host "": want HOST:PORT`},
		{text: "etcd://a,,b", err: `host "": want HOST:PORT`},
		{text: "etcd://a:b:c", err: "want HOST:PORT"},
		{text: "etcd://a:0", err: "want 1…65535"},
		{text: "etcd://a:65536", err: "want 1…65535"},
		{text: "etcd://user@a", err: "want HOST:PORT"},
		{text: "etcd://a/path", err: "want HOST:PORT"},
		{text: "etcd://a?tls=no", err: "tls: want prefix, ca, cert or key"},
		{text: "etcd://a?prefix=1&prefix=2", err: "prefix: want one value"},
		{text: "etcd://a?ca=" + absent, err: "no such file"},
		{text: "etcd://a?ca=" + o.Key, err: "holds no certificate"},
		{text: "etcd://a?cert=" + o.Cert, err: "want both or none"},
		{text: "etcd://a?cert=" + o.CA + "&key=" + o.Key, err: "does not match"},
		{text: "etcd://a?%zz", err: "invalid URL escape"},
	} {
		got, err := ParseURL(tt.text)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseURL(%q) = %v, want an error with %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParseURL(%q) = %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.endpoints, got.Endpoints); diff != "" || got.Prefix != tt.prefix || (got.TLS != nil) != tt.secure {
			t.Errorf("ParseURL(%q) = prefix %q, TLS %v, want %q, %v; endpoints: %s", tt.text, got.Prefix, got.TLS != nil, tt.prefix, tt.secure, diff)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"etcd://a:1,[::1]:2?prefix=/x", "etcd://127.0.0.1", "etcd://?", "etcd://a%20b", "etcd://[fe80::1%25eth0]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, query, _ := strings.Cut(text, "?"); query != "" && query != "prefix=/x" {
			t.Skip("may name files")
		}
		o, err := ParseURL(text)
		if err != nil {
			return
		}
		local := true
		for _, end := range o.Endpoints {
			host, _, err := net.SplitHostPort(end)
			if err != nil || host == "" {
				t.Errorf("ParseURL(%q) has endpoint %q: %v", text, end, err)
			}
			ip := net.ParseIP(host)
			local = local && (host == "localhost" || ip != nil && ip.IsLoopback())
		}
		if len(o.Endpoints) == 0 || !local && o.TLS == nil {
			t.Errorf("ParseURL(%q) = %v without TLS", text, o.Endpoints)
		}
	})
}
