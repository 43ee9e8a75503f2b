// Package examples holds the example systems: their files, which `servent init NAME` writes out, and the
// programs of those that run from the servent binary, so that they need no compiler. A folder NAME is one
// example, and runs where it stands: servent up examples/NAME. The package knows nothing of how systems
// run. Start at [List], then [Run].
package examples

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"

	"servent/system"
)

// Example is one system to learn from.
type Example struct {
	Name    string
	Summary string // one line
}

var list = []Example{
	{"increment", "the course's first server: a number in, the number plus one out, in Go, C, Python and Erlang"},
	{"counter", "a number per name over HTTP, kept in memory: one instance is right, two are fast and wrong"},
	{"store", "a key-value database on disk, in one place, divided, or with copies"},
	{"shortener", "a URL shortener: every short name has one owner, and a few links get most of the visits"},
	{"address", "an address server with RPC stubs: what a time-out does to a call"},
	{"shop", "three tiers: static pages, a Go API, a real database (SQLite, or PostgreSQL)"},
	{"split", "which split is best: one application with its rules in one of three tiers; as one process, as four services"},
	{"functions", "functions in Go and C: a thumbnail service whose instances live on, and what they may ask"},
	{"order", "an order of three services: a flow makes its steps, and takes them back when one fails"},
	{"tokens", "a ring whose members pass a token round, each knowing only the next one"},
}

// List returns the examples, the easiest first.
func List() []Example { return slices.Clone(list) }

// A folder that is a module of its own cannot be embedded, so shop comes from a text archive of its
// folder; TestArchive keeps it up to date.
//
//go:embed increment/*.* increment/c/*.c increment/python/*.py increment/erlang/*.erl increment/cmd
//go:embed store/*.* counter/*.* counter/cmd address/*.* address/cmd tokens/*.* tokens/cmd
//go:embed functions/*.md functions/*.yaml functions/thumbs functions/crc functions/markdown/package.json functions/markdown/main.ts
//go:embed shortener/*.* shortener/cmd split/*.* split/cmd order/*.* order/cmd
var folders embed.FS

//go:embed shop.txtar
var shop []byte

// module is written beside an example whose programs import their own folder: the import path
// servent/examples/NAME then means that folder, as it does in the repository.
const module = "module servent/examples/%s\n\ngo 1.26\n"

// Write writes an example's files to dir, which it makes. It refuses a name that is none, and a dir
// that holds anything already: it overwrites nothing.
func Write(name, dir string) error {
	files, err := files(name)
	if err != nil {
		return err
	}
	switch held, err := os.ReadDir(dir); {
	case err == nil && len(held) > 0:
		return &system.Hint{Err: fmt.Errorf("write example %s to %s: there is something already: %s", name, dir, held[0].Name()), Next: "servent init " + name + " OTHER-FOLDER"}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("write example %s to %s: %w", name, dir, err)
	}
	for _, f := range files {
		at := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("write example %s: %w", name, err)
		}
		if err := create(at, f.Data); err != nil {
			return fmt.Errorf("write example %s: %w", name, err)
		}
	}
	return nil
}

// create writes a new file.
func create(at string, data []byte) error {
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// files returns an example's files, named from its folder.
func files(name string) ([]txtar.File, error) {
	if !slices.ContainsFunc(list, func(e Example) bool { return e.Name == name }) {
		var names []string
		for _, e := range list {
			names = append(names, e.Name)
		}
		return nil, fmt.Errorf("no example is called %q; there are %s", name, strings.Join(names, ", "))
	}
	if name == "shop" {
		return txtar.Parse(shop).Files, nil
	}
	var files []txtar.File
	if name != "store" { // nothing of it is to be compiled
		files = []txtar.File{{Name: "go.mod", Data: fmt.Appendf(nil, module, name)}}
	}
	err := fs.WalkDir(folders, name, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(at, "_test.go") {
			return err
		}
		data, err := folders.ReadFile(at)
		files = append(files, txtar.File{Name: strings.TrimPrefix(at, name+"/"), Data: data})
		return err
	})
	return files, err
}
