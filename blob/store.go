// Package blob keeps bytes on disk by their digest, and folders as bundles: deterministic archives whose
// digest changes only with their content. What stands under a digest is whole and right, also after a
// kill -9 or a full disk: it is written aside, flushed, and renamed into place. It fetches nothing, forgets
// nothing by itself and knows no service. Start at [Store]; [Pack] and [Unpack] are the bundles.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"servent/system"
)

var (
	// ErrNotFound: the store has no bytes of that digest.
	ErrNotFound = errors.New("not in the store")
	// ErrCorrupt: the bytes are not those that their digest names.
	ErrCorrupt = errors.New("bytes do not match their digest")
)

// abandoned is how old an unfinished write must be before it is taken for one whose process died.
const abandoned = time.Hour

// Store is a folder of blobs. Several processes may share one. It is used by pointer; all methods may be
// called at once.
type Store struct {
	Dir string // made when first needed, 0700

	mu      sync.Mutex
	flights map[system.Digest]*flight // bundles that this process is unpacking now
}

// flight is one unpacking that several callers wait for.
type flight struct {
	done chan struct{}
	dir  string // and err: set before done is closed
	err  error
}

const prefix = "sha256:"

// name returns the digest's file name. It refuses whatever is not the SHA-256 that this package writes, so
// that no digest from a file or a wire leads out of the store.
func name(d system.Digest) (string, error) {
	h, ok := strings.CutPrefix(string(d), prefix)
	raw, err := hex.DecodeString(h)
	if !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(h) != h {
		return "", fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", string(d))
	}
	return h, nil
}

func sum(h hash.Hash) system.Digest {
	return system.Digest(prefix + hex.EncodeToString(h.Sum(nil)))
}

func (s *Store) path(kind, name string) string { return filepath.Join(s.Dir, kind, name) }

// Put keeps all of r and returns its digest. When it fails nothing is left behind.
func (s *Store) Put(r io.Reader) (system.Digest, error) {
	d, err := s.put(r, "")
	if err != nil {
		return "", fmt.Errorf("put blob: %w", err)
	}
	return d, nil
}

// PutAs keeps r, which came from elsewhere under the name d. Other bytes are refused with [ErrCorrupt].
func (s *Store) PutAs(d system.Digest, r io.Reader) error {
	if _, err := name(d); err != nil {
		return fmt.Errorf("put blob: %w", err)
	}
	if _, err := s.put(r, d); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

func (s *Store) put(r io.Reader, want system.Digest) (d system.Digest, err error) {
	for _, kind := range []string{"blobs", "tmp"} {
		if err := os.MkdirAll(s.path(kind, ""), 0o700); err != nil {
			return "", s.full(err)
		}
	}
	f, err := os.CreateTemp(s.path("tmp", ""), "blob-*") // 0600
	if err != nil {
		return "", s.full(err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, h), r)
	if err != nil {
		return "", s.full(err)
	}
	d = sum(h)
	if want != "" && d != want {
		return "", fmt.Errorf("%w: have %d bytes with %s", ErrCorrupt, size, d)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", s.full(err)
	}
	file, err := name(d)
	if err != nil {
		return "", err
	}
	to := s.path("blobs", file)
	if have, err := os.Stat(to); err == nil && have.Size() == size {
		return d, os.Remove(f.Name()) // another was first: its bytes are the same
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return "", s.full(err)
	}
	return d, syncDir(s.path("blobs", ""))
}

// full adds the next step to an error of a disk without room.
func (s *Store) full(err error) error {
	if isFull(err) {
		return &system.Hint{Err: fmt.Errorf("no room on the disk of %s: %w", s.Dir, err), Next: "servent doctor"}
	}
	return err
}

// Size is how many bytes d has.
func (s *Store) Size(d system.Digest) (int64, error) {
	file, err := name(d)
	if err != nil {
		return 0, fmt.Errorf("size of blob: %w", err)
	}
	info, err := os.Stat(s.path("blobs", file))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("size of blob %s: %w", d, err)
	}
	return info.Size(), nil
}

// Has says that the store holds d.
func (s *Store) Has(d system.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Open reads d. At the end of bytes that rotted on the disk the reader gives [ErrCorrupt] instead of io.EOF,
// and the store forgets them, so that they are fetched again. A digest that is not here gives [ErrNotFound].
func (s *Store) Open(d system.Digest) (io.ReadCloser, error) {
	file, err := name(d)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	f, err := os.Open(s.path("blobs", file))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	return &reader{f: f, h: sha256.New(), want: d}, nil
}

// reader checks a blob while it is read.
type reader struct {
	f    *os.File
	h    hash.Hash
	want system.Digest
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.h.Write(p[:n])
	if err == io.EOF && sum(r.h) != r.want {
		err = fmt.Errorf("blob %s on disk: %w", r.want, ErrCorrupt)
		os.Remove(r.f.Name())
	}
	return n, err
}

func (r *reader) Close() error { return r.f.Close() }

// Bundle returns the folder into which the bundle d is unpacked, doing so at the first call. The folder is
// read-only and shared by all callers and processes. A digest that is not here gives [ErrNotFound].
func (s *Store) Bundle(d system.Digest) (string, error) {
	file, err := name(d)
	if err != nil {
		return "", fmt.Errorf("bundle: %w", err)
	}
	dir := s.path("bundles", file)
	if isDir(dir) {
		return dir, nil
	}
	s.mu.Lock()
	if f := s.flights[d]; f != nil {
		s.mu.Unlock()
		<-f.done
		return f.dir, f.err
	}
	f := &flight{done: make(chan struct{})}
	if s.flights == nil {
		s.flights = map[system.Digest]*flight{}
	}
	s.flights[d] = f
	s.mu.Unlock()

	if err := s.unbundle(d, dir); err != nil {
		f.err = fmt.Errorf("bundle %s: %w", d, err)
	} else {
		f.dir = dir
	}
	s.mu.Lock()
	delete(s.flights, d)
	s.mu.Unlock()
	close(f.done)
	return f.dir, f.err
}

// unbundle unpacks beside dir and renames into place. When another process was first, its folder stands.
func (s *Store) unbundle(d system.Digest, dir string) (err error) {
	if isDir(dir) { // the last flight landed between the caller's look and this one
		return nil
	}
	r, err := s.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return s.full(err)
	}
	// Beside its final place: a read-only folder can be renamed, but not into another parent.
	aside, err := os.MkdirTemp(filepath.Dir(dir), "tmp-*")
	if err != nil {
		return s.full(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(s.full(err), RemoveAll(aside))
		}
	}()
	unpacked := Unpack(r, aside)
	// To the last byte, also after an error: rotten bytes are told from an archive that was never one.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if unpacked != nil {
		return unpacked
	}
	if err := protect(aside); err != nil {
		return err
	}
	if err := os.Rename(aside, dir); err != nil {
		if isDir(dir) {
			return RemoveAll(aside)
		}
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Prune deletes the blobs and bundles that keep does not want, and what processes that died left unfinished.
// It goes on after an error and returns all of them. Bundles that instances run from must be kept.
func (s *Store) Prune(keep func(system.Digest) bool) error {
	var errs []error
	for _, kind := range []string{"blobs", "bundles", "tmp"} {
		entries, err := os.ReadDir(s.path(kind, ""))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("prune: %w", err))
		}
		for _, e := range entries {
			if d := system.Digest(prefix + e.Name()); kind != "tmp" && known(d) {
				if keep(d) {
					continue
				}
			} else if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < abandoned {
				continue
			}
			if err := s.discard(kind, e.Name()); err != nil {
				errs = append(errs, fmt.Errorf("prune: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func known(d system.Digest) bool {
	_, err := name(d)
	return err == nil
}

// discard takes a name away at once, then its bytes: nobody sees half a bundle.
func (s *Store) discard(kind, entry string) error {
	from := s.path(kind, entry)
	if kind == "bundles" && known(system.Digest(prefix+entry)) {
		aside, err := os.MkdirTemp(s.path(kind, ""), "tmp-*")
		if err != nil {
			return err
		}
		gone := filepath.Join(aside, entry)
		if err := errors.Join(os.Chmod(from, 0o700), os.Rename(from, gone)); err != nil {
			return errors.Join(err, os.Remove(aside))
		}
		from = aside
	}
	return RemoveAll(from)
}

// RemoveAll is os.RemoveAll that also removes folders which their owner made read-only. It follows no link.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walked := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			os.Chmod(path, 0o700) // best effort: the second removal says what is in the way
		}
		return nil
	})
	return errors.Join(walked, os.RemoveAll(dir))
}
