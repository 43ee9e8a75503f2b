package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"servent/control"
)

// Voter is one of the servers that agree on every change, or a learner, which hears of all and has no vote.
type Voter struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`
	Learner bool   `json:"learner,omitempty"`
	Leads   bool   `json:"leads,omitempty"`
}

var (
	// ErrNotReady: the learner has not caught up, or the voters there are do not hear one another well enough for a change of their number.
	ErrNotReady = errors.New("not ready")
	// ErrNoVoter: the server is a learner, which cannot be asked.
	ErrNoVoter = errors.New("a learner, which has no vote")
)

// socketOf is the name of the socket in the folder of [Options.Peers] at which a voter is reached. It ends as a port would: etcd's client adds
// one to what has none.
func socketOf(name string) string { return name + ":1" }

// peerURL is the address of a voter as etcd keeps it: a socket in the folder that its process works in. Whoever made the socket knows
// where the voter really is, so that a machine may change its address and stays the voter that it was.
func peerURL(name string) url.URL { return url.URL{Scheme: "unix", Host: socketOf(name)} }

// voterOf is the name in a voter's address; empty: it has none of ours.
func voterOf(urls []string) string {
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil && u.Scheme == "unix" {
			if name, ok := strings.CutSuffix(u.Host, socketOf("")); ok {
				return name
			}
		}
	}
	return ""
}

// Standing is what a server says of itself.
type Standing struct {
	Learner bool
	Leads   bool
	Led     bool // somebody leads: what it is told will be agreed on
	Rev     control.Rev
	Size    int64 // bytes of its data, of at most [Quota]
}

// Standing asks the server itself, also one that is cut off from the others.
func (s *Store) Standing(ctx context.Context) (Standing, error) {
	resp, err := s.client.Status(ctx, s.client.Endpoints()[0])
	if err != nil {
		return Standing{}, s.meaning(ctx, err)
	}
	return Standing{Learner: resp.IsLearner, Leads: resp.Leader == resp.Header.MemberId, Led: resp.Leader != 0, Rev: control.Rev(resp.Header.Revision), Size: resp.DbSizeInUse}, nil
}

// Voters are all that agree, and their learners, as a majority knows them.
func (s *Store) Voters(ctx context.Context) ([]Voter, error) {
	var list *clientv3.MemberListResponse
	err := s.once(ctx, func(ctx context.Context) (err error) {
		list, err = s.client.MemberList(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the voters: %w", s.reason(err))
	}
	status, err := s.client.Status(ctx, s.client.Endpoints()[0])
	if err != nil {
		return nil, fmt.Errorf("list the voters: %w", s.meaning(ctx, err))
	}
	return votersOf(list.Members, status.Leader), nil
}

func votersOf(members []*etcdserverpb.Member, leader uint64) []Voter {
	var all []Voter
	for _, m := range members {
		all = append(all, Voter{ID: m.ID, Name: voterOf(m.PeerURLs), Learner: m.IsLearner, Leads: m.ID == leader})
	}
	slices.SortFunc(all, func(a, b Voter) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Enlist makes room for a learner, before its server starts, and returns the names of all that it will find. One of the same name that was there
// has lost its disk: it is forgotten first. [ErrNotReady] says that it may be tried again.
func (s *Store) Enlist(ctx context.Context, name string) ([]string, error) {
	all, err := s.Voters(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Name == name {
			if err := s.Dismiss(ctx, v.ID); err != nil {
				return nil, err
			}
		}
	}
	own := peerURL(name)
	var resp *clientv3.MemberAddResponse
	err = s.once(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.MemberAddAsLearner(ctx, []string{own.String()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("enlist %s: %w", name, s.reason(err))
	}
	var names []string
	for _, v := range votersOf(resp.Members, 0) {
		if v.Name == "" {
			return nil, fmt.Errorf("enlist %s: %w: a voter has no name yet", name, ErrNotReady)
		}
		names = append(names, v.Name)
	}
	return names, nil
}

// Promote gives a learner its vote, once it has caught up; before that [ErrNotReady].
func (s *Store) Promote(ctx context.Context, id uint64) error {
	err := s.once(ctx, func(ctx context.Context) error {
		_, err := s.client.MemberPromote(ctx, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("give a learner its vote: %w", s.reason(err))
	}
	return nil
}

// Dismiss ends a voter's or a learner's part. Its server ends by itself, and its data are of no use to it any more.
func (s *Store) Dismiss(ctx context.Context, id uint64) error {
	err := s.once(ctx, func(ctx context.Context) error {
		_, err := s.client.MemberRemove(ctx, id)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return fmt.Errorf("dismiss a voter: %w", s.reason(err))
	}
	return nil
}

// reason tells what may be tried again from what may not.
func (s *Store) reason(err error) error {
	for _, not := range []error{rpctypes.ErrUnhealthy, rpctypes.ErrMemberLearnerNotReady, rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrTooManyLearners} {
		if errors.Is(err, not) {
			return fmt.Errorf("%w: %s", ErrNotReady, rpctypes.ErrorDesc(not))
		}
	}
	return err
}
