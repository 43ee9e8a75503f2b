package sysfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

func TestAssign(t *testing.T) {
	sys := &system.System{Services: []system.Service{{Name: "web"}, {Name: "my.api"}}, Nodes: []system.NodeGroup{{Name: "eu"}}}
	for _, tt := range []struct{ text, want string }{
		{"architecture", "services.web.x-servent.architecture"},
		{"switch.policy", "services.web.x-servent.switch.policy"},
		{"deploy.replicas", "services.web.deploy.replicas"},
		{"environment.VERSION", "services.web.environment.VERSION"},
		{"ports[0]", "services.web.ports[0]"},
		{"ports[1].target", "services.web.ports[1].target"},
		{`services."my.api".x-servent.scale.max`, "services.my.api.x-servent.scale.max"},
		{"services.web.x-servent.scale.max", "services.web.x-servent.scale.max"},
		{"x-servent.nodes.eu.capacity.rate", "x-servent.nodes.eu.capacity.rate"},
		{"x-servent.architecture", "services.web.x-servent.architecture"},
		{"volumes.data.name", `services.web.volumes has no "data"`},

		{"architectur", `want a key of a service's x-servent, have "architectur" (did you mean "architecture"?)`},
		{"switch.polcy", `services.web.x-servent.switch has no "polcy" (did you mean "policy"?)`},
		{"services.wep.x-servent.architecture", `services has no "wep" (did you mean "web"?)`},
		{"x-servent.nodes.ue.count", `x-servent.nodes has no "ue" (did you mean "eu"?)`},
		{"switch", "services.web.x-servent.switch takes a mapping; name one of its keys: by, model, policy, proxy, sticky"},
		{"x-servent.compare.load.keys", "is the comparison's own"},
		{"architecture[0]", `services.web.x-servent.architecture has no "[0]"`},
		{"", "want keys with a dot between"},
		{"a..b", "want keys with a dot between"},
		{`"a`, "want keys with a dot between"},
		{`"a"b`, "want keys with a dot between"},
		{"ports[x]", "want keys with a dot between"},
		{"ports[0", "want keys with a dot between"},
	} {
		got, err := Assign(sys, "web", tt.text, "v")
		said := got.String()
		if err != nil {
			said = err.Error()
		}
		if !strings.Contains(said, tt.want) || err == nil && said != tt.want {
			t.Errorf("%s: %s, want %s", tt.text, said, tt.want)
		}
	}
}

// A value is set in the file that it stands in, and what is read with the texts is what is read when they are written.
func TestEdit(t *testing.T) {
	const web = "services:\n  web:\n    x-servent:\n      process: ./web   # it\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		o     Options
		set   []string // path=value
		want  []string // changes, or the error's words
		left  map[string]string
	}{
		{
			name: "the only file", files: map[string]string{"compose.yaml": web},
			set:  []string{"architecture=replicated", "scale.max=8"},
			want: []string{"compose.yaml:5:21: services.web.x-servent.architecture: added replicated", "compose.yaml:7:14: services.web.x-servent.scale.max: added 8"},
			left: map[string]string{"compose.yaml": web + "      architecture: replicated\n      scale:\n        max: 8\n"},
		},
		{
			name: "the last of several wins", o: Options{Files: []string{"a.yaml", "b.yaml"}},
			files: map[string]string{"a.yaml": web + "      architecture: single\n", "b.yaml": "services:\n  web: {x-servent: {architecture: replicated}}\n"},
			set:   []string{"architecture=single"},
			want:  []string{"b.yaml:2:35: services.web.x-servent.architecture: replicated → single"},
			left:  map[string]string{"a.yaml": web + "      architecture: single\n", "b.yaml": "services:\n  web: {x-servent: {architecture: single}}\n"},
		},
		{
			name:  "an override without the key",
			files: map[string]string{"compose.yaml": web + "      architecture: single\n", "compose.override.yaml": "services:\n  web:\n    restart: always\n"},
			set:   []string{"architecture=replicated"},
			want:  []string{"compose.yaml:5:21: services.web.x-servent.architecture: single → replicated"},
		},
		{
			name:  "a key that no file has goes where its mapping is",
			files: map[string]string{"compose.yaml": web, "compose.override.yaml": "services:\n  web:\n    deploy:\n        mode: replicated\n"},
			set:   []string{"architecture=replicated", "deploy.replicas=3"},
			want:  []string{"compose.yaml:5:21: services.web.x-servent.architecture: added replicated", "compose.override.yaml:5:19: services.web.deploy.replicas: added 3"},
		},
		{
			name:  "an included file",
			files: map[string]string{"compose.yaml": "include: [more/c.yaml]\nservices: {other: {x-servent: {process: ./o}}}\n", "more/c.yaml": web},
			set:   []string{"architecture=replicated"},
			want:  []string{"more/c.yaml:1:1: services.web.x-servent.architecture stands in this file, which is included"},
		},
		{
			name:  "what it extends is for others, too",
			files: map[string]string{"compose.yaml": "services:\n  base: {x-servent: {process: ./b, architecture: single}}\n  web: {extends: base}\n"},
			set:   []string{"architecture=replicated"},
			want:  []string{"compose.yaml:3:35: services.web.x-servent.architecture: added replicated"},
		},
		{
			name:  "a list is replaced, not made longer",
			files: map[string]string{"compose.yaml": web + "      route: [/a/*, /b/*]\n"},
			set:   []string{"route=/c/*"},
			want:  []string{"compose.yaml:5:14: services.web.x-servent.route: [/a/*, /b/*] → /c/*"},
		},
		{
			name: "a list from two files", o: Options{Files: []string{"a.yaml", "b.yaml"}},
			files: map[string]string{"a.yaml": web + "      route: [/a/*]\n", "b.yaml": "services: {web: {x-servent: {route: [/b/*]}}}\n"},
			set:   []string{"route=/c/*"},
			want:  []string{"b.yaml:1:30: services.web.x-servent.route is put together from what stands here and at a.yaml:5:7"},
		},
		{
			name:  "an anchor",
			files: map[string]string{"compose.yaml": "x-a: &a {process: ./w}\nservices: {web: {x-servent: *a}}\n"},
			set:   []string{"architecture=replicated"},
			want:  []string{"compose.yaml:2:29: services.web.x-servent is *a, which stands for other places, too; change it by hand"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			t.Chdir(dir)
			before, err := Load(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var set []Assignment
			for _, s := range tt.set {
				text, value, _ := strings.Cut(s, "=")
				a, err := Assign(before.System, "web", text, value)
				if err != nil {
					t.Fatal(err)
				}
				set = append(set, a)
			}
			e, err := Edit(t.Context(), tt.o, set)
			if err != nil {
				if locked := (*Locked)(nil); len(tt.want) != 1 || !strings.Contains(err.Error(), tt.want[0]) || !errors.As(err, &locked) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				return
			}
			var said []string
			for _, c := range e.Changes {
				if c.Added {
					said = append(said, fmt.Sprintf("%s: %s: added %s", c.Pos, c.Path, c.New))
				} else {
					said = append(said, fmt.Sprintf("%s: %s: %s → %s", c.Pos, c.Path, c.Old, c.New))
				}
			}
			if diff := cmp.Diff(tt.want, said); diff != "" {
				t.Error(diff)
			}
			o := tt.o
			o.Texts = e.Texts
			inMemory, err := Load(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range e.Texts {
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			written, err := Load(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(written, inMemory); diff != "" {
				t.Errorf("what compare runs is not what apply writes: %s", diff)
			}
			for name, want := range tt.left {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
					t.Errorf("%s is now\n%s, %v; want\n%s", name, got, err, want)
				}
			}
			for i, a := range set {
				if got := inMemory.System.Service("web"); strings.HasSuffix(a.String(), "architecture") && string(got.Architecture) != a.Value {
					t.Errorf("%s = %s: the service has %s", tt.set[i], a.Value, got.Architecture)
				}
			}
			if s := inMemory.System.Service("web"); tt.name == "a list is replaced, not made longer" && (len(s.Routes) != 1 || s.Routes[0].Path != "/c/*") {
				t.Errorf("routes %+v, want /c/* alone", s.Routes)
			}
		})
	}
}
