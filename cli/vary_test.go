package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"servent/lab/result"
	"servent/system"
)

// The names of variants are short, and no two are alike.
func TestVariantNames(t *testing.T) {
	sys := &system.System{Services: []system.Service{{Name: "web"}, {Name: "api"}}}
	for _, tt := range []struct {
		vary []string
		want string
	}{
		{[]string{"architecture=single,ring"}, "single|ring"},
		{[]string{"architecture=single,replicated", "switch.policy=p2c,random"}, "single p2c|single random|replicated p2c|replicated random"},
		{[]string{"architecture=single,ring", "scale.max=2,8"}, "single max=2|single max=8|ring max=2|ring max=8"},
		{[]string{"scale.min=1,2", "scale.max=2,3"}, "min=1 max=2|min=1 max=3|min=2 max=2|min=2 max=3"},
		{[]string{"scale.max=2", "services.api.x-servent.scale.max=2,3"}, "web.x-servent.scale.max=2 api.x-servent.scale.max=2|web.x-servent.scale.max=2 api.x-servent.scale.max=3"},
		{[]string{"idempotent=true,false"}, "idempotent=true|idempotent=false"},
		{[]string{"environment.A=x,y", "environment.B=y,z"}, "x B=y|x z|A=y B=y|A=y z"},
		{[]string{"process=./a --long flag,./b"}, "process#1|process=./b"},
	} {
		axes, _, err := wanted(sys, "web", compareOptions{vary: tt.vary})
		if err != nil {
			t.Errorf("%v: %v", tt.vary, err)
			continue
		}
		all, err := combinations(axes)
		if err != nil {
			t.Errorf("%v: %v", tt.vary, err)
			continue
		}
		var names []string
		for _, v := range all {
			names = append(names, v.Name)
		}
		if got := strings.Join(names, "|"); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.vary, got, tt.want)
		}
		if slices.Sort(names); len(slices.Compact(names)) != len(all) {
			t.Errorf("%v: two names are alike", tt.vary)
		}
	}
}

// The file names variants and axes side by side; flags win over both.
func TestVariantsOfTheFile(t *testing.T) {
	w := &world{t: t, dir: t.TempDir()}
	w.write("compose.yaml", `services:
  web:
    x-servent: {process: [servent, example, counter], route: [/a/*, /b/*]}
x-servent:
  compare:
    variants:
      architecture: [single, replicated]
      big: {scale.max: 8, architecture: replicated, route: /c/*}
      wrong: {scale.max: 8}
`)
	e := &env{dir: w.dir, err: &strings.Builder{}}
	base, err := e.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := e.variants(t.Context(), base, "web", compareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		said := v.Name
		if v.System != nil {
			said += " " + string(v.System.Service("web").Architecture)
		} else {
			said += ": " + v.Refused
		}
		got = append(got, said)
	}
	if want := []string{"single single", "replicated replicated", "big replicated", "wrong: single has one instance; for more say architecture: replicated"}; !slices.Equal(got, want) {
		t.Errorf("variants %q, want %q", got, want)
	}
	if s := all[2].System.Service("web"); s.Scale.Max != 8 || len(s.Routes) != 1 || s.Routes[0].Path != "/c/*" {
		t.Errorf("big: scale %+v, routes %+v; want its own values in the place of the file's", s.Scale, s.Routes)
	}
	if all, err = e.variants(t.Context(), base, "web", compareOptions{vary: []string{"scale.max=1"}}); err != nil || len(all) != 1 || all[0].Name != "max=1" {
		t.Errorf("with --vary: %+v, %v", all, err)
	}
	base.System.Compare.Variants[0].Name = "single"
	if _, err = e.variants(t.Context(), base, "web", compareOptions{}); !errors.As(err, new(misuse)) {
		t.Errorf("two variants of one name: %v", err)
	}
}

// decided is a folder in which a comparison of service web was made.
func decided(t *testing.T, files map[string]string, given []string, set map[string]string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	for name, text := range files {
		w.write(name, text)
	}
	dir := filepath.Join(w.dir, ".servent", "results", "0001")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &result.Result{Version: result.Version, Service: "web", Files: []string{"compose.yaml"}, Given: given, Variants: []result.Variant{{Name: "best", Set: set}}}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return w
}

// apply changes one word of the user's file and not one byte more.
func TestApply(t *testing.T) {
	const plain = `# A shop.

services:
   web:          # three columns
      x-servent:
           "process": [servent, example, counter]
           'architecture':   single     # which one?
           key: /c/{key}

volumes: {}   # none
`
	to := map[string]string{"architecture": "partitioned"}
	set := func(old, word string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, word, 1) }
	}
	word := set("   single  ", "   partitioned  ")
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	const says = "compose.yaml:7:30  services.web.x-servent.architecture: single → partitioned\n"
	for _, tt := range []struct {
		name   string
		text   string
		change func(string) string
		set    map[string]string
		want   string
	}{
		{"comments, odd columns, quoted keys", plain, word, to, says},
		{"CR LF", crlf(plain), word, to, says},
		{"byte order mark", "\ufeff" + plain, word, to, says},
		{"flow", "services: {web: {x-servent: {process: [servent, example, counter], \"architecture\": 'single', key: \"/c/{key}\"}}}  # all of it\n",
			set("'single'", "'partitioned'"), to, "compose.yaml:1:84  services.web.x-servent.architecture: single → partitioned\n"},
		{"anchors beside it", strings.Replace(plain, "volumes: {}", "x-a: &a {b: 1}\nx-b: *a", 1), word, to, says},
		{"a variable", strings.Replace(plain, "single", "${ARCHITECTURE:-single}", 1), set("${ARCHITECTURE:-single}", "partitioned"), to,
			"compose.yaml:7:30  services.web.x-servent.architecture: ${ARCHITECTURE:-single} → partitioned\n"},
		{"missing", strings.Replace(plain, "           'architecture':   single     # which one?\n", "", 1), set("           key: /c/{key}\n", "           key: /c/{key}\n           architecture: partitioned\n"), to,
			"compose.yaml:8:26  services.web.x-servent.architecture: partitioned (added)\n"},
		{"its mapping is missing, too", plain, func(s string) string {
			return set("key: /c/{key}\n", "key: /c/{key}\n           scale:\n                max: 8\n")(word(s))
		},
			map[string]string{"architecture": "partitioned", "scale.max": "8"},
			says + "compose.yaml:10:22  services.web.x-servent.scale.max: 8 (added)\n"},
		{"what is so already", plain, func(s string) string { return s }, map[string]string{"architecture": "single"}, "compose.yaml:7:30  services.web.x-servent.architecture: single, as it is\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := decided(t, map[string]string{"compose.yaml": tt.text}, nil, tt.set)
			file := filepath.Join(w.dir, "compose.yaml")
			out, err := w.run("apply", "best", "--dry-run")
			if err != nil || !strings.HasPrefix(strings.ReplaceAll(out, w.dir+string(filepath.Separator), ""), tt.want) {
				t.Errorf("apply --dry-run: %v\n%s\nwant\n%s", err, out, tt.want)
			}
			if got, _ := os.ReadFile(file); string(got) != tt.text {
				t.Errorf("--dry-run wrote\n%s", got)
			}
			if out, err := w.run("apply", "best"); err != nil || !strings.HasSuffix(out, "up\n") {
				t.Errorf("apply: %v\n%s", err, out)
			}
			got, err := os.ReadFile(file)
			if want := tt.change(tt.text); err != nil || string(got) != want {
				t.Errorf("apply made\n%q\nwant\n%q, %v", got, want, err)
			}
			if out, err := w.run("validate"); err != nil {
				t.Errorf("validate: %v\n%s", err, out)
			}
		})
	}
}

// Of several files the one is changed that has the value, and a link leads to the file that is.
func TestApplyFindsTheFile(t *testing.T) {
	const a = "services:\n  web:\n    x-servent: {process: [servent, example, counter], architecture: single}\n"
	const b = "services:\n  web: {x-servent: {architecture: single}}   # wins\n"
	w := decided(t, map[string]string{"a.yaml": a, "b.yaml": b}, []string{"a.yaml", "b.yaml"}, map[string]string{"architecture": "replicated"})
	if out, err := w.run("apply", "best"); err != nil || !strings.Contains(out, "b.yaml:2:35  services.web.x-servent.architecture: single → replicated") {
		t.Errorf("apply: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"a.yaml": a, "b.yaml": strings.Replace(b, "single", "replicated", 1)} {
		if got, err := os.ReadFile(filepath.Join(w.dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is now %q, %v; want %q", name, got, err, want)
		}
	}

	w = decided(t, map[string]string{"real.yaml": a}, nil, map[string]string{"architecture": "replicated"})
	if err := os.Symlink("real.yaml", filepath.Join(w.dir, "compose.yaml")); err != nil {
		t.Skip("no links here: ", err)
	}
	if out, err := w.run("apply", "best"); err != nil {
		t.Errorf("apply: %v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(w.dir, "real.yaml"))
	info, lerr := os.Lstat(filepath.Join(w.dir, "compose.yaml"))
	if want := strings.Replace(a, "single", "replicated", 1); err != nil || string(got) != want || lerr != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("behind the link is %q, %v; the link is %v, %v", got, err, info.Mode(), lerr)
	}
}

// What stands for several places is not touched, and the place is told.
func TestApplyRefuses(t *testing.T) {
	const shared = "x-all: &all {process: [servent, example, counter]}\nservices:\n  web: {x-servent: *all}\n  other: {x-servent: *all}\n"
	w := decided(t, map[string]string{"compose.yaml": shared}, nil, map[string]string{"architecture": "replicated"})
	out, err := w.run("apply", "best")
	if err == nil || !strings.Contains(out, "compose.yaml:3:20: services.web.x-servent is *all, which stands for other places, too; change it by hand") {
		t.Errorf("apply: %v\n%s", err, out)
	}
	if got, _ := os.ReadFile(filepath.Join(w.dir, "compose.yaml")); string(got) != shared {
		t.Errorf("the file is now\n%s", got)
	}
}
