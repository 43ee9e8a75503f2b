package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// doorName is what the server of a loopback door is called in its certificate.
const doorName = "127.0.0.1"

// makeKeys makes the keys of a loopback door for this one run: the server's go to files of mode 0600 in
// dir and into o, the client's stay in this process, the authority's is thrown away.
func makeKeys(dir string, o *Options) (*tls.Config, error) {
	ca, caKey, err := certificate("servent etcd door", nil, nil)
	if err != nil {
		return nil, err
	}
	server, serverKey, err := certificate(doorName, ca, caKey)
	if err != nil {
		return nil, err
	}
	client, clientKey, err := certificate("servent", ca, caKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, err
	}
	o.CA, o.Cert, o.Key = filepath.Join(dir, "door-ca.pem"), filepath.Join(dir, "door.pem"), filepath.Join(dir, "door.key")
	for _, f := range []struct {
		path, kind string
		der        []byte
	}{{o.CA, "CERTIFICATE", ca.Raw}, {o.Cert, "CERTIFICATE", server.Raw}, {o.Key, "PRIVATE KEY", key}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return nil, err
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		ServerName:   doorName,
		Certificates: []tls.Certificate{{Certificate: [][]byte{client.Raw}, PrivateKey: clientKey, Leaf: client}},
	}, nil
}

// certificate makes a key and its certificate, signed by an authority or, without one, as an authority.
func certificate(name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	now := time.Now()
	made := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0), // it dies with this process
	}
	if by == nil {
		by, byKey = made, key
		made.IsCA, made.BasicConstraintsValid, made.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		made.KeyUsage = x509.KeyUsageDigitalSignature
		made.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		if ip := net.ParseIP(name); ip != nil {
			made.IPAddresses = []net.IP{ip}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, made, by, key.Public(), byKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
