package sysfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"servent/system"
)

// dotEnv adds the variables of .env, under those of the caller.
func (r *reader) dotEnv(env types.Mapping) error {
	file := filepath.Join(r.home, ".env")
	off, _ := strconv.ParseBool(env["COMPOSE_DISABLE_ENV_FILE"])
	if off || readable(file) != nil {
		return nil
	}
	more, err := dotenv.GetEnvFromFile(env, []string{file})
	if err != nil {
		return r.envProblem(file, err)
	}
	env.Merge(more)
	return nil
}

// envProblem gives a mistake in a file of variables its line.
func (r *reader) envProblem(file string, err error) error {
	pos, msg := system.Pos{File: r.shown(file), Line: 1, Col: 1}, err.Error()
	msg = strings.TrimPrefix(msg, "failed to read "+file+": ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if _, err := fmt.Sscanf(rest, "%d:", &pos.Line); err == nil {
			_, msg, _ = strings.Cut(rest, ": ")
		}
	}
	if !strings.HasPrefix(msg, "want") {
		msg = "want NAME=value: " + msg
	}
	return system.Problems{{Pos: pos, Msg: msg}}
}

// variables reads files of variables; /dev/null stands for none.
func variables(env types.Mapping, files []string) (map[string]string, error) {
	files = slices.DeleteFunc(files, func(f string) bool { return f == os.DevNull })
	for _, f := range files {
		if err := readable(f); err != nil {
			return nil, err
		}
	}
	return dotenv.GetEnvFromFile(env, files)
}

// envFiles checks that every env_file is there, before Compose reads them.
func (f *file) envFiles() {
	for name, c := range f.project.Services {
		for i, e := range c.EnvFiles {
			at := path{"services", name, "env_file"}
			if p := at.item(i); f.exact(p) {
				at = p
			}
			err := readable(e.Path)
			if err != nil && e.Path != os.DevNull && (bool(e.Required) || !os.IsNotExist(err)) {
				f.found.problem(f.pos(at), at, "%s", f.brief(err))
			}
		}
		for _, file := range c.LabelFiles {
			at := path{"services", name, "label_file"}
			if err := readable(file); err != nil {
				f.found.problem(f.pos(at), at, "%s", f.brief(err))
			}
		}
	}
}

// rawEnv reads NAME=value lines as they stand.
func rawEnv(r io.Reader, _ string, vars map[string]string, _ func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name, v, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			vars[strings.TrimSpace(name)] = v
		}
	}
	return lines.Err()
}

// interpolate puts variables into a value as Compose does and names those that are not set.
func (s *source) interpolate(text string) (out string, unset []string, err error) {
	if !strings.Contains(text, "$") {
		return text, nil, nil
	}
	lookup := func(name string) (string, bool) {
		v, ok := s.env[name]
		return v, ok
	}
	replace := func(sub string, m template.Mapping, c *template.Config) (string, error) {
		v, set, err := template.DefaultReplacementAppliedFunc(sub, m, c)
		if err == nil && !set {
			unset = append(unset, strings.Trim(sub, "${}"))
		}
		return v, err
	}
	out, err = template.SubstituteWithOptions(text, lookup, template.WithoutLogging, template.WithReplacementFunction(replace))
	if missing, ok := errors.AsType[*template.MissingRequiredError](err); ok {
		return "", nil, errors.New(strings.TrimSuffix("variable "+missing.Variable+" must be set: "+missing.Reason, ": "))
	}
	if err != nil {
		return "", nil, fmt.Errorf("want a variable like ${NAME:-default}, have %q; a plain $ is written $$", text)
	}
	return out, unset, nil
}
