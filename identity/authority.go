package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"
)

const (
	life          = 24 * time.Hour // of a node's certificate
	authorityLife = 10 * 365 * 24 * time.Hour
	skew          = 5 * time.Minute // that two nodes' clocks may differ
)

// Authority signs the names of one cluster. Its key stays on the cluster's servers.
type Authority struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a new cluster: an ECDSA P-256 key and a certificate of its own,
// good for ten years, that may sign nodes but no further authority.
func NewAuthority(cluster string) (*Authority, error) {
	if err := checkCluster(cluster); err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an authority for %s: %w", cluster, err)
	}
	now := time.Now()
	self := &x509.Certificate{
		Subject:               pkix.Name{CommonName: cluster + " cluster authority"},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: cluster}}, // X509-SVID §2
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make an authority for %s: %w", cluster, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make an authority for %s: %w", cluster, err)
	}
	return &Authority{cluster, cert, key}, nil
}

// ParseAuthority reads what [Authority.PEM] wrote.
func ParseAuthority(text []byte) (*Authority, error) {
	certs, key, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if len(certs) != 1 || !ok {
		return nil, errors.New("read the cluster's authority: want one certificate and its ECDSA key")
	}
	cluster, err := clusterOf(certs[0])
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	if !ec.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errors.New("read the cluster's authority: the key is not the certificate's")
	}
	return &Authority{cluster, certs[0], ec}, nil
}

// clusterOf reads the cluster's name out of an authority's certificate.
func clusterOf(cert *x509.Certificate) (string, error) {
	if !cert.IsCA || len(cert.URIs) != 1 {
		return "", fmt.Errorf("certificate of %q is no authority's", cert.Subject.CommonName)
	}
	u := cert.URIs[0]
	if err := checkCluster(u.Host); err != nil || u.String() != "spiffe://"+u.Host {
		return "", fmt.Errorf("authority %q: want the name spiffe://CLUSTER", u)
	}
	return u.Host, nil
}

// PEM returns the certificate and the secret key, for a file with mode 0600.
func (a *Authority) PEM() []byte {
	return append(certPEM(a.cert), keyPEM(a.key)...)
}

// Cluster returns the name of the cluster whose names it signs.
func (a *Authority) Cluster() string { return a.cluster }

// Certificate returns the certificate that nodes trust. It holds no secret.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// NewKey makes a node's key, Ed25519. It is made where it is used and leaves the node only where a
// parent process hands it to its child.
func NewKey() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// Sign gives a name to the holder of a key, for the time given (0: 24 h) and never longer than the
// authority itself lives. The name is the caller's decision alone; nothing is taken from a request.
func (a *Authority) Sign(id ID, key crypto.PublicKey, lasts time.Duration) (*x509.Certificate, error) {
	if lasts <= 0 {
		lasts = life
	}
	now := time.Now()
	return a.sign(id, key, now, now.Add(lasts))
}

func (a *Authority) sign(id ID, key crypto.PublicKey, from, to time.Time) (*x509.Certificate, error) {
	if err := id.Check(); err != nil {
		return nil, fmt.Errorf("sign %s: %w", id, err)
	}
	if id.Cluster != a.cluster {
		return nil, fmt.Errorf("sign %s: this is the authority of cluster %s", id, a.cluster)
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("sign %s: want a key on curve P-256, have %s", id, k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("sign %s: want an Ed25519 or ECDSA key, have %T", id, key)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject:               pkix.Name{CommonName: string(id.Node)}, // for people; only the URI counts
		URIs:                  []*url.URL{id.URI()},
		NotBefore:             from.Add(-skew),
		NotAfter:              earlier(to, a.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", id, err)
	}
	return x509.ParseCertificate(der)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Issue signs a name for a key that the caller holds and joins the two; a nil key makes a new one.
func (a *Authority) Issue(id ID, key crypto.Signer, lasts time.Duration) (Credential, error) {
	if key == nil {
		var err error
		if key, err = NewKey(); err != nil {
			return Credential{}, fmt.Errorf("issue %s: %w", id, err)
		}
	}
	leaf, err := a.Sign(id, key.Public(), lasts)
	if err != nil {
		return Credential{}, err
	}
	return Credential{
		ID:          id,
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		Authorities: []*x509.Certificate{a.cert},
	}, nil
}
