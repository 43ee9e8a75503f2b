package sysfile

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system/notation"
)

// read fills a source and follows its includes and extends. above are the files that include it.
func (r *reader) read(ctx context.Context, s *source, above []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, ours := r.texts[s.file]
	if !ours {
		err := readable(s.file)
		if err == nil {
			text, err = os.ReadFile(s.file)
		}
		if err != nil {
			return err
		}
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
			src := &source{shown: r.shown(abs), file: abs, base: filepath.Dir(abs), env: s.env, lent: true}
			if err := r.read(ctx, src, above); err != nil {
				return bad("cannot extend from %s: %s", file, r.brief(err))
			}
			i = slices.Index(r.all, src)
		}
		target.src = r.all[i]
	}
	if known := target.src.services(); !slices.Contains(known, target.service) {
		return bad("no service %q in %s%s", target.service, target.src.shown, notation.Suggest(target.service, known))
	}
	chain := []string{name}
	for at, ok := target, true; ok; at, ok = at.src.bases[at.service] { // none of those before is a circle
		chain = append(chain, at.service)
		if at == (base{s, name}) {
			return bad("a service extends itself: %s", strings.Join(chain, " → "))
		}
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
