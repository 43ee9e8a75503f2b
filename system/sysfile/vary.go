package sysfile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"

	"servent/system"
	"servent/system/sysfile/edit"
	"servent/system/sysfile/schema"
)

// Assignment is a value for a place in the file.
type Assignment struct {
	Path  []string // from the top, key by key; [2] is the third item of a list
	Value string
}

// String is the path: services.web.x-servent.architecture.
func (a Assignment) String() string { return path(a.Path).String() }

// Assign reads a path as variants have it. It is a key of the service's x-servent, as switch.policy is, else one
// of the service, as deploy.replicas, else one from the top of the file. A key with a dot stands in double
// quotes. What no system file has is an error that says what may be meant.
func Assign(sys *system.System, service system.ServiceName, text, value string) (Assignment, error) {
	keys, _, err := schema.Resolve(sys, service, text)
	return Assignment{Path: keys, Value: value}, err
}

// Change is a value that was set.
type Change struct {
	Pos   system.Pos // of the value, in the new text
	Path  string     // from the top of the file
	Old   string     // as it was, without quotes; "" when there was none
	New   string
	Added bool // the key is new
}

// Edition is the files of a system with values set in place, in memory.
type Edition struct {
	Changes []Change          // in the order of the assignments
	Texts   map[string][]byte // whole files that change, by absolute name; see [Options]
}

// Locked says that a value stands in a way that only its author should change.
type Locked struct {
	Pos system.Pos
	Err error
}

func (l *Locked) Error() string { return l.Pos.String() + ": " + l.Err.Error() }

// Edit sets values in the files of a system, each where it stands: of several files in the last one that has
// it, since that one wins; one that no file has, in the first one that has the mapping it belongs to. Nothing is written. What
// Load reads with the texts is what it reads when they are written. The error is a [Locked] when a value cannot
// be set without harm.
func Edit(ctx context.Context, o Options, set []Assignment) (*Edition, error) {
	e := &Edition{Texts: maps.Clone(o.Texts)}
	if e.Texts == nil {
		e.Texts = map[string][]byte{}
	}
	o.Texts = e.Texts
	for _, a := range set {
		f, files, err := begin(o)
		if err != nil {
			return nil, err
		}
		if err := f.open(ctx, files, f.env); err != nil {
			return nil, err
		}
		src, err := f.stands(a.Path)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(f.main, src) { // Compose reads it by itself
			return nil, &Locked{Pos: src.pos(nil), Err: fmt.Errorf("%s stands in this file, which is included; change it there by hand", path(a.Path))}
		}
		text, c, err := edit.Set(src.text, a.Path, a.Value)
		c.Pos.File = src.shown
		if err != nil {
			return nil, &Locked{Pos: c.Pos, Err: err}
		}
		e.Texts[src.file] = text
		e.Changes = append(e.Changes, Change{Pos: c.Pos, Path: path(a.Path).String(), Old: c.Old, New: a.Value, Added: c.Added})
	}
	return e, nil
}

// stands is the file in which the value at a path is to be set. What a service extends is not the service's own.
func (r *reader) stands(p path) (*source, error) {
	var found []spot
	for _, src := range r.main {
		found = append(found, src.roots()...)
	}
	depth := 0
	for ; depth < len(p); depth++ {
		next := step(found, p[depth])
		if len(next) == 0 {
			break
		}
		found = next
	}
	if len(found) == 0 {
		return nil, &Locked{Pos: r.main[0].pos(nil), Err: errors.New("the file is empty")}
	}
	last := found[len(found)-1]
	if depth == len(p) {
		for _, at := range found {
			if kind := follow(at.val).Kind; len(found) > 1 && kind != yaml.ScalarNode && at.src != last.src {
				return nil, &Locked{Pos: last.pos(), Err: fmt.Errorf("%s is put together from what stands here and at %s; change it by hand", p, at.pos())}
			}
		}
		return last.src, nil
	}
	for _, at := range found {
		if slices.Contains(r.main, at.src) {
			return at.src, nil
		}
	}
	return last.src, nil
}
