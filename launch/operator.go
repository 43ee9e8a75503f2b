package launch

import (
	"context"
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
	log     *slog.Logger
}

// operatorName is its name on the link.
const operatorName = "laptop"

// newOperator opens nothing. server says who answers for control, resolve where nodes are.
func newOperator(name system.NodeID, cluster string, ca *identity.Authority, server func() []system.NodeID, resolve link.Resolver, log *slog.Logger) (*operator, error) {
	o := &operator{name: name, cluster: cluster, ca: ca, log: log}
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

// renew takes a new certificate when it is time, and says whether it did.
func (o *operator) renew(now time.Time) bool {
	if now.Round(0).Before(o.keep.RenewAt()) { // the wall clock, which goes on while the machine sleeps
		return false
	}
	cred, err := o.issue(identity.Operator, o.name)
	if err == nil {
		err = o.keep.Set(cred)
	}
	if err != nil {
		o.log.Error("renew certificate", "err", err)
	}
	return err == nil
}

// every calls do each time the interval is over, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func(now time.Time)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			do(now)
		}
	}
}
