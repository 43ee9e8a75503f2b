package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"servent/control"
)

// StoreOptions of [Open].
type StoreOptions struct {
	Endpoints []string      // host:port, or unix:///path
	TLS       *tls.Config   // nil: a unix socket, or plain text on loopback
	Prefix    string        // of all keys; what other programs keep elsewhere is neither seen nor touched
	Timeout   time.Duration // of one call, outage included; 0 means 5s
}

// Store is a [control.Store] in an etcd.
type Store struct {
	client  *clientv3.Client
	leases  etcdserverpb.LeaseClient
	prefix  string
	timeout time.Duration

	born   time.Time
	heard  atomic.Int64 // when the server last answered, nanoseconds after born
	asking atomic.Bool  // one watch asks for all
}

var _ control.Store = (*Store)(nil)

const (
	// A server that is cut off without a word is noticed by the watches' own question after quiet + try.
	// (gRPC's keep-alive cannot ask more often than every 10 s.)
	quiet    = time.Second     // silence after which a watch asks
	try      = 2 * time.Second // one question, or one try of a read
	patience = 4 * time.Second // silence after which a watch fails
)

// Open returns a store. It connects by itself, and again whenever it must; a server that is not there
// shows in the first call. Close it.
func Open(o StoreOptions) (*Store, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  o.TLS,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: try,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: try,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("open etcd at %s: %w", strings.Join(o.Endpoints, ","), err)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	return &Store{client: client, leases: clientv3.RetryLeaseClient(client), prefix: o.Prefix, timeout: o.Timeout, born: time.Now()}, nil
}

// Close ends the connection, and with it all calls.
func (s *Store) Close() error { return s.client.Close() }

// Range implements [control.Store].
func (s *Store) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	var resp *clientv3.GetResponse
	err := s.repeat(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, s.prefix+prefix, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", prefix, err)
	}
	var kvs []control.KV
	for _, kv := range resp.Kvs {
		kvs = append(kvs, control.KV{
			Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value,
			Created: control.Rev(kv.CreateRevision), Modified: control.Rev(kv.ModRevision), Lease: control.LeaseID(kv.Lease),
		})
	}
	return kvs, control.Rev(resp.Header.Revision), nil
}

// Commit implements [control.Store]. It is tried once, when there is a connection.
func (s *Store) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	if err := txn.Check(); err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	var conds []clientv3.Cmp
	for _, c := range txn.Conds {
		if c.Created != 0 {
			conds = append(conds, clientv3.Compare(clientv3.CreateRevision(s.prefix+c.Key), "=", int64(c.Created)))
		} else {
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(s.prefix+c.Key), "=", int64(c.Modified)))
		}
	}
	var then, otherwise []clientv3.Op
	for _, op := range txn.Ops {
		if op.Delete {
			then = append(then, clientv3.OpDelete(s.prefix+op.Key))
		} else {
			then = append(then, clientv3.OpPut(s.prefix+op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		}
	}
	if len(then) == 0 { // etcd answers a transaction without a linearizable operation from where it asks
		then = []clientv3.Op{clientv3.OpGet(s.prefix + nothing)}
		otherwise = then
	}
	var resp *clientv3.TxnResponse
	err := s.once(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(conds...).Then(then...).Else(otherwise...).Commit()
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	return control.Rev(resp.Header.Revision), resp.Succeeded, nil
}

// nothing is a key that never exists: it is no text.
const nothing = "\xff"

// Grant implements [control.Store]. etcd counts in whole seconds. A grant whose answer is lost leaves a
// lease that ends by itself.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (control.LeaseID, error) {
	if err := control.CheckTTL(ttl); err != nil {
		return 0, err
	}
	var resp *clientv3.LeaseGrantResponse
	err := s.once(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("grant a lease: %w", err)
	}
	return control.LeaseID(resp.ID), nil
}

// Renew implements [control.Store].
func (s *Store) Renew(ctx context.Context, id control.LeaseID) error {
	err := s.repeat(ctx, func(ctx context.Context) error { return s.renew(ctx, id) })
	if err != nil {
		return fmt.Errorf("renew lease %x: %w", int64(id), err)
	}
	return nil
}

// renew is one try. The client's own KeepAliveOnce spins while there is no connection.
func (s *Store) renew(ctx context.Context, id control.LeaseID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.leases.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	resp, err := stream.Recv() // after io.EOF it has the reason
	if err == nil && resp.TTL <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	return err
}

// Revoke implements [control.Store].
func (s *Store) Revoke(ctx context.Context, id control.LeaseID) error {
	err := s.repeat(ctx, func(ctx context.Context) error {
		_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
		return err
	})
	if err != nil && !errors.Is(err, control.ErrLeaseLost) {
		return fmt.Errorf("revoke lease %x: %w", int64(id), err)
	}
	return nil
}

// Compact forgets what was before rev, in the whole etcd: a watch from an older revision gets
// [control.ErrCompacted]. The server of a [Child] does it by itself.
func (s *Store) Compact(ctx context.Context, rev control.Rev) error {
	err := s.once(ctx, func(ctx context.Context) error {
		_, err := s.client.Compact(ctx, int64(rev))
		return err
	})
	if err != nil {
		return fmt.Errorf("compact at %d: %w", rev, err)
	}
	return nil
}

// repeat calls a question that is safe to repeat until it is answered or its time is over.
func (s *Store) repeat(ctx context.Context, ask func(context.Context) error) error {
	all, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		one, cancel := context.WithTimeout(all, try)
		err := s.once(one, ask)
		late := one.Err() != nil
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !late && !errors.Is(err, control.ErrUnavailable):
			return err
		}
		select {
		case <-all.Done():
			if !errors.Is(err, control.ErrUnavailable) {
				err = fmt.Errorf("%w: %w", control.ErrUnavailable, err)
			}
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// now returns the present revision.
func (s *Store) now(ctx context.Context) (control.Rev, error) {
	var resp *clientv3.GetResponse
	err := s.repeat(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, s.prefix+nothing)
		return err
	})
	if err != nil {
		return 0, err
	}
	return control.Rev(resp.Header.Revision), nil
}

// once waits for a connection, so that no change is lost for want of one, and calls ask.
func (s *Store) once(ctx context.Context, ask func(context.Context) error) error {
	call, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn := s.client.ActiveConnection()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.Connect()
		if !conn.WaitForStateChange(call, state) {
			return s.unconnected(ctx)
		}
	}
	if err := ask(call); err != nil {
		return s.meaning(ctx, err)
	}
	s.answered()
	return nil
}

func (s *Store) answered() { s.heard.Store(int64(time.Since(s.born))) }

// unconnected says why there is no connection. A stream, unlike a call, fails at once with the reason.
func (s *Store) unconnected(ctx context.Context) error {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
	defer cancel()
	_, why := s.leases.LeaseKeepAlive(short)
	first := control.ErrUnavailable
	if ctx.Err() != nil {
		first = ctx.Err()
	}
	return fmt.Errorf("%w: no connection to %s: %v", first, strings.Join(s.client.Endpoints(), ","), why)
}

// meaning gives an error of etcd's the words of control. ctx is the caller's.
func (s *Store) meaning(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, m := range []struct{ etcd, control error }{
		{rpctypes.ErrLeaseNotFound, control.ErrLeaseLost},
		{rpctypes.ErrCompacted, control.ErrCompacted},
		{rpctypes.ErrRequestTooLarge, control.ErrTooLarge},
		{rpctypes.ErrTooManyOps, control.ErrTooLarge},
		{rpctypes.ErrUserEmpty, control.ErrDenied},
	} {
		if errors.Is(rpctypes.Error(err), m.etcd) {
			return fmt.Errorf("%w (etcd: %w)", m.control, err)
		}
	}
	if errors.Is(rpctypes.Error(err), rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)) {
		return fmt.Errorf("%w: %w", control.ErrUnavailable, ErrNoVoter)
	}
	switch code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w (etcd: %w)", control.ErrDenied, err)
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted, codes.Unimplemented:
		return fmt.Errorf("etcd: %w", err)
	}
	return fmt.Errorf("%w (etcd: %w)", control.ErrUnavailable, err)
}

func code(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}
