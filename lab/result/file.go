package result

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"servent/blob"
	"servent/system"
)

// FileName of a result in its folder.
const FileName = "result.json"

// VersionError says that a file has another form than this program reads.
type VersionError struct {
	File       string
	Have, Want int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: it has the form of version %d, this program reads version %d", e.File, e.Have, e.Want)
}

// Read reads a result from its file, or from the folder that it lies in. Another version gives a
// [*VersionError] with the command to try.
func Read(path string) (*Result, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, FileName)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a result: %w", err)
	}
	return Parse(path, text)
}

// Parse reads a result; file names it in errors.
func Parse(file string, text []byte) (*Result, error) {
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("%s: want the JSON of servent compare: %w", file, err)
	}
	if head.Version == nil {
		return nil, fmt.Errorf("%s: want the JSON of servent compare, have no version in it", file)
	}
	if *head.Version != Version {
		return nil, &system.Hint{Err: &VersionError{file, *head.Version, Version}, Next: "servent compare   (measures again, and writes a new one)"}
	}
	r := new(Result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Write writes the result into a folder, whole or not at all.
func (r *Result) Write(dir string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write a result: %w", err)
	}
	if err := blob.Replace(filepath.Join(dir, FileName), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write a result: %w", err)
	}
	return nil
}
