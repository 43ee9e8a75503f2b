package address

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Server keeps addresses in memory: a name may have several, in the order in which they were inserted.
// The zero value works.
type Server struct {
	Delay time.Duration // an answer is held back so long, after the work is done; 0 means not
	Every int           // only the first of that many answers is held back; 0 means every one

	mu     sync.Mutex
	book   map[string][]string // guarded by mu
	served int                 // guarded by mu: calls carried out; repeated ones not counted
	known  map[string]answer   // guarded by mu: replies by request ID, so that a retry gets the first one's
	order  []string            // guarded by mu: of known, oldest first
}

// answer is a reply and the time when it may leave.
type answer struct {
	reply
	at time.Time
}

const (
	remembered = 4096    // replies; an older request that is sent again is taken for a new one
	names      = 100_000 // in the book
	perName    = 16      // addresses
	clients    = 1000    // connections served at once; further ones wait in the kernel's queue
)

// Serve answers every connection of ln until ctx ends or a client calls stop. Then it closes them.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // before the wait: a failed listener ends its connections too
	context.AfterFunc(ctx, func() { ln.Close() })

	slots := make(chan struct{}, clients)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		open.Go(func() {
			defer func() { <-slots }()
			s.converse(ctx, conn, stop)
		})
	}
}

// converse answers one client, call by call. A client that gave up and left does not undo its call.
func (s *Server) converse(ctx context.Context, conn net.Conn, stop func()) {
	defer conn.Close()
	release := context.AfterFunc(ctx, func() { conn.Close() })
	defer release()
	in := lines(conn)
	for in.Scan() {
		var req request
		ans := answer{reply: reply{Error: "refused", Detail: "a request is one line of JSON"}}
		if err := json.Unmarshal(in.Bytes(), &req); err == nil {
			ans = s.call(req, time.Now())
		}
		if wait := time.Until(ans.at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		if err := writeLine(conn, ans.reply); err != nil {
			return
		}
		if req.Call == "stop" && ans.Error == "" {
			stop() // after the answer, or the caller would never know
			return
		}
	}
}

// call carries req out, unless it was carried out before: then its first answer is given again.
func (s *Server) call(req request, now time.Time) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ans, again := s.known[req.ID]; again && req.ID != "" {
		return ans
	}
	ans := answer{reply: s.do(req), at: now}
	if s.served%max(s.Every, 1) == 0 {
		ans.at = now.Add(s.Delay)
	}
	s.served++
	ans.ID = req.ID
	if req.ID == "" {
		return ans
	}
	if s.known == nil {
		s.known = map[string]answer{}
	}
	if len(s.order) == remembered {
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
	s.known[req.ID], s.order = ans, append(s.order, req.ID)
	return ans
}

// do is the exercise without the network. mu is held.
func (s *Server) do(req request) reply {
	found := s.book[req.Name]
	switch {
	case req.Call == "stop":
		return reply{}
	case req.Name == "":
		return reply{Error: "refused", Detail: "a call needs a name"}
	case req.Call == "insert" && req.Address == "":
		return reply{Error: "refused", Detail: "insert needs an address"}
	case req.Call == "insert" && (len(found) == perName || found == nil && len(s.book) == names):
		return reply{Error: "refused", Detail: fmt.Sprintf("no room: at most %d names with %d addresses each", names, perName)}
	case req.Call == "insert":
		if s.book == nil {
			s.book = map[string][]string{}
		}
		s.book[req.Name] = append(found, req.Address)
		return reply{}
	case req.Call != "lookup" && req.Call != "delete":
		return reply{Error: "refused", Detail: fmt.Sprintf("no call %q; there are insert, delete, lookup, stop", req.Call)}
	case found == nil:
		return reply{Error: "missing", Detail: req.Name}
	case req.Call == "delete":
		delete(s.book, req.Name)
	}
	return reply{Addresses: slices.Clone(found)}
}
