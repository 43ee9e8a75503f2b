package sysfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
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
	dir   string // Options.Dir as given; names are shown from here
	abs   string // dir, absolute
	home  string // folder of the system, absolute
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
	return system.Problems{{Pos: pos, Msg: msg}}
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

// read fills a source and follows its includes and extends. above are the files that include it.
func (r *reader) read(ctx context.Context, s *source, above []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := readable(s.file); err != nil {
		return err
	}
	text, err := os.ReadFile(s.file)
	if err != nil {
		return err
	}
	s.text = text
	r.all = append(r.all, s)
	s.parse(r.found)
	w := walk{src: s, found: r.found, left: maxNodes}
	if w.file(); w.left < 0 {
		s.docs = nil // nobody else goes through it
	}
	r.follow(ctx, s, append(slices.Clip(above), s.file))
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
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", file)
	case info.Size() > maxFile:
		return fmt.Errorf("%s has %d bytes, more than %d", file, info.Size(), maxFile)
	}
	return nil
}

// parse turns text into nodes. A file that is not YAML has one mistake, and nothing more is read of it.
func (s *source) parse(found *findings) {
	dec, err := yaml.NewLoader(bytes.NewReader(s.text), yaml.WithV3Defaults())
	if err != nil {
		panic("sysfile: the YAML reader: " + err.Error()) // our options are constant
	}
	for {
		var doc yaml.Node
		err := dec.Load(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.malformed(found, err)
			return
		}
		if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		top := doc.Content[0]
		if top.Kind != yaml.MappingNode {
			found.problem(s.pos(top), nil, "want a mapping with the key services, have %s", have(top))
			s.pruned = true
			continue
		}
		s.docs = append(s.docs, top)
	}
	if len(s.docs) == 0 && !s.pruned {
		found.problem(s.pos(nil), nil, "the file is empty; it wants services")
		s.pruned = true
	}
}

// malformed reports text that is not YAML.
func (s *source) malformed(found *findings, err error) {
	pos, msg := s.pos(nil), err.Error()
	if bad, ok := errors.AsType[*yaml.LoadError](err); ok {
		msg = bad.Message
		if bad.Mark.Line > 0 {
			pos.Line, pos.Col = bad.Mark.Line, max(bad.Mark.Column, 1)
		} else if at := firstBad(s.text); at > 0 {
			pos.Line = 1 + bytes.Count(s.text[:at], []byte("\n"))
			pos.Col = at - bytes.LastIndexByte(s.text[:at], '\n')
		}
		if bad.ContextMsg != "" && bad.ContextMark.Line > 0 && bad.ContextMark.Line < pos.Line {
			msg += fmt.Sprintf(" (%s that begins in line %d)", bad.ContextMsg, bad.ContextMark.Line)
		}
	}
	lines := bytes.Split(s.text, []byte("\n"))
	if pos.Line <= len(lines) {
		line := lines[pos.Line-1]
		if indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]; bytes.ContainsRune(indent, '\t') {
			pos.Col, msg = bytes.IndexByte(line, '\t')+1, "a tab cannot indent YAML; use spaces"
		}
	}
	found.problem(pos, nil, "not YAML: %s", msg)
	s.pruned = true
}

// firstBad is the offset of the first byte that is not UTF-8, or -1.
func firstBad(text []byte) int {
	return bytes.IndexFunc(text, func(r rune) bool { return r == '\uFFFD' })
}

// follow reads what a file includes, and what its services extend in other files.
func (r *reader) follow(ctx context.Context, s *source, above []string) {
	for _, doc := range s.docs {
		if _, inc := lookup(doc, "include", 0); inc != nil && follow(inc).Kind == yaml.SequenceNode {
			list := follow(inc)
			kept := make([]*yaml.Node, 0, len(list.Content))
			for i, one := range list.Content {
				if r.include(ctx, s, follow(one), path{"include"}.item(i), above) {
					kept = append(kept, one)
				}
			}
			list.Content = kept
		}
		if _, services := lookup(doc, "services", 0); services != nil && follow(services).Kind == yaml.MappingNode {
			m := follow(services)
			for i := 0; i+1 < len(m.Content); i += 2 {
				svc := follow(m.Content[i+1])
				if svc != nil && svc.Kind == yaml.MappingNode && !r.extend(ctx, s, m.Content[i].Value, svc, above) {
					drop(svc, "extends")
				}
			}
			for i := 0; i+1 < len(m.Content); i += 2 {
				if name := m.Content[i].Value; s.circular(r, name) {
					delete(s.bases, name)
					drop(follow(m.Content[i+1]), "extends")
				}
			}
		}
	}
}

// drop takes a key out of a mapping.
func drop(m *yaml.Node, name string) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			m.Content = slices.Delete(slices.Clone(m.Content), i, i+2)
			return
		}
	}
}

// circular reports a service that extends itself by way of others.
func (s *source) circular(r *reader, name string) bool {
	chain, at := []base{{s, name}}, base{s, name}
	for {
		next, ok := at.src.bases[at.service]
		if !ok {
			return false
		}
		chain, at = append(chain, next), next
		if i := slices.Index(chain, next); i < len(chain)-1 {
			var words []string
			for _, b := range chain[i:] {
				words = append(words, b.service)
			}
			if i == 0 {
				found := step(step(step(s.roots(), "services"), name), "extends")
				r.found.problem(found[len(found)-1].pos(), path{"services", name, "extends"}, "a service extends itself: %s", strings.Join(words, " → "))
				s.pruned = true
			}
			return i == 0
		}
	}
}

// include reads one entry of include: a file with its overrides, as a system of its own. False means
// that Compose must not see the entry.
func (r *reader) include(ctx context.Context, s *source, entry *yaml.Node, at path, above []string) bool {
	bad := func(format string, args ...any) bool {
		r.found.problem(s.pos(entry), at, format, args...)
		s.pruned = true
		return false
	}
	files := texts(s, entry)
	base, envFiles := "", []string(nil)
	if entry.Kind == yaml.MappingNode {
		_, p := lookup(entry, "path", 0)
		files = texts(s, follow(p))
		if _, d := lookup(entry, "project_directory", 0); d != nil {
			base = absolute(s.base, first(texts(s, follow(d))))
		}
		if _, e := lookup(entry, "env_file", 0); e != nil {
			for _, f := range texts(s, follow(e)) {
				envFiles = append(envFiles, absolute(s.base, f))
			}
		}
	}
	if len(files) == 0 && r.found.faulty(at) {
		return false
	}
	if len(files) == 0 {
		return bad("want a file to include")
	}
	if base == "" {
		base = filepath.Dir(absolute(s.base, files[0]))
	}
	if dot := filepath.Join(base, ".env"); envFiles == nil && readable(dot) == nil {
		envFiles = []string{dot}
	}
	env := s.env
	if len(envFiles) > 0 {
		more, err := variables(s.env, envFiles)
		if err != nil {
			return bad("env_file: %s", r.brief(err))
		}
		env = s.env.Clone().Merge(more)
	}
	fine := true
	for _, f := range files {
		file := absolute(s.base, f)
		if slices.Contains(above, file) {
			var chain []string
			for _, up := range append(above[slices.Index(above, file):], file) {
				chain = append(chain, r.shown(up))
			}
			fine = bad("a file includes itself: %s", strings.Join(chain, " → "))
			continue
		}
		inc := &source{shown: r.shown(file), file: file, base: base, env: env}
		if err := r.read(ctx, inc, above); err != nil {
			fine = bad("cannot include %s: %s", f, r.brief(err))
			continue
		}
		s.includes = append(s.includes, inc)
	}
	return fine
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

// extend remembers what a service extends and reads its file. False means that Compose must not see it.
func (r *reader) extend(ctx context.Context, s *source, name string, svc *yaml.Node, above []string) bool {
	_, ext := lookup(svc, "extends", 0)
	if ext = follow(ext); ext == nil || ext.Tag == "!reset" {
		return true
	}
	at := path{"services", name, "extends"}
	target, file, pos := base{src: s}, "", ext
	switch ext.Kind {
	case yaml.ScalarNode:
		target.service = first(texts(s, ext))
	case yaml.MappingNode:
		_, of := lookup(ext, "service", 0)
		_, in := lookup(ext, "file", 0)
		target.service, file = first(texts(s, follow(of))), first(texts(s, follow(in)))
		if of != nil {
			pos = of
		}
	}
	bad := func(format string, args ...any) bool {
		r.found.problem(s.pos(pos), at, format, args...)
		s.pruned = true
		return false
	}
	if abs := absolute(s.base, file); file != "" && abs != s.file {
		i := slices.IndexFunc(r.all, func(o *source) bool { return o.file == abs })
		if i < 0 {
			src := &source{shown: r.shown(abs), file: abs, base: filepath.Dir(abs), env: s.env}
			if err := r.read(ctx, src, above); err != nil {
				return bad("cannot extend from %s: %s", file, r.brief(err))
			}
			i = slices.Index(r.all, src)
		}
		target.src = r.all[i]
	}
	if known := target.src.services(); !slices.Contains(known, target.service) {
		return bad("no service %q in %s%s", target.service, target.src.shown, suggest(target.service, known))
	}
	if s.bases == nil {
		s.bases = map[string]base{}
	}
	s.bases[name] = target
	return true
}

// services are the names of a file's own services.
func (s *source) services() []string {
	found := map[string]bool{}
	for _, at := range step(s.roots(), "services") {
		if m := follow(at.val); m != nil && m.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(m.Content); i += 2 {
				found[m.Content[i].Value] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
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
