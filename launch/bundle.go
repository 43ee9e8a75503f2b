package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"servent/blob"
	"servent/driver/container"
	"servent/system"
)

// Step is one thing that Bundle does, told when it begins and when it ends.
type Step struct {
	Service system.ServiceName
	Text    string // go build -o bin/api ./api
	Done    bool
	Took    time.Duration
}

// Bundle builds what is older than its sources, packs every service's local files into blobs and sets
// their digests in sys. It changes nothing else: the same files give the same digests.
func Bundle(ctx context.Context, sys *system.System, store *blob.Store, told func(Step)) error {
	if err := webFiles(sys.Web, store); err != nil {
		return err
	}
	for i := range sys.Services {
		s := &sys.Services[i]
		if err := bundle(ctx, s, store, told); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		for j := range s.Files {
			if err := mounted(&s.Files[j], store); err != nil {
				return fmt.Errorf("%s: %s %s: %w", s.Name, s.Files[j].Kind, s.Files[j].Name, err)
			}
		}
	}
	return nil
}

func bundle(ctx context.Context, s *system.Service, store *blob.Store, told func(Step)) error {
	sw := &s.Software
	switch sw.Kind {
	case system.Process:
		if err := build(ctx, s, told); err != nil {
			return err
		}
		paths, err := processFiles(sw)
		if err != nil || len(paths) == 0 {
			return err
		}
		return pack(sw, store, sw.Dir, paths)
	case system.Wasm:
		if err := build(ctx, s, told); err != nil {
			return err
		}
		file := product(sw)
		if info, err := os.Stat(file); err != nil {
			return &system.Hint{Err: fmt.Errorf("%s: wasm: %w", s.Pos, err), Next: buildHint(sw)}
		} else if info.IsDir() {
			return fmt.Errorf("%s: wasm: want a module, %s is a folder", s.Pos, file)
		}
		return pack(sw, store, filepath.Dir(file), []string{filepath.Base(file)})
	case system.VM:
		if err := build(ctx, s, told); err != nil {
			return err
		}
		var paths []string
		for _, file := range []string{sw.Machine.Disk, sw.Machine.Kernel, sw.Machine.Initrd, sw.Machine.UserData} {
			if file == "" {
				continue
			}
			if info, err := os.Stat(filepath.Join(sw.Dir, file)); err != nil {
				return &system.Hint{Err: fmt.Errorf("%s: vm: %w", s.Pos, err), Next: buildHint(sw)}
			} else if !info.Mode().IsRegular() {
				return fmt.Errorf("%s: vm: want a file, %s is none", s.Pos, file)
			}
			paths = append(paths, filepath.Clean(file))
		}
		return pack(sw, store, sw.Dir, paths)
	case system.Files:
		root := sw.From
		if !filepath.IsAbs(root) {
			root = filepath.Join(sw.Dir, root)
		}
		if info, err := os.Stat(root); err != nil {
			return &system.Hint{Err: fmt.Errorf("%s: files: %w", s.Pos, err), Next: "mkdir -p " + root}
		} else if !info.IsDir() {
			return fmt.Errorf("%s: files: want a folder, %s is a file", s.Pos, root)
		}
		return pack(sw, store, root, []string{"."})
	case system.Image:
		return image(ctx, s, store, told)
	}
	return nil
}

// image packs one that lies on disk, and asks where one comes from which bytes it is now, so that all nodes run
// the same ones.
func image(ctx context.Context, s *system.Service, store *blob.Store, told func(Step)) error {
	sw := &s.Software
	path, local := container.Local(sw.From)
	if sw.Recipe != nil {
		dir, err := os.MkdirTemp("", "servent-build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		path = filepath.Join(dir, filepath.Base(path))
		if err := buildImage(ctx, s, path, told); err != nil {
			return err
		}
	}
	if local {
		if !filepath.IsAbs(path) {
			path = filepath.Join(sw.Dir, path)
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("%s: image: %w", s.Pos, err)
		}
		root, what := path, "."
		if !info.IsDir() {
			root, what = filepath.Dir(path), filepath.Base(path)
		}
		if err := pack(sw, store, root, []string{what}); err != nil {
			return err
		}
	}
	step := Step{Service: s.Name, Text: "find image " + sw.From}
	told(step)
	began, bundle := time.Now(), ""
	if local {
		var err error
		if bundle, err = store.Bundle(sw.Digest); err != nil {
			return err
		}
	}
	if err := container.Resolve(ctx, sw, store.Dir, bundle); err != nil {
		return fmt.Errorf("%s: %w", s.Pos, err)
	}
	step.Done, step.Took = true, time.Since(began)
	told(step)
	return nil
}

// processFiles are the local files a process needs: every relative path in its command that exists, and
// what is included.
func processFiles(sw *system.Software) ([]string, error) {
	var paths []string
	if runtime.GOOS == "windows" && filepath.Ext(sw.Run[0]) == "" {
		if _, err := os.Stat(filepath.Join(sw.Dir, sw.Run[0]+".exe")); err == nil { // as compilers name it there
			sw.Run = append([]string{sw.Run[0] + ".exe"}, sw.Run[1:]...)
		}
	}
	for i, arg := range sw.Run {
		if filepath.IsAbs(arg) || i > 0 && !looksLikePath(arg) && !strings.Contains(arg, ".") {
			continue
		}
		_, err := os.Lstat(filepath.Join(sw.Dir, arg))
		switch {
		case err == nil && filepath.IsLocal(arg):
			paths = append(paths, filepath.Clean(arg))
		case i == 0 && looksLikePath(arg):
			return nil, &system.Hint{Err: fmt.Errorf("run: no program %s in %s", arg, sw.Dir), Next: buildHint(sw)}
		}
	}
	for _, inc := range sw.Include {
		if !filepath.IsLocal(inc) {
			return nil, fmt.Errorf("include %s: want a path inside %s", inc, sw.Dir)
		}
		if _, err := os.Lstat(filepath.Join(sw.Dir, inc)); err != nil {
			return nil, fmt.Errorf("include: %w", err)
		}
		paths = append(paths, filepath.Clean(inc))
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func looksLikePath(arg string) bool { return strings.ContainsAny(arg, `/\`) }

func buildHint(sw *system.Software) string {
	if len(sw.Build) > 0 {
		return "run the build by hand: cd " + sw.Dir + " && " + strings.Join(sw.Build, " ")
	}
	switch sw.Kind {
	case system.Wasm:
		return "add build: beside module:, or check the path"
	case system.VM:
		return "add build: under vm, or check the path"
	}
	return "add build: under process, or check the path in run:"
}

func pack(sw *system.Software, store *blob.Store, root string, paths []string) error {
	r, w := io.Pipe()
	go func() { // ends when Put has read all, or stops reading
		w.CloseWithError(blob.Pack(w, root, paths))
	}()
	digest, err := store.Put(r)
	r.CloseWithError(err)
	if err != nil {
		return fmt.Errorf("bundle %s: %w", root, err)
	}
	sw.Digest = digest
	return nil
}

func mounted(f *system.MountedFile, store *blob.Store) error {
	var content io.Reader = strings.NewReader(f.Text)
	switch {
	case f.From != "":
		file, err := os.Open(f.From)
		if err != nil {
			return err
		}
		defer file.Close()
		content = file
	case f.Env != "":
		text, ok := os.LookupEnv(f.Env)
		if !ok {
			return fmt.Errorf("environment variable %s is not set", f.Env)
		}
		content = strings.NewReader(text)
	}
	digest, err := store.Put(content)
	if err != nil {
		return err
	}
	f.Digest, f.Text = digest, ""
	return nil
}

// build runs a service's build command when its program is missing or older than any source.
func build(ctx context.Context, s *system.Service, told func(Step)) error {
	sw := &s.Software
	if len(sw.Build) == 0 {
		return nil
	}
	fresh, err := upToDate(sw)
	if err != nil || fresh {
		return err
	}
	step := Step{Service: s.Name, Text: strings.Join(sw.Build, " ")}
	told(step)
	began := time.Now()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, sw.Build[0], sw.Build[1:]...)
	if sw.Kind == system.Wasm { // so that one line builds it on every system
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = sw.Dir, &out, &out, 2*time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, exec.ErrNotFound) {
			return &system.Hint{Err: fmt.Errorf("%s: build: %q is not installed", s.Pos, sw.Build[0]), Next: "install " + sw.Build[0] + ", or build by hand and leave build: out"}
		}
		return &system.Hint{Err: fmt.Errorf("%s: build: %s: %w\n%s", s.Pos, step.Text, err, strings.TrimRight(out.String(), "\n")),
			Next: "cd " + sw.Dir + " && " + step.Text}
	}
	if _, err := os.Stat(product(sw)); err == nil {
		now := time.Now() // a build that found nothing to do leaves the old time, and would run again
		_ = os.Chtimes(product(sw), now, now)
	}
	step.Done, step.Took = true, time.Since(began)
	told(step)
	return nil
}

// product is the file that a build makes: a program, a module, a machine's kernel or disk.
func product(sw *system.Software) string {
	name := sw.From
	if len(sw.Run) > 0 {
		name = sw.Run[0]
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(sw.Dir, name)
}

// upToDate says that the program exists and no file beside it is newer. The folder that holds the
// program counts as output unless it holds the sources, too.
func upToDate(sw *system.Software) (bool, error) {
	program := product(sw)
	built, err := os.Stat(program)
	if len(sw.Run) > 0 && !looksLikePath(sw.Run[0]) || err != nil {
		return false, nil
	}
	output := filepath.Dir(program)
	newer := errors.New("newer")
	err = filepath.WalkDir(sw.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read cannot be built from either
		}
		if d.IsDir() {
			if path != sw.Dir && (path == output || strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(built.ModTime()) {
			return newer
		}
		return nil
	})
	if errors.Is(err, newer) {
		return false, nil
	}
	return err == nil, err
}
