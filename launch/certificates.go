package launch

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"servent/blob"
	"servent/control"
	"servent/request/certificate"
	"servent/system"
)

func (f Folder) certificates() string { return f.path("certificates") }

// newIssuer makes what keeps the system's certificates in control.
func (l *laptop) newIssuer() (*certificate.Issuer, error) {
	store := &blob.Store{Dir: l.nodes.blobs}
	return certificate.NewIssuer(certificate.Options{
		Cluster: l.us.control,
		View: func() *control.View {
			v, _ := l.look()
			return v
		},
		Changed: l.news.wait, Secret: l.nodes.sessions, Dir: l.opt.Folder.certificates(), Addresses: certificate.Addresses, Log: l.opt.Log,
		Blob: func(d system.Digest) ([]byte, error) {
			r, err := store.Open(d)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(io.LimitReader(r, pairMost))
		},
	})
}

// CA implements [admin.Machines].
func (l *laptop) CA() ([]byte, error) {
	ca, err := certificate.Root(l.opt.Folder.certificates())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return ca, err
}

const pairMost = 256 << 10 // bytes of a certificate, its chain and its key

// webFiles reads the files of x-servent.web.
func webFiles(w *system.Web, store *blob.Store) error {
	if w == nil {
		return nil
	}
	for i := range w.Certificates {
		if err := pair(&w.Certificates[i], store); err != nil {
			return err
		}
	}
	if a := w.ACME; a != nil && a.Trust != "" {
		text, err := os.ReadFile(a.Trust)
		if err != nil {
			return fmt.Errorf("%s: web.acme.trust: %w", a.Pos, err)
		}
		a.Roots = string(text)
	}
	return nil
}

// pair packs a certificate with its key, and says what is wrong with it while its user is there.
func pair(p *system.Pair, store *blob.Store) error {
	wrong := func(err error, next string) error {
		return &system.Hint{Err: fmt.Errorf("%s: web.certificates: %w", p.Pos, err), Next: next}
	}
	chain, err := os.ReadFile(p.Chain)
	if err != nil {
		return wrong(err, "ls -l "+p.Chain)
	}
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return wrong(err, "ls -l "+p.Key)
	}
	both, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return wrong(fmt.Errorf("%s with %s: %w", p.Chain, p.Key, err), "openssl x509 -noout -text -in "+p.Chain)
	}
	if end := both.Leaf.NotAfter; time.Now().After(end) {
		return wrong(fmt.Errorf("%s ended on %s", p.Chain, end.Format(time.DateOnly)), "get a new one, or leave it out")
	}
	text := append(append(chain, '\n'), key...)
	if len(text) > pairMost {
		return wrong(fmt.Errorf("%s with %s: more than %d KiB", p.Chain, p.Key, pairMost>>10), "openssl x509 -noout -text -in "+p.Chain)
	}
	p.Digest, err = store.Put(bytes.NewReader(text))
	return err
}
