package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"servent/blob"
)

const (
	authorityFile = "authority.pem"
	accountFile   = "account.pem"
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	skew          = time.Hour // that a client's clock may be behind
)

// Root is the certificate of the system's own authority, in PEM: what its clients are to trust. dir is the Issuer's; the error is
// fs.ErrNotExist as long as there is none.
func Root(dir string) ([]byte, error) {
	a, err := readAuthority(dir)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate[0]}), nil
}

func readAuthority(dir string) (*tls.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	a, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, authorityFile), err)
	}
	return a, nil
}

// authority is the one kept in dir; one is made if there is none.
func authority(dir, system string, now time.Time) (*tls.Certificate, error) {
	a, err := readAuthority(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	model := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Servent"}, CommonName: "Servent authority of " + system},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, model, model, key.Public(), key)
	if err != nil {
		return nil, err
	}
	text, err := pemOf(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	if err != nil {
		return nil, err
	}
	if err := keep(dir, authorityFile, text); err != nil {
		return nil, err
	}
	return Parse(text)
}

func keep(dir, name string, text []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return blob.Replace(filepath.Join(dir, name), text, 0o600)
}

// newKey makes one that signs by ES256, which every ACME server takes (RFC 8555 §6.2).
func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// issue certifies hosts, names and addresses.
func issue(a *tls.Certificate, hosts []string, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	model := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Servent"}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			model.IPAddresses = append(model.IPAddresses, ip)
		} else {
			model.DNSNames = append(model.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, model, a.Leaf, key.Public(), a.PrivateKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der, a.Certificate[0]}, PrivateKey: key, Leaf: leaf}, err
}

// accountKey is what authorities outside know the system by; one is made if there is none.
func accountKey(dir string) (crypto.Signer, error) {
	text, err := os.ReadFile(filepath.Join(dir, accountFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, keep(dir, accountFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return nil, fmt.Errorf("%s: no key in it", filepath.Join(dir, accountFile))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err == nil && !ok {
		err = errors.New("no key that signs")
	}
	return signer, err
}
