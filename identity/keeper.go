package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"servent/system"
)

// Keeper holds a node's current credential. Its TLS configurations follow every [Keeper.Set]: new
// handshakes show the new certificate and trust the new authorities; open connections stay.
type Keeper struct {
	id     ID
	now    atomic.Pointer[held]
	denied atomic.Pointer[map[Pin]bool]
}

// held is one credential with what is made from it.
type held struct {
	credential Credential
	roots      *x509.CertPool
}

// NewKeeper begins with a credential, which must count now.
func NewKeeper(c Credential) (*Keeper, error) {
	k := &Keeper{id: c.ID}
	if err := k.Set(c); err != nil {
		return nil, err
	}
	return k, nil
}

// ID returns who the node is. It never changes.
func (k *Keeper) ID() ID { return k.id }

// Credential returns the current one.
func (k *Keeper) Credential() Credential { return k.now.Load().credential }

// RenewAt returns when the current credential should be replaced: at two thirds of its life.
func (k *Keeper) RenewAt() time.Time { return k.Credential().RenewAt() }

// Set replaces the credential by a newer one of the same name.
func (k *Keeper) Set(c Credential) error {
	if c.ID != k.id {
		return fmt.Errorf("keep a credential of %s: this node is %s", c.ID, k.id)
	}
	if err := c.check(); err != nil {
		return err
	}
	k.now.Store(&held{c, pool(c.Authorities)})
	return nil
}

// ErrExpelled: the certificate's holder was put out of the cluster.
var ErrExpelled = errors.New("it was put out of the cluster")

// Deny refuses the holders of keys from the next handshake on, whatever their certificates say.
func (k *Keeper) Deny(keys map[Pin]bool) { k.denied.Store(&keys) }

// Server configures the side that accepts: TLS 1.3, a certificate of the same cluster from every client.
// In TLS 1.3 a client learns that it was refused with its first read, not in its handshake.
func (k *Keeper) Server(protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &k.now.Load().credential.Certificate, nil
		},
		ClientAuth: tls.RequireAnyClientCert, // that it ends in our authority is checked below, with today's roots
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := k.verify(state, x509.ExtKeyUsageClientAuth)
			return err
		},
		// Resuming would save 15 % of a dial (BenchmarkDial in package link, four runs a side); instead whoever
		// connects proves its key each time.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // nodes are near; small first records cost CPU
	}
}

// Client configures the side that dials: TLS 1.3, our certificate shown, and the other side must be of the
// same cluster and pass expect: [Is] for one node, or any rule. There is no configuration without a rule.
func (k *Keeper) Client(expect func(ID) error, protos ...string) *tls.Config {
	if expect == nil {
		panic("identity: a client must say whom it expects")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &k.now.Load().credential.Certificate, nil
		},
		// Nodes have no DNS names; who the peer is stands in its SPIFFE name. VerifyConnection checks
		// the whole chain.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := k.verify(state, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			return expect(id)
		},
		DynamicRecordSizingDisabled: true,
	}
}

// Is expects one node, whatever its role.
func Is(node system.NodeID) func(ID) error {
	return func(id ID) error {
		if id.Node != node {
			return fmt.Errorf("want node %s, %s answered", node, id)
		}
		return nil
	}
}

func (k *Keeper) verify(state tls.ConnectionState, usage x509.ExtKeyUsage) (ID, error) {
	id, err := verify(state.PeerCertificates, k.now.Load().roots, usage)
	if err != nil {
		return ID{}, err
	}
	if id.Cluster != k.id.Cluster {
		return ID{}, fmt.Errorf("%s is of another cluster than %s", id, k.id.Cluster)
	}
	if denied := k.denied.Load(); denied != nil && (*denied)[PinOf(state.PeerCertificates[0])] {
		return ID{}, fmt.Errorf("%s: %w", id, ErrExpelled)
	}
	return id, nil
}

// PeerID returns who is at the other end of a connection made with a keeper's configuration. It reads
// the name; the handshake has checked it.
func PeerID(state tls.ConnectionState) (ID, error) {
	if len(state.PeerCertificates) == 0 {
		return ID{}, errors.New("the peer showed no certificate")
	}
	return name(state.PeerCertificates[0])
}

// verify checks a peer's chain at the present time and returns its name.
func verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errors.New("the peer showed no certificate")
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: pool(chain[1:]),
		KeyUsages:     []x509.ExtKeyUsage{usage},
		CurrentTime:   time.Now(),
	}); err != nil {
		return ID{}, err
	}
	return name(chain[0])
}

// name reads a leaf's one name. X509-SVID §2, §4.1: exactly one URI, and a leaf is no authority.
func name(leaf *x509.Certificate) (ID, error) {
	if leaf.IsCA {
		return ID{}, fmt.Errorf("certificate of %q is an authority's, want a node's", leaf.Subject.CommonName)
	}
	if len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
		return ID{}, fmt.Errorf("certificate of %q: want one SPIFFE name and no other", leaf.Subject.CommonName)
	}
	return Parse(leaf.URIs[0])
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
