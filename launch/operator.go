package launch

import (
	"log/slog"
	"time"

	"servent/control"
	"servent/control/remote"
	"servent/identity"
	"servent/link"
	"servent/system"
)

// certLife is how long a certificate lasts; it is renewed when two thirds of it are over.
const certLife = 24 * time.Hour

// operator is what this process is among its nodes: it issues their certificates, has one itself, and
// reads and writes their control over the link, as any other would.
type operator struct {
	name    system.NodeID
	cluster string
	ca      *identity.Authority
	keep    *identity.Keeper
	http2   *link.Transport
	control control.Cluster
}

// operatorName is its name on the link.
const operatorName = "laptop"

// newOperator opens nothing. server says who answers for control, resolve where nodes are.
func newOperator(name system.NodeID, cluster string, ca *identity.Authority, server func() []system.NodeID, resolve link.Resolver, log *slog.Logger) (*operator, error) {
	o := &operator{name: name, cluster: cluster, ca: ca}
	cred, err := o.issue(identity.Operator, name)
	if err != nil {
		return nil, err
	}
	if o.keep, err = identity.NewKeeper(cred); err != nil {
		return nil, err
	}
	o.http2 = link.HTTP2Transport(link.New(link.Options{Identity: o.keep, Resolve: resolve, Log: log}))
	o.control = control.Cluster{Store: remote.New(remote.Options{Servers: server, Transport: o.http2})}
	return o, nil
}

func (o *operator) issue(role identity.Role, id system.NodeID) (identity.Credential, error) {
	return o.ca.Issue(identity.ID{Cluster: o.cluster, Role: role, Node: id}, nil, certLife)
}

// renew takes a new certificate when it is time, and says whether it was.
func (o *operator) renew(now time.Time) (bool, error) {
	if now.Before(o.keep.RenewAt()) {
		return false, nil
	}
	cred, err := o.issue(identity.Operator, o.name)
	if err == nil {
		err = o.keep.Set(cred)
	}
	return err == nil, err
}
