package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/system"
)

const historyKeep = 20 // systems that can be gone back to

// revision is a system as it was once wanted.
type revision struct {
	N      int            `json:"n"`
	At     time.Time      `json:"at"`
	System *system.System `json:"system"`
}

func (f Folder) history() string { return filepath.Join(string(f), "history") }

// revisions reads what was wanted, the oldest first. A file that cannot be read is left out: it is only past.
func (f Folder) revisions() ([]revision, error) {
	names, err := os.ReadDir(f.history())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	var out []revision
	for _, e := range names { // sorted by name, that is, by number
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(f.history(), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the history: %w", err)
		}
		var r revision
		if json.Unmarshal(b, &r) == nil && r.System != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// remember writes down what is wanted now, unless it was just before.
func (f Folder) remember(sys *system.System, now time.Time) error {
	all, err := f.revisions()
	if err != nil {
		return err
	}
	r := revision{N: 1, At: now.UTC(), System: sys}
	if last := len(all) - 1; last >= 0 {
		if sameSystem(all[last].System, sys) {
			return nil
		}
		r.N = all[last].N + 1
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.history(), 0o700); err != nil {
		return f.hint(fmt.Errorf("write the history: %w", err))
	}
	if err := blob.Replace(f.revision(r.N), b, 0o600); err != nil {
		return f.hint(fmt.Errorf("write the history: %w", err))
	}
	for len(all) >= historyKeep {
		_ = os.Remove(f.revision(all[0].N)) // the next time, else
		all = all[1:]
	}
	return nil
}

func (f Folder) revision(n int) string {
	return filepath.Join(f.history(), fmt.Sprintf("%08d.json", n))
}

func sameSystem(a, b *system.System) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// History implements [admin.Machines].
func (l *laptop) History() ([]admin.Revision, error) {
	all, err := l.opt.Folder.revisions()
	if err != nil {
		return nil, err
	}
	out := []admin.Revision{}
	for i, r := range all {
		var was *system.System
		if i > 0 {
			was = all[i-1].System
		}
		out = append(out, admin.Revision{N: r.N, At: r.At, What: changed(was, r.System), Now: i == len(all)-1})
	}
	return out, nil
}

// Revision implements [admin.Machines].
func (l *laptop) Revision(n int) (*system.System, error) {
	all, err := l.opt.Folder.revisions()
	if err != nil {
		return nil, err
	}
	if n == 0 { // the one before
		if len(all) < 2 {
			return nil, &system.Hint{Err: errors.New("nothing else was wanted before"), Next: "servent history"}
		}
		n = all[len(all)-2].N
	}
	for _, r := range all {
		if r.N == n {
			return r.System, nil
		}
	}
	return nil, &system.Hint{Err: errors.New("there is no revision " + strconv.Itoa(n)), Next: "servent history"}
}

// changed says in words how a system differs from the one before it.
func changed(was, is *system.System) string {
	if was == nil {
		return "first: " + services(is)
	}
	var words []string
	for i := range is.Services {
		s := &is.Services[i]
		switch old := was.Service(s.Name); {
		case old == nil:
			words = append(words, string(s.Name)+" is new")
		case old.Spec() != s.Spec():
			words = append(words, string(s.Name)+" is made of something else")
		case !sameService(old, s):
			words = append(words, string(s.Name)+" is run otherwise")
		}
	}
	for i := range was.Services {
		if name := was.Services[i].Name; is.Service(name) == nil {
			words = append(words, string(name)+" is gone")
		}
	}
	if len(words) == 0 {
		return "its nodes, or what is not of a service"
	}
	return strings.Join(words, ", ")
}

// sameService compares all but where the words stand in the file.
func sameService(a, b *system.Service) bool {
	return sameSystem(&system.System{Services: []system.Service{unplaced(a)}}, &system.System{Services: []system.Service{unplaced(b)}})
}

func unplaced(s *system.Service) system.Service {
	out := *s
	out.Pos = system.Pos{}
	out.Ports = append([]system.Port(nil), s.Ports...)
	for i := range out.Ports {
		out.Ports[i].Pos = system.Pos{}
	}
	return out
}

func services(sys *system.System) string {
	var names []string
	for _, s := range sys.Services {
		names = append(names, string(s.Name))
	}
	return strings.Join(names, ", ")
}
