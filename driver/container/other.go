//go:build !linux

package container

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"servent/driver"
	"servent/system"
)

const no = "containers are a thing of Linux, and this is "

// Probe implements [driver.Driver].
func (d *Driver) Probe(context.Context) driver.Caps {
	return driver.Caps{Reason: no + runtime.GOOS + "; join a Linux node"}
}

// Prepare implements [driver.Driver].
func (d *Driver) Prepare(context.Context, driver.Artifact) (driver.Prepared, error) {
	return nil, fmt.Errorf("%w: %s%s", driver.ErrArtifact, no, runtime.GOOS)
}

// Sweep finds nothing.
func (d *Driver) Sweep(context.Context) ([]system.InstanceID, error) { return nil, nil }

// Close closes nothing.
func (d *Driver) Close() error { return nil }

// Main is a process beside an instance, where there are any.
func Main(context.Context, []string, io.Reader) error {
	return fmt.Errorf("%s%s", no, runtime.GOOS)
}
