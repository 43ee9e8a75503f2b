package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Credential is all that a node needs to show who it is and to know the others: its certificate with
// the secret key, and the authorities that it trusts. As text it is PEM, in JSON a string of PEM; print
// and log show its name only.
type Credential struct {
	ID          ID
	Certificate tls.Certificate     // Leaf is set
	Authorities []*x509.Certificate // more than one while a cluster changes its authority
}

// String leaves the key out.
func (c Credential) String() string { return c.ID.String() }

// GoString leaves the key out.
func (c Credential) GoString() string { return "identity.Credential(" + c.ID.String() + ")" }

// LogValue leaves the key out.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.ID.String()) }

// Expires returns when the certificate ends.
func (c Credential) Expires() time.Time { return c.Certificate.Leaf.NotAfter }

// RenewAt returns when two thirds of the certificate's life have passed.
func (c Credential) RenewAt() time.Time {
	from := c.Certificate.Leaf.NotBefore.Add(skew)
	return from.Add(c.Expires().Sub(from) * 2 / 3)
}

// check says whether the parts belong together and count now.
func (c Credential) check() error {
	leaf := c.Certificate.Leaf
	signer, ok := c.Certificate.PrivateKey.(crypto.Signer)
	if leaf == nil || !ok || len(c.Certificate.Certificate) == 0 || !bytes.Equal(leaf.Raw, c.Certificate.Certificate[0]) {
		return fmt.Errorf("credential %s: certificate and key are not whole", c.ID)
	}
	if key, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(leaf.PublicKey) {
		return fmt.Errorf("credential %s: the key is not the certificate's", c.ID)
	}
	id, err := verify([]*x509.Certificate{leaf}, pool(c.Authorities), x509.ExtKeyUsageClientAuth)
	if err != nil {
		return fmt.Errorf("credential %s: %w", c.ID, err)
	}
	if id != c.ID {
		return fmt.Errorf("credential %s: the certificate names %s", c.ID, id)
	}
	return nil
}

// MarshalText writes the node's certificate, its secret key and the authorities as PEM.
func (c Credential) MarshalText() ([]byte, error) {
	if c.Certificate.Leaf == nil {
		return nil, errors.New("write a credential: it is empty")
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.Certificate.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("write credential %s: %w", c.ID, err)
	}
	text := append(certPEM(c.Certificate.Leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	for _, ca := range c.Authorities {
		text = append(text, certPEM(ca)...)
	}
	return text, nil
}

// UnmarshalText reads what [Credential.MarshalText] wrote and refuses parts that do not belong together
// or are out of their time.
func (c *Credential) UnmarshalText(text []byte) error {
	certs, key, err := parsePEM(text)
	if err != nil {
		return fmt.Errorf("read a credential: %w", err)
	}
	if len(certs) < 2 || key == nil {
		return errors.New("read a credential: want a certificate, its key and an authority")
	}
	for _, ca := range certs[1:] {
		if _, err := clusterOf(ca); err != nil {
			return fmt.Errorf("read a credential: %w", err)
		}
	}
	id, err := name(certs[0])
	if err != nil {
		return fmt.Errorf("read a credential: %w", err)
	}
	read := Credential{
		ID:          id,
		Certificate: tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key, Leaf: certs[0]},
		Authorities: certs[1:],
	}
	if err := read.check(); err != nil {
		return fmt.Errorf("read a credential: %w", err)
	}
	*c = read
	return nil
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func keyPEM(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("identity: a key of our own cannot be written: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// parsePEM returns all certificates in order and the one private key, if there is one.
func parsePEM(text []byte) (certs []*x509.Certificate, key crypto.Signer, err error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			certs = append(certs, cert)
		case "PRIVATE KEY":
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			signer, ok := parsed.(crypto.Signer)
			if !ok || key != nil {
				return nil, nil, errors.New("want one private key that signs")
			}
			key = signer
		default:
			return nil, nil, fmt.Errorf("PEM block %q: want CERTIFICATE or PRIVATE KEY", block.Type)
		}
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, nil, errors.New("text that is no PEM")
	}
	return certs, key, nil
}
