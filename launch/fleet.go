package launch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/control"
	"servent/fleet"
	"servent/identity"
	"servent/link"
	"servent/node"
	"servent/system"
)

// Bounds of a token's life.
const (
	tokenLeast = 5 * time.Second
	tokenMost  = 24 * time.Hour
)

// found makes this machine the first of a fleet that other machines reach at listen, HOST or HOST:PORT, or finds that it is. Empty: as
// the last time.
func (k *kept) found(listen, as string) error {
	if listen == "" {
		return nil
	}
	f := first{Node: system.NodeID(as), Host: listen, Door: fleet.Port}
	if host, port, err := net.SplitHostPort(listen); err == nil {
		f.Host = host
		if f.Door, err = strconv.Atoi(port); err != nil || f.Door < 1 || f.Door > 65535 {
			return fmt.Errorf("--listen: want a port from 1 to 65535, have %q", port)
		}
	}
	if ip, err := netip.ParseAddr(f.Host); err != nil || ip.IsUnspecified() {
		return &system.Hint{Err: fmt.Errorf("--listen: want the address by which other machines know this one, have %q", f.Host), Next: "ip -brief address"}
	}
	if k.Fleet == nil && len(k.Index) > 0 {
		return &system.Hint{Err: errors.New("this system ran on emulated nodes, which have its plan and its data; it cannot become a fleet"),
			Next: "begin in another folder, or give all up: servent down --volumes; rm -r .servent"}
	}
	if as == "" && k.Fleet != nil {
		f.Node = k.Fleet.Node
	} else if as == "" {
		f.Node = ThisMachine()
	}
	if err := (identity.ID{Cluster: k.Cluster, Role: identity.Server, Node: f.Node}).Check(); err != nil {
		return fmt.Errorf("--as: %w", err)
	}
	if k.Fleet != nil && k.Fleet.Node != f.Node {
		return &system.Hint{Err: fmt.Errorf("--as: this machine is %s in its fleet, and keeps data under that name", k.Fleet.Node), Next: "servent up"}
	}
	k.Fleet = &f
	return nil
}

// ThisMachine is the machine's name as a node may have it.
func ThisMachine() system.NodeID {
	host, _ := os.Hostname() // the name below will do
	host, _, _ = strings.Cut(host, ".")
	host = strings.Map(func(r rune) rune {
		if r < 128 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return r
		}
		return -1
	}, host)
	if host == "" {
		host = "machine"
	}
	return system.NodeID(strings.ToLower(host))
}

// gate is what a fleet's first machine has beside a laptop's parts. It implements [admin.Fleet].
type gate struct {
	l     *laptop
	at    string // host:port of the fleet's door
	ln    net.Listener
	door  *fleet.Door
	audit *audit

	foreign bool // control is an etcd of the user's

	mu     sync.Mutex // guards voters
	voters []admin.Voter
}

// gate opens the fleet's door; nil on a laptop.
func (l *laptop) gate(k *kept) (*gate, error) {
	if k.Fleet == nil {
		return nil, nil
	}
	g := &gate{l: l, foreign: k.Control != "", at: net.JoinHostPort(k.Fleet.Host, strconv.Itoa(k.Fleet.Door)), audit: &audit{file: l.opt.Folder.Log("audit"), log: l.opt.Log}}
	var err error
	if g.ln, err = net.Listen("tcp", g.at); err != nil {
		h := &system.Hint{Err: fmt.Errorf("open the fleet's door: %w", err), Next: "ip -brief address"}
		if isInUse(err) {
			h.Next = fmt.Sprintf("another port: servent up --listen %s", net.JoinHostPort(k.Fleet.Host, strconv.Itoa(k.Fleet.Door+1)))
		}
		return nil, h
	}
	g.door = &fleet.Door{Cluster: l.us.control, Authority: l.us.ca, Keeper: l.us.keep, Sessions: l.nodes.sessions, Audit: g.audit.write, Blobs: &blob.Store{Dir: cmp.Or(l.opt.Blobs, l.opt.Folder.Blobs())}, Log: l.opt.Log,
		Servers: func() (all []fleet.Server) {
			for _, id := range l.nodes.Servers() {
				at, _ := l.nodes.Resolve(id)
				s := fleet.Server{Node: id, Link: at.Host, Site: at.Site, Door: g.at}
				if !l.nodes.runs(id) {
					s.Door = fleet.DoorOf(at.Host)
				}
				all = append(all, s)
			}
			return all
		}}
	return g, nil
}

// serve answers at the door until ctx ends.
func (g *gate) serve(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { g.count(ctx) })
	if err := g.door.Serve(ctx, g.ln); err != nil {
		g.l.opt.Log.Error("the fleet's door", "err", err)
	}
}

// count asks the servers who of them votes, until ctx ends.
func (g *gate) count(ctx context.Context) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		if all, err := g.ask(ctx); err == nil {
			g.mu.Lock()
			fresh := !slices.Equal(all, g.voters)
			g.voters = all
			g.mu.Unlock()
			if fresh {
				g.l.news.tell()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const countEvery = 2 * time.Second

func (g *gate) ask(ctx context.Context) (all []admin.Voter, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*countEvery)
	defer cancel()
	err = errors.New("there is no server")
	for _, id := range g.l.nodes.Servers() {
		var body io.ReadCloser
		if body, err = (&nodeDoor{rt: g.l.us.http2}).ask(ctx, id, node.VotersPath); err != nil {
			continue
		}
		var seats []node.Seat
		err = json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&seats)
		body.Close()
		if err == nil {
			for _, s := range seats {
				all = append(all, admin.Voter{Node: s.Node, Learner: s.Learner, Leads: s.Leads})
			}
			return all, nil
		}
	}
	return nil, err
}

// Voters implements [admin.Fleet].
func (g *gate) Voters() []admin.Voter {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.voters)
}

// Token implements [admin.Fleet].
func (g *gate) Token(ctx context.Context, role identity.Role, ttl time.Duration) (t admin.Token, err error) {
	switch role {
	case identity.Node, identity.Edge:
	case identity.Server:
		if g.foreign {
			return t, &system.Hint{Err: errors.New("token: this fleet's control is an etcd of yours, and has the servers that it has"), Next: "servent token --role node"}
		}
	default:
		return t, &system.Hint{Err: fmt.Errorf("token: want the role server, node or edge, have %q", role), Next: "servent token"}
	}
	if ttl < tokenLeast || ttl > tokenMost {
		return t, fmt.Errorf("token: want a life from %s to %s, have %s", tokenLeast, tokenMost, ttl)
	}
	token := identity.NewToken(role, g.l.us.ca.Certificate())
	inv := system.Invitation{Role: string(role), Digest: identity.Digest(token.Proof()).String()}
	if err := g.l.us.control.Invite(ctx, token.ID, inv, ttl); err != nil {
		return t, err
	}
	return admin.Token{Token: token.Text(), Address: g.at, Expires: time.Now().Add(ttl).UTC().Truncate(time.Second)}, nil
}

// Label implements [admin.Fleet].
func (g *gate) Label(ctx context.Context, id system.NodeID, labels map[string]string) error {
	if err := fleet.CheckLabels(labels); err != nil {
		return err
	}
	return g.known(id, g.l.us.control.Label(ctx, id, labels))
}

// Remove implements [admin.Fleet].
func (g *gate) Remove(ctx context.Context, node system.NodeID) error {
	err := fleet.Expel(ctx, g.l.us.control, node)
	if err == nil {
		g.door.Sever(node)
	}
	return g.known(node, err)
}

func (g *gate) known(node system.NodeID, err error) error {
	if !errors.Is(err, control.ErrNoMember) {
		return err
	}
	if g.l.nodes.runs(node) {
		err = fmt.Errorf("%s is the fleet's first machine: it has not joined, and cannot be labelled or put out", node)
	}
	return &system.Hint{Err: err, Next: "servent node ls"}
}

// Acted implements [admin.Fleet].
func (g *gate) Acted(act system.Act) { g.audit.write(act) }

// Acts implements [admin.Fleet].
func (g *gate) Acts(last int) ([]system.Act, error) { return g.audit.acts(last) }

// joined are the servers among the machines that joined, as far as they are there.
func (l *laptop) joined() (ids []system.NodeID) {
	v, _ := l.look()
	for _, m := range v.Members {
		if m.Role == string(identity.Server) && v.Node(m.Node) != nil {
			ids = append(ids, m.Node)
		}
	}
	return ids
}

// seen is where a node of another machine is.
func (l *laptop) seen(id system.NodeID) (link.Address, bool) {
	v, _ := l.look()
	if s := v.Node(id); s != nil {
		return link.Address{Host: s.Link, Site: s.Site}, true
	}
	return link.Address{}, false
}
