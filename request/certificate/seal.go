package certificate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"servent/identity"
)

// box seals what control keeps: who reads control, or a copy of it, without the secret learns no key.
type box struct{ aead cipher.AEAD }

func newBox(secret identity.Secret) (box, error) {
	key, err := secret.Derive("certificates")
	if err != nil {
		return box{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return box{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return box{aead}, err
}

// seal is good for one place alone.
func (b box) seal(place string, plain []byte) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(place))
}

func (b box) open(place string, sealed []byte) ([]byte, error) {
	return b.aead.Open(nil, nil, sealed, []byte(place))
}

// pemOf writes a chain and its key.
func pemOf(c *tls.Certificate) ([]byte, error) {
	var out bytes.Buffer
	for _, der := range c.Certificate {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // to memory
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return out.Bytes(), nil
}

// Parse reads a chain and its key, in PEM one after the other. The error says what is wrong with them.
func Parse(text []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if c.Leaf == nil {
		return nil, errors.New("no certificate")
	}
	return &c, nil
}
