package control_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/system"
)

// Of any number of machines that show one token, one gets in; it may be used for as long as it lives, and only by who knows its secret.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, c := t.Context(), control.Cluster{Store: memory.New()}
		invite := func(id string) {
			t.Helper()
			if err := c.Invite(ctx, id, system.Invitation{Role: "node", Digest: "digest of " + id}, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		invite("one")
		if err := c.Invite(ctx, "one", system.Invitation{}, time.Minute); err == nil {
			t.Error("a second invitation of one name was taken")
		}
		if _, err := c.Admit(ctx, "one", "another digest", system.Member{Node: "b"}); !errors.Is(err, control.ErrNoInvitation) {
			t.Errorf("a wrong secret: %v", err)
		}
		var all sync.WaitGroup
		got := make([]error, 8)
		for i := range got {
			all.Go(func() {
				_, got[i] = c.Admit(ctx, "one", "digest of one", system.Member{Node: system.NodeID(fmt.Sprint("b", i)), Role: "server", Key: fmt.Sprint(i)})
			})
		}
		all.Wait()
		in := 0
		for i, err := range got {
			switch {
			case err == nil:
				in++
				if m, err := c.Member(ctx, system.NodeID(fmt.Sprint("b", i))); err != nil || m.Role != "node" || m.By != "one" {
					t.Errorf("the member is %+v, %v; want the invitation's role", m, err)
				}
			case !errors.Is(err, control.ErrNoInvitation):
				t.Errorf("used up: %v", err)
			}
		}
		if in != 1 {
			t.Errorf("%d of 8 got in by one token", in)
		}
		invite("two")
		<-time.After(70 * time.Second)
		if _, err := c.Admit(ctx, "two", "digest of two", system.Member{Node: "c"}); !errors.Is(err, control.ErrNoInvitation) {
			t.Errorf("after its time: %v", err)
		}
	})
}

// A name that somebody has is not given again, be it a member's or a server's; after it was put out it is.
func TestMembers(t *testing.T) {
	ctx, c := t.Context(), control.Cluster{Store: memory.New()}
	lease, err := c.Grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Report(ctx, nil, &system.Seen{Node: "a", Labels: map[string]string{"disk": "said"}}, lease); err != nil {
		t.Fatal(err)
	}
	admit := func(token string, m system.Member) error {
		t.Helper()
		if err := c.Invite(ctx, token, system.Invitation{Role: "node", Digest: token}, time.Minute); err != nil {
			t.Fatal(err)
		}
		_, err := c.Admit(ctx, token, token, m)
		return err
	}
	if err := admit("t1", system.Member{Node: "a"}); !errors.Is(err, control.ErrNameTaken) {
		t.Errorf("a server's name: %v", err)
	}
	if err := admit("t2", system.Member{Node: "b", Key: "key1", Labels: map[string]string{"disk": "ssd", "old": "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := admit("t3", system.Member{Node: "b"}); !errors.Is(err, control.ErrNameTaken) {
		t.Errorf("a member's name: %v", err)
	}
	if err := c.Label(ctx, "b", map[string]string{"gpu": "yes", "old": ""}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Report(ctx, nil, &system.Seen{Node: "b", Labels: map[string]string{"disk": "said"}}, lease); err != nil {
		t.Fatal(err)
	}
	v, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(v.Node("b").Labels, v.Node("a").Labels, len(v.Members)); got != "map[disk:ssd gpu:yes] map[disk:said] 1" {
		t.Errorf("labels %s: want the fleet's of a member", got)
	}
	until := time.Now().Add(time.Hour)
	if err := c.Expel(ctx, "b", until); err != nil {
		t.Fatal(err)
	}
	if err := c.Expel(ctx, "b", until); !errors.Is(err, control.ErrNoMember) {
		t.Errorf("put out twice: %v", err)
	}
	if err := c.Label(ctx, "b", nil); !errors.Is(err, control.ErrNoMember) {
		t.Errorf("labelled after it was put out: %v", err)
	}
	if v, err = c.Read(ctx); err != nil || len(v.Members) != 0 || len(v.Expelled) != 1 || v.Expelled[0].Key != "key1" {
		t.Errorf("%+v %+v, %v", v.Members, v.Expelled, err)
	}
	if err := c.Pardon(ctx, until.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if v, _ = c.Read(ctx); len(v.Expelled) != 1 {
		t.Error("pardoned before its certificate ended")
	}
	if err := c.Pardon(ctx, until.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if v, _ = c.Read(ctx); len(v.Expelled) != 0 {
		t.Error("never pardoned")
	}
}
