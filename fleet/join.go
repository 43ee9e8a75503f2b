package fleet

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"servent/identity"
	"servent/system"
)

// Address completes the address of a door: its port is [Port] when it has none.
func Address(s string) string {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s
	}
	return net.JoinHostPort(s, strconv.Itoa(Port))
}

// Joined is what a machine has after it joined.
type Joined struct {
	Credential identity.Credential
	Welcome
	Host string // this machine's address towards the fleet
}

// Join makes this machine a member of the fleet whose door is at the address. The key is made here and stays; the token's secret is sent only to
// who has the authority that the token pins.
func Join(ctx context.Context, address string, token identity.Token, as system.NodeID, site system.Site, labels map[string]string) (Joined, error) {
	key, err := identity.NewKey()
	if err != nil {
		return Joined{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(as)}}, key)
	if err != nil {
		return Joined{}, err
	}
	var j Joined
	state, err := call(ctx, address, identity.Pinned(token.Pin, "http/1.1"), "join",
		Asked{Token: token.ID, Proof: token.Proof(), Node: as, Site: site, Labels: labels, Request: csr}, &j.Welcome, &j.Host)
	if err != nil {
		return Joined{}, fmt.Errorf("join the fleet at %s: %w", address, err)
	}
	authority, err := identity.AuthorityOf(state, token.Pin)
	if err == nil {
		j.Credential, err = j.received(key, authority)
	}
	if err != nil {
		return Joined{}, fmt.Errorf("join the fleet at %s: its answer: %w", address, err)
	}
	return j, nil
}

// received joins the certificate that was answered with the key that it is for.
func (w *Welcome) received(key crypto.PrivateKey, authority *x509.Certificate) (identity.Credential, error) {
	leaf, err := x509.ParseCertificate(w.Certificate)
	if err != nil {
		return identity.Credential{}, err
	}
	return identity.Received(leaf, key, authority)
}

// Renew asks one door after the other for the next certificate, and where the servers are now. [ErrOut] says that there will be none.
func Renew(ctx context.Context, doors []string, c identity.Credential) (next identity.Credential, w Welcome, err error) {
	next = c
	err = anyDoor(doors, func(door string) error {
		next, w, err = renew(ctx, door, c)
		return err
	})
	return next, w, err
}

// anyDoor asks one door after the other, until one answers; that who asks was put out is an answer.
func anyDoor(doors []string, ask func(door string) error) error {
	var errs []error
	for _, door := range doors {
		err := ask(door)
		if err == nil || errors.Is(err, ErrOut) {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func renew(ctx context.Context, address string, c identity.Credential) (identity.Credential, Welcome, error) {
	var w Welcome
	if err := callAs(ctx, address, c, "renew", &w); err != nil {
		return c, w, err
	}
	next, err := w.received(c.Certificate.PrivateKey, c.Authorities[0])
	if err == nil && next.ID != c.ID {
		err = fmt.Errorf("the certificate names %s, this is %s", next.ID, c.ID)
	}
	if err != nil {
		return c, w, fmt.Errorf("renew the certificate: the answer: %w", err)
	}
	return next, w, nil
}

// Leave ends the membership of who holds the credential, at the first of the doors that answers.
func Leave(ctx context.Context, doors []string, c identity.Credential) error {
	return anyDoor(doors, func(door string) error { return callAs(ctx, door, c, "leave", &struct{}{}) })
}

func callAs(ctx context.Context, address string, c identity.Credential, what string, into any) error {
	conf, err := asMember(c)
	if err == nil {
		_, err = call(ctx, address, conf, what, struct{}{}, into, nil)
	}
	if err != nil {
		return fmt.Errorf("%s, at %s: %w", what, address, err)
	}
	return nil
}

// asMember configures a member's connection to the fleet's door.
func asMember(c identity.Credential) (*tls.Config, error) {
	keep, err := identity.NewKeeper(c)
	if err != nil {
		return nil, &system.Hint{Err: err, Next: "servent join ADDRESS TOKEN"}
	}
	return keep.Client(func(id identity.ID) error {
		if id.Role != identity.Operator {
			return fmt.Errorf("%s holds no fleet's door", id)
		}
		return nil
	}, "http/1.1"), nil
}

// dialer dials the door, whatever name a request has for it.
func dialer(address string, conf *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, callWithin)
		defer cancel()
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", address)
	}
}

// call makes one call on a connection of its own. from, if not nil, gets this machine's address on it.
func call(ctx context.Context, address string, conf *tls.Config, what string, q, into any, from *string) (state tls.ConnectionState, err error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", address)
	if err != nil {
		return state, refine(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	state = conn.(*tls.Conn).ConnectionState()
	if from != nil {
		*from, _, _ = net.SplitHostPort(conn.LocalAddr().String())
	}
	body, err := json.Marshal(q)
	if err != nil {
		return state, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://fleet/v1/"+what, bytes.NewReader(body))
	if err != nil {
		return state, err
	}
	req.Header.Set("Content-Type", "application/json")
	rt := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, DisableKeepAlives: true}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return state, refine(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return state, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into)
	}
	return state, said(resp)
}

// refine adds what helps to a connection that could not be made. In TLS 1.3 a refused certificate shows with the first read.
func refine(err error) error {
	switch {
	case errors.Is(err, identity.ErrClock):
		return &system.Hint{Err: err, Next: "date -u   (set the clock of the machine that is wrong, and join again)"}
	case errors.Is(err, identity.ErrStranger):
		return &system.Hint{Err: fmt.Errorf("%w; the token was not sent", err), Next: "check the address; a token counts at the fleet that gave it, and at no other"}
	}
	return err
}
