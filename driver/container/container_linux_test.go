package container

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

func TestConformance(t *testing.T) {
	engine(t)
	good := onDisk(t, probeImage(t, v1.Config{}), nil)
	ends := good
	ends.Software.Container = &system.Container{Command: []string{"exit"}}
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{
			Driver: engine(t), Good: good, Ends: &ends, Spec: specFor, Path: "/", Says: "hello from a container",
			Bad: map[string]driver.Artifact{
				"no image":       {Software: system.Software{Kind: system.Image}},
				"no name":        {Software: system.Software{Kind: system.Image, From: "UPPER/case:!"}},
				"an empty place": {Software: system.Software{Kind: system.Image, From: "oci:./x"}, Dir: t.TempDir()},
				"no program":     onDisk(t, imageOf(t, v1.Config{}, layer(t, file1("a", "b"))), nil),
			},
		}
	})
}
