package inside

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"servent/driver"
	"servent/system"
)

// Files is the driver of static files: a whole bundle; of a folder that is none, which has no digest, what is below Software.From.
func Files() driver.Driver { return filesDriver{} }

type filesDriver struct{}

func (filesDriver) Name() string { return string(system.Files) }

func (filesDriver) Probe(context.Context) driver.Caps {
	return driver.Caps{OK: true, Move: driver.MoveWeak}
}

func (filesDriver) Prepare(_ context.Context, a driver.Artifact) (driver.Prepared, error) {
	if a.Software.Kind != system.Files || a.Dir == "" {
		return nil, fmt.Errorf("prepare files: want a folder of files, have %s %q: %w", a.Software.Kind, a.Dir, driver.ErrArtifact)
	}
	dir := a.Dir
	if from := filepath.FromSlash(a.Software.From); a.Software.Digest == "" && filepath.IsLocal(from) {
		if below := filepath.Join(dir, from); isFolder(below) {
			dir = below
		}
	}
	if _, err := os.Stat(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("prepare files: %w", err)
	}
	if !isFolder(dir) {
		return nil, fmt.Errorf("prepare files: %s is no folder: %w", dir, driver.ErrArtifact)
	}
	return &preparedFiles{dir, a.Software.Digest}, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

type preparedFiles struct {
	dir    string
	digest system.Digest
}

func (p *preparedFiles) Close() error { return nil }

func (p *preparedFiles) Start(_ context.Context, s driver.Spec) (driver.Instance, error) {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Instance, err)
	}
	f := &files{root: root, digest: p.digest, tags: map[string]tag{}}
	return driver.Host(string(s.Instance), f, f.check, func() { root.Close() }), nil
}

// files answers GET and HEAD from a folder and nothing beside it: the root refuses .. and symbolic links
// that lead out. There is no listing of folders and no hidden file but /.well-known (RFC 8615).
type files struct {
	root   *os.Root
	digest system.Digest // of the bundle; empty when the files may change

	mu   sync.Mutex // guards tags
	tags map[string]tag
}

// tag is the validator of a file as it was.
type tag struct {
	size int64
	mod  time.Time
	text string
}

func (f *files) check(context.Context) error {
	info, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", f.root.Name())
	}
	return nil
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "files are read with GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	name, slash := clean(r.URL.Path)
	file, info, err := f.open(name)
	if err == nil && info.IsDir() {
		file.Close()
		if !slash {
			redirect(w, r, name+"/")
			return
		}
		name = path.Join(name, "index.html")
		file, info, err = f.open(name)
	} else if err == nil && slash {
		file.Close()
		err = fs.ErrNotExist // /a.html/ is not /a.html
	}
	if err == nil && !info.Mode().IsRegular() {
		file.Close()
		err = fs.ErrNotExist
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		http.Error(w, "this file may not be read", http.StatusForbidden)
		return
	case err != nil: // also a link that leads out: what is outside is nobody's business
		http.Error(w, "no such file: "+r.URL.Path, http.StatusNotFound)
		return
	}
	defer file.Close()
	tag, err := f.tag(name, file, info)
	if err != nil {
		http.Error(w, "this file cannot be read", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Etag", tag)
	h.Set("X-Content-Type-Options", "nosniff")
	if kind := types[strings.ToLower(path.Ext(name))]; kind != "" {
		h.Set("Content-Type", kind)
	}
	mod := info.ModTime()
	if f.digest != "" {
		mod = time.Time{} // a bundle's files bear no time; the tag is the validator
	}
	http.ServeContent(w, r, "", mod, file) // without a name it asks the content, not the system
}

// open opens a file that may be seen. A file is opened without waiting for whoever writes to it.
func (f *files) open(name string) (*os.File, fs.FileInfo, error) {
	if name == "" {
		name = "."
	}
	if hidden(name) {
		return nil, nil, fs.ErrNotExist
	}
	info, err := f.root.Stat(name) // first: opening a named pipe would hang
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err = file.Stat()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// clean turns a request's path into a name below the root: no leading slash, no dot segments.
func clean(p string) (name string, slash bool) {
	return strings.TrimPrefix(path.Clean("/"+p), "/"), p == "" || strings.HasSuffix(p, "/")
}

// hidden says that a name has a part that begins with a dot, or that is none on some system.
func hidden(name string) bool {
	if strings.ContainsAny(name, "\\\x00:") {
		return true
	}
	for n, part := range strings.Split(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && (part != ".well-known" || n != 0) {
			return true
		}
	}
	return false
}

// redirect to a folder's own name, as a relative reference: the door may have cut off a prefix.
func redirect(w http.ResponseWriter, r *http.Request, name string) {
	to := url.URL{Path: "./" + path.Base(name) + "/", RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusMovedPermanently)
}

// tag is a strong validator, the same on every node. Small files are tagged by their content; large ones
// by the bundle and their name, for hashing them would hold up the first request.
func (f *files) tag(name string, file io.ReadSeeker, info fs.FileInfo) (string, error) {
	const small = 4 << 20
	f.mu.Lock()
	t, known := f.tags[name]
	f.mu.Unlock()
	if known && t.size == info.Size() && t.mod.Equal(info.ModTime()) {
		return t.text, nil
	}
	hash := sha256.New()
	switch {
	case info.Size() <= small:
		if _, err := io.Copy(hash, file); err != nil {
			return "", err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
	case f.digest != "":
		fmt.Fprint(hash, f.digest, "\n", name)
	default:
		fmt.Fprint(hash, info.Size(), info.ModTime().UnixNano())
	}
	t = tag{info.Size(), info.ModTime(), `"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:12]) + `"`}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tags[name] = t // one a file of the folder: that is its bound
	return t.text, nil
}

// types is our own table, so that every node says the same; the system's differ. What it does not know
// net/http takes from the content.
var types = map[string]string{
	".avif": "image/avif", ".css": "text/css; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".gif": "image/gif", ".gz": "application/gzip", ".htm": "text/html; charset=utf-8",
	".html": "text/html; charset=utf-8", ".ico": "image/vnd.microsoft.icon", ".jpeg": "image/jpeg",
	".jpg": "image/jpeg", ".js": "text/javascript; charset=utf-8", ".json": "application/json",
	".map": "application/json", ".md": "text/markdown; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".mp3": "audio/mpeg", ".mp4": "video/mp4", ".ogg": "audio/ogg", ".otf": "font/otf",
	".pdf": "application/pdf", ".png": "image/png", ".svg": "image/svg+xml", ".tar": "application/x-tar",
	".ttf": "font/ttf", ".txt": "text/plain; charset=utf-8", ".wasm": "application/wasm",
	".wav": "audio/wav", ".webm": "video/webm", ".webmanifest": "application/manifest+json",
	".webp": "image/webp", ".woff": "font/woff", ".woff2": "font/woff2",
	".xhtml": "application/xhtml+xml; charset=utf-8", ".xml": "text/xml; charset=utf-8",
	".yaml": "application/yaml", ".yml": "application/yaml", ".zip": "application/zip",
}
