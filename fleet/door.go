package fleet

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"servent/blob"
	"servent/control"
	"servent/identity"
	"servent/system"
)

// Door answers machines that join, that want their next certificate, and that leave, and lets those through that may command the fleet. All
// fields but Commands, Blobs and Log must be set; with Commands also Blobs.
type Door struct {
	Cluster   control.Cluster
	Authority *identity.Authority
	Keeper    *identity.Keeper // an operator's
	Servers   func() []Server
	Sessions  identity.Secret
	Audit     func(system.Act)
	Commands  http.Handler // of members that may command the fleet; [MemberFrom] says which. nil: nobody may
	Blobs     *blob.Store  // takes the bytes that their systems are made of
	Log       *slog.Logger

	mu   sync.Mutex // guards open
	open map[system.NodeID]map[*commanding]bool
}

const (
	callWithin = 15 * time.Second
	shakeFor   = 10 * time.Second
	openMost   = 256                    // connections at once
	punished   = 300 * time.Millisecond // that a wrong token waits for its answer
)

// Serve answers on ln until ctx ends, and closes it.
func (d *Door) Serve(ctx context.Context, ln net.Listener) error {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", answered(d, d.join))
	mux.HandleFunc("POST /v1/renew", answered(d, d.renew))
	mux.HandleFunc("POST /v1/leave", answered(d, d.leave))
	if d.Commands != nil {
		mux.Handle(commandPath+"/v1/", d.commands(http.StripPrefix(commandPath, d.Commands)))
		mux.Handle("HEAD "+bytesPath+"{digest}", d.commands(http.HandlerFunc(d.has)))
		mux.Handle("PUT "+bytesPath+"{digest}", d.commands(http.HandlerFunc(d.take)))
	}
	s := &http.Server{
		Handler: mux, TLSConfig: d.Keeper.Welcome("http/1.1"), ReadHeaderTimeout: shakeFor, ReadTimeout: callWithin, WriteTimeout: callWithin,
		IdleTimeout: callWithin, MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // a call takes milliseconds, and can be made again
	defer stop()
	err := s.ServeTLS(netutil.LimitListener(ln, openMost), "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the fleet's door: %w", err)
}

// refusal is an error with its status.
type refusal struct {
	status int
	err    error
	next   string
}

func (r *refusal) Error() string { return r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

// answered makes a handler of one call.
func answered[Q any](d *Door, call func(*http.Request, Q) (any, system.Act, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall))
		in.DisallowUnknownFields()
		err := in.Decode(&q)
		if err == nil {
			if _, more := in.Token(); more != io.EOF {
				err = errors.New("want one JSON document, have more")
			}
		}
		var answer any
		act := system.Act{Who: "somebody"}
		if err != nil {
			err = &refusal{http.StatusBadRequest, err, ""}
		} else {
			answer, act, err = call(r, q)
		}
		act.Time, act.From, act.What = time.Now(), r.RemoteAddr, r.URL.Path[len("/v1/"):]
		if err != nil {
			act.Why = err.Error()
		}
		if act.What != "renew" || err != nil { // each member renews several times a day
			d.Audit(act)
		}
		if err != nil {
			d.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the caller is gone
	}
}

// fail answers with an error.
func (d *Door) fail(w http.ResponseWriter, err error) {
	f, status := failure{Error: err.Error(), Next: system.Next(err)}, http.StatusServiceUnavailable
	if r, ok := errors.AsType[*refusal](err); ok {
		f.Next, status = r.next, r.status
	}
	f.Out = errors.Is(err, ErrOut)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(f) // the caller is gone
}

func (d *Door) join(r *http.Request, q Asked) (any, system.Act, error) {
	act := system.Act{Who: "token " + q.Token, Of: string(q.Node)}
	key, err := q.check(d.Authority.Cluster())
	if err != nil {
		return nil, act, &refusal{http.StatusBadRequest, err, ""}
	}
	for _, s := range d.Servers() {
		if s.Node == q.Node {
			return nil, act, taken(q.Node)
		}
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	m, err := d.Cluster.Admit(r.Context(), q.Token, identity.Digest(q.Proof).String(),
		system.Member{Node: q.Node, Site: q.Site, Labels: q.Labels, Key: key.pin.String(), From: host, Joined: time.Now().UTC()})
	switch {
	case errors.Is(err, control.ErrNoInvitation):
		select { // guesses cost time; there are 2^130
		case <-time.After(punished):
		case <-r.Context().Done():
		}
		return nil, act, &refusal{http.StatusUnauthorized, control.ErrNoInvitation, "on the fleet's first machine: servent token"}
	case errors.Is(err, control.ErrNameTaken):
		return nil, act, taken(q.Node)
	case err != nil:
		return nil, act, err
	}
	w, err := d.welcome(identity.ID{Cluster: d.Authority.Cluster(), Role: identity.Role(m.Role), Node: m.Node}, key.public)
	return w, act, err
}

func taken(node system.NodeID) error {
	return &refusal{http.StatusConflict, fmt.Errorf("%s: %w by a machine of this fleet", node, control.ErrNameTaken),
		"join as another: --as NAME; or, if that machine is gone for good, there: servent node rm " + string(node)}
}

func (d *Door) welcome(id identity.ID, key any) (Welcome, error) {
	leaf, err := d.Authority.Sign(id, key, certLife)
	if err != nil {
		return Welcome{}, err
	}
	w := Welcome{Certificate: leaf.Raw, Servers: d.Servers(), Sessions: d.Sessions}
	if id.Role == identity.Server {
		w.Authority = d.Authority.PEM()
	}
	return w, nil
}

// member is who calls with a certificate, if its key is that of a member.
func (d *Door) member(r *http.Request) (identity.ID, *x509.Certificate, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return identity.ID{}, nil, &refusal{http.StatusUnauthorized, errors.New("this call wants a certificate"), "servent join ADDRESS TOKEN"}
	}
	leaf := r.TLS.PeerCertificates[0]
	id, err := identity.PeerID(*r.TLS)
	if err != nil {
		return id, nil, &refusal{http.StatusUnauthorized, err, ""}
	}
	m, err := d.Cluster.Member(r.Context(), id.Node)
	if errors.Is(err, control.ErrNoMember) || err == nil && (m.Key != identity.PinOf(leaf).String() || m.Role != string(id.Role)) {
		return id, nil, &refusal{http.StatusForbidden, fmt.Errorf("%s: %w", id.Node, ErrOut), "servent join ADDRESS TOKEN"}
	}
	return id, leaf, err
}

func (d *Door) renew(r *http.Request, _ struct{}) (any, system.Act, error) {
	id, leaf, err := d.member(r)
	act := system.Act{Who: id.String(), Of: string(id.Node)}
	if err != nil {
		return nil, act, err
	}
	w, err := d.welcome(id, leaf.PublicKey)
	return w, act, err
}

func (d *Door) leave(r *http.Request, _ struct{}) (any, system.Act, error) {
	id, _, err := d.member(r)
	act := system.Act{Who: id.String(), Of: string(id.Node)}
	if err == nil {
		if err = Expel(r.Context(), d.Cluster, id.Node); err == nil {
			d.Sever(id.Node)
		}
	}
	return struct{}{}, act, err
}

// Expel puts a machine out until its last certificate has ended.
func Expel(ctx context.Context, c control.Cluster, node system.NodeID) error {
	const slack = time.Hour // of clocks
	return c.Expel(ctx, node, time.Now().Add(certLife+slack).UTC())
}

// joiner's key, as its request shows it.
type joiner struct {
	public any
	pin    identity.Pin
}

// check says what is wrong with what a machine says of itself, and reads its key.
func (q *Asked) check(cluster string) (joiner, error) {
	if err := (identity.ID{Cluster: cluster, Role: identity.Node, Node: q.Node}).Check(); err != nil {
		return joiner{}, err
	}
	if len(q.Labels) > maxLabels {
		return joiner{}, fmt.Errorf("want at most %d labels, have %d", maxLabels, len(q.Labels))
	}
	if err := CheckLabels(q.Labels); err != nil {
		return joiner{}, err
	}
	csr, err := x509.ParseCertificateRequest(q.Request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return joiner{}, fmt.Errorf("read the request for a certificate: %w", err)
	}
	return joiner{csr.PublicKey, identity.Digest(string(csr.RawSubjectPublicKeyInfo))}, nil
}

// CheckLabels says what is wrong with labels.
func CheckLabels(labels map[string]string) error {
	for k, v := range labels {
		if k == "" || len(k) > maxLabel || len(v) > maxLabel {
			return fmt.Errorf("label %q: want a name of 1 to %d letters, and a value of at most as many", k, maxLabel)
		}
	}
	return nil
}
