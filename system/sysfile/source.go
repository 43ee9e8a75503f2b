package sysfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"servent/system"
)

// source is one file, as nodes.
type source struct {
	shown    string // name in messages
	file     string // absolute
	base     string // absolute folder that Compose's relative paths in it start from
	env      types.Mapping
	text     []byte
	docs     []*yaml.Node // each document's top mapping, pruned of mistakes
	pruned   bool
	lent     bool // read for the services that others extend
	includes []*source
	bases    map[string]base // service → what it extends in another place
}

// base is what a service extends.
type base struct {
	src     *source
	service string
}

// pos of a node; without one, the start of the file.
func (s *source) pos(n *yaml.Node) system.Pos {
	if n == nil || n.Line == 0 {
		return system.Pos{File: s.shown, Line: 1, Col: 1}
	}
	return system.Pos{File: s.shown, Line: n.Line, Col: n.Column}
}

// reader opens sources, each file once for a set of variables.
type reader struct {
	dir   string            // Options.Dir as given; names are shown from here
	abs   string            // dir, absolute
	home  string            // folder of the system, absolute
	texts map[string][]byte // of files that are not read from disk, by absolute name
	found *findings
	all   []*source
	main  []*source // the system file and its overrides, in order of merge
}

// shown is how a user in the calling folder would name a file.
func (r *reader) shown(file string) string {
	if rel, err := filepath.Rel(r.abs, file); err == nil {
		return filepath.ToSlash(filepath.Join(r.dir, rel))
	}
	return filepath.ToSlash(file)
}

// defaultFiles are the system file and its override, the first of each that exists.
var defaultFiles = [][]string{
	{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"},
	{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"},
}

// discover returns the system file of a folder and its override, or what COMPOSE_FILE names.
func (r *reader) discover(env types.Mapping) ([]string, error) {
	if list := env["COMPOSE_FILE"]; list != "" {
		return strings.Split(list, cmp.Or(env["COMPOSE_PATH_SEPARATOR"], string(os.PathListSeparator))), nil
	}
	var files []string
	for _, kind := range defaultFiles {
		i := slices.IndexFunc(kind, func(name string) bool {
			info, err := os.Stat(filepath.Join(r.abs, name))
			return err == nil && !info.IsDir()
		})
		if i >= 0 {
			files = append(files, kind[i])
		} else if len(files) == 0 {
			return nil, &system.Hint{
				Err:  fmt.Errorf("no %s in %s", strings.Join(kind, ", "), r.abs),
				Next: "servent init shop",
			}
		}
	}
	return files, nil
}

// open reads the main files with all that they include and extend.
func (r *reader) open(ctx context.Context, files []string, env types.Mapping) error {
	for _, name := range files {
		file := absolute(r.abs, name)
		src := &source{shown: r.shown(file), file: file, base: r.home, env: env}
		if err := r.read(ctx, src, nil); err != nil {
			return fmt.Errorf("system file: %w", err)
		}
		r.main = append(r.main, src)
	}
	return nil
}

// maxFile bounds what is taken for a system file.
const maxFile = 8 << 20

// readable says why something cannot be read as a text: a pipe would block, a device may never end.
func readable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("want a file, have the folder %s", file)
	case !info.Mode().IsRegular():
		return fmt.Errorf("want a file, have the device or pipe %s", file)
	case info.Size() > maxFile:
		return fmt.Errorf("want at most %d MiB, have %d in %s", maxFile>>20, info.Size()>>20, file)
	}
	return nil
}

// texts are the words of a scalar or a list of them, with variables put in.
func texts(s *source, n *yaml.Node) []string {
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		if t, _, err := s.interpolate(n.Value); err == nil {
			return []string{t}
		}
	case n.Kind == yaml.SequenceNode:
		var all []string
		for _, one := range n.Content {
			if one = follow(one); one != nil && one.Kind == yaml.ScalarNode {
				all = append(all, texts(s, one)...)
			}
		}
		return all
	}
	return nil
}

func first(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

func absolute(base, file string) string {
	file = paths.ExpandUser(file)
	if filepath.IsAbs(file) {
		return filepath.Clean(file)
	}
	return filepath.Join(base, file)
}

// brief says why a file could not be read, without its absolute name twice.
func (r *reader) brief(err error) string {
	if bad, ok := errors.AsType[*os.PathError](err); ok {
		if errors.Is(err, os.ErrNotExist) {
			return "no such file: " + r.shown(bad.Path)
		}
		return bad.Err.Error() + ": " + r.shown(bad.Path)
	}
	return strings.ReplaceAll(err.Error(), r.abs+string(filepath.Separator), "")
}
