package remote_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"servent/control"
	"servent/control/controltest"
	"servent/control/etcd"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

// TestMain makes the test's program an etcd when its first argument says so.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "child" {
		flag.Parse()
		flag.Set("test.parallel", "16") // the tests wait more than they work
		os.Exit(m.Run())
	}
	if err := etcd.ServeChild(context.Background(), os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fleet is a cluster's authority and the addresses of its servers.
type fleet struct {
	t         *testing.T
	authority *identity.Authority
	addresses map[system.NodeID]string // written before anyone asks
}

func newFleet(t *testing.T) *fleet {
	a, err := identity.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, authority: a, addresses: map[system.NodeID]string{}}
}

func (f *fleet) keeper(role identity.Role, node system.NodeID) *identity.Keeper {
	f.t.Helper()
	c, err := f.authority.Issue(identity.ID{Cluster: "test", Role: role, Node: node}, nil, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	k, err := identity.NewKeeper(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

// serve puts a handler before a store at a server; the test ends it.
func (f *fleet) serve(node system.NodeID, store control.Store, b remote.Bounds) *http.Server {
	f.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.addresses[node] = ln.Addr().String()
	srv := &http.Server{Handler: remote.Handler(store, who, b)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(tls.NewListener(ln, f.keeper(identity.Server, node).Server("http/1.1")))
	}()
	f.t.Cleanup(func() { srv.Close(); <-done })
	return srv
}

func who(r *http.Request) (identity.ID, bool) {
	if r.TLS == nil {
		return identity.ID{}, false
	}
	id, err := identity.PeerID(*r.TLS)
	return id, err == nil
}

// transport is what the link gives a node: connections by name, mutual TLS.
func (f *fleet) transport(role identity.Role, node system.NodeID) *http.Transport {
	keeper := f.keeper(role, node)
	t := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		name, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		raw, err := d.DialContext(ctx, "tcp", f.addresses[system.NodeID(name)])
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, keeper.Client(identity.Is(system.NodeID(name)), "http/1.1"))
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}}
	f.t.Cleanup(t.CloseIdleConnections)
	return t
}

// client is a store of one caller, at all servers in the order of their names.
func (f *fleet) client(role identity.Role, node system.NodeID) *remote.Store {
	return remote.New(remote.Options{Servers: f.servers, Transport: f.transport(role, node)})
}

func (f *fleet) servers() []system.NodeID {
	var names []system.NodeID
	for name := range f.addresses {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestSuite: what stands behind the handler shows no difference.
func TestSuite(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		controltest.Run(t, func(t *testing.T) (control.Store, controltest.Features) {
			store, f := memory.New(), newFleet(t)
			f.serve("s1", store, remote.Bounds{})
			f.serve("s2", store, remote.Bounds{})
			return f.client(identity.Server, "s3"), controltest.Features{Compact: store.Compact}
		})
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := etcd.NewChild(etcd.ChildOptions{Argv: []string{program, "child"}, Dir: t.TempDir()})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- child.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		var prefixes atomic.Int64
		controltest.Run(t, func(t *testing.T) (control.Store, controltest.Features) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			store, err := child.Open(ctx, fmt.Sprintf("/servent/test-%d/", prefixes.Add(1)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			f := newFleet(t)
			f.serve("s1", store, remote.Bounds{})
			return f.client(identity.Server, "s2"), controltest.Features{Compact: store.Compact}
		})
	})
}

// put makes one key, past all rights.
func put(t *testing.T, s control.Store, key, value string) control.Rev {
	t.Helper()
	rev, ok, err := s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: key, Value: []byte(value)}}})
	if err != nil || !ok {
		t.Fatalf("Commit = %v, %v, want true", ok, err)
	}
	return rev
}
