package launch

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"servent/system"
)

// builders build images, the first that answers: docker is asked whether its engine runs, podman needs none.
var builders = []string{"podman", "docker"}

// builder finds the program that builds.
func builder(ctx context.Context) (string, error) {
	var why []string
	for _, name := range builders {
		path, err := exec.LookPath(name)
		if err != nil {
			why = append(why, name+" is not installed")
			continue
		}
		cmd := exec.CommandContext(ctx, path, "version")
		cmd.WaitDelay = 2 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			why = append(why, fmt.Sprintf("%s: %v: %s", name, err, lines[len(lines)-1]))
			continue
		}
		return path, nil
	}
	return "", fmt.Errorf("nothing here builds images: %s", strings.Join(why, "; "))
}

// buildArgs are what docker and podman both understand.
func buildArgs(sw *system.Software, tag string) []string {
	r := sw.Recipe
	args := []string{"build", "--quiet", "--tag", tag}
	folder := r.Context
	if !strings.Contains(folder, "://") {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(sw.Dir, folder)
		}
		switch {
		case r.Inline != "":
			args = append(args, "--file", "-")
		case r.Dockerfile != "" && !filepath.IsAbs(r.Dockerfile):
			args = append(args, "--file", filepath.Join(folder, r.Dockerfile))
		case r.Dockerfile != "":
			args = append(args, "--file", r.Dockerfile)
		}
	}
	if r.Target != "" {
		args = append(args, "--target", r.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Args)) {
		args = append(args, "--build-arg", name+"="+r.Args[name])
	}
	return append(args, folder)
}

// buildImage makes an image and writes it into a file, as docker save does. What was built before and has not changed is in the
// builder's cache, and gives the same bytes.
func buildImage(ctx context.Context, s *system.Service, file string, told func(Step)) error {
	program, err := builder(ctx)
	if err != nil {
		return &system.Hint{Err: fmt.Errorf("%s: build: %w", s.Pos, err), Next: "apt-get install podman, or build the image elsewhere and name it by image"}
	}
	tag := "localhost/servent/" + strings.ToLower(string(s.Name)) + ":build"
	step := Step{Service: s.Name, Text: filepath.Base(program) + " build " + s.Software.Recipe.Context}
	told(step)
	began := time.Now()
	for _, args := range [][]string{buildArgs(&s.Software, tag), {"save", "--output", file, tag}} {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 2*time.Second
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if args[0] == "build" {
			cmd.Stdin = strings.NewReader(s.Software.Recipe.Inline)
		}
		if err := cmd.Run(); err != nil {
			return &system.Hint{Err: fmt.Errorf("%s: build: %s %s: %w\n%s", s.Pos, filepath.Base(program), args[0], cmp.Or(ctx.Err(), err), strings.TrimRight(out.String(), "\n")),
				Next: "correct the Dockerfile; by hand: " + filepath.Base(program) + " build " + args[len(args)-1]}
		}
	}
	step.Done, step.Took = true, time.Since(began)
	told(step)
	return nil
}
