package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"servent/driver"
)

// bootFor is how long a guest may take until it answers for the first time.
const bootFor = 5 * time.Minute

// template is a machine that was booted once, without a name, and saved when it answered.
type template struct{ dir string }

func (t *template) state() string { return filepath.Join(t.dir, "state") }
func (t *template) disk() string  { return filepath.Join(t.dir, "disk.qcow2") }

// warm returns the template of a machine, and makes it if there is none.
func (d *Driver) warm(ctx context.Context, p *prepared) (*template, error) {
	parent := d.o.Templates
	if parent == "" {
		return nil, errors.New("there is no folder for it")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %+v %s %s", p.digest, p.m, p.q.program, noKVM()))
	t := &template{filepath.Join(parent, hex.EncodeToString(sum[:16]))}
	if _, err := os.Stat(t.state()); err == nil {
		return t, nil
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "making")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := p.make(ctx, dir); err != nil {
		return nil, err
	}
	if err := os.Rename(dir, t.dir); err != nil {
		if _, other := os.Stat(t.state()); other != nil { // nobody else has made it meanwhile
			return nil, err
		}
	}
	return t, nil
}

// make boots the machine in dir, waits until it answers and saves it there.
func (p *prepared) make(ctx context.Context, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, bootFor)
	defer cancel()
	port, err := freePort()
	if err != nil {
		return err
	}
	began := time.Now()
	m, err := p.start(ctx, driver.Spec{Host: "127.0.0.1", Port: port, Dir: dir}, nil)
	if err != nil {
		return err
	}
	exit := m.Wait()
	defer func() { err = errors.Join(err, m.Instance.Stop(context.WithoutCancel(ctx), 0)) }()
	for {
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		why := m.Check(once)
		cancel()
		if why == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not answer in %v: %w", bootFor, why)
		case e := <-exit:
			return fmt.Errorf("%w: it ended before it answered: %s", driver.ErrArtifact, e)
		case <-time.After(50 * time.Millisecond):
		}
	}
	q, err := dial(ctx, m.socket())
	if err != nil {
		return err
	}
	defer q.close()
	boot := time.Since(began)
	if err := q.save(ctx, filepath.Join(dir, "state")); err != nil {
		return err
	}
	p.d.o.Log.Info("a warm machine is made", "dur", boot)
	return nil
}

// freePort is one that nobody has just now.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
