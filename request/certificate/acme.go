package certificate

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/acme"

	"servent/system"
)

const orderWithin = 2 * time.Minute // from the question to the certificate

// proofs are the ways of showing that the system answers under a name, in the order in which they are tried: by TLS, at port
// 443 (RFC 8737), and by HTTP, at port 80 (RFC 8555 §8.3).
var proofs = []string{"tls-alpn-01", "http-01"}

// ask has an authority certify a host.
func (s *Issuer) ask(ctx context.Context, a *system.ACME, host string) (*tls.Certificate, error) {
	client, err := s.client(ctx, a)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, kind := range proofs {
		c, err := s.order(ctx, client, host, kind)
		if err == nil {
			return c, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", kind, err))
		if _, limited := acme.RateLimit(err); limited || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

// client has an account.
func (s *Issuer) client(ctx context.Context, a *system.ACME) (*acme.Client, error) {
	key, err := accountKey(s.o.Dir)
	if err != nil {
		return nil, err
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	if a.Roots != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(a.Roots)) {
			return nil, fmt.Errorf("%s: no certificate in %s", a.Pos, a.Trust)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	client := &acme.Client{Key: key, DirectoryURL: a.Directory, HTTPClient: &http.Client{Transport: tr, Timeout: 30 * time.Second}, UserAgent: "servent"}
	account := &acme.Account{}
	if a.Email != "" {
		account.Contact = []string{"mailto:" + a.Email}
	}
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	if _, err := client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("register at %s: %w", a.Directory, err)
	}
	return client, nil
}

// order gets one certificate by one kind of proof.
func (s *Issuer) order(ctx context.Context, client *acme.Client, host, kind string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(host))
	if err != nil {
		return nil, err
	}
	for _, url := range order.AuthzURLs {
		if err := s.prove(ctx, client, url, host, kind); err != nil {
			return nil, err
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{host}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err == nil {
		err = leaf.VerifyHostname(host)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, err
}

// prove has all nodes show what the authority asks for, and waits for its judgement.
func (s *Issuer) prove(ctx context.Context, client *acme.Client, url, host, kind string) error {
	authz, err := client.GetAuthorization(ctx, url)
	if err != nil || authz.Status == acme.StatusValid {
		return err
	}
	i := slices.IndexFunc(authz.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
	if i < 0 {
		return errors.New("the authority does not offer it")
	}
	ch := authz.Challenges[i]
	show := system.Challenge{Host: host}
	if kind == "http-01" {
		show.Token = ch.Token
		show.Answer, err = client.HTTP01ChallengeResponse(ch.Token)
	} else {
		var c tls.Certificate
		if c, err = client.TLSALPN01ChallengeCert(ch.Token, host); err == nil {
			var text []byte
			text, err = pemOf(&c)
			show.Sealed = s.box.seal(challengePlace(host), text)
		}
	}
	if err != nil {
		return err
	}
	if err := s.o.Cluster.Challenge(ctx, show); err != nil {
		return err
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.o.Cluster.Unchallenge(after, host); err != nil {
			s.o.Log.Warn("remove a challenge", "host", host, "err", err)
		}
	}()
	select {
	case <-time.After(s.o.Settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := client.Accept(ctx, ch); err != nil {
		return err
	}
	_, err = client.WaitAuthorization(ctx, authz.URI)
	return err
}
