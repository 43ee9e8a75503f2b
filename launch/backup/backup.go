// Package backup is the file that a backup is: named parts, and at the end what each of them must be, so that one that is cut off, damaged or not ours is
// refused whole. What the parts mean is its caller's business. Start at [Writer] and [Read].
package backup

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A backup is a gzip-compressed tar of regular files in folders of one level at most. The last file, sums.json, has the SHA-256 of every other one by its name.
const (
	sumsName = "sums.json"
	sumsMost = 8 << 20 // bytes
	partsMax = 20_000
	nameMost = 200 // bytes of a name
)

// ErrTorn: the file is no backup, or not whole.
var ErrTorn = errors.New("this is no backup, or not all of one")

// Writer writes a backup. Close it: without its end it is none.
type Writer struct {
	gz   *gzip.Writer
	tar  *tar.Writer
	now  time.Time
	sums map[string]string
}

// NewWriter returns a writer of a backup to w.
func NewWriter(w io.Writer, now time.Time) *Writer {
	gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic("backup: " + err.Error()) // the level is one
	}
	return &Writer{gz: gz, tar: tar.NewWriter(gz), now: now, sums: map[string]string{}}
}

// Add writes a part of exactly size bytes.
func (w *Writer) Add(name string, size int64, r io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if w.sums[name] != "" || name == sumsName {
		return fmt.Errorf("part %s stands twice", name)
	}
	return w.add(name, size, r)
}

func (w *Writer) add(name string, size int64, r io.Reader) error {
	if err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: w.now, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, sum), io.LimitReader(r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	w.sums[name] = hex.EncodeToString(sum.Sum(nil))
	return err
}

// AddText writes a part of text.
func (w *Writer) AddText(name string, text []byte) error {
	return w.Add(name, int64(len(text)), strings.NewReader(string(text)))
}

// AddFile writes a part that is a file's present bytes.
func (w *Writer) AddFile(name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return w.Add(name, info.Size(), f)
}

// Close writes the end.
func (w *Writer) Close() error {
	text, err := json.Marshal(w.sums)
	if err != nil {
		return err
	}
	return errors.Join(w.add(sumsName, int64(len(text)), strings.NewReader(string(text))), w.tar.Close(), w.gz.Close())
}

// Read puts the parts of a backup into dir, an empty folder, and returns their names, sorted. When it fails, what dir has is of no worth. may says which names a part may have.
func Read(r io.Reader, dir string, may func(name string) bool) ([]string, error) {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	have := map[string]string{}
	in := tar.NewReader(gz)
	for {
		head, err := in.Next()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTorn, err)
		}
		name := head.Name
		switch {
		case head.Typeflag != tar.TypeReg || checkName(name) != nil || have[name] != "" || len(have) == partsMax:
			return nil, fmt.Errorf("%w: part %.100q", ErrTorn, name)
		case name == sumsName:
			return whole(in, gz, have)
		case !may(name):
			return nil, fmt.Errorf("%w: it has a part %.100q, which no backup has", ErrTorn, name)
		}
		if have[name], err = put(filepath.Join(dir, filepath.FromSlash(name)), in); err != nil {
			return nil, err
		}
	}
}

// whole reads the end, and whether it is one.
func whole(in io.Reader, gz io.Reader, have map[string]string) ([]string, error) {
	text, err := io.ReadAll(io.LimitReader(in, sumsMost))
	var sums map[string]string
	if err == nil {
		err = json.Unmarshal(text, &sums)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(gz, 1<<20)) // to the sum of the compressed bytes
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	if !maps.Equal(sums, have) {
		return nil, fmt.Errorf("%w: the sum of a part is another", ErrTorn)
	}
	return slices.Sorted(maps.Keys(have)), nil
}

// put writes a file and returns the sum of its bytes.
func put(file string, r io.Reader) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), r)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, tar.ErrHeader) {
		err = fmt.Errorf("%w: %w", ErrTorn, err)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func checkName(name string) error {
	if !fs.ValidPath(name) || len(name) > nameMost || strings.Count(name, "/") > 1 || strings.ContainsAny(name, "\\:") || path.Base(name) == "." {
		return fmt.Errorf("part %.100q: want a name of one or two words", name)
	}
	return nil
}
