package inside

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// greeter answers with hello, and counts what is open.
type greeter struct {
	open, running int
	data          string
	ran           chan struct{}
	closes        error
}

func (g *greeter) start(_ driver.Spec, data string) (*Program, error) {
	if data == "refuse" {
		return nil, errors.New("the folder is in use")
	}
	g.open++
	g.data, g.ran = data, make(chan struct{})
	return &Program{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }),
		Run: func(ctx context.Context) error {
			g.running++
			close(g.ran)
			<-ctx.Done()
			g.running--
			return nil
		},
		Check: func(context.Context) error { return g.closes },
		Close: func() error { g.open--; return g.closes },
	}, nil
}

func builtinOf(name string) driver.Artifact {
	return driver.Artifact{Software: system.Software{Kind: system.Builtin, From: name}}
}

func TestBuiltinConforms(t *testing.T) {
	hello := func(driver.Spec, string) (*Program, error) {
		return &Program{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }),
			Close: func() error { return nil }}, nil
	}
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{Driver: Builtin(map[string]Open{"hello": hello}), Spec: spec, Path: "/x", Says: "hello",
			Good: builtinOf("hello"),
			Bad: map[string]driver.Artifact{
				"unknown":      builtinOf("flow"),
				"another kind": {Software: system.Software{Kind: system.Files, From: "hello"}},
			}}
	})
}

func TestBuiltinIsClosedWhenItStops(t *testing.T) {
	g := &greeter{}
	p, err := Builtin(map[string]Open{"hello": g.start}).Prepare(t.Context(), builtinOf("hello"))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	i, err := p.Start(t.Context(), driver.Spec{Instance: "db/1", Dir: "/private", Env: []string{"SERVENT_DATA=/private/data"}, Stderr: &said})
	if err != nil || g.open != 1 || g.data != "/private/data" {
		t.Fatalf("Start() = %v; open %d with %q", err, g.open, g.data)
	}
	<-g.ran
	if err := i.(driver.Checker).Check(t.Context()); err != nil {
		t.Errorf("Check() = %v", err)
	}
	g.closes = errors.New("disk is gone")
	if err := i.(driver.Checker).Check(t.Context()); err == nil {
		t.Error("Check() = nil of a program that is not well")
	}
	if err := i.Stop(t.Context(), 0); err != nil || g.open != 0 || g.running != 0 {
		t.Errorf("Stop() = %v; open %d, running %d, want none", err, g.open, g.running)
	}
	if !strings.Contains(said.String(), "disk is gone") {
		t.Errorf("what Close said is not in the log: %q", said.String())
	}
	if _, err := p.Start(t.Context(), driver.Spec{Instance: "db/1", Env: []string{"SERVENT_DATA=refuse"}}); err == nil {
		t.Error("an instance without its folder was started")
	}
}
