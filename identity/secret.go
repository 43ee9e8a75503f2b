package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"log/slog"
)

// Secret is a key that all nodes of a cluster share. Print and log show that it is one.
type Secret []byte

// Secret derives a key for one purpose from the authority's own, by HKDF-SHA256 (RFC 5869): the same for as long as
// the authority stands, another one for every purpose and cluster, and no way back to what it was derived from.
func (a *Authority) Secret(purpose string) (Secret, error) {
	own, err := a.key.Bytes()
	if err != nil {
		return nil, err
	}
	return hkdf.Key(sha256.New, own, nil, "servent "+a.cluster+" "+purpose, sha256.Size)
}

// Derive makes another key of it, for one purpose (HKDF-SHA256, RFC 5869).
func (s Secret) Derive(purpose string) (Secret, error) {
	return hkdf.Key(sha256.New, s, nil, "servent "+purpose, sha256.Size)
}

// String leaves the key out.
func (Secret) String() string { return "(secret)" }

// GoString leaves the key out.
func (Secret) GoString() string { return "identity.Secret" }

// LogValue leaves the key out.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }
