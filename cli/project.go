package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"servent/system/sysfile"
)

// at takes an optional folder or file among a verb's words.
func (e *env) at(args []string) error {
	if len(args) == 0 {
		return nil
	}
	info, err := os.Stat(args[0])
	switch {
	case err != nil:
		return misuse{err}
	case info.IsDir():
		e.dir = args[0]
	default:
		e.dir, e.files = filepath.Dir(args[0]), append(e.files, filepath.Base(args[0]))
	}
	return nil
}

// load reads the user's file and prints its notes.
func (e *env) load(ctx context.Context) (*sysfile.Result, error) {
	res, err := sysfile.Load(ctx, e.source())
	if err != nil {
		return nil, err
	}
	for _, note := range res.Notes {
		fmt.Fprintf(e.err, "note: %s\n", note.Error())
	}
	return res, nil
}

// source says where the user's file is and what is put into it.
func (e *env) source() sysfile.Options {
	vars := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	return sysfile.Options{Files: e.files, Dir: e.dir, Env: vars, Profiles: e.profiles, Name: e.name}
}
