package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/request/dns"
	"servent/system"
)

const (
	readyWithin = time.Minute      // that a stage may take until all of it is ready; builds do not count
	downWithin  = 30 * time.Second // that it may take to end
)

// stage is one variant on so many emulated nodes: a whole system of its own, with real nodes, sockets and
// programs, in a folder that was empty.
type stage struct {
	sys     *system.System
	service system.ServiceName
	client  *admin.Client
	cancel  context.CancelFunc
	ended   chan error

	mu    sync.Mutex // guards what follows
	state admin.State
	names map[system.Site][]*dns.Resolver
	news  chan struct{} // closed and replaced at every state
}

// stagings is what all stages share.
type stagings struct {
	dir     string   // stages' folders lie in it
	blobs   string   // bytes of all bundles
	command []string // program and arguments that become a node
	log     *slog.Logger
}

// open starts a system and returns when all of it is ready.
func (o stagings) open(ctx context.Context, name string, sys *system.System, service system.ServiceName) (*stage, error) {
	dir := filepath.Join(o.dir, name)
	if err := os.RemoveAll(dir); err != nil { // of a comparison that was killed
		return nil, fmt.Errorf("clear the stage: %w", err)
	}
	s := &stage{sys: sys, service: service, ended: make(chan error, 1), news: make(chan struct{})}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends in close
	s.cancel = cancel
	folder := launch.FolderOf(dir)
	go func() {
		s.ended <- launch.Run(run, launch.Options{Folder: folder, Command: o.command, Blobs: o.blobs, Log: o.log})
	}()
	var err error
	if s.client, err = folder.Await(ctx, s.ended); err == nil {
		err = s.client.Want(ctx, sys)
	}
	if err == nil {
		err = s.settle(ctx)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go s.follow(run)
	return s, nil
}

var errSettled = errors.New("settled")

// settle waits until everything wanted runs.
func (s *stage) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	err := s.client.Watch(ctx, func(st admin.State) error {
		s.set(st)
		if st.Settled {
			return errSettled
		}
		return st.Hopeless()
	})
	if errors.Is(err, errSettled) {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not ready after %s", readyWithin)
	}
	return err
}

// follow keeps the state until the stage ends.
func (s *stage) follow(ctx context.Context) {
	_ = s.client.Watch(ctx, func(st admin.State) error { s.set(st); return nil }) // it ends with the stage
}

func (s *stage) set(st admin.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
	close(s.news)
	s.news = make(chan struct{})
}

// look is the last state, and a channel that closes at the next one.
func (s *stage) look() (admin.State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.news
}

// doors are where live nodes answer for the service, by node; of one site, if a site is given.
func (s *stage) doors(site system.Site) []string {
	st, _ := s.look()
	at := map[system.NodeID]admin.NodeState{}
	for _, n := range st.Nodes {
		at[n.Node] = n
	}
	var out []string
	for _, d := range st.Doors {
		n := at[d.Node]
		if d.Service == s.service && n.Runs() && (site == "" || n.Site == site) {
			out = append(out, d.Address)
		}
	}
	return out
}

// resolvers are the caches through which clients at a site look the service up. They live as long as the stage: what one
// keeps it keeps from turn to turn.
func (s *stage) resolvers(site system.Site, n int) []*dns.Resolver {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[system.Site][]*dns.Resolver{}
	}
	for i := len(s.names[site]); i < n; i++ {
		s.names[site] = append(s.names[site], &dns.Resolver{First: i, Name: fmt.Sprintf("_%s._tcp.%s", s.service, dns.Origin(s.sys.Name)),
			Servers: func() []string { return s.servers(site) }})
	}
	return s.names[site]
}

// servers are the name servers of live nodes; of one site, if there are any.
func (s *stage) servers(site system.Site) []string {
	st, _ := s.look()
	var near, all []string
	for i := range st.Nodes {
		n := &st.Nodes[i]
		if n.Names == "" || !n.Runs() {
			continue
		}
		if all = append(all, n.Names); n.Site == site {
			near = append(near, n.Names)
		}
	}
	if len(near) > 0 {
		return near
	}
	return all
}

// find is how clients at a site that look the service up find it.
func (s *stage) find(site system.Site, n int) func(context.Context, uint64) (string, error) {
	all := s.resolvers(site, n)
	return func(ctx context.Context, client uint64) (string, error) {
		return all[client%uint64(len(all))].Lookup(ctx)
	}
}

// meters are what the nodes counted so far, by node.
func (s *stage) meters(ctx context.Context) (map[system.NodeID]admin.NodeMeter, error) {
	all, err := s.client.Meter(ctx)
	if err != nil {
		return nil, err
	}
	out := map[system.NodeID]admin.NodeMeter{}
	for _, m := range all {
		if m.Error == "" {
			out[m.Node] = m
		}
	}
	return out, nil
}

// close ends the stage and all that it started.
func (s *stage) close() {
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(downWithin): // its nodes end with this process at the latest
	}
}

// openAll opens one stage a name at a time side by side, all or none.
func (o stagings) openAll(ctx context.Context, want map[string]*system.System, service system.ServiceName) (map[string]*stage, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	out := map[string]*stage{}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		wg.Go(func() {
			s, err := o.open(ctx, name, want[name], service)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			out[name] = s
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		closeAll(out)
		return nil, errors.Join(errs...)
	}
	return out, nil
}

func closeAll(stages map[string]*stage) {
	var wg sync.WaitGroup
	for _, s := range stages {
		wg.Go(s.close)
	}
	wg.Wait()
}
