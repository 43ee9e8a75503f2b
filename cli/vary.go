package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"servent/lab"
	"servent/system"
	"servent/system/sysfile"
)

// mostVariants is how many are compared at once: each is a system of its own, and all take turns.
const mostVariants = 8

// axis is a path that varies, and its values.
type axis struct {
	path, label string // label is what tells it from the other axes
	values      []string
}

// variants are the ways in which the application is run: every combination of the axes' values, and those that
// the file names. One that the file's declarations forbid is kept with the reason.
func (e *env) variants(ctx context.Context, base *sysfile.Result, service system.ServiceName, o compareOptions) ([]lab.Variant, error) {
	axes, named, err := wanted(base.System, service, o)
	if err != nil {
		return nil, err
	}
	all, err := combinations(axes)
	if err != nil {
		return nil, err
	}
	for _, v := range named {
		if slices.ContainsFunc(all, func(u lab.Variant) bool { return u.Name == v.Name }) {
			return nil, misuse{fmt.Errorf("two variants are called %q; give the one in x-servent.compare.variants another name", v.Name)}
		}
		all = append(all, lab.Variant{Name: v.Name, Set: v.Set})
	}
	if err := few(len(all), o.scale); err != nil {
		return nil, err
	}
	for i := range all {
		if err := e.variant(ctx, base, service, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// few refuses more variants than can be compared side by side.
func few(n int, scale string) error {
	how := ""
	if scale == "both" {
		n, how = 2*n, ", out and up"
	}
	if n > mostVariants {
		return misuse{&system.Hint{Err: fmt.Errorf("%d variants%s; at most %d are compared at once", n, how, mostVariants), Next: "servent compare --vary with fewer paths or values"}}
	}
	return nil
}

// wanted are the axes of the flags, else the file's axes and named variants, else the architectures.
func wanted(sys *system.System, service system.ServiceName, o compareOptions) (axes []axis, named []system.Variant, err error) {
	var from []system.Axis
	for _, w := range o.vary {
		path, values, ok := strings.Cut(w, "=")
		if !ok || path == "" || values == "" {
			return nil, nil, misuse{&system.Hint{Err: fmt.Errorf("vary: want PATH=A,B, have %q", w), Next: "servent compare --vary architecture=single,replicated"}}
		}
		from = append(from, system.Axis{Path: path, Values: strings.Split(values, ",")})
	}
	switch c := sys.Compare; {
	case len(from) > 0:
	case c != nil && len(c.Axes)+len(c.Variants) > 0:
		from, named = c.Axes, c.Variants
	default:
		from = []system.Axis{{Path: "architecture", Values: lab.Architectures(sys.Service(service), o.depth())}}
	}
	var paths []string
	for _, x := range from {
		a, err := sysfile.Assign(sys, service, x.Path, "")
		if err != nil {
			return nil, nil, misuse{&system.Hint{Err: fmt.Errorf("vary: %w", err), Next: "servent schema   (or docs/file.md) has every key"}}
		}
		if slices.Contains(paths, a.String()) {
			return nil, nil, misuse{fmt.Errorf("vary: %s stands twice", x.Path)}
		}
		paths = append(paths, a.String())
		values := slices.Clone(x.Values)
		if slices.Sort(values); len(slices.Compact(values)) < len(x.Values) {
			return nil, nil, misuse{fmt.Errorf("vary: a value of %s stands twice", x.Path)}
		}
		axes = append(axes, axis{path: x.Path, values: x.Values})
	}
	for i := range axes {
		axes[i].label = label(paths, i)
	}
	return axes, named, nil
}

// label is the shortest end of a path that no other path has.
func label(paths []string, i int) string {
	keys := strings.Split(paths[i], ".")
	for n := 1; n < len(keys); n++ {
		end := strings.Join(keys[len(keys)-n:], ".")
		if !slices.ContainsFunc(paths, func(p string) bool { return p != paths[i] && strings.HasSuffix("."+p, "."+end) }) {
			return end
		}
	}
	return paths[i]
}

// word says what it is by itself, as single and p2c do; 8 and true do not.
var word = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,23}$`)

// combinations of the axes' values, in their order, the last one changing fastest, each with a short name.
func combinations(axes []axis) ([]lab.Variant, error) {
	if len(axes) == 0 {
		return nil, nil
	}
	n := 1
	for _, a := range axes {
		if n *= len(a.values); n > mostVariants {
			return nil, few(n, "")
		}
	}
	all := []lab.Variant{{Set: map[string]string{}}}
	for i, a := range axes {
		var next []lab.Variant
		for _, v := range all {
			for j, value := range a.values {
				set := maps.Clone(v.Set)
				set[a.path] = value
				next = append(next, lab.Variant{Name: strings.TrimSpace(v.Name + " " + called(axes, i, j)), Set: set})
			}
		}
		all = next
	}
	return all, nil
}

// called is a value's part of a variant's name: the word itself, where only one axis has it; max=8; and a number
// for a text that is no name.
func called(axes []axis, i, j int) string {
	a, value := axes[i], axes[i].values[j]
	elsewhere := func(b axis) bool { return b.path != a.path && slices.Contains(b.values, value) }
	switch {
	case value == "true" || value == "false" || slices.ContainsFunc(axes, elsewhere):
	case word.MatchString(value):
		return value
	case len(value) > 24 || strings.ContainsAny(value, " \t\n\"'"):
		return fmt.Sprintf("%s#%d", a.label, j+1)
	}
	return a.label + "=" + value
}

// variant reads the user's file with a variant's values set in it, in memory: what apply would write.
func (e *env) variant(ctx context.Context, base *sysfile.Result, service system.ServiceName, v *lab.Variant) error {
	edition, err := e.edit(ctx, base.System, service, v.Set)
	if locked := (*sysfile.Locked)(nil); errors.As(err, &locked) {
		v.Refused = locked.Error()
		return nil
	}
	if err != nil {
		return err
	}
	o := e.source()
	o.Texts = edition.Texts
	_, err = e.read(ctx, o, v)
	return err
}

// edit sets a variant's values in the user's files, in memory.
func (e *env) edit(ctx context.Context, sys *system.System, service system.ServiceName, values map[string]string) (*sysfile.Edition, error) {
	var set []sysfile.Assignment
	for _, path := range slices.Sorted(maps.Keys(values)) {
		a, err := sysfile.Assign(sys, service, path, values[path])
		if err != nil {
			return nil, misuse{err}
		}
		set = append(set, a)
	}
	return sysfile.Edit(ctx, e.source(), set)
}

// read reads and bundles a variant's system, or says why it cannot be run. It returns the notes on it.
func (e *env) read(ctx context.Context, o sysfile.Options, v *lab.Variant) (system.Problems, error) {
	res, err := sysfile.Load(ctx, o)
	if problems := (system.Problems)(nil); errors.As(err, &problems) {
		var why []string
		for _, p := range problems {
			why = append(why, p.Msg)
		}
		v.Refused = strings.Join(why, "; ")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := e.bundle(ctx, res.System); err != nil {
		return nil, err
	}
	v.System = res.System
	return res.Notes, nil
}

// wholeFiles reads each file as a variant of its own. Load, goal and service are those of the first.
func (e *env) wholeFiles(ctx context.Context, base *sysfile.Result, files []string) ([]lab.Variant, error) {
	if err := few(len(files), ""); err != nil {
		return nil, err
	}
	var all []lab.Variant
	for i, name := range fileNames(files) {
		v := lab.Variant{Name: name, File: filepath.ToSlash(files[i])}
		o := e.source()
		o.Files, o.Dir = []string{filepath.Base(files[i])}, filepath.Dir(files[i])
		notes, err := e.read(ctx, o, &v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files[i], err)
		}
		for _, note := range notes {
			if i > 0 { // those of the first are told already
				fmt.Fprintf(e.err, "note: %s\n", note.Error())
			}
		}
		if v.System != nil {
			v.System.Compare = base.System.Compare
		}
		all = append(all, v)
	}
	return all, nil
}

// fileNames are short names for files: without folder and ending, where that tells them apart, else with the
// folder that it stands in, else as they were given.
func fileNames(files []string) []string {
	for _, short := range []func(string) string{
		func(f string) string { return strings.TrimSuffix(filepath.Base(f), filepath.Ext(f)) },
		func(f string) string { return filepath.Base(filepath.Dir(absolute(f))) },
	} {
		var names []string
		for _, f := range files {
			names = append(names, short(f))
		}
		sorted := slices.Sorted(slices.Values(names))
		if len(slices.Compact(sorted)) == len(files) {
			return names
		}
	}
	return files
}

func absolute(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

// whole takes several files among the verb's words: the first one's folder is the system's. One word may be a
// folder.
func (e *env) whole(args []string, o compareOptions) error {
	if len(args) < 2 {
		return e.at(args)
	}
	if len(o.vary) > 0 || len(e.files) > 0 {
		return misuse{errors.New("want several files, each a variant of its own, or --vary and -f, which are of one; have both")}
	}
	seen := map[string]bool{}
	for _, f := range args {
		info, err := os.Stat(f)
		switch {
		case err != nil:
			return misuse{err}
		case info.IsDir():
			return misuse{fmt.Errorf("want files to compare, have the folder %s", f)}
		case seen[absolute(f)]:
			return misuse{fmt.Errorf("%s stands twice", f)}
		}
		seen[absolute(f)] = true
	}
	return e.at(args[:1])
}
