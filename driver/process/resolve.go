package process

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"servent/driver"
)

// resolve finds the program and says what it is called with. A relative path that exists in the bundle
// becomes an absolute one, for the working folder is the instance's own. A program that is not in the
// bundle is looked for in the instance's PATH. The error wraps [driver.ErrArtifact].
func (d *Driver) resolve(run []string, bundle string, env []string) (program string, args []string, err error) {
	name := run[0]
	switch {
	case name == "servent" && d.opts.Self != "":
		program = d.opts.Self
	default:
		program, err = find(name, bundle, env)
		if err != nil {
			return "", nil, err
		}
	}
	args = []string{program}
	for _, arg := range run[1:] {
		if path, ok := within(bundle, arg); ok && arg != "." {
			arg = path
		}
		args = append(args, arg)
	}
	return program, args, nil
}

// find looks for an executable.
func find(name, bundle string, env []string) (string, error) {
	suffixes := suffixes(name, env)
	if filepath.IsAbs(name) {
		if path, ok := executable(name, suffixes); ok {
			return path, nil
		}
		return "", missing(name, "", nil)
	}
	if path, ok := within(bundle, name, suffixes...); ok {
		if path, ok := executable(path, []string{""}); ok {
			return path, nil
		} else if isPath(name) {
			return "", fmt.Errorf("%s is in the bundle and no executable file: %w", name, driver.ErrArtifact)
		}
	}
	if isPath(name) {
		return "", missing(name, bundle, nil)
	}
	path, _ := lookup(env, "PATH")
	folders := filepath.SplitList(path)
	for _, folder := range folders {
		if !filepath.IsAbs(folder) {
			continue // a relative PATH would mean another program in every working folder
		}
		if found, ok := executable(filepath.Join(folder, name), suffixes); ok {
			return found, nil
		}
	}
	return "", missing(name, bundle, folders)
}

// isPath tells ./bin/api from python3.
func isPath(name string) bool {
	return filepath.IsAbs(name) || strings.ContainsRune(name, '/') || runtime.GOOS == "windows" && strings.ContainsRune(name, '\\')
}

func missing(name, bundle string, path []string) error {
	var where []string
	if bundle != "" {
		where = append(where, "the bundle "+bundle)
	}
	if len(path) > 0 {
		where = append(where, "PATH "+strings.Join(path, string(filepath.ListSeparator)))
	}
	looked := ""
	if len(where) > 0 {
		looked = "; looked in " + strings.Join(where, " and in ")
	}
	return fmt.Errorf("no executable %q%s: %w", name, looked, driver.ErrArtifact)
}

// within returns the absolute path of what exists in the bundle under a relative name.
func within(bundle, name string, suffixes ...string) (string, bool) {
	local := filepath.FromSlash(name)
	if bundle == "" || !filepath.IsLocal(local) {
		return "", false
	}
	for _, suffix := range append(suffixes, "") {
		path := filepath.Join(bundle, local) + suffix
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// executable returns the path with the suffix that makes it an executable file.
func executable(path string, suffixes []string) (string, bool) {
	for _, suffix := range suffixes {
		info, err := os.Stat(path + suffix)
		if err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0) {
			return path + suffix, true
		}
	}
	return "", false
}

// suffixes that make a name executable: none, but on Windows.
func suffixes(name string, env []string) []string {
	if runtime.GOOS != "windows" || filepath.Ext(name) != "" {
		return []string{""}
	}
	list, _ := lookup(env, "PATHEXT")
	if list == "" {
		list = ".exe;.com;.bat;.cmd"
	}
	return strings.Split(strings.ToLower(list), ";")
}
