package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Pin names a public key: SHA-256 over its SubjectPublicKeyInfo (RFC 7469 §2.4).
type Pin [sha256.Size]byte

// PinOf is the pin of a certificate's key.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String writes it in base64url, 43 letters.
func (p Pin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// ParsePin reads what [Pin.String] wrote.
func ParsePin(s string) (p Pin, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(p) {
		return p, fmt.Errorf("pin %q: want 43 letters of base64url", s)
	}
	return Pin(b), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Pin) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePin(string(b))
	return err
}

// Token lets one machine join a cluster, once: sv1.ROLE.ID.SECRET.PIN. Whoever has it may join, so print and log leave the secret out;
// [Token.Text] is the whole.
type Token struct {
	Role   Role
	ID     string // names the invitation
	secret string
	Pin    Pin // of the cluster's authority
}

const tokenVersion = "sv1"

// NewToken makes a token with a secret of 130 bits.
func NewToken(role Role, authority *x509.Certificate) Token {
	return Token{Role: role, ID: strings.ToLower(rand.Text()[:10]), secret: rand.Text(), Pin: PinOf(authority)}
}

// Text is the whole token.
func (t Token) Text() string {
	return strings.Join([]string{tokenVersion, string(t.Role), t.ID, t.secret, t.Pin.String()}, ".")
}

// String leaves the secret out.
func (t Token) String() string { return fmt.Sprintf("token %s for a %s", t.ID, t.Role) }

// GoString leaves the secret out.
func (t Token) GoString() string { return "identity.Token(" + t.String() + ")" }

// LogValue leaves the secret out.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Proof is the secret, which is shown to nobody but who has the authority's key. The cluster keeps its [Digest].
func (t Token) Proof() string { return t.secret }

// Digest is SHA-256 of a token's proof. The secret cannot be found from it: it has 130 random bits.
func Digest(proof string) Pin { return sha256.Sum256([]byte(proof)) }

// ParseToken reads what [Token.Text] wrote.
func ParseToken(s string) (Token, error) {
	part := strings.Split(strings.TrimSpace(s), ".")
	if len(part) != 5 || part[0] != tokenVersion {
		return Token{}, errors.New("this is no token: want sv1.ROLE.ID.SECRET.PIN, as servent token prints it")
	}
	t := Token{Role: Role(part[1]), ID: part[2], secret: part[3]}
	switch t.Role {
	case Server, Node, Edge:
	default:
		return Token{}, fmt.Errorf("the token is for a %q: want server, node or edge", part[1])
	}
	if !spelled(t.ID, lower+digits) || !spelled(t.secret, upper+digits) || len(t.ID) > 32 || len(t.secret) < 26 || len(t.secret) > 64 {
		return Token{}, errors.New("the token is not whole: copy all of it")
	}
	var err error
	if t.Pin, err = ParsePin(part[4]); err != nil {
		return Token{}, errors.New("the token is not whole: its last part has 43 letters")
	}
	return t, nil
}

// Welcome configures a door that also machines without a certificate may knock at. One that is shown must be of this cluster. The
// authority is shown along with the certificate, to those who know only its pin.
func (k *Keeper) Welcome(protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := k.Credential()
			shown := c.Certificate
			for _, ca := range c.Authorities {
				shown.Certificate = append(shown.Certificate[:len(shown.Certificate):len(shown.Certificate)], ca.Raw)
			}
			return &shown, nil
		},
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			_, err := k.verify(state, x509.ExtKeyUsageClientAuth)
			return err
		},
		SessionTicketsDisabled: true,
	}
}

// ErrStranger: who answered is not of the cluster that the token names.
var ErrStranger = errors.New("whoever answers is not of the cluster that the token names")

// ErrClock: a certificate does not count now, by this machine's clock.
var ErrClock = errors.New("by this machine's clock the other's certificate does not count")

// Pinned configures the first call of a machine that joins. It shows no certificate, and the other side must be an operator of the
// authority with the pin: before that is sure nothing is sent.
func Pinned(pin Pin, protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         protos,
		InsecureSkipVerify: true, // there is no name to check; VerifyConnection checks the chain
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := pinned(state.PeerCertificates, pin)
			return err
		},
	}
}

// pinned checks a chain that ends in the authority with the pin, and returns that.
func pinned(chain []*x509.Certificate, pin Pin) (*x509.Certificate, error) {
	for _, ca := range chain {
		if PinOf(ca) != pin {
			continue
		}
		cluster, err := clusterOf(ca)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStranger, err)
		}
		id, err := verify(chain, pool([]*x509.Certificate{ca}), x509.ExtKeyUsageServerAuth)
		if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
			return nil, fmt.Errorf("%w: here it is %s, and it counts from %s to %s", ErrClock, time.Now().UTC().Format(time.DateTime),
				chain[0].NotBefore.UTC().Format(time.DateTime), chain[0].NotAfter.UTC().Format(time.DateTime))
		}
		if err == nil && (id.Cluster != cluster || id.Role != Operator) {
			err = fmt.Errorf("%s opens no door to join by", id)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStranger, err)
		}
		return ca, nil
	}
	return nil, ErrStranger
}

// AuthorityOf is the authority that a connection made with [Pinned] ended in.
func AuthorityOf(state tls.ConnectionState, pin Pin) (*x509.Certificate, error) {
	return pinned(state.PeerCertificates, pin)
}

// Received joins a certificate that was signed for a key with that key, and checks that they belong together and count now.
func Received(leaf *x509.Certificate, key any, authority *x509.Certificate) (Credential, error) {
	id, err := name(leaf)
	if err != nil {
		return Credential{}, err
	}
	c := Credential{ID: id, Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, Authorities: []*x509.Certificate{authority}}
	return c, c.check()
}
