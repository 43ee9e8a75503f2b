package examples

import (
	"bytes"
	_ "embed"
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

//go:embed function.txtar
var functions []byte

// Languages are those in which [WriteFunction] writes one, the first by default.
func Languages() []string { return []string{"go", "c", "assemblyscript"} }

// WriteFunction writes the source and the file of a new function to dir, which it makes. It overwrites nothing.
func WriteFunction(lang, name, dir string) error {
	if !slices.Contains(Languages(), lang) {
		return fmt.Errorf("no function is written in %q; there are %s", lang, strings.Join(Languages(), ", "))
	}
	switch held, err := os.ReadDir(dir); {
	case err == nil && len(held) > 0:
		return &system.Hint{Err: fmt.Errorf("make %s: there is something already: %s", dir, held[0].Name()), Next: "servent fn new OTHER-NAME"}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make %s: %w", dir, err)
	}
	files := txtar.Parse(functions).Files
	if lang == "go" {
		data, err := folders.ReadFile("functions/thumbs/servent.go")
		if err != nil {
			return err
		}
		files = append(files, txtar.File{Name: "go/servent.go", Data: data})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, f := range files {
		file, ok := strings.CutPrefix(f.Name, lang+"/")
		if !ok {
			continue
		}
		if err := create(filepath.Join(dir, file), bytes.ReplaceAll(f.Data, []byte("NAME"), []byte(name))); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return nil
}
