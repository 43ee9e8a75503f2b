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
)

// firstWord is how long an etcd of the user's may take until it answers for the first time.
const firstWord = 5 * time.Second

// openControl joins a server to control's engine, and any other node to its servers. What it opened is
// closed by the function that it returns, after all who use it have ended; run starts what goes on meanwhile.
func (n *Node) openControl(ctx context.Context, mux *http.ServeMux, run func(string, func(context.Context) error)) (closeControl func() error, err error) {
	if n.boot.Role != identity.Server {
		n.cluster = control.Cluster{Store: remote.New(remote.Options{Servers: n.servers.ids, Transport: n.http2, Seen: n.witnessed(), Clock: n.alarms.clock})}
		return func() error { n.http2.CloseIdleConnections(); return nil }, nil
	}
	if n.boot.Control == "" && !n.boot.Emulated {
		return n.openVoter(ctx, mux, run)
	}
	store, err := n.engine(ctx, run)
	if err != nil {
		return nil, err
	}
	n.cluster = control.Cluster{Store: store}
	mux.Handle(controlPath, n.answers(store))
	if n.boot.Control == "" { // else its snapshots, and its bounds, are its owner's
		n.sole = store
		mux.HandleFunc("GET "+SnapshotPath, n.snapshot(func() *etcd.Store { return store }))
	}
	return store.Close, nil
}

// ownEngine is the engine of this node, or nil.
func (n *Node) ownEngine() *etcd.Store {
	if n.voter != nil {
		return n.voter.local()
	}
	return n.sole
}

const controlPath = "/v1/control/"

// answers is what answers for control out of a store.
func (n *Node) answers(store control.Store) http.Handler {
	return remote.Handler(store, func(r *http.Request) (identity.ID, bool) {
		p, ok := link.PeerFrom(r.Context())
		return p.ID, ok
	}, remote.Bounds{Denied: func(r *http.Request, err error) {
		if p, ok := link.PeerFrom(r.Context()); ok {
			n.refused(p.ID, r.RemoteAddr, r.Method+" "+r.URL.Path, "", err)
		}
	}})
}

// SnapshotPath is where the operator takes a snapshot of what a server's own engine holds, for [etcd.Restore].
const SnapshotPath = "/v1/snapshot"

// snapshot answers the operator alone: it holds all that anybody may see.
func (n *Node) snapshot(engine func() *etcd.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p, ok := link.PeerFrom(r.Context()); !ok || p.ID.Role != identity.Operator {
			n.deny(w, r, "", errNoOperator)
			return
		}
		store := engine()
		if store == nil {
			http.Error(w, errAbsent.Error(), http.StatusServiceUnavailable)
			return
		}
		if err := store.Snapshot(r.Context(), w); err != nil {
			n.log.Warn("a snapshot is not whole", "err", err)
			panic(http.ErrAbortHandler) // whoever reads is to see that
		}
	}
}

var errNoOperator = errors.New("only the operator takes snapshots")

// openVoter joins a fleet's server to the others. The fleet's first machine waits for its engine when it is alone: nobody else could answer.
func (n *Node) openVoter(ctx context.Context, mux *http.ServeMux, run func(string, func(context.Context) error)) (closeControl func() error, err error) {
	if n.voter, err = newVoter(n); err != nil {
		return nil, err
	}
	n.cluster = control.Cluster{Store: agreed{n.voter.nearest}}
	toServers, toOthers := n.answers(agreed{n.voter.own}), n.answers(n.cluster.Store)
	mux.HandleFunc(controlPath, func(w http.ResponseWriter, r *http.Request) {
		p, ok := link.PeerFrom(r.Context())
		switch {
		case !ok || p.ID.Role != identity.Server:
			toOthers.ServeHTTP(w, r)
		case n.voter.agrees.Load():
			toServers.ServeHTTP(w, r)
		default: // before a watch has begun: the other server looks elsewhere, and at its own engine
			http.Error(w, errAbsent.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET "+SnapshotPath, n.snapshot(n.voter.local))
	run("control", n.voter.run)
	if len(n.servers.others()) == 0 {
		if err := n.voter.await(ctx); err != nil {
			return nil, err
		}
	}
	return n.voter.close, nil
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
