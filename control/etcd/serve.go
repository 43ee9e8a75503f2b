package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"servent/control"
)

// Options of a server.
type Options struct {
	Dir  string // absolute folder of the data; made 0700
	Door string // where clients come in: the absolute path of a unix socket in a folder of mode 0700, or a loopback host:port
	Cert string // PEM files of a loopback door, which lets in only clients with a certificate of CA
	Key  string
	CA   string

	Name   string   // of this voter among the others; empty: it is alone, and nobody can join it
	Peers  string   // with a name: absolute folder of mode 0700 that holds the sockets of all voters, see [Child.Peers]
	Others []string // of a learner that starts for the first time: the names of all, as [Store.Enlist] told them

	Log   io.Writer         `json:"-"` // gets warnings and errors, one a line; nil discards
	Ready func(door string) `json:"-"` // called once, when clients are answered; door has the port that was chosen
}

// learnersMost may be there at a time.
const learnersMost = 64

// Quota is how many bytes control's data may have; then it takes no change.
const Quota = 512 << 20

// soleName is the name of a server that nobody can join.
const soleName = "servent"

// segment is the size of a write-ahead file; etcd allocates two at once. Its own 64 MB are for writes
// that control never sees.
const segment = 8 << 20

// Serve is one voter's etcd. It returns nil after a clean stop, when ctx ends. It must own its
// process: etcd may end the process when its disk fails, some of its settings are global, and with a name
// it works in the folder of its peers.
//
// No port is open to other voters: they are sockets in that folder, and whose they are is the business of
// who made them. Every write is on the disk of most voters before it is acknowledged.
func Serve(ctx context.Context, o Options) error {
	var stopping atomic.Bool
	cfg, err := o.config(zap.LevelEnablerFunc(func(l zapcore.Level) bool {
		return l >= zapcore.WarnLevel && !stopping.Load() // what breaks while it stops is no news
	}))
	if err != nil {
		return fmt.Errorf("serve etcd: %w", err)
	}
	var mu sync.Mutex
	var servers []*grpc.Server
	cfg.ServiceRegister = func(s *grpc.Server) {
		mu.Lock()
		defer mu.Unlock()
		servers = append(servers, s)
	}
	wal.SegmentSizeBytes = segment
	if o.Name != "" {
		if err := os.Chdir(o.Peers); err != nil {
			return fmt.Errorf("serve etcd: %w", err)
		}
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("serve etcd in %s: %w", o.Dir, err)
	}
	defer func() {
		stopping.Store(true)
		mu.Lock()
		cut := servers
		mu.Unlock()
		for _, s := range cut {
			s.Stop() // else Close waits 7 s for open watches to end by themselves
		}
		e.Close()
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("serve etcd in %s: %w", o.Dir, err)
	case <-e.Server.StopNotify():
		return fmt.Errorf("serve etcd in %s: stopped before it was ready", o.Dir)
	case <-e.Server.ReadyNotify():
	}
	if o.Ready != nil {
		o.Ready(e.Clients[0].Addr().String())
	}
	naming, named := context.WithCancel(ctx)
	defer named()
	if o.Name != "" {
		go rename(naming, e.Server, peerURL(o.Name)) // ends with this call, at the latest
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("serve etcd in %s: %w", o.Dir, err)
	case <-e.Server.StopNotify():
		return fmt.Errorf("serve etcd in %s: stopped by itself", o.Dir)
	}
}

// rename gives a voter that was alone until now, and had no address, the one by which others reach it.
func rename(ctx context.Context, s *etcdserver.EtcdServer, own url.URL) {
	for ctx.Err() == nil {
		m := s.Cluster().Member(s.MemberID())
		if m == nil || m.IsLearner || slices.Equal(m.PeerURLs, []string{own.String()}) {
			return
		}
		next := *m
		next.PeerURLs = []string{own.String()}
		if _, err := s.UpdateMember(ctx, next); err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// config sets what differs from etcd's own defaults.
func (o Options) config(loud zapcore.LevelEnabler) (*embed.Config, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("folder %q: want an absolute path", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	door, err := o.door(cfg)
	if err != nil {
		return nil, err
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{door}, []url.URL{door}
	cfg.ListenPeerUrls = nil
	cfg.EnableGRPCGateway = false

	cfg.Name, cfg.Dir = soleName, o.Dir
	if o.Name != "" {
		if !filepath.IsAbs(o.Peers) {
			return nil, fmt.Errorf("folder of voters %q: want an absolute path", o.Peers)
		}
		own := peerURL(o.Name)
		cfg.Name, cfg.MaxLearners = o.Name, learnersMost
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{own}, []url.URL{own}
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if len(o.Others) > 0 {
		var all []string
		for _, name := range o.Others {
			u := peerURL(name)
			all = append(all, name+"="+u.String())
		}
		cfg.InitialCluster, cfg.ClusterState = strings.Join(all, ","), embed.ClusterStateFlagExisting
	}
	cfg.TickMs, cfg.ElectionMs = 100, 1000
	cfg.StrictReconfigCheck = true
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = Quota
	cfg.MaxTxnOps, cfg.MaxRequestBytes = control.MaxOps, control.MaxTxn+control.MaxTxn/2
	cfg.WatchProgressNotifyInterval = time.Minute // a quiet watch resumes from a revision that is still kept

	// Memory: fewer entries wait in it for a snapshot and for followers, of which there are none.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 2000, 500
	cfg.MaxWalFiles, cfg.MaxSnapFiles = 2, 2

	// A laptop's disk is slow now and then; that is no news.
	cfg.WarningApplyDuration, cfg.WarningUnaryRequestDuration = 2*time.Second, 2*time.Second
	core := zapcore.NewNopCore()
	if o.Log != nil {
		enc := zap.NewProductionEncoderConfig()
		enc.EncodeTime = zapcore.ISO8601TimeEncoder
		core = calm{zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(o.Log)), loud)}
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	return cfg, nil
}

// calm leaves out what etcd warns of at every start and what is meant here: one door for all that come
// in, and tokens of a login that nobody uses; and what it says again every few seconds of a voter that is away.
type calm struct{ zapcore.Core }

func (c calm) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	switch e.Message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		"failed to reach the peer URL", "failed to get version", "prober detected unhealthy status":
		return to
	}
	return c.Core.Check(e, to)
}

func (c calm) With(fields []zapcore.Field) zapcore.Core { return calm{c.Core.With(fields)} }

func (o Options) door(cfg *embed.Config) (url.URL, error) {
	if filepath.IsAbs(o.Door) {
		return url.URL{Scheme: "unix", Path: o.Door}, os.MkdirAll(filepath.Dir(o.Door), 0o700)
	}
	at, err := netip.ParseAddrPort(o.Door)
	if err != nil || !at.Addr().IsLoopback() {
		return url.URL{}, fmt.Errorf("door %q: want an absolute path or a loopback address with its port", o.Door)
	}
	if o.Cert == "" || o.Key == "" || o.CA == "" {
		return url.URL{}, errors.New("a door on loopback needs its certificate, key and authority")
	}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: o.Cert, KeyFile: o.Key, TrustedCAFile: o.CA, ClientCertAuth: true}
	cfg.TlsMinVersion = "TLS1.3"
	return url.URL{Scheme: "https", Host: net.JoinHostPort(at.Addr().String(), fmt.Sprint(at.Port()))}, nil
}
