package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/fleet"
	"servent/identity"
	"servent/node"
	"servent/system"
)

// JoinOptions say how a machine joins.
type JoinOptions struct {
	Folder  Folder
	Address string // of the fleet's door
	Token   identity.Token
	As      string // this machine's name in the fleet; empty: its own
	Host    string // address by which the others know it; empty: that towards the door
	Site    string
	Labels  map[string]string
}

// member is what a machine keeps of its fleet.
type member struct {
	Door       string              `json:"door"` // host:port
	Host       string              `json:"host"`
	Site       system.Site         `json:"site,omitempty"`
	Labels     map[string]string   `json:"labels,omitempty"`
	Credential identity.Credential `json:"credential"`
	Servers    []fleet.Server      `json:"servers"`
	Sessions   identity.Secret     `json:"sessions"`
	Authority  []byte              `json:"authority,omitempty"` // of a server, which holds a door, too
	PortBase   int                 `json:"port_base,omitempty"`
}

const (
	memberName  = "member.json"
	memberSlice = 2048             // ports of a member
	askEvery    = 15 * time.Second // looks at the clock, and at the fleet's door when it is time
	leftEvery   = time.Second      // looks whether somebody here has left
	refreshed   = 10 * time.Minute // between two calls at the fleet's door
)

var errMember = errors.New("this folder's machine has joined a fleet already")

var errNoFleet = errors.New("this folder's machine is in no fleet")

// member reads what is kept. A certificate that has ended cannot be read: its machine was away for too long.
func (f Folder) member() (m member, err error) {
	err = f.read(memberName, &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, &system.Hint{Err: errNoFleet, Next: "servent join ADDRESS TOKEN"}
	case err != nil:
		return m, &system.Hint{Err: err, Next: "servent leave --force, then join anew: servent join ADDRESS TOKEN"}
	}
	return m, nil
}

// Joined says whether the folder's machine is of a fleet.
func (f Folder) Joined() bool {
	_, err := os.Stat(f.path(memberName))
	return err == nil
}

// Own says why the folder has no system of its own that the verb could be about: its machine is a member of another's.
func (f Folder) Own(verb string) error {
	if !f.Joined() {
		return nil
	}
	at := "its first machine"
	if m, err := f.member(); err == nil {
		at = m.first()
	}
	return &system.Hint{Err: fmt.Errorf("this folder's machine is a node of a fleet; %s is said on %s", verb, at), Next: "there: servent " + verb}
}

// first is the fleet's first machine, in words.
func (m *member) first() string {
	if len(m.Servers) == 0 {
		return "the fleet's first machine, at " + m.command()
	}
	return fmt.Sprintf("the fleet's first machine, %s at %s", m.Servers[0].Node, m.command())
}

// doors are those of the fleet, the one that the machine joined by first.
func (m *member) doors() []string {
	all := []string{m.Door}
	for _, s := range m.Servers {
		if s.Door != "" && !slices.Contains(all, s.Door) {
			all = append(all, s.Door)
		}
	}
	return all
}

// command is the door of the first machine, which alone takes commands.
func (m *member) command() string {
	if len(m.Servers) > 0 && m.Servers[0].Door != "" {
		return m.Servers[0].Door
	}
	return m.Door
}

// afar is a client of the fleet that the folder's machine is of.
func (f Folder) afar() (*admin.Client, error) {
	m, way, err := f.way()
	if err != nil {
		return nil, err
	}
	rt, base := way.Commands()
	return admin.Over(rt, base, func(err error) error {
		if system.Next(err) != "" { // it says what to do itself
			return fmt.Errorf("ask %s: %w", m.first(), err)
		}
		return &system.Hint{Err: fmt.Errorf("%s does not answer: %w", m.first(), err), Next: "look whether it runs, there: servent ps; what runs here goes on"}
	}), nil
}

// Self is how the folder's machine is named where it is written down who did what.
func (f Folder) Self() string {
	if m, err := f.member(); err == nil {
		return m.Credential.ID.String()
	}
	return admin.HereName
}

func (f Folder) way() (m member, way *fleet.Fleet, err error) {
	if m, err = f.member(); err == nil {
		way, err = fleet.Reach(m.command(), m.Credential)
	}
	return m, way, err
}

// Send gives the fleet that the folder's machine is of the bytes that a system is made of.
func (f Folder) Send(ctx context.Context, sys *system.System) error {
	_, way, err := f.way()
	if err != nil {
		return err
	}
	store := &blob.Store{Dir: f.Blobs()}
	sent := map[system.Digest]bool{}
	send := func(d system.Digest) error {
		if sent[d] || !store.Has(d) { // an image's digest is its registry's
			return nil
		}
		sent[d] = true
		return way.Send(ctx, store, d)
	}
	return named(sys, send)
}

// Join makes this machine a member, and writes down what it must keep. It runs nothing.
func Join(ctx context.Context, o JoinOptions) (identity.ID, error) {
	f := o.Folder
	if _, err := os.Stat(f.path(keptName)); err == nil {
		return identity.ID{}, &system.Hint{Err: errors.New("this folder has a system of its own"), Next: "join from another folder: mkdir fleet && cd fleet"}
	}
	if f.Joined() {
		return identity.ID{}, &system.Hint{Err: errMember, Next: "servent join   (goes on), or first: servent leave"}
	}
	if err := f.Make(); err != nil {
		return identity.ID{}, err
	}
	as := system.NodeID(o.As)
	if as == "" {
		as = ThisMachine()
	}
	if ip, err := netip.ParseAddr(o.Host); o.Host != "" && (err != nil || ip.IsUnspecified()) {
		return identity.ID{}, &system.Hint{Err: fmt.Errorf("--host: want the address by which other machines know this one, have %q", o.Host), Next: "ip -brief address"}
	}
	address := fleet.Address(o.Address)
	j, err := fleet.Join(ctx, address, o.Token, as, system.Site(o.Site), o.Labels)
	if err != nil {
		return identity.ID{}, err
	}
	m := member{Door: address, Host: j.Host, Site: system.Site(o.Site), Labels: o.Labels, Credential: j.Credential, Servers: j.Servers, Sessions: j.Sessions, Authority: j.Authority}
	if o.Host != "" {
		m.Host = o.Host
	}
	if err := f.write(memberName, m); err != nil {
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return identity.ID{}, errors.Join(err, fleet.Leave(leave, []string{address}, j.Credential)) // nobody could ever be it
	}
	return j.Credential.ID, nil
}

// Leave ends the membership: at the fleet's door, and here. Data of the services that ran here stays in the folder. If the door does not answer,
// and force is set, only this machine forgets.
func Leave(ctx context.Context, f Folder, force bool) (identity.ID, error) {
	m, err := f.member()
	if err != nil {
		if force && !errors.Is(err, errNoFleet) {
			err = os.Remove(f.path(memberName))
		}
		return identity.ID{}, err
	}
	who := m.Credential.ID
	if err := fleet.Leave(ctx, m.doors(), m.Credential); err != nil && !errors.Is(err, fleet.ErrOut) && !force {
		return who, &system.Hint{Err: err, Next: fmt.Sprintf("servent leave --force   (here alone), and on the fleet's first machine: servent node rm %s", who.Node)}
	}
	// What a server agreed on with the others, and who they were, is of no use to any other fleet.
	return who, errors.Join(os.Remove(f.path(memberName)), os.RemoveAll(f.control()), os.RemoveAll(filepath.Join(f.node(who.Node), node.ServersFile)))
}

// MemberOptions of [RunMember].
type MemberOptions struct {
	Folder  Folder
	Command []string                    // program and arguments that become a node
	Kill    <-chan struct{}             // as in [Options]
	Tell    func(system.NodeID, string) // what becomes of the node, in words
	Log     *slog.Logger                // nil discards
}

// RunMember runs this machine's node of its fleet until ctx ends, or the machine leaves or is put out.
func RunMember(ctx context.Context, o MemberOptions) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	unlock, err := o.Folder.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r := &membership{o: o, audit: &audit{file: o.Folder.Log("audit"), log: o.Log}}
	if r.m, err = o.Folder.member(); err != nil {
		return err
	}
	if err := r.choosePorts(); err != nil {
		return err
	}
	defer r.claims.keep(nil)
	if err := r.refresh(ctx); errors.Is(err, fleet.ErrOut) {
		return r.out(err)
	} else if err != nil {
		o.Log.Warn("the fleet's door does not answer; what was known before stands", "err", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	defer all.Wait()
	r.child = r.process()
	all.Go(func() { r.watch(ctx, cancel) })
	if r.m.Credential.ID.Role == identity.Server {
		all.Go(func() { r.hold(ctx) })
	}
	r.child.Run(ctx, o.Kill)
	cancel(nil)
	if why := context.Cause(ctx); errors.Is(why, errLeft) {
		return nil
	} else if errors.Is(why, fleet.ErrOut) {
		return r.out(why)
	}
	return nil
}

var errLeft = errors.New("the machine has left its fleet")

// membership is a member that runs.
type membership struct {
	o      MemberOptions
	claims claims
	audit  *audit
	child  *child
	asked  time.Time // when the fleet's door answered last

	mu sync.Mutex // guards m
	m  member
}

func (r *membership) out(err error) error {
	return &system.Hint{Err: err, Next: "servent leave --force && servent join " + r.m.Door + " TOKEN"}
}

// choosePorts finds ports for the node, the ones that it had if they are free.
func (r *membership) choosePorts() error {
	id := r.m.Credential.ID.Node
	k := &kept{PortBase: r.m.PortBase, PortSlice: memberSlice, Index: map[system.NodeID]int{id: 1}, Fleet: &first{Node: id, Host: r.m.Host}}
	r.claims = claims{}
	if err := k.choosePorts(r.claims); err != nil {
		h := &system.Hint{Err: err, Next: "ip -brief address"}
		if ln, err := net.Listen("tcp", net.JoinHostPort(r.m.Host, "0")); err != nil {
			h.Err = fmt.Errorf("this machine has no address %s: %w", r.m.Host, err)
			h.Next = "servent leave, and join again with --host ADDRESS"
		} else {
			ln.Close()
		}
		return h
	}
	r.m.PortBase = k.PortBase
	return r.o.Folder.write(memberName, r.m)
}

// process is the node's.
func (r *membership) process() *child {
	id := r.m.Credential.ID
	c := &child{
		id: id.Node, command: r.o.Command, logFile: r.o.Folder.Log(string(id.Node)), log: r.o.Log, boot: r.boot,
		refused: r.audit.write,
		again:   make(chan struct{}, 1), creds: make(chan identity.Credential, 1), servers: make(chan []node.Server, 1), ways: make(chan struct{}, 1),
		state: admin.NodeState{Node: id.Node, Role: string(id.Role), Site: r.m.Site, State: "starting", Since: time.Now()},
	}
	last := ""
	c.changed = func() { // by the child's own goroutine and its reader's, one after the other
		s := c.State()
		words := strings.TrimSpace(s.State + " " + s.Why)
		r.mu.Lock()
		fresh := words != last
		last = words
		r.mu.Unlock()
		if fresh {
			r.o.Tell(id.Node, words)
		}
	}
	return c
}

func (r *membership) boot() (node.Boot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.m.Credential.ID
	b := node.Boot{Credential: r.m.Credential, Sessions: r.m.Sessions, ID: id.Node, Role: id.Role, Site: r.m.Site, Labels: r.m.Labels,
		Host: "127.0.0.1", LinkHost: r.m.Host, PortBase: r.m.PortBase, Dir: r.o.Folder.node(id.Node), Blobs: r.o.Folder.Blobs(),
		ControlDir: r.o.Folder.control(), Joined: true, Servers: told(r.m.Servers)}
	return b, nil
}

// told is what a node is told of the servers.
func told(servers []fleet.Server) (all []node.Server) {
	for _, s := range servers {
		all = append(all, node.Server{Node: s.Node, Link: s.Link, Site: s.Site})
	}
	return all
}

// watch renews the certificate when it is time, follows the servers, and ends the node when the machine leaves or is put out.
func (r *membership) watch(ctx context.Context, end context.CancelCauseFunc) {
	ask, look := time.NewTicker(askEvery), time.NewTicker(leftEvery)
	defer ask.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if _, err := os.Stat(r.o.Folder.path(memberName)); errors.Is(err, fs.ErrNotExist) {
				end(errLeft)
				return
			}
		case now := <-ask.C:
			due := now.Round(0).After(r.m.Credential.RenewAt()) // the wall clock, which goes on while the machine sleeps
			if !due && now.Sub(r.asked) < refreshed {
				continue
			}
			switch err := r.refresh(ctx); {
			case errors.Is(err, fleet.ErrOut):
				end(err)
				return
			case err != nil && due:
				r.o.Log.Warn("the certificate is not renewed", "ends", r.m.Credential.Expires(), "err", err)
			}
		}
	}
}

// refresh gets the next certificate and where the servers are, keeps them, and tells the node.
func (r *membership) refresh(ctx context.Context) error {
	next, w, err := fleet.Renew(ctx, r.m.doors(), r.m.Credential)
	if err != nil {
		return err
	}
	r.asked = time.Now()
	moved := !slices.Equal(w.Servers, r.m.Servers)
	r.mu.Lock()
	r.m.Credential, r.m.Servers, r.m.Sessions, r.m.Authority = next, w.Servers, w.Sessions, w.Authority
	r.mu.Unlock()
	if _, err := os.Stat(r.o.Folder.path(memberName)); err != nil { // it has just left
		return nil
	}
	if err := r.o.Folder.write(memberName, r.m); err != nil {
		return err
	}
	if r.child != nil {
		r.child.Renew(next)
		if moved {
			r.child.Servers(told(w.Servers))
		}
	}
	return nil
}
