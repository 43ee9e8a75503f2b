package inside

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"servent/driver"
	"servent/system"
)

// Program is a built-in program, opened for one instance.
type Program struct {
	Handler http.Handler
	Run     func(ctx context.Context) error // what it does between requests, until ctx ends; nil: nothing
	Check   func(ctx context.Context) error // why it is not well; nil: it always is
	Close   func() error                    // when no request is open and Run has returned
}

// Open opens a program for an instance, with its data in a folder.
type Open func(s driver.Spec, data string) (*Program, error)

// Builtin is the driver of programs inside Servent, by their name in the file. Who assembles the node hands them in.
func Builtin(programs map[string]Open) driver.Driver { return builtinDriver{programs} }

type builtinDriver struct{ programs map[string]Open }

func (builtinDriver) Name() string { return string(system.Builtin) }

func (builtinDriver) Probe(context.Context) driver.Caps {
	return driver.Caps{OK: true, Move: driver.MoveNone}
}

func (d builtinDriver) Prepare(_ context.Context, a driver.Artifact) (driver.Prepared, error) {
	open := d.programs[a.Software.From]
	if a.Software.Kind != system.Builtin || open == nil {
		return nil, fmt.Errorf("prepare builtin: there is no %s %q: %w", a.Software.Kind, a.Software.From, driver.ErrArtifact)
	}
	return preparedBuiltin{open}, nil
}

type preparedBuiltin struct{ open Open }

func (preparedBuiltin) Close() error { return nil }

func (p preparedBuiltin) Start(_ context.Context, s driver.Spec) (driver.Instance, error) {
	data := s.Dir
	for _, v := range s.Env {
		if dir, ok := strings.CutPrefix(v, "SERVENT_DATA="); ok {
			data = dir
		}
	}
	prog, err := p.open(s, data)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Instance, err)
	}
	stderr := s.Stderr
	if stderr == nil {
		stderr = io.Discard
	}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	if prog.Run != nil {
		work.Go(func() {
			if err := prog.Run(ctx); err != nil {
				fmt.Fprintln(stderr, err)
			}
		})
	}
	check := prog.Check
	if check == nil {
		check = func(context.Context) error { return nil }
	}
	return driver.Host(string(s.Instance), prog.Handler, check, func() {
		stop()
		work.Wait()
		if err := prog.Close(); err != nil {
			fmt.Fprintln(stderr, err)
		}
	}), nil
}
