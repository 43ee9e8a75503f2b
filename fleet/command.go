package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"servent/blob"
	"servent/identity"
	"servent/system"
)

// Paths of the door's part for those who command the fleet.
const (
	commandPath = "/admin" // before the admin door's own
	bytesPath   = "/bytes/"
)

const (
	commandsMost = 32       // of one machine at once: some of them go on for days
	bytesMost    = 64 << 30 // of one bundle; its disk is full before
)

// ErrMayNot: the machine's role does not let it command the fleet.
var ErrMayNot = errors.New("an edge serves what it is given, and commands nothing")

// commanding is a command under way.
type commanding struct{ cancel context.CancelFunc }

// commands lets members that may command the fleet through to what answers there, for as long as their certificate counts and they are
// members.
func (d *Door) commands(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, leaf, err := d.member(r)
		if err == nil && id.Role != identity.Node && id.Role != identity.Server {
			err = &refusal{http.StatusForbidden, fmt.Errorf("%s: %w", id, ErrMayNot), "on the fleet's first machine: servent ps"}
		}
		who := id.String()
		if id.Node == "" {
			who = "somebody"
		}
		if err == nil {
			ctx, cancel := context.WithDeadline(r.Context(), leaf.NotAfter)
			defer cancel()
			c := &commanding{cancel}
			if err = d.enter(id.Node, c); err == nil {
				defer d.leaves(id.Node, c)
				wait := http.NewResponseController(w) // a log is followed for days, a disk image sent for minutes
				if err = errors.Join(wait.SetReadDeadline(time.Time{}), wait.SetWriteDeadline(time.Time{})); err == nil {
					next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, memberKey{}, id)))
					return
				}
			}
		}
		d.Audit(system.Act{Time: time.Now(), What: r.Method + " " + strings.TrimPrefix(r.URL.Path, commandPath), Who: who, From: r.RemoteAddr, Of: r.URL.RawQuery, Why: err.Error()})
		d.fail(w, err)
	}
}

type memberKey struct{}

// MemberFrom says which member makes a request to [Door.Commands].
func MemberFrom(ctx context.Context) identity.ID {
	id, _ := ctx.Value(memberKey{}).(identity.ID)
	return id
}

func (d *Door) enter(node system.NodeID, c *commanding) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open[node]) >= commandsMost {
		return &refusal{http.StatusTooManyRequests, fmt.Errorf("%s: %d commands at once are enough", node, commandsMost), "end one of them"}
	}
	if d.open == nil {
		d.open = map[system.NodeID]map[*commanding]bool{}
	}
	if d.open[node] == nil {
		d.open[node] = map[*commanding]bool{}
	}
	d.open[node][c] = true
	return nil
}

func (d *Door) leaves(node system.NodeID, c *commanding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if delete(d.open[node], c); len(d.open[node]) == 0 {
		delete(d.open, node)
	}
}

// Sever ends the commands under way of a machine that was put out.
func (d *Door) Sever(node system.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open[node] {
		c.cancel()
	}
}

// has says whether bytes need not be sent.
func (d *Door) has(w http.ResponseWriter, r *http.Request) {
	if !d.Blobs.Has(system.Digest(r.PathValue("digest"))) {
		w.WriteHeader(http.StatusNotFound)
	}
}

// take stores bytes that a system is made of. What they are stands in their name.
func (d *Door) take(w http.ResponseWriter, r *http.Request) {
	digest := system.Digest(r.PathValue("digest"))
	err := d.Blobs.PutAs(digest, http.MaxBytesReader(w, r.Body, bytesMost))
	if err != nil {
		d.fail(w, &refusal{http.StatusBadRequest, err, system.Next(err)})
	}
}

// Fleet is a member's way to command its fleet.
type Fleet struct{ rt http.RoundTripper }

// Reach makes a way to the fleet whose door is at the address. It dials nothing yet.
func Reach(address string, c identity.Credential) (*Fleet, error) {
	conf, err := asMember(c)
	if err != nil {
		return nil, err
	}
	return &Fleet{&http.Transport{DialTLSContext: dialer(address, conf), MaxIdleConns: 4, IdleConnTimeout: callWithin / 2}}, nil
}

// Commands is the transport and the URL below which the fleet's admin door answers.
func (f *Fleet) Commands() (rt http.RoundTripper, base string) {
	return refining{f.rt}, "https://fleet" + commandPath
}

// refining adds what helps to connections that could not be made.
type refining struct{ http.RoundTripper }

func (r refining) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	return resp, refine(err)
}

// Send stores bytes at the fleet's first machine, unless it has them.
func (f *Fleet) Send(ctx context.Context, from *blob.Store, d system.Digest) error {
	url := "https://fleet" + bytesPath + string(d)
	ask, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	resp, err := f.rt.RoundTrip(ask)
	if err != nil {
		return fmt.Errorf("send %s: %w", d, refine(err))
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	in, err := from.Open(d)
	if err != nil {
		return err
	}
	defer in.Close()
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, url, in)
	if err != nil {
		return err
	}
	put.Header.Set("Content-Type", "application/octet-stream")
	if resp, err = f.rt.RoundTrip(put); err != nil {
		return fmt.Errorf("send %s: %w", d, refine(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("send %s: %w", d, said(resp))
}

// said is the error that an answer is.
func said(resp *http.Response) error {
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&f); err != nil || f.Error == "" {
		return errors.New(strings.TrimSpace(resp.Status))
	}
	err := errors.New(f.Error)
	if f.Out {
		err = ErrOut
	}
	if f.Next != "" {
		err = &system.Hint{Err: err, Next: f.Next}
	}
	return err
}
