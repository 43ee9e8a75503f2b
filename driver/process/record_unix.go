//go:build unix

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"servent/system"
)

// record is the note of one running instance, for the next life of the node. Process numbers are used
// again, so each stands with the time at which its process started.
type record struct {
	Instance system.InstanceID `json:"instance"`
	Token    string            `json:"token"`
	Pid      int               `json:"pid"` // 0 while it is being made
	Started  string            `json:"started"`
	Node     int               `json:"node"` // process that started it
	Since    string            `json:"since"`
	Cgroups  []string          `json:"cgroups,omitempty"`
}

const notes = "process-*.json"

func (d *Driver) notePath(g *group) string {
	return filepath.Join(d.opts.StateDir, strings.Replace(notes, "*", strings.TrimPrefix(g.token, tokenName+"="), 1))
}

// note writes the record of a group: before it is made and again when it is.
func (d *Driver) note(id system.InstanceID, g *group) error {
	if d.opts.StateDir == "" {
		return nil
	}
	r := record{Instance: id, Token: g.token, Node: os.Getpid(), Since: startOf(os.Getpid()), Cgroups: g.cage.folders()}
	if g.pgid > 0 {
		r.Pid, r.Started = g.pgid, startOf(g.pgid)
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(d.opts.StateDir, 0o700)
	}
	path := d.notePath(g)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("note the process: %w", err)
	}
	return nil
}

// Sweep kills what an earlier node process with the same state folder left behind and says which
// instances that was. It is called before the first start. It never touches a stranger that has got a
// used number, nor the instances of a node process that still lives: those are an error.
func (d *Driver) Sweep(ctx context.Context) ([]system.InstanceID, error) {
	if d.opts.StateDir == "" {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(d.opts.StateDir, notes))
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	torn, _ := filepath.Glob(filepath.Join(d.opts.StateDir, notes+".new"))
	for _, path := range torn {
		os.Remove(path) // written when its node was killed; the record that it was to replace stands
	}
	var swept []system.InstanceID
	var errs []error
	for _, path := range paths {
		r, err := readRecord(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			var found bool
			found, err = r.sweep(ctx)
			if found {
				swept = append(swept, r.Instance)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep %s: %w", path, err))
			continue
		}
		if err := os.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("sweep: %w", err))
		}
	}
	return swept, errors.Join(errs...)
}

// readRecord returns the zero record for a file that is torn: the machine crashed, nothing of it runs.
func readRecord(path string) (record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	return parseRecord(b), nil
}

func parseRecord(b []byte) (r record) {
	err := json.Unmarshal(b, &r)
	secret, ok := strings.CutPrefix(r.Token, tokenName+"=")
	if err != nil || !ok || len(secret) < 16 || r.Pid < 0 || r.Pid == 1 {
		return record{}
	}
	return r
}

// sweep kills what is left of one instance and says whether there was something.
func (r record) sweep(ctx context.Context) (found bool, err error) {
	if r.Token == "" {
		return false, nil
	}
	if r.Since != "" && startOf(r.Node) == r.Since {
		return false, fmt.Errorf("%s belongs to node process %d, which runs", r.Instance, r.Node)
	}
	g := &group{pgid: r.Pid, token: r.Token, cage: openCage(r.Cgroups)}
	defer g.cage.remove()
	g.cage.kill()
	end := time.Now().Add(killAllow)
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		left := g.strays()
		if r.Pid > 0 && r.Started != "" && startOf(r.Pid) == r.Started {
			left++
			syscall.Kill(-r.Pid, syscall.SIGKILL)
		}
		switch {
		case left == 0:
			return found, nil
		case time.Now().After(end):
			return true, fmt.Errorf("%s: process %d is still there %v after it was killed", r.Instance, r.Pid, killAllow)
		case ctx.Err() != nil:
			return true, ctx.Err()
		}
		found = true
		time.Sleep(pause)
	}
}
