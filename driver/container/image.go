package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"servent/driver"
	"servent/system"
)

const (
	folderScheme  = "oci:"            // an OCI image layout
	archiveScheme = "docker-archive:" // what docker save writes
	mostConfig    = 4 << 20           // bytes of an image's configuration
	mostImages    = 1000              // of an index
)

// Local is the path of an image that lies on disk: oci:./folder, docker-archive:./file.tar. A registry has no
// name like it: a tag begins with a letter or a digit.
func Local(from string) (path string, ok bool) {
	for _, scheme := range []string{folderScheme, archiveScheme} {
		if path, ok := strings.CutPrefix(from, scheme); ok && (strings.HasPrefix(path, ".") || filepath.IsAbs(path)) {
			return path, true
		}
	}
	return "", false
}

// Resolve asks where an image comes from which bytes it is now, and what ports it says that it listens on: the
// name with the digest, so that all nodes run the same ones. When the registry does not answer, what it said
// last, noted in the folder of blobs, stands. bundle is the unpacked bundle of an image on disk.
func Resolve(ctx context.Context, sw *system.Software, blobs, bundle string) error {
	note := filepath.Join(blobs, "images", "names", digestOf([]byte(sw.From+" "+runtime.GOARCH)))
	img, from, err := open(ctx, sw.From, bundle)
	if err == nil {
		var cfg *v1.ConfigFile
		if cfg, _, err = configuration(img); err == nil {
			resolve(sw, noted{From: from, Ports: exposed(cfg)})
		}
	}
	if _, local := Local(sw.From); local {
		return err
	}
	if err == nil {
		b, err := json.Marshal(noted{From: sw.From, Ports: sw.Container.Ports})
		if err == nil {
			err = os.MkdirAll(filepath.Dir(note), 0o700)
		}
		if err == nil {
			err = os.WriteFile(note, b, 0o600)
		}
		return err
	}
	if errors.Is(err, driver.ErrArtifact) {
		return err
	}
	var last noted
	if b, no := os.ReadFile(note); no == nil && json.Unmarshal(b, &last) == nil {
		resolve(sw, last)
		return nil
	}
	return err
}

// noted is what a registry said of a name.
type noted struct {
	From  string `json:"from"`
	Ports []int  `json:"ports"`
}

func resolve(sw *system.Software, is noted) {
	c := system.Container{}
	if sw.Container != nil {
		c = *sw.Container
	}
	for _, port := range is.Ports {
		if !slices.Contains(c.Ports, port) {
			c.Ports = append(slices.Clone(c.Ports), port)
		}
	}
	sw.From, sw.Container = is.From, &c
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// open finds the image of this machine's platform. from is its name with its digest; the bytes of layers are
// fetched as they are read.
func open(ctx context.Context, name, bundle string) (img v1.Image, from string, err error) {
	path, local := Local(name)
	switch {
	case local && bundle == "":
		return nil, "", fmt.Errorf("%w: %s did not come with the plan", driver.ErrArtifact, name)
	case local && strings.HasPrefix(name, folderScheme):
		index, err := layout.ImageIndexFromPath(bundle)
		if err == nil {
			img, err = choose(index, 0)
		}
		if err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", driver.ErrArtifact, name, err)
		}
		return img, name, nil
	case local:
		if img, err = tarball.ImageFromPath(filepath.Join(bundle, filepath.Base(path)), nil); err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", driver.ErrArtifact, name, err)
		}
		return img, name, nil
	}
	return pull(ctx, name)
}

func pull(ctx context.Context, from string) (v1.Image, string, error) {
	ref, err := name.ParseReference(from)
	if err != nil {
		return nil, "", fmt.Errorf("%w: image: %w", driver.ErrArtifact, err)
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, "", fmt.Errorf("image %s: %w", from, refusal(err))
	}
	var img v1.Image
	if desc.MediaType.IsIndex() {
		var index v1.ImageIndex
		if index, err = desc.ImageIndex(); err == nil {
			img, err = choose(index, 0)
		}
	} else {
		img, err = desc.Image()
	}
	if err != nil {
		return nil, "", fmt.Errorf("image %s: %w", from, refusal(err))
	}
	if _, ok := ref.(name.Digest); !ok {
		from += "@" + desc.Digest.String()
	}
	return img, from, nil
}

// refusal tells a registry's no from a registry that cannot be asked.
func refusal(err error) error {
	said, ok := errors.AsType[*transport.Error](err)
	switch {
	case ok && said.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: the registry has no such image", driver.ErrArtifact)
	case ok && (said.StatusCode == http.StatusUnauthorized || said.StatusCode == http.StatusForbidden):
		return fmt.Errorf("%w: the registry has no such image for everybody, and takes no password that docker login or podman login left on this machine for the user of servent", driver.ErrArtifact)
	}
	return err
}

// choose finds the one image of an index that is for this platform.
func choose(index v1.ImageIndex, depth int) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if depth > 3 || len(m.Manifests) > mostImages {
		return nil, fmt.Errorf("%w: an index of more than %d images, or in itself", driver.ErrArtifact, mostImages)
	}
	var others []string
	var found []v1.Hash
	for _, d := range m.Manifests {
		p := d.Platform
		switch {
		case d.MediaType.IsIndex() && len(m.Manifests) == 1:
			below, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return choose(below, depth+1)
		case !d.MediaType.IsImage():
		case p == nil || p.OS == "linux" && p.Architecture == runtime.GOARCH:
			found = append(found, d.Digest)
		case p.OS != "unknown": // a statement about an image, no image
			others = append(others, p.OS+"/"+p.Architecture)
		}
	}
	if len(found) == 0 {
		return nil, platform(others...)
	}
	if depth == 0 && len(found) > 1 && m.Manifests[0].Platform == nil {
		return nil, fmt.Errorf("%w: want one image, have %d", driver.ErrArtifact, len(found))
	}
	return index.Image(found[0])
}

func platform(have ...string) error {
	return fmt.Errorf("%w: it is for %s, and this machine runs linux/%s", driver.ErrArtifact, strings.Join(have, ", "), runtime.GOARCH)
}

// configuration reads an image's configuration and checks it: its digest, platform and number of layers.
func configuration(img v1.Image) (*v1.ConfigFile, []byte, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, nil, err
	}
	if m.Config.Size > mostConfig {
		return nil, nil, fmt.Errorf("%w: its configuration has %d bytes", driver.ErrArtifact, m.Config.Size)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, nil, err
	}
	if is, _ := hashOf(raw); is != m.Config.Digest {
		return nil, nil, fmt.Errorf("%w: its configuration is %s, want %s", driver.ErrArtifact, is, m.Config.Digest)
	}
	cfg := &v1.ConfigFile{}
	if err := json.Unmarshal(raw, cfg); err != nil {
		return nil, nil, fmt.Errorf("%w: its configuration: %w", driver.ErrArtifact, err)
	}
	switch {
	case cfg.OS != "linux" || cfg.Architecture != runtime.GOARCH:
		return nil, nil, platform(cfg.OS + "/" + cfg.Architecture)
	case len(cfg.RootFS.DiffIDs) != len(m.Layers):
		return nil, nil, fmt.Errorf("%w: it has %d layers and names %d", driver.ErrArtifact, len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	return cfg, raw, nil
}

func hashOf(b []byte) (v1.Hash, error) { return v1.NewHash("sha256:" + digestOf(b)) }

// exposed are the TCP ports that an image names, the lowest first.
func exposed(cfg *v1.ConfigFile) []int {
	var ports []int
	for said := range cfg.Config.ExposedPorts {
		port, proto, _ := strings.Cut(said, "/")
		if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 65536 && (proto == "" || proto == "tcp") {
			ports = append(ports, n)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
