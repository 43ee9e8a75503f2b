package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"servent/architecture"
	"servent/blob"
	"servent/identity"
	"servent/link"
	"servent/system"
)

const blobPath = "/v1/blob/"

// bundles are the bytes that services are made of: on a server they are there, elsewhere they are fetched from one.
type bundles struct {
	node  *Node
	store *blob.Store
	one   sync.Mutex // fetch at a time
}

// Bundle is the folder of an unpacked bundle.
func (b *bundles) Bundle(ctx context.Context, d system.Digest) (string, error) {
	if err := b.fetch(ctx, d); err != nil {
		return "", err
	}
	return b.store.Bundle(d)
}

// Open reads the bytes of a config or a secret.
func (b *bundles) Open(ctx context.Context, d system.Digest) (io.ReadCloser, error) {
	if err := b.fetch(ctx, d); err != nil {
		return nil, err
	}
	return b.store.Open(d)
}

func (b *bundles) fetch(ctx context.Context, d system.Digest) error {
	if b.store.Has(d) {
		return nil
	}
	b.one.Lock()
	defer b.one.Unlock()
	if b.store.Has(d) {
		return nil
	}
	var errs []error
	for _, server := range b.node.servers.others() { // none: who opens it will say that it is not there
		err := b.from(ctx, server, d)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// from fetches bytes from one server. Others than those that are asked for are not kept.
func (b *bundles) from(ctx context.Context, server system.NodeID, d system.Digest) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(server)+blobPath+string(d), nil)
	if err != nil {
		return err
	}
	resp, err := b.node.http2.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("fetch %s from %s: %w", d, server, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch %s from %s: %s", d, server, resp.Status)
	}
	if err := b.store.PutAs(d, resp.Body); err != nil {
		return fmt.Errorf("fetch %s from %s: %w", d, server, err)
	}
	return nil
}

// serve sends bytes to the nodes that the plan has make something of them.
func (b *bundles) serve(w http.ResponseWriter, r *http.Request) {
	d := system.Digest(r.PathValue("digest"))
	peer, ok := link.PeerFrom(r.Context())
	if !ok || peer.ID.Role != identity.Server && !b.mayHave(r.Context(), peer.ID, d) {
		b.node.deny(w, r, string(d), errNotNamed)
		return
	}
	in, err := b.store.Open(d)
	if err != nil {
		http.Error(w, "not here", http.StatusNotFound)
		return
	}
	defer in.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := io.Copy(w, in); err != nil {
		panic(http.ErrAbortHandler) // what was sent is not all: the digest would tell, too
	}
}

var errNotNamed = errors.New("the plan has it run nothing that is made of these bytes")

// mayHave says whether the plan has a node make something of the bytes. Who asks may follow a newer plan than this node does.
func (b *bundles) mayHave(ctx context.Context, node identity.ID, d system.Digest) bool {
	if entitled(b.node.view.Load().Plan, node, d) {
		return true
	}
	v, err := b.node.cluster.Read(ctx)
	return err == nil && entitled(v.Plan, node, d)
}

// hoard fetches what the plan's services are made of, also what does not run here, until ctx ends: so that a server that joined has it for others when the
// first machine is gone.
func (b *bundles) hoard(ctx context.Context) error {
	tried := map[system.Digest]bool{"": true} // and what will never be found: an image's digest is its registry's
	for {
		changed := b.node.news.wait()
		if plan := b.node.view.Load().Plan; plan != nil {
			for i := range plan.Services {
				s := &plan.Services[i].Service
				for _, d := range append([]system.Digest{s.Software.Digest}, digests(s.Files)...) {
					if !tried[d] {
						tried[d] = b.fetch(ctx, d) == nil || s.Software.Digest == d && s.Software.Kind == system.Image
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rememberGap):
		}
	}
}

func digests(files []system.MountedFile) (all []system.Digest) {
	for _, f := range files {
		all = append(all, f.Digest)
	}
	return all
}

// entitled says whether a plan has a node run a service that is made of the bytes, or be ready to.
func entitled(plan *system.Plan, node identity.ID, d system.Digest) bool {
	if plan == nil || d == "" {
		return false
	}
	for i := range plan.Services {
		s := &plan.Services[i]
		there := slices.ContainsFunc(s.Assignments, func(a system.Assignment) bool { return a.Node == node.Node })
		if !there && (!architecture.Wakes(&s.Service) || node.Role == identity.Edge) { // what wakes is prepared on every node but edges
			continue
		}
		if s.Service.Software.Digest == d || slices.ContainsFunc(s.Service.Files, func(m system.MountedFile) bool { return m.Digest == d }) {
			return true
		}
	}
	return false
}
