package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"servent/control"
	"servent/control/etcd"
	"servent/control/remote"
	"servent/identity"
	"servent/link"
	"servent/system"
)

// voter is a server's part in agreeing: its engine, and the ways to those of the other servers, which go over the link. A server that joins is a
// learner first; the voter that leads gives learners their vote and takes it away.
type voter struct {
	node *Node
	exe  string
	dir  string
	away *remote.Store // what the other servers have
	up   chan struct{} // closed when the engine has answered for the first time

	even time.Time // since when there are too many voters; of look's goroutine alone

	agrees atomic.Bool  // it has a vote, and somebody leads
	epoch  atomic.Int64 // of what the engine agreed on, see [control.Rev.Epoch]; set before agrees

	mu     sync.Mutex // guards what follows
	child  *etcd.Child
	engine *etcd.Store                   // nil: it has not answered yet
	ways   map[string]context.CancelFunc // to other voters, by name
}

// VotersPath is where servers and the operator ask a server who of the servers votes; the answer is a list of [Seat].
const VotersPath = "/v1/voters"

// Seat is a server's part in agreeing.
type Seat struct {
	Node    system.NodeID `json:"node"`
	Learner bool          `json:"learner,omitempty"`
	Leads   bool          `json:"leads,omitempty"`
}

const (
	enlistPath  = VotersPath + "/enlist"
	epochHeader = "Servent-Epoch"        // of who answers at VotersPath
	standEvery  = 500 * time.Millisecond // at the own engine
	tendEvery   = time.Second            // that the voter which leads looks after the others
	strangeFor  = 5 * time.Second        // without a leader, after which a server asks whether it is still one of the voters
	meetEvery   = 5 * time.Second        // that a server asks each other one for its epoch
	enlistEvery = time.Second
	voterCall   = 5 * time.Second
	reachWithin = 2 * time.Second // that a learner has to answer before it gets its vote
)

func newVoter(n *Node) (*voter, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(n.boot.ControlDir)
	if err != nil {
		return nil, err
	}
	return &voter{node: n, exe: exe, dir: dir, up: make(chan struct{}), ways: map[string]context.CancelFunc{},
		away: remote.New(remote.Options{Servers: n.servers.others, Transport: n.http2, Seen: n.witnessed(), Clock: n.alarms.clock})}, nil
}

// data is the folder of what the engine agreed on.
func (v *voter) data() string { return filepath.Join(v.dir, "etcd") }

// run keeps the engine running until ctx ends. When the others have put it out it begins anew, as a learner without memory.
func (v *voter) run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		var names []string
		if _, err := os.Stat(filepath.Join(v.data(), "member", "wal")); err != nil && (v.node.boot.Joined || len(v.node.servers.others()) > 0) {
			if names, err = v.enlist(ctx); err != nil {
				if !told && !errors.Is(err, etcd.ErrNotReady) && ctx.Err() == nil {
					v.node.log.Warn("no server takes this one among the voters yet", "err", err)
					told = true
				}
				select {
				case <-ctx.Done():
				case <-time.After(enlistEvery):
				}
				continue
			}
		}
		told = false
		if err := v.life(ctx, names); err != nil {
			return err
		}
	}
	return nil
}

var (
	// errOut: the other servers do not count this one among them.
	errOut = errors.New("the others have put this server out of the voters")
	// errEarlier: what this one agreed on is no longer what counts.
	errEarlier = errors.New("control began anew from a backup, without this server")
)

// life is the engine from its start until ctx ends (nil), it cannot start (an error), or it was put out (nil, its memory is gone).
func (v *voter) life(ctx context.Context, names []string) error {
	living, end := context.WithCancelCause(ctx)
	defer end(nil)
	child := etcd.NewChild(etcd.ChildOptions{Argv: []string{v.exe, v.node.opt.EtcdVerb}, Dir: v.dir, Name: string(v.node.boot.ID), Others: names, Log: os.Stderr,
		Died: func(err error) { v.node.log.Warn("control's engine died; it starts again", "err", err) }})
	if err := child.Prepare(); err != nil {
		return err
	}
	v.mu.Lock()
	v.child = child
	v.mu.Unlock()
	names = v.known(names)
	v.lay(living, names) // a learner asks the others before it begins
	var all sync.WaitGroup
	all.Go(func() {
		if err := child.Run(living); err != nil {
			end(err)
		}
	})
	all.Go(func() { v.open(living, child) })
	all.Go(func() { v.look(living, names, end) })
	all.Go(func() { v.meet(living, end) })
	<-living.Done()
	why := context.Cause(living)
	all.Wait()
	v.agrees.Store(false)
	v.cut(nil)
	v.mu.Lock()
	engine := v.engine
	v.engine = nil
	v.mu.Unlock()
	if engine != nil {
		_ = engine.Close() // a client's connections
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(why, errOut), errors.Is(why, errEarlier), v.unseated(ctx): // an engine that was put out may not even start
		v.node.log.Warn("this server begins anew as a learner", "err", why)
		return os.RemoveAll(v.data())
	case len(v.node.servers.others()) > 0: // they answer for control meanwhile
		v.node.log.Warn("control's engine does not start; it is tried again", "err", why)
		select {
		case <-ctx.Done():
		case <-time.After(strangeFor):
		}
		return nil
	}
	return why
}

func (v *voter) open(ctx context.Context, child *etcd.Child) {
	store, err := child.Open(ctx, "/servent/"+v.node.keep.ID().Cluster+"/")
	if err != nil { // ctx has ended
		return
	}
	v.stand(ctx, store) // before anybody asks the other servers instead
	v.mu.Lock()
	defer v.mu.Unlock()
	v.engine = store
	select {
	case <-v.up:
	default:
		close(v.up)
	}
}

// await returns when the engine has answered for the first time.
func (v *voter) await(ctx context.Context) error {
	select {
	case <-v.up:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (v *voter) close() error {
	v.node.http2.CloseIdleConnections()
	return nil
}

func (v *voter) local() *etcd.Store {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.engine
}

// look watches the engine's standing among the others until ctx ends, and looks after the others while it leads.
func (v *voter) look(ctx context.Context, names []string, end context.CancelCauseFunc) {
	tick := time.NewTicker(standEvery)
	defer tick.Stop()
	led, tended := time.Now(), time.Time{}
	for {
		names = v.known(names)
		v.cut(names)
		v.lay(ctx, names)
		var is etcd.Standing
		err := errAbsent
		if engine := v.local(); engine != nil {
			is, err = v.stand(ctx, engine)
			if err == nil && is.Leads && time.Since(tended) > tendEvery {
				tended = time.Now()
				if err := v.tend(ctx, engine); err != nil && ctx.Err() == nil && !errors.Is(err, etcd.ErrNotReady) {
					v.node.log.Warn("look after the voters", "err", err)
				}
			}
		}
		if err == nil && is.Led {
			led = time.Now()
		} else if time.Since(led) > strangeFor {
			led = time.Now() // not asked again for a while
			if v.unseated(ctx) {
				end(errOut)
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// unseated says that the other servers agree, without this one.
func (v *voter) unseated(ctx context.Context) bool {
	all, err := v.ask(ctx)
	return err == nil && !slices.ContainsFunc(all, func(s Seat) bool { return s.Node == v.node.boot.ID })
}

// stand asks the engine for its standing, and takes it down.
func (v *voter) stand(ctx context.Context, engine *etcd.Store) (etcd.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	is, err := engine.Standing(ctx)
	if err == nil {
		v.epoch.Store(is.Rev.Epoch())
	}
	v.agrees.Store(err == nil && is.Led && !is.Learner)
	return is, err
}

// meet ends with errEarlier once another server agrees on what a later epoch began with: then these two are of two fleets, and the one that was begun later, by the
// word of who restored it, is meant.
func (v *voter) meet(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !v.agrees.Load() { // what a learner has is on its way, and who is alone asks in any case
			continue
		}
		for _, id := range v.node.servers.others() {
			epoch, err := v.epochOf(ctx, id)
			if err == nil && epoch > v.epoch.Load() {
				v.node.log.Warn("two controls meet", "node", id, "epoch", epoch, "own", v.epoch.Load())
				end(errEarlier)
				return
			}
		}
	}
}

// epochOf asks a server that agrees with others, or is alone.
func (v *voter) epochOf(ctx context.Context, id system.NodeID) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	resp, err := v.send(ctx, id, http.MethodGet, VotersPath)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errAbsent
	}
	return strconv.ParseInt(resp.Header.Get(epochHeader), 10, 64)
}

// known adds to names the servers that this node knows.
func (v *voter) known(names []string) []string {
	for _, id := range v.node.servers.others() {
		names = append(names, string(id))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// tend makes one change to the voters, if one is due: who is put out of the fleet is dismissed, and of n servers the greatest odd number votes.
// With an even number one more must be heard for a majority, and no more may be lost.
func (v *voter) tend(ctx context.Context, engine *etcd.Store) error {
	ctx, cancel := context.WithTimeout(ctx, 2*voterCall)
	defer cancel()
	all, err := engine.Voters(ctx)
	if err != nil {
		return err
	}
	view := v.node.view.Load()
	voting := 0
	for _, o := range all {
		if !o.Leads && isOut(view, system.NodeID(o.Name)) {
			v.node.log.Info("dismissed from the voters: it is no longer of the fleet", "node", o.Name)
			return engine.Dismiss(ctx, o.ID)
		}
		if !o.Learner {
			voting++
		}
	}
	goal := len(all) - 1 + len(all)%2
	if voting <= goal {
		v.even = time.Time{}
	}
	switch {
	case voting < goal:
		return v.promote(ctx, engine, all, goal-voting)
	case voting == goal:
	case v.even.IsZero():
		v.even = time.Now()
	case time.Since(v.even) > strangeFor: // a server that begins anew leaves its seat for a moment
		v.even = time.Time{}
		for _, o := range slices.Backward(all) {
			if !o.Leads && !o.Learner {
				v.node.log.Info("dismissed from the voters, to come back as a learner: their number is to be odd", "node", o.Name)
				return engine.Dismiss(ctx, o.ID)
			}
		}
	}
	return nil
}

// isOut says whether a node was put out of the fleet and has not joined again.
func isOut(view *control.View, node system.NodeID) bool {
	return slices.ContainsFunc(view.Expelled, func(e system.Expelled) bool { return e.Node == node }) &&
		!slices.ContainsFunc(view.Members, func(m system.Member) bool { return m.Node == node })
}

// promote gives one of as many learners its vote as are to get one, if all of them can be reached: what is even is to pass soon.
func (v *voter) promote(ctx context.Context, engine *etcd.Store, all []etcd.Voter, count int) error {
	var ready []etcd.Voter
	for _, o := range all {
		if !o.Learner || o.Name == "" {
			continue
		}
		reach, cancel := context.WithTimeout(ctx, reachWithin)
		conn, err := v.node.link.Dial(reach, system.NodeID(o.Name), link.Voter)
		cancel()
		if err == nil {
			conn.Close()
			ready = append(ready, o)
		}
	}
	if len(ready) < count {
		return nil
	}
	err := engine.Promote(ctx, ready[0].ID)
	if err == nil {
		v.node.log.Info("a learner has its vote", "node", ready[0].Name)
	}
	return err
}

// lay opens the sockets of other voters at which the own engine reaches them.
func (v *voter) lay(ctx context.Context, names []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range names {
		if v.ways[name] != nil || name == string(v.node.boot.ID) {
			continue
		}
		path := v.child.Peer(name)
		_ = os.Remove(path)
		ln, err := net.Listen("unix", path)
		if err != nil {
			v.node.log.Warn("open the way to another voter", "node", name, "err", err)
			continue
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false) // by then it may be the next life's
		way, cancel := context.WithCancel(ctx)
		v.ways[name] = cancel
		context.AfterFunc(way, func() { ln.Close() })
		go v.pass(way, ln, system.NodeID(name)) // ends with way
	}
}

// cut closes the ways to all voters but these.
func (v *voter) cut(keep []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, cancel := range v.ways {
		if !slices.Contains(keep, name) {
			cancel()
			delete(v.ways, name)
		}
	}
}

// pass joins what the own engine says to another voter with that one's machine.
func (v *voter) pass(ctx context.Context, ln net.Listener, to system.NodeID) {
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			dial, cancel := context.WithTimeout(ctx, voterCall)
			defer cancel()
			far, err := v.node.link.Dial(dial, to, link.Voter)
			if err != nil {
				near.Close()
				return
			}
			join(ctx, near, far)
		}()
	}
}

// admit joins the connections of other servers' engines with the own one until ctx ends.
func (v *voter) admit(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		c := conn.(link.Conn)
		if c.Peer().Role != identity.Server {
			v.node.refused(c.Peer().ID, c.RemoteAddr().String(), string(link.Voter), "", errNoServer)
			c.Close()
			continue
		}
		v.mu.Lock()
		path := ""
		if v.child != nil {
			path = v.child.Peer(string(v.node.boot.ID))
		}
		v.mu.Unlock()
		near, err := net.DialTimeout("unix", path, reachWithin)
		if err != nil {
			c.Close()
			continue
		}
		go join(ctx, near, c) // ends with the connection
	}
}

var errNoServer = errors.New("only servers are voters")

// join passes bytes between two connections until one ends or ctx does, and closes both.
func join(ctx context.Context, a, b net.Conn) {
	shut := sync.OnceFunc(func() {
		a.Close()
		b.Close()
	})
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b) // an end is an end
		shut()
	}()
	_, _ = io.Copy(b, a)
	shut()
	<-done
}

// handle answers other servers, and the operator who asks who votes.
func (v *voter) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET "+VotersPath, func(w http.ResponseWriter, r *http.Request) {
		v.answer(w, r, identity.Operator, func(ctx context.Context, engine *etcd.Store, _ identity.ID) (any, error) {
			return seats(ctx, engine)
		})
	})
	mux.HandleFunc("POST "+enlistPath, func(w http.ResponseWriter, r *http.Request) {
		v.answer(w, r, "", func(ctx context.Context, engine *etcd.Store, who identity.ID) (any, error) {
			return engine.Enlist(ctx, string(who.Node))
		})
	})
}

func (v *voter) answer(w http.ResponseWriter, r *http.Request, also identity.Role, call func(context.Context, *etcd.Store, identity.ID) (any, error)) {
	peer, ok := link.PeerFrom(r.Context())
	if !ok || peer.ID.Role != identity.Server && peer.ID.Role != also {
		v.node.deny(w, r, "", errNoServer)
		return
	}
	engine := v.local()
	if engine == nil || !v.agrees.Load() {
		http.Error(w, errAbsent.Error(), http.StatusServiceUnavailable)
		return
	}
	a, err := call(r.Context(), engine, peer.ID)
	if err != nil {
		status := http.StatusServiceUnavailable
		if errors.Is(err, etcd.ErrNotReady) {
			status = http.StatusConflict
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(epochHeader, strconv.FormatInt(v.epoch.Load(), 10))
	_ = json.NewEncoder(w).Encode(a) // the caller is gone
}

func (v *voter) enlist(ctx context.Context) (names []string, err error) {
	return names, v.call(ctx, http.MethodPost, enlistPath, &names)
}

func seats(ctx context.Context, engine *etcd.Store) (all []Seat, err error) {
	voters, err := engine.Voters(ctx)
	for _, o := range voters {
		all = append(all, Seat{Node: system.NodeID(o.Name), Learner: o.Learner, Leads: o.Leads})
	}
	return all, err
}

func (v *voter) ask(ctx context.Context) (all []Seat, err error) {
	return all, v.call(ctx, http.MethodGet, VotersPath, &all)
}

// call asks the other servers, one after the other, until one answers.
func (v *voter) call(ctx context.Context, method, path string, into any) error {
	var errs []error
	for _, id := range v.node.servers.others() {
		err := v.callOne(ctx, id, method, path, into)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("ask %s: %w", id, err))
	}
	if len(errs) == 0 {
		return errAbsent
	}
	return errors.Join(errs...)
}

func (v *voter) callOne(ctx context.Context, id system.NodeID, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*voterCall)
	defer cancel()
	resp, err := v.send(ctx, id, method, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // the status says enough
		err := fmt.Errorf("%s: %s", resp.Status, text)
		if resp.StatusCode == http.StatusConflict {
			err = fmt.Errorf("%w: %s", etcd.ErrNotReady, text)
		}
		return err
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into)
}

// send makes one call of another server, and hears its clock. The caller closes the answer's body.
func (v *voter) send(ctx context.Context, id system.NodeID, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+string(id)+path, nil)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	resp, err := v.node.http2.RoundTrip(req)
	if ahead, ok := remote.Ahead(resp, began, time.Now()); ok {
		v.node.alarms.clock(id, ahead)
	}
	return resp, err
}
