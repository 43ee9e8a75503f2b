package system

import (
	"errors"
	"fmt"
	"testing"
)

func TestSpecIgnoresPlaces(t *testing.T) {
	base := Service{Name: "api", Software: Software{Kind: Process, Run: []string{"./api"}}}
	for _, tt := range []struct {
		name   string
		change func(*Service)
		same   bool
	}{
		{"nothing", func(*Service) {}, true},
		{"replicas", func(s *Service) { s.Replicas = 7 }, true},
		{"route", func(s *Service) { s.Routes = []Route{{Path: "/x"}} }, true},
		{"architecture", func(s *Service) { s.Architecture = Ring }, true},
		{"position", func(s *Service) { s.Pos.Line = 9 }, true},
		{"environment", func(s *Service) { s.Environment = map[string]string{"A": "1"} }, false},
		{"bundle", func(s *Service) { s.Software.Digest = "sha256:1" }, false},
		{"memory", func(s *Service) { s.Limits.Memory = 1 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := base
			tt.change(&changed)
			if got := changed.Spec() == base.Spec(); got != tt.same {
				t.Errorf("same spec = %v, want %v", got, tt.same)
			}
		})
	}
}

// A built-in is opened with words that another program does not know.
func TestSpecOfABuiltin(t *testing.T) {
	base := Service{Software: Software{Kind: Builtin, From: "kv"}, Architecture: Partitioned, Copies: 2}
	for name, change := range map[string]func(*Service){
		"architecture": func(s *Service) { s.Architecture = Single },
		"copies":       func(s *Service) { s.Copies = 3 },
		"cas":          func(s *Service) { s.CAS = true },
		"write rule":   func(s *Service) { s.Write = "one" },
	} {
		changed := base
		if change(&changed); changed.Spec() == base.Spec() {
			t.Errorf("another %s is the same spec", name)
		}
	}
}

// A module may call what its service names in depends_on; to a process it is an order of start.
func TestSpecOfAModule(t *testing.T) {
	for kind, same := range map[SoftwareKind]bool{Wasm: false, Process: true} {
		base := Service{Software: Software{Kind: kind}}
		changed := base
		changed.DependsOn = []Dependency{{Service: "db"}}
		if got := changed.Spec() == base.Spec(); got != same {
			t.Errorf("%s: same spec with depends_on = %v, want %v", kind, got, same)
		}
	}
}

func TestInstanceSplit(t *testing.T) {
	name, n, err := Instance("shop-api", 12).Split()
	if name != "shop-api" || n != 12 || err != nil {
		t.Errorf("Split() = %q, %d, %v, want shop-api, 12, nil", name, n, err)
	}
	for _, bad := range []InstanceID{"", "api", "api/", "api/0", "/1", "api/x"} {
		if _, _, err := bad.Split(); err == nil {
			t.Errorf("Split(%q) = nil, want an error", bad)
		}
	}
}

func TestProblemsSortTogether(t *testing.T) {
	at := func(file string, line, col int, msg string) Problem {
		return Problem{Pos: Pos{file, line, col}, Msg: msg}
	}
	got := Problems{at("b", 1, 1, "x"), at("a", 10, 2, "y"), at("a", 2, 30, "z"), at("a", 2, 30, "z"), at("a", 2, 4, "w")}.Sort().Error()
	want := "a:2:4: w\na:2:30: z\na:10:2: y\nb:1:1: x"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNextFindsTheHint(t *testing.T) {
	err := fmt.Errorf("up: %w", &Hint{Err: errors.New("no room"), Next: "servent explain api"})
	if got, want := Next(err), "servent explain api"; got != want {
		t.Errorf("Next() = %q, want %q", got, want)
	}
}
