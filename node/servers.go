package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"servent/blob"
	"servent/control"
	"servent/identity"
	"servent/system"
)

// ServersFile is the name of the file in a node's folder in which it writes them down.
const ServersFile = "servers.json"

// servers are those who answer for control, as this node knows them: as it was told, and as they report themselves. A machine writes them
// down, so that after a start at which nobody answers it knows whom to look for.
type servers struct {
	self system.NodeID
	file string // empty: nothing is written down
	log  *slog.Logger

	mu    sync.Mutex // guards what follows
	told  []Server
	found []Server // seen, now or in an earlier life
}

func newServers(boot Boot, log *slog.Logger) *servers {
	s := &servers{self: boot.ID, told: boot.Servers, log: log}
	if boot.Emulated || boot.Role == identity.Edge { // an edge sees nobody
		return s
	}
	s.file = filepath.Join(boot.Dir, ServersFile)
	var err error
	if s.found, err = ReadServers(s.file); err != nil {
		log.Warn("who answers for control cannot be read; it is learnt anew", "err", err)
	}
	return s
}

// ReadServers reads a [ServersFile]; one that is not there names nobody.
func ReadServers(file string) (all []Server, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	return all, err
}

// tell replaces what the node was told.
func (s *servers) tell(told []Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = told
}

// see takes what servers report of themselves. One that reports nothing now is kept: it may be back before anybody answers. One that is no
// member any more is not.
func (s *servers) see(v *control.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(s.found), func(f Server) bool {
		return slices.ContainsFunc(v.Expelled, func(e system.Expelled) bool { return e.Node == f.Node }) || v.Node(f.Node) != nil
	})
	for _, seen := range v.Seen {
		if seen.Role != string(identity.Server) {
			continue
		}
		is := Server{Node: seen.Node, Link: seen.Link, Site: seen.Site}
		next = append(next, is)
		if i := slices.IndexFunc(s.told, func(t Server) bool { return t.Node == is.Node }); i >= 0 && s.told[i] != is { // it has moved since
			s.told = slices.Clone(s.told) // whoever gave it has it, too
			s.told[i] = is
		}
	}
	slices.SortFunc(next, func(a, b Server) int { return strings.Compare(string(a.Node), string(b.Node)) })
	if slices.Equal(next, s.found) {
		return
	}
	s.found = next
	if s.file == "" {
		return
	}
	text, err := json.Marshal(next)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.file), 0o700)
	}
	if err == nil {
		err = blob.Replace(s.file, text, 0o600)
	}
	if err != nil {
		s.log.Warn("who answers for control is not written down", "err", err)
	}
}

// all are those who answer, first who the node was told of.
func (s *servers) all() []Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.told)
	for _, f := range s.found {
		if !slices.ContainsFunc(all, func(t Server) bool { return t.Node == f.Node }) {
			all = append(all, f)
		}
	}
	return all
}

func (s *servers) ids() (ids []system.NodeID) {
	for _, server := range s.all() {
		ids = append(ids, server.Node)
	}
	return ids
}

// others are all but this node.
func (s *servers) others() []system.NodeID {
	return slices.DeleteFunc(s.ids(), func(id system.NodeID) bool { return id == s.self })
}
