package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"servent/control"
	"servent/control/etcd"
	"servent/control/remote"
	"servent/identity"
	"servent/link"
	"servent/system"
)

// firstWord is how long an etcd of the user's may take until it answers for the first time.
const firstWord = 5 * time.Second

// openControl joins a server to control's engine, and any other node to its servers. What it opened is
// closed by the function that it returns, after all who use it have ended; run starts what goes on meanwhile.
func (n *Node) openControl(ctx context.Context, mux *http.ServeMux, run func(string, func(context.Context) error)) (closeControl func() error, err error) {
	if n.boot.Role != identity.Server {
		var ids []system.NodeID
		for _, s := range n.boot.Servers {
			ids = append(ids, s.Node)
		}
		n.cluster = control.Cluster{Store: remote.New(remote.Options{Servers: func() []system.NodeID { return ids }, Transport: n.http2})}
		return func() error { n.http2.CloseIdleConnections(); return nil }, nil
	}
	store, err := n.engine(ctx, run)
	if err != nil {
		return nil, err
	}
	n.cluster = control.Cluster{Store: store}
	mux.Handle("/v1/control/", remote.Handler(store, func(r *http.Request) (identity.ID, bool) {
		p, ok := link.PeerFrom(r.Context())
		return p.ID, ok
	}, remote.Bounds{Denied: func(r *http.Request, err error) {
		if p, ok := link.PeerFrom(r.Context()); ok {
			n.refused(p.ID, r.RemoteAddr, r.Method+" "+r.URL.Path, "", err)
		}
	}}))
	return store.Close, nil
}

// engine is the etcd of the user's, or one of our own in a child process. It answers before it is returned.
func (n *Node) engine(ctx context.Context, run func(string, func(context.Context) error)) (*etcd.Store, error) {
	if n.boot.Control != "" {
		return n.foreign(ctx)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(n.boot.ControlDir)
	if err != nil {
		return nil, err
	}
	child := etcd.NewChild(etcd.ChildOptions{Argv: []string{exe, n.opt.EtcdVerb}, Dir: dir, Log: os.Stderr,
		Died: func(err error) { n.log.Warn("control's engine died; it starts again", "err", err) }})
	run("control", child.Run)
	store, err := child.Open(ctx, "/servent/"+n.keep.ID().Cluster+"/")
	if err != nil && ctx.Err() != nil { // it ended, and says why itself; or the node is asked to end
		return nil, context.Cause(ctx)
	}
	return store, err
}

func (n *Node) foreign(ctx context.Context) (*etcd.Store, error) {
	o, err := etcd.ParseURL(n.boot.Control)
	if err != nil {
		return nil, err
	}
	o.Prefix = strings.TrimSuffix(o.Prefix, "/") + "/" + n.keep.ID().Cluster + "/"
	store, err := etcd.Open(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstWord)
	defer cancel()
	if _, _, err := store.Range(ctx, control.Seat); err != nil {
		return nil, errors.Join(fmt.Errorf("control at %s does not answer: %w", n.boot.Control, err), store.Close())
	}
	return store, nil
}
