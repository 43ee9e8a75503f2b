package sysfile

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v4"

	"servent/system"
)

// Options of [Load]. The zero value reads the system of the working folder without variables.
type Options struct {
	Files        []string          // in order of merge; nil: COMPOSE_FILE, else compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml and compose.override.* of Dir
	Dir          string            // folder of the system: holds .env, relative Files start there; "": that of the first of Files, which start from the working folder, else the working folder
	Env          map[string]string // variables for ${…}; those of .env stand below them
	Profiles     []string          // besides COMPOSE_PROFILES; "*" is all
	Name         string            // of the system; "": COMPOSE_PROJECT_NAME, else the file's name, else the folder's
	AllowUnbuilt bool              // architectures, software and switches that cannot be run yet are no mistake
	Texts        map[string][]byte // that are read instead of the files of these absolute names, as [Edit] makes them
}

// Result is a system file, read.
type Result struct {
	System     *system.System
	Notes      system.Problems      // what is accepted and not acted on, sorted by place
	Files      []string             // that were read, as a user in the working folder names them
	NotCompose []system.ServiceName // services without image and build: docker compose refuses the file for these; empty: it accepts it
}

// Load reads a system file. A mistake in the user's files is a [system.Problems] with all of them; any
// other error means that no file could be read.
func Load(ctx context.Context, o Options) (*Result, error) {
	f, files, err := begin(o)
	if err != nil {
		return nil, err
	}
	f.name = cmp.Or(o.Name, f.env["COMPOSE_PROJECT_NAME"])
	if loader.NormalizeProjectName(f.name) != f.name {
		return nil, fmt.Errorf("name of the system: want %s, have %q", wantName, f.name)
	}
	f.env["COMPOSE_PROJECT_NAME"] = cmp.Or(f.name, loader.NormalizeProjectName(filepath.Base(f.home)), "system")
	if err := f.open(ctx, files, f.env); err != nil {
		return nil, err
	}
	if _, depth := spots(f.main, path{"services"}); depth == 0 && len(f.found.problems) == 0 {
		f.found.problem(f.pos(nil), nil, "no services; want at least one, as servent init NAME writes them")
	}
	if err := f.merge(ctx); err != nil && len(f.found.problems) == 0 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		f.blame(err)
	}
	res := &Result{}
	if f.project != nil {
		res.System = f.system()
		if len(res.System.Services) == 0 && len(f.found.problems) == 0 {
			f.found.problem(f.pos(path{"services"}), path{"services"}, "%s", f.off())
		}
		res.NotCompose = f.notCompose()
	}
	if len(f.found.problems) > 0 {
		return nil, once(f.found.problems)
	}
	res.Notes = once(f.found.notes)
	for _, s := range f.all {
		if !slices.Contains(res.Files, s.shown) {
			res.Files = append(res.Files, s.shown)
		}
	}
	return res, nil
}

// begin finds the files and the variables of a system.
func begin(o Options) (f *file, files []string, err error) {
	prepare()
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("folder of the system: %w", err)
	}
	f = &file{o: o, env: types.Mapping{}, reader: reader{dir: o.Dir, abs: abs, home: abs, texts: o.Texts, found: &findings{}}}
	maps.Copy(f.env, o.Env)
	if o.Dir == "" && len(o.Files) > 0 {
		f.home = filepath.Dir(absolute(abs, o.Files[0]))
	}
	if err := f.dotEnv(f.env); err != nil {
		return nil, nil, err
	}
	if files = o.Files; len(files) == 0 {
		files, err = f.discover(f.env)
	}
	return f, files, err
}

// file is one reading of a system file.
type file struct {
	reader
	o       Options
	env     types.Mapping
	name    string         // asked for by the caller, above the file's own
	project *types.Project // the merged model
}

// prepare stops compose-go's own log, for all that it would say is a note of ours with its place, and
// gives it the env_file format that docker compose adds to it.
var prepare = sync.OnceFunc(func() {
	logrus.SetOutput(io.Discard)
	dotenv.RegisterFormat("raw", rawEnv)
})

const wantName = "a name of lower-case letters, digits, - and _ that begins with a letter or digit"

// merge lets compose-go put the files together.
func (f *file) merge(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil { // a user's file must never end the program
			err = fmt.Errorf("the Compose library gave up on this file: %v", r)
		}
	}()
	details := types.ConfigDetails{WorkingDir: f.home, Environment: f.env.Clone()}
	for _, s := range f.main {
		text := s.text
		if s.pruned {
			if text, err = s.encode(); err != nil {
				return err
			}
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.file, Content: text})
	}
	profiles := slices.Clone(f.o.Profiles)
	if list := f.env["COMPOSE_PROFILES"]; list != "" {
		profiles = append(profiles, strings.Split(list, ",")...)
	}
	project, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(f.env["COMPOSE_PROJECT_NAME"], f.name != "")
		o.SkipConsistencyCheck = true   // ours has places
		o.SkipResolveEnvironment = true // env_file is looked for first, below
		o.SkipResolveLabels = true
		o.Profiles = profiles
		o.Interpolate.Substitute = func(s string, m template.Mapping) (string, error) {
			return template.SubstituteWithOptions(s, m, template.WithoutLogging)
		}
	})
	if err != nil {
		return err
	}
	f.project = project
	f.envFiles()
	if len(f.found.problems) == 0 {
		if f.project, err = project.WithServicesEnvironmentResolved(false); err == nil {
			f.project, err = f.project.WithServicesLabelsResolved(false)
		}
		if err != nil {
			f.project = nil
		}
	}
	return err
}

// encode writes a pruned file as YAML again.
func (s *source) encode() ([]byte, error) {
	var all []byte
	for _, doc := range s.docs {
		b, err := yaml.Marshal(doc)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.shown, err)
		}
		all = append(append(all, "---\n"...), b...)
	}
	return all, nil
}

// blamed finds the key that a message of compose-go is about.
var blamed = regexp.MustCompile(`\b(services|jobs|networks|volumes|secrets|configs|models|include)\.[\w.\[\]-]+`)

var blamedService = regexp.MustCompile(`service "([\w.-]+)"`)

// blame gives an error of compose-go, which has no place, the best one known.
func (f *file) blame(err error) {
	msg := err.Error()
	for _, s := range f.all {
		msg = strings.ReplaceAll(msg, s.file, s.shown)
	}
	msg = strings.ReplaceAll(msg, f.abs+string(filepath.Separator), "")
	at := path(nil)
	if m := blamed.FindString(msg); m != "" {
		at = path(strings.Split(strings.TrimRight(strings.ReplaceAll(m, "[", ".["), "."), "."))
	} else if m := blamedService.FindStringSubmatch(msg); m != nil {
		at = path{"services", m[1]}
	}
	_, depth := spots(f.main, at)
	msg = strings.TrimPrefix(strings.TrimSpace(strings.ReplaceAll(msg, "\n", " ")), at.String()+": ")
	if keys, ok := strings.CutSuffix(msg, " attributes are mutually exclusive"); ok {
		msg = "want one of " + strings.ReplaceAll(keys, "|", ", ") + "; have more than one"
	} else if keys, ok := strings.CutSuffix(msg, " must be set"); ok {
		msg = "want " + strings.ReplaceAll(keys, "|", ", ") + "; have none"
	}
	f.found.problem(f.pos(at), at[:depth], "%s", msg)
}

// once sorts problems and keeps one of those that say the same of the same place, as a shared anchor makes.
func once(ps system.Problems) system.Problems {
	ps = ps.Sort()
	said := map[system.Problem]bool{}
	return slices.DeleteFunc(ps, func(p system.Problem) bool {
		key := system.Problem{Pos: p.Pos, Msg: p.Msg}
		before := said[key]
		said[key] = true
		return before
	})
}

// off says why a system has no service, and which profiles would switch some on.
func (f *file) off() string {
	var all []string
	for _, s := range f.project.DisabledServices {
		all = append(all, s.Profiles...)
	}
	slices.Sort(all)
	if len(all) == 0 {
		return "no services; want at least one"
	}
	return "no service is on; these profiles have some: " + strings.Join(slices.Compact(all), ", ")
}

// notCompose are the services that docker compose would refuse.
func (f *file) notCompose() []system.ServiceName {
	var all []system.ServiceName
	for name, s := range f.project.Services {
		if s.Image == "" && s.Build == nil && s.Provider == nil {
			all = append(all, system.ServiceName(name))
		}
	}
	slices.Sort(all)
	return all
}
