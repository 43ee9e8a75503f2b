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
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
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

	Log   io.Writer         `json:"-"` // gets warnings and errors, one a line; nil discards
	Ready func(door string) `json:"-"` // called once, when clients are answered; door has the port that was chosen
}

// segment is the size of a write-ahead file; etcd allocates two at once. Its own 64 MB are for writes
// that control never sees.
const segment = 8 << 20

// Serve is an etcd of one voter. It returns nil after a clean stop, when ctx ends. It must own its
// process: etcd may end the process when its disk fails, and some of its settings are global.
//
// No port is open to other voters, since there are none. Every write is on the disk before it is
// acknowledged.
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
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("serve etcd in %s: %w", o.Dir, err)
	case <-e.Server.StopNotify():
		return fmt.Errorf("serve etcd in %s: stopped by itself", o.Dir)
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

	cfg.Name, cfg.Dir = "servent", o.Dir
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 100, 1000
	cfg.StrictReconfigCheck = true
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = 512 << 20
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
// in, and tokens of a login that nobody uses.
type calm struct{ zapcore.Core }

func (c calm) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	switch e.Message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed":
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
