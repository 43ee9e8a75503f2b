package container

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// supervised runs an image under a supervisor and returns it with the states that it went through.
func supervised(t *testing.T, d *Driver, a driver.Artifact, h system.Health) (*driver.Supervisor, <-chan driver.Status) {
	t.Helper()
	states := make(chan driver.Status, 1000)
	s := driver.New(driver.Job{
		Instance: "web/1", Service: &system.Service{Name: "web", Software: a.Software, Health: h},
		Prepare: func(ctx context.Context) (driver.Prepared, error) { return d.Prepare(ctx, a) },
		Spec:    specFor(t, 1),
	}, driver.Options{Report: func(st driver.Status) {
		select {
		case states <- st:
		default:
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, states
}

// become waits for a state that says a word.
func become(t *testing.T, states <-chan driver.Status, want system.State, word string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	var last driver.Status
	for {
		select {
		case last = <-states:
			if last.State == want && strings.Contains(last.Why, word) {
				return
			}
		case <-limit:
			t.Fatalf("last %s %q, want %s with %q", last.State, last.Why, want, word)
		}
	}
}

// The image's HEALTHCHECK runs in the container and decides; the file's times stand over its own.
func TestImageHealthcheck(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	a := onDisk(t, probeImage(t, v1.Config{Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/bin/probe", "exists", "/tmp/well"}, Interval: time.Hour, StartPeriod: time.Second}}), nil)
	s, states := supervised(t, d, a, system.Health{Interval: 50 * time.Millisecond, Retries: 2})
	become(t, states, system.StateStarting, "/tmp/well: no such file")
	write := func(path string) {
		if status, _, err := drivertest.Ask(t.Context(), s.Status().Endpoint, path); err != nil || status != 200 {
			t.Fatalf("%s: %d %v", path, status, err)
		}
	}
	write("/write?path=/tmp/well")
	become(t, states, system.StateReady, "")
	write("/remove?path=/tmp/well")
	become(t, states, system.StateUnhealthy, "2 checks failed: run /bin/probe: exit status 1: stat /tmp/well: no such file")
	write("/write?path=/tmp/well")
	become(t, states, system.StateReady, "")
}

// The file's own check takes the image's place, also one that says that there is none.
func TestHealthcheckOfTheFile(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	a := onDisk(t, probeImage(t, v1.Config{Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/bin/probe", "false"}}}), nil)
	for name, h := range map[string]system.Health{
		"disable": {Disabled: true},
		"command": {Command: []string{"CMD", "/bin/probe", "true"}},
		"HTTP":    {HTTP: "/me"},
		"TCP":     {TCP: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, states := supervised(t, d, a, h)
			become(t, states, system.StateReady, "")
		})
	}
}

func TestDeclared(t *testing.T) {
	for _, tt := range []struct {
		name  string
		shell []string
		check *v1.HealthConfig
		want  system.Health
	}{
		{"none", nil, nil, system.Health{}},
		{"NONE", nil, &v1.HealthConfig{Test: []string{"NONE"}}, system.Health{}},
		{"inherit", nil, &v1.HealthConfig{Interval: time.Second}, system.Health{}},
		{"unknown", nil, &v1.HealthConfig{Test: []string{"RUN", "x"}}, system.Health{Interval: checkEvery, Timeout: checkEvery, Retries: 3}},
		{"CMD", nil, &v1.HealthConfig{Test: []string{"CMD", "a", "b"}}, system.Health{Command: []string{"CMD", "a", "b"}, Interval: checkEvery, Timeout: checkEvery, Retries: 3}},
		{"CMD-SHELL", nil, &v1.HealthConfig{Test: []string{"CMD-SHELL", "a || exit 1"}, Interval: 1, Timeout: 2, Retries: 4, StartPeriod: 5},
			system.Health{Command: []string{"CMD-SHELL", "a || exit 1"}, Interval: 1, Timeout: 2, Retries: 4, StartPeriod: 5}},
		{"SHELL", []string{"/bin/bash", "-lc"}, &v1.HealthConfig{Test: []string{"CMD-SHELL", "a"}, Interval: 1, Timeout: 2, Retries: 4},
			system.Health{Command: []string{"CMD", "/bin/bash", "-lc", "a"}, Interval: 1, Timeout: 2, Retries: 4}},
	} {
		i := &instance{p: &prepared{image: v1.Config{Healthcheck: tt.check, Shell: tt.shell}}}
		got := i.Declared()
		if !slices.Equal(got.Command, tt.want.Command) || got.Interval != tt.want.Interval || got.Timeout != tt.want.Timeout ||
			got.Retries != tt.want.Retries || got.StartPeriod != tt.want.StartPeriod {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// A command is run in the container's network, not in the node's.
func TestExecNetwork(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), &system.Container{Ports: []int{7000}}), specFor(t, 1))
	if err := i.Exec(t.Context(), []string{"/bin/probe", "links", "127.0.0.1:7000"}); err != nil {
		t.Errorf("it does not see loopback alone, and its program on it: %v", err)
	}
}

// A check that does not end in time leaves no process behind.
func TestHungCheck(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	i := up(t, d, onDisk(t, probeImage(t, v1.Config{}), nil), specFor(t, 1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := i.Exec(ctx, []string{"/bin/probe", "hang"}); err == nil {
		t.Error("a check that hangs = nil, want an error")
	}
	type held struct{ Processes int }
	for range 100 {
		if decode[held](t, ask(t, i, "/hold")).Processes == 1 {
			return
		}
		time.Sleep(100 * time.Millisecond) // a real process's end, in the kernel's time
	}
	t.Error("the command still runs")
}
