package container

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"servent/driver"
	"servent/driver/container/engine"
	"servent/system"
)

// probeEngine asks the engine that is to run containers, as runc may not.
func (d *Driver) probeEngine(ctx context.Context, caps driver.Caps, no error) driver.Caps {
	e, v, err := d.find(ctx)
	if err != nil {
		caps.Reason = cmp.Or(no, err).Error()
		if err != engine.ErrNone { // one was there, and does not do
			caps.Reason += "; and instead of it: " + err.Error()
		} else {
			caps.Reason += ", or start a Docker Engine or podman that your user may use"
		}
		return caps
	}
	if e != d.opts.Engine {
		e.Close()
	}
	caps.OK = true
	caps.Versions[v.Name] = v.Version
	caps.Limits = []string{"memory", "cpu", "pids", "open files"}
	if no != nil {
		caps.Missing["runc"] = no.Error()
	}
	return caps
}

// find returns the engine, when this program can be used as a cable.
func (d *Driver) find(ctx context.Context) (e *engine.Client, v engine.Version, err error) {
	if len(d.opts.Self) == 0 {
		return nil, v, engine.ErrNone
	}
	if e = d.opts.Engine; e != nil {
		v, err = e.Version(ctx)
	} else {
		e, v, err = engine.Find(ctx)
	}
	if err == nil {
		err = alone(d.opts.Self[0])
	}
	return e, v, err
}

// alone says that a program needs nothing but the kernel: no interpreter is named in it.
func alone(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("look into %s: %w", program, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("this servent is linked with the C library, and part of it must run in every image: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// by says what runs containers here: nil is runc. What was found once stays.
func (d *Driver) by(ctx context.Context) (*engine.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chosen {
		return d.engine, nil
	}
	var no error
	if d.opts.Engine == nil {
		if _, no = runc(ctx); no == nil {
			d.chosen = true
			return nil, nil
		}
	}
	e, v, err := d.find(ctx)
	if err != nil {
		return nil, errors.Join(no, err)
	}
	d.chosen, d.engine, d.name = true, e, v.Name
	return e, nil
}

// given makes sure that the engine has an image. It is sent there as the bytes that the plan names; the engine asks
// no registry.
func (d *Driver) given(ctx context.Context, a driver.Artifact, p *prepared) error {
	blobs, err := filepath.Abs(d.opts.Blobs)
	if err != nil {
		return err
	}
	hex, err := called(ctx, &a, p, blobs)
	if err != nil {
		return err
	}
	tag, err := name.NewTag("servent.local/image:"+hex, name.StrictValidation)
	if err != nil {
		return err
	}
	p.name = tag.String()
	has := false
	if p.image, has, err = p.engine.Image(ctx, p.name); has || err != nil {
		return err
	}
	img, _, err := open(ctx, a.Software.From, a.Dir)
	if err != nil {
		return err
	}
	cfg, _, err := configuration(img)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := tarball.Write(tag, img, w)
		_ = w.CloseWithError(err)
		made <- err
	}()
	err = p.engine.Load(ctx, r)
	_ = r.CloseWithError(io.ErrClosedPipe)
	bad := <-made
	if bad != nil && !errors.Is(bad, io.ErrClosedPipe) {
		return fmt.Errorf("%w: %w", driver.ErrArtifact, bad)
	}
	if refused, ok := errors.AsType[*engine.Refusal](err); ok {
		return fmt.Errorf("%w: the engine refuses it: %w", driver.ErrArtifact, refused)
	}
	p.image = cfg.Config
	return err
}

// label names this node among those that share an engine.
func (d *Driver) label() string {
	dir, err := filepath.Abs(d.opts.StateDir)
	if err != nil || d.opts.StateDir == "" {
		return "none"
	}
	return digestOf([]byte(dir))[:32]
}

// removeAll ends the containers with a label: the cables last, as others live in their network.
func removeAll(ctx context.Context, e *engine.Client, label string) error {
	all, err := e.List(ctx, label)
	for _, cables := range []bool{false, true} {
		for _, c := range all {
			if isCable(c) == cables {
				err = errors.Join(err, e.Remove(ctx, c.ID))
			}
		}
	}
	return err
}

func isCable(c engine.Listed) bool { return c.Labels[cableLabel] != "" }

// sweepEngine ends what an earlier life of the node left with the engine.
func (d *Driver) sweepEngine(ctx context.Context) ([]system.InstanceID, error) {
	if d.opts.StateDir == "" || len(d.opts.Self) == 0 {
		return nil, nil
	}
	e, err := d.by(ctx)
	if e == nil || err != nil {
		return nil, nil // nothing runs containers here
	}
	left, err := e.List(ctx, nodeLabel+"="+d.label())
	if err != nil {
		return nil, err
	}
	var swept []system.InstanceID
	for _, c := range left {
		if !isCable(c) {
			swept = append(swept, system.InstanceID(c.Labels[instanceLabel]))
		}
	}
	return swept, removeAll(ctx, e, nodeLabel+"="+d.label())
}
